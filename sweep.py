"""One sweep: many tracked runs from a W&B sweep file, then their comparison. See `python sweep.py --help`."""

import sys
from pathlib import Path

from sweeping.cli import main

if __name__ == "__main__":
    sys.exit(main(home=Path(__file__).resolve().parent))
