import sys

from tidepool.kernels.compile_check.check import main
from tidepool.program import run_process

if __name__ == "__main__":
    run_process(main, sys.argv[1:], prog="python -m tidepool.kernels.compile_check")
