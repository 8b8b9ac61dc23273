"""Fused conv + bias + activation + pool in Triton, networks built on it, and what trains, sweeps, times and reports.

Importing this package loads neither torch nor triton: names are looked up in the subpackages when first used (PEP 562).
The subpackages are folders at the top of the repository, reached through the links beside this file.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidepool.kernels import (
        Activation,
        AvgPool,
        MaxPool,
        conv_act_pool,
        conv_norm_act,
        conv_relu_pool,
        global_average_pool,
        squeeze_excite,
    )
    from tidepool.models import build_model, fuse, load_checkpoint

__version__ = "0.2.0"

_KERNELS, _MODELS = "tidepool.kernels", "tidepool.models"
_HOME = {
    "Activation": _KERNELS,
    "AvgPool": _KERNELS,
    "MaxPool": _KERNELS,
    "conv_act_pool": _KERNELS,
    "conv_norm_act": _KERNELS,
    "conv_relu_pool": _KERNELS,
    "global_average_pool": _KERNELS,
    "squeeze_excite": _KERNELS,
    "build_model": _MODELS,
    "fuse": _MODELS,
    "load_checkpoint": _MODELS,
}
_SUBPACKAGES = (
    "analysis",
    "benchmarking",
    "data",
    "kernels",
    "models",
    "records",
    "simulator",
    "sweeping",
    "training",
)

__all__ = [
    "Activation",
    "AvgPool",
    "MaxPool",
    "build_model",
    "conv_act_pool",
    "conv_norm_act",
    "conv_relu_pool",
    "fuse",
    "global_average_pool",
    "load_checkpoint",
    "squeeze_excite",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = globals()[name] = getattr(import_module(_HOME[name]), name)
        return value
    if name in _SUBPACKAGES:
        return import_module(f"tidepool.{name}")
    raise AttributeError(f"module 'tidepool' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_SUBPACKAGES})
