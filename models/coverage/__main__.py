import sys

from tidepool.models.coverage.cover import main
from tidepool.program import run_process

if __name__ == "__main__":
    run_process(main, sys.argv[1:], prog="python -m tidepool.models.coverage")
