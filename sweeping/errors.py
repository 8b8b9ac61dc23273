"""The one error a user of ``sweep.py`` is meant to read."""

from __future__ import annotations


class SweepError(ValueError):
    """Bad input to a sweep. The message is one line: where, what came, what was expected."""
