"""The layers that suites and networks launch, from `launched.json`, as cases to compile in bf16.

`python -m tidepool.benchmarking.launched_layers` writes the file: this package may not import what it draws from.
"""

import functools
import json
from pathlib import Path
from typing import Any

from tidepool.kernels.compile_check.conv_cases import Case
from tidepool.kernels.compile_check.norm_cases import NormCase
from tidepool.kernels.layer.pooling import AvgPool, MaxPool, Pool

LAUNCHED = Path(__file__).with_name("launched.json")


@functools.cache
def launched_layers() -> tuple[Case | NormCase, ...]:
    """Every distinct layer, in the file's order. Raises ValueError where the file is not JSON."""
    return tuple(_case(entry) for entry in json.loads(LAUNCHED.read_text(encoding="utf-8")))


def _case(entry: dict[str, Any]) -> Case | NormCase:
    settings = {name: _sizes(entry[name]) for name in ("stride", "padding", "dilation", "groups", "activation")}
    settings["pool"] = _pool(entry["pool"])
    x, weight, norm = tuple(entry["x"]), tuple(entry["weight"]), entry.get("norm")
    if norm is None:
        return Case(entry["name"], x, weight, options=settings, input_gradient=entry["input_gradient"])
    settings["pool_first"] = norm["pool_first"]
    return NormCase(
        entry["name"],
        x,
        weight,
        settings=settings,
        residual=norm["residual"],
        input_gradient=entry["input_gradient"],
    )


def _sizes(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _pool(entry: dict[str, Any] | None) -> Pool:
    if entry is None:
        return None
    values = {name: _sizes(value) for name, value in entry.items() if name != "kind"}
    return MaxPool(**values) if entry["kind"] == "max" else AvgPool(**values)
