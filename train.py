"""Train one network, tracked: `python train.py --data digits --model lenet5 --backend triton`; `--help` lists flags.

Exit codes: 0 finished, 1 failed, 2 bad arguments or input, 3 diverged, 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import signal
import sys

import kernels  # noqa: F401  first: it decides how triton runs before anything else imports it
from data import DataError
from training.command_line import parse_arguments
from training.config import ConfigError
from training.display import summary_text
from training.run import train
from training.run_folder import RunFolderError


def main() -> int:
    """Run the command line; return the exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        outcome = train(parse_arguments(), announce=print)
    except (ConfigError, RunFolderError, DataError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train.py: stopped by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT
    if outcome.had_ended_before:
        print(f"the run in {outcome.run_dir} has {outcome.summary['status']} already; nothing was changed")
    print(summary_text(str(outcome.run_dir), outcome.summary))
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
