"""The distinct layers that the suites and the networks launch, for the compile check, which may not import them.

    python -m tidepool.benchmarking.launched_layers

writes `kernels/compile_check/launched.json`: one object a layer, with the sizes of x and weight and the op's settings,
named for what launches it first. A layer that differs in its batch alone is there once unless its output has one pixel
per image in either. A test holds the file to the suites and networks as they are.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tidepool import kernels
from tidepool.benchmarking.cases import LayerCase, ModelCase
from tidepool.benchmarking.suites import SUITES, suite
from tidepool.kernels.layer.pooling import MaxPool, Pool
from tidepool.models import available_models, build_model, usual_input
from tidepool.models.coverage.cover import layer_calls
from tidepool.models.fused import Call

LAUNCHED = Path(kernels.__file__).parent / "compile_check" / "launched.json"
_FAMILY_BATCH = 64
"""Images of a family's network, for which no suite names a batch."""


def launched_layers() -> list[dict[str, Any]]:
    """Every distinct layer, as the file holds it; of equals the first."""
    found: dict[str, dict[str, Any]] = {}
    for layer in _all_layers():
        key = {name: value for name, value in layer.items() if name != "name"} | {"x": layer["x"][1:]}
        found.setdefault(json.dumps(key), layer)
    return list(found.values())


def as_text(layers: Iterable[dict[str, Any]]) -> str:
    """One layer a line, so that a change shows as one."""
    return "[\n" + ",\n".join(json.dumps(layer) for layer in layers) + "\n]\n"


def _all_layers() -> Iterator[dict[str, Any]]:
    for name in SUITES:
        for case in suite(name):
            if isinstance(case, LayerCase):
                yield _layer_of_case(case)
            elif isinstance(case, ModelCase):
                with torch.device("meta"):
                    network = case.network("cudnn")
                size = (case.batch, case.in_channels, *case.image_size)
                yield from _layers_of_network(case.name, network, size)
    for name in available_models():
        channels, *pixels = usual_input(name)
        size = tuple(pixels)
        with torch.device("meta"):
            network = build_model(name, num_classes=10, in_channels=channels, image_size=size, backend="cudnn")
        yield from _layers_of_network(name, network, (_FAMILY_BATCH, channels, *size))


def _layer_of_case(case: LayerCase) -> dict[str, Any]:
    settings = {**case.options, "activation": case.activation, "pool": case.pool}
    return _layer(case.name, case.x, case.weight, settings, case.input_gradient)


def _layers_of_network(name: str, network: torch.nn.Module, size: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    for layer, call in layer_calls(network, size, torch.bfloat16):
        if call.conv is not None:
            yield _layer_of_call(f"{name}:{layer}", call)


def _layer_of_call(name: str, call: Call) -> dict[str, Any]:
    assert call.conv is not None
    settings: dict[str, Any] = {
        key: getattr(call.conv, key) for key in ("stride", "padding", "dilation", "groups", "bias")
    }
    settings |= {"activation": call.activation, "pool": call.pool}
    del settings["bias"]
    layer = _layer(name, call.x_size, tuple(call.conv.weight.shape), settings, call.differentiated)
    if call.norm is not None:
        layer["norm"] = {"residual": call.residual, "pool_first": call.pool_first}
    return layer


def _layer(
    name: str, x: tuple[int, ...], weight: tuple[int, ...], settings: dict[str, Any], input_gradient: bool
) -> dict[str, Any]:
    rank = len(weight) - 2
    plain: dict[str, Any] = {
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        "activation": "relu",
        "pool": None,
    } | settings
    for key in ("stride", "padding", "dilation"):
        if isinstance(plain[key], int):
            plain[key] = (plain[key],) * rank
    plain["pool"] = _pool(plain["pool"])
    return {"name": name, "x": x, "weight": weight, **plain, "input_gradient": input_gradient}


def _pool(pool: Pool) -> dict[str, Any] | None:
    return None if pool is None else {"kind": "max" if isinstance(pool, MaxPool) else "avg", **asdict(pool)}


def main() -> int:
    """Write the file; returns 0."""
    layers = launched_layers()
    LAUNCHED.write_text(as_text(layers), encoding="utf-8")
    print(f"{LAUNCHED}: {len(layers)} layers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
