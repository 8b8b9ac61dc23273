"""Numbers that JSON has no way to write.

JSON has no NaN or infinity, and null would say "not measured", so non-finite numbers are written as the strings
`"NaN"`, `"Infinity"` and `"-Infinity"`, which `float()` reads back.
"""

import math
from collections.abc import Mapping
from typing import Any

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> Any:
    """`value` with every non-finite float in it replaced by its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(value: Any) -> Any:
    """`value` with those names made floats again, at any depth, and its text such that UTF-8 can hold it."""
    if isinstance(value, str):
        return _NON_FINITE.get(value, writable(value))
    if isinstance(value, list):
        return [decode(item) for item in value]
    if isinstance(value, dict):
        return {writable(key): decode(item) for key, item in value.items()}
    return value


def number(value: Any) -> float:
    """`value` as a float, infinite where it is too large for one, as JSON's 1e400 is; NaN where it is no number."""
    value = decode(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def writable(text: str) -> str:
    """`text` with what UTF-8 cannot hold (half a surrogate pair, a byte of a foreign file name) as `?`."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
