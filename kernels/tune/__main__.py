import sys

from tidepool.kernels.tune.tuner import main
from tidepool.program import run_process

if __name__ == "__main__":
    run_process(main, sys.argv[1:], prog="python -m tidepool.kernels.tune")
