"""The command `tidepool train`, which `train.py` is too: one run from flags to an exit code.

Exit codes: 0 finished, 1 failed for an outside reason, 2 bad arguments or input, 3 diverged, 130 stopped by Ctrl-C, 143
by SIGTERM or SIGUSR1.
"""

import signal
import sys
from collections.abc import Sequence

from tidepool.data import DataError
from tidepool.program import STOPPED
from tidepool.training.command_line import parse_arguments
from tidepool.training.config import ConfigError
from tidepool.training.display import summary_text
from tidepool.training.distributed import tells
from tidepool.training.run import EXIT_FAILED, in_one_line, train
from tidepool.training.run_folder import RunFolderError


def main(arguments: Sequence[str], *, prog: str = "tidepool train") -> int:
    """Run the command; returns its exit code."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: sys.exit(STOPPED[signal.Signals(number)]))
    try:
        outcome = train(parse_arguments(arguments, prog=prog), announce=print)
    except (ConfigError, RunFolderError, DataError) as error:
        if tells():  # of several processes all refuse, and one says so
            print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{prog}: {in_one_line(error)}", file=sys.stderr)
        return EXIT_FAILED
    if not tells():
        return outcome.exit_code
    if outcome.exit_code == EXIT_FAILED:
        print(f"{prog}: {outcome.summary['exit_reason']}", file=sys.stderr)
    if outcome.had_ended_before:
        print(f"the run in {outcome.run_dir} has {outcome.summary['status']} already; nothing was changed")
    print(summary_text(str(outcome.run_dir), outcome.summary))
    return outcome.exit_code
