"""Numbers and times in the sentences a sweep prints."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``, ``100,000 runs``."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    """``3.2 s``, ``45 s``, ``2 min 05 s``, ``3 h 20 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
