"""What W&B's own search engine (PyPI's `sweeps`) answers, recorded: `answers.json`, made by `record.py`."""

from pathlib import Path

ANSWERS = Path(__file__).with_name("answers.json")
