"""Time layers and networks against cuDNN and torch.compile: `python bench.py --suite blocks`; `--help` lists flags."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # The tidepool beside this file, whichever is installed; not this folder, whose kernels/ would hide PyPI's kernels.
    sys.path[: 0 if sys.flags.safe_path else 1] = [str(Path(__file__).resolve().parent / "src")]
    from tidepool.command_line import script

    script("bench")
