"""Turns the settings that a caller wrote into a checked `Layer`, or refuses them in PyTorch's vocabulary.

Every refusal here and in `checks` and `sizes` is one line that names the argument, what was expected and what came, and
is raised before anything is launched.
"""

import numbers
import operator
from collections.abc import Sequence
from typing import Any

import torch

from tidepool.kernels.activations import NamedActivation, as_activation
from tidepool.kernels.layer.pooling import AvgPool, MaxPool, Pool, Size
from tidepool.kernels.layer.settings import Layer, Sizes
from tidepool.kernels.runtime.errors import ArgumentError

BACKENDS = ("auto", "triton", "cudnn", "compile")


def _is_integer(value: object) -> bool:
    """Whether PyTorch takes the value for an integer wherever it wants one: NumPy's are, True is not."""
    return isinstance(value, (int, torch.SymInt, numbers.Integral)) and not isinstance(value, bool)


def _plain(value: Any) -> int:
    """The integer as Python's, whose sums do not overflow; a symbolic one as it is."""
    return value if isinstance(value, (int, torch.SymInt)) else operator.index(value)  # type: ignore[return-value]


def _per_dimension(value: object, rank: int, name: str) -> Sizes:
    """One integer per spatial dimension from an integer, a 1-sequence or a `rank`-sequence."""
    if _is_integer(value):
        return (_plain(value),) * rank
    is_list = isinstance(value, Sequence) and not isinstance(value, str) and len(value) in (1, rank)
    if is_list and all(_is_integer(v) for v in value):  # type: ignore[attr-defined]
        return tuple([_plain(v) for v in value]) * (rank if len(value) == 1 else 1)  # type: ignore[attr-defined,arg-type]
    raise ArgumentError(
        f"expected {name} to be a single integer value or a list of {rank} values to match the convolution "
        f"dimensions, but got {name}={value!r}"
    )


def _at_least(values: Sizes, least: int, message: str) -> Sizes:
    if any(v < least for v in values):
        raise ArgumentError(f"{message}, but got {list(values)}")
    return values


def _conv_padding(padding: Size | str, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Sizes:
    """Low padding of each dimension, then high padding of each; "same" pads the odd pixel at the high end."""
    rank = len(kernel)
    if isinstance(padding, str):
        if padding == "valid":
            return (0,) * (2 * rank)
        if padding != "same":
            raise ArgumentError(f"Invalid padding string: {padding!r}, expected 'same' or 'valid'")
        if any(s != 1 for s in stride):
            raise ArgumentError(f"padding='same' is not supported for strided convolutions, but got stride={stride}")
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple(t // 2 for t in total) + tuple(t - t // 2 for t in total)
    pads = _at_least(_per_dimension(padding, rank, "padding"), 0, "negative padding is not supported")
    return pads * 2


def _pool_fields(pool: Pool, rank: int) -> tuple[str, Sizes, Sizes, Sizes, Sizes]:
    """Kind, window, stride, padding and dilation of the pool; a 1-wide window for none."""
    ones, zeros = (1,) * rank, (0,) * rank
    if pool is None:
        return "none", ones, ones, zeros, ones
    if not isinstance(pool, (MaxPool, AvgPool)):
        raise ArgumentError(f"expected pool to be MaxPool, AvgPool or None, but got {type(pool).__name__}")
    for name in ("ceil_mode", "count_include_pad"):
        if not isinstance(getattr(pool, name, False), bool):
            raise ArgumentError(f"expected pool.{name} to be True or False, but got {getattr(pool, name)!r}")
    window = _at_least(_per_dimension(pool.kernel, rank, "pool.kernel"), 1, "pool.kernel should be greater than zero")
    stride = window
    if pool.stride is not None and not (isinstance(pool.stride, (list, tuple)) and len(pool.stride) == 0):
        stride = _at_least(
            _per_dimension(pool.stride, rank, "pool.stride"), 1, "pool.stride should be greater than zero"
        )
    padding = _at_least(_per_dimension(pool.padding, rank, "pool.padding"), 0, "pool.padding: pad must be non-negative")
    dilation = ones
    if isinstance(pool, MaxPool):
        dilation = _per_dimension(pool.dilation, rank, "pool.dilation")
        _at_least(dilation, 1, "pool.dilation should be greater than zero")
    for p, k, d in zip(padding, window, dilation, strict=True):
        # PyTorch's documents speak of the dilated window, its pools hold padding to half of the plain one.
        if p > k // 2:
            size = "effective kernel size" if p > ((k - 1) * d + 1) // 2 else "kernel size, dilated or not"
            raise ArgumentError(
                f"pool.padding: pad should be at most half of {size}, but got pad={p}, kernel_size={k} and dilation={d}"
            )
    return ("max" if isinstance(pool, MaxPool) else "avg"), window, stride, padding, dilation


def parse_layer(
    kernel: Sizes,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: NamedActivation = "relu",
    pool: Pool = MaxPool(2),  # noqa: B008 (frozen)
) -> Layer:
    """Check the settings that do not depend on a tensor and spell them out per dimension.

    `kernel` is the filter's spatial size; what is not given is as in `conv_relu_pool`. Raises ArgumentError.
    """
    rank = len(kernel)
    strides = _at_least(_per_dimension(stride, rank, "stride"), 1, "non-positive stride is not supported")
    dilations = _at_least(_per_dimension(dilation, rank, "dilation"), 1, "dilation should be greater than zero")
    if not _is_integer(groups) or groups < 1:
        raise ArgumentError(
            f"non-positive groups is not supported: expected an integer of at least 1, but got {groups!r}"
        )
    kind, window, pool_stride, pool_padding, pool_dilation = _pool_fields(pool, rank)
    return Layer(
        stride=strides,
        padding=_conv_padding(padding, kernel, strides, dilations),
        dilation=dilations,
        groups=_plain(groups),
        activation=as_activation(activation).without_slope,
        pool=kind,
        window=window,
        pool_stride=pool_stride,
        pool_padding=pool_padding,
        pool_dilation=pool_dilation,
        ceil_mode=False if pool is None else bool(pool.ceil_mode),
        count_include_pad=pool.count_include_pad if isinstance(pool, AvgPool) else True,
    )


def carries_everything(backend: str) -> bool:
    """Whether a backend runs every layer on this project's kernels, a lone convolution too, and never PyTorch's."""
    return backend == "triton"


def check_backend(backend: str) -> None:
    """Raise ArgumentError unless `backend` is one of BACKENDS."""
    if backend not in BACKENDS:
        raise ArgumentError(f"expected backend to be one of {', '.join(BACKENDS)}, but got {backend!r}")
