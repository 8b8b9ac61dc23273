"""What `train.py` is made of: settings, loop, records on disk, checkpoints and tracking."""

from tidepool import kernels  # noqa: F401  before any optimizer is made, which imports triton
