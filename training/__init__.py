"""What `train.py` is made of: settings, loop, records on disk, checkpoints and tracking."""
