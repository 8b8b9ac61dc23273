"""What the edge cases of autograd are tried on: a layer of each kind, and tensors of small integers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.exact import DEVICE, integers
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool

LAYERS: dict[str, dict[str, Any]] = {
    "relu max": {},
    "max alone": {"activation": None, "pool": MaxPool(3, 2, 1)},
    "relu average": {"pool": AvgPool(2)},
    "relu alone": {"pool": None},
    "neither": {"activation": None, "pool": None},
    "silu max": {"activation": "silu"},
    "gelu average": {"activation": "gelu", "pool": AvgPool(2)},
    "silu alone": {"activation": "silu", "pool": None},
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


def random(*size: int, seed: int = 0) -> Tensor:
    return integers(size, torch.float32, torch.Generator().manual_seed(seed + sum(size))).to(DEVICE)


def tensors(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight, bias."""
    return random(2, 3, 6, 7).to(dtype), random(4, 3, 3, 2).to(dtype), random(4).to(dtype)


def ours(x: Tensor, weight: Tensor, bias: Tensor | None = None, **layer: Any) -> Tensor:
    return conv_relu_pool(x, weight, bias, **layer, backend="triton")
