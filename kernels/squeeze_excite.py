"""`squeeze_excite`: every channel of every image times the sigmoid of its gate."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from kernels.arguments import DTYPES, ArgumentError, check_backend
from kernels.norm_reference import squeeze_excite_reference


def squeeze_excite(x: Tensor, gate: Tensor, *, backend: str = "auto") -> Tensor:
    """y = x * sigmoid(gate): x (N, C, *spatial), gate (N, C, 1, ...) the logits; y as x, dtypes promoted.

    One to three spatial dimensions. `backend` as for `conv_norm_act`. Raises ArgumentError that names the argument.
    """
    check_backend(backend)
    if backend == "triton":
        raise NotImplementedError("squeeze_excite has no triton kernels yet: use backend='cudnn'")
    _check(x, gate)
    return (_compiled_reference() if backend == "compile" else squeeze_excite_reference)(x, gate)


def _check(x: Tensor, gate: Tensor) -> None:
    for name, value in (("x", x), ("gate", gate)):
        if not isinstance(value, Tensor):
            raise TypeError(f"expected {name} to be a Tensor, but got {type(value).__name__}")
        if value.dtype not in DTYPES or value.layout != torch.strided:
            raise ArgumentError(
                f"expected {name} to be a dense tensor of float16, bfloat16, float32 or float64, but got {value.dtype} "
                f"of layout {value.layout}"
            )
    if x.dim() not in (3, 4, 5):
        raise ArgumentError(f"expected x to be (N, C, *spatial) with 3, 4 or 5 dimensions, but got {list(x.shape)}")
    if tuple(gate.shape) != (*x.shape[:2], *(1,) * (x.dim() - 2)):
        expected = [*x.shape[:2], *[1] * (x.dim() - 2)]
        raise ArgumentError(
            f"expected gate to have size {expected} for x of size {list(x.shape)}, but got {list(gate.shape)}"
        )
    if gate.device != x.device:
        raise ArgumentError(
            f"expected x and gate to be on the same device, but x is on {x.device} and gate on {gate.device}"
        )


@functools.cache
def _compiled_reference() -> Callable[..., Tensor]:
    return torch.compile(squeeze_excite_reference)
