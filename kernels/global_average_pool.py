"""`global_average_pool`: the mean of every channel of every image."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from kernels.arguments import DTYPES, ArgumentError, check_backend
from kernels.norm_reference import global_average_pool_reference


def global_average_pool(x: Tensor, *, keepdim: bool = True, backend: str = "auto") -> Tensor:
    """Mean over the spatial dimensions of x (N, C, *spatial), in its dtype: (N, C, 1, ...), without `keepdim` (N, C).

    One to three spatial dimensions. `backend` as for `conv_norm_act`. Raises ArgumentError that names the argument.
    """
    check_backend(backend)
    if backend == "triton":
        raise NotImplementedError("global_average_pool has no triton kernels yet: use backend='cudnn'")
    _check(x, keepdim)
    return (_compiled_reference() if backend == "compile" else global_average_pool_reference)(x, keepdim=keepdim)


def _check(x: Tensor, keepdim: bool) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"expected x to be a Tensor, but got {type(x).__name__}")
    if not isinstance(keepdim, bool):
        raise ArgumentError(f"expected keepdim to be True or False, but got {keepdim!r}")
    if x.dtype not in DTYPES or x.layout != torch.strided:
        raise ArgumentError(
            f"expected x to be a dense tensor of float16, bfloat16, float32 or float64, but got {x.dtype} of layout "
            f"{x.layout}"
        )
    if x.dim() not in (3, 4, 5):
        raise ArgumentError(f"expected x to be (N, C, *spatial) with 3, 4 or 5 dimensions, but got {list(x.shape)}")
    if any(size == 0 for size in x.shape[1:]):
        raise ArgumentError(f"Expected input to have non-zero size for non-batch dimensions, but got {list(x.shape)}")


@functools.cache
def _compiled_reference() -> Callable[..., Tensor]:
    return torch.compile(global_average_pool_reference)
