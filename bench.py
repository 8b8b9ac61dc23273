"""Time layers and networks against cuDNN and torch.compile: `python bench.py --suite blocks`; `--help` lists flags.

Exit codes: 0 done or out of budget, 1 failed, 2 bad arguments or no GPU, 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import signal
import sys

import kernels  # noqa: F401  first: it decides how triton runs before anything else imports it
from benchmarking.command_line import UsageError, parse_options
from benchmarking.program import run
from benchmarking.records import RecordFileError
from benchmarking.supervisor import WorkerError


def main() -> int:
    """Run the command line; return the exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        options = parse_options()
        left = run(options, lambda line: print(line, flush=True))
    except (UsageError, RecordFileError) as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 2
    except WorkerError as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench.py: stopped by SIGINT; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT
    for line in left:
        print(f"left: {line}")
    if left:
        print("the budget is over; the same command goes on")
    elif not options.predict:
        print(f"done: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
