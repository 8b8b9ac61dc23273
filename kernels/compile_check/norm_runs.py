"""Layers with a norm, gates and averages to run: small ones, held to the error rule.

Their activation is smooth and their pool an average, where there are any: no winner and no side of a kink can flip with
the last bits of the statistics, and every gradient has one right value. (The tests hold the others to the rule too,
with what is undecided left out.) An element's size is taken to be the root mean square of its result.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.layer.pooling import AvgPool
from tidepool.kernels.ops.average import global_average_pool
from tidepool.kernels.ops.gate import squeeze_excite
from tidepool.kernels.ops.norm import conv_norm_act
from tidepool.kernels.oracle.error_rule import Truth, error_rule

_LAYERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], bool, dict[str, Any]]] = {
    "norm_3x3": ((2, 64, 12, 12), (64, 64, 3, 3), True, {"padding": 1, "activation": "silu"}),
    "norm_pool_first": (
        (2, 64, 12, 12),
        (128, 64, 3, 3),
        False,
        {"padding": 1, "pool": AvgPool(2), "pool_first": True, "activation": "gelu"},
    ),
    "norm_depthwise": ((2, 96, 12, 12), (96, 1, 5, 5), False, {"padding": 2, "groups": 96, "activation": "silu"}),
    "norm_linear": ((2, 32, 12, 12), (32, 32, 1, 1), True, {"activation": None}),
    "norm_audio": ((2, 16, 64), (32, 16, 9), False, {"stride": 2, "padding": 4, "activation": "mish"}),
    "norm_video": (
        (2, 16, 6, 6, 6),
        (32, 16, 3, 3, 3),
        False,
        {"padding": 1, "activation": "silu"},  # PyTorch has no 16-bit avg_pool3d on a CPU
    ),
}
"""x, weight, whether there is a residual, and settings."""
NAMES = (*_LAYERS, "squeeze_excite", "global_average_pool")
_DTYPES = ("bf16", "fp16", "fp32")


def norm_runs() -> Iterator[tuple[str, str, Callable[[], None]]]:
    """(case, dtype, check) of each."""
    for dtype in _DTYPES:
        for name in _LAYERS:
            yield name, dtype, partial(_check, partial(_normed, name), _norm_leaves(name, dtype))
        image, gate = _normal(0, dtype, (2, 24, 9, 11)), _normal(1, dtype, (2, 24, 1, 1))
        yield "squeeze_excite", dtype, partial(_check, squeeze_excite, [image, gate])
        yield "global_average_pool", dtype, partial(_check, global_average_pool, [image])


def _normal(seed: int, dtype: str, size: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64).to(BY_NAME[dtype])


def _norm_leaves(name: str, dtype: str) -> list[Tensor]:
    x, weight, residual, _ = _LAYERS[name]
    leaves = [_normal(0, dtype, x), _normal(1, dtype, weight) / (weight[1] * 9) ** 0.5]
    leaves += [_normal(2 + row, dtype, weight[:1]) for row in range(2)]
    if residual:
        leaves.append(_normal(4, dtype, (x[0], weight[0], *x[2:])))
    return leaves


def _normed(name: str, *leaves: Tensor, backend: str) -> Tensor:
    settings = _LAYERS[name][3]
    x, weight, scale, shift, *rest = leaves
    residual = rest[0] if rest else None
    return conv_norm_act(
        x, weight, scale, shift, None, None, residual=residual, training=True, backend=backend, **settings
    )


def _check(function: Callable[..., Tensor], tensors: list[Tensor]) -> None:
    """The function's value and gradients on our kernels, as far from float64 as the rule allows, PyTorch's for twin."""
    grad: Tensor | None = None
    found = []
    for backend, kind in (("triton", None), ("cudnn", None), ("cudnn", torch.float64)):
        leaves = [tensor.to(kind or tensor.dtype, copy=True).requires_grad_() for tensor in tensors]
        y = function(*leaves, backend=backend)
        if grad is None:
            grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(y.dtype)
        found.append([y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))])
    for number, (ours, twin, exact) in enumerate(zip(*found, strict=True)):
        size = exact.square().mean().sqrt().expand(exact.shape)
        name = "y" if number == 0 else f"gradient {number}"
        error_rule(name, ours, twin, Truth(exact, size, torch.full_like(exact, float(tensors[0].numel()))))
