"""The command `tidepool train`, which `train.py` is too: one run from flags to an exit code.

Exit codes: 0 finished, 1 failed, 2 bad arguments or input, 3 diverged, 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import signal
import sys
from collections.abc import Sequence

from tidepool.data import DataError
from tidepool.training.command_line import parse_arguments
from tidepool.training.config import ConfigError
from tidepool.training.display import summary_text
from tidepool.training.run import train
from tidepool.training.run_folder import RunFolderError


def main(arguments: Sequence[str], *, prog: str = "tidepool train") -> int:
    """Run the command; returns its exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        outcome = train(parse_arguments(arguments, prog=prog), announce=print)
    except (ConfigError, RunFolderError, DataError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    if outcome.had_ended_before:
        print(f"the run in {outcome.run_dir} has {outcome.summary['status']} already; nothing was changed")
    print(summary_text(str(outcome.run_dir), outcome.summary))
    return outcome.exit_code
