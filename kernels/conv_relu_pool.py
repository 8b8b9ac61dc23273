"""`conv_relu_pool`: conv + bias + activation + pool and its backward, on the backend of your choice."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels.arguments import check_backend, check_channels, check_tensors, parse_layer, spatial_sizes
from kernels.operator_registration import call
from kernels.pooling import MaxPool, Pool, Size
from kernels.reference import conv_relu_pool_reference


def conv_relu_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str | None = "relu",
    pool: Pool = MaxPool(2),  # noqa: B008 (frozen)
    backend: str = "auto",
) -> Tensor:
    """pool(activation(conv(x, weight) + bias)), forward and backward each as one kernel per result.

    x (N, C, *spatial) or (C, *spatial); weight (K, C/groups, *kernel); bias (K,) or None; one, two or three spatial
    dimensions, read off `weight`. `stride`, `padding` ("same" and "valid" too) and `dilation` are the convolution's,
    in pixels, one number or one per dimension. `activation` is "relu", "silu", "gelu" or None, `pool` a MaxPool, an
    AvgPool or None. Returns (N, K, *output) or (K, *output) in x's dtype, channels_last if x or weight is.

    `backend`: "triton" runs this project's kernels alone; "cudnn" is eager PyTorch (oneDNN on a CPU); "compile" the
    same under torch.compile; "auto" is for the fastest measured choice per shape, and eager PyTorch until there is one.

    Values and gradients are PyTorch's for the same composition: the first of equal window elements wins, the last NaN
    beats everything, relu'(0) = 0. Raises ArgumentError (a ValueError and a RuntimeError) that names the argument.
    """
    if backend == "triton" and not torch.compiler.is_compiling():
        key = _key(x, weight, bias, stride, padding, dilation, groups, activation, pool)
        layer = _ACCEPTED.get(key)
        if layer is None:
            layer = _checked(x, weight, bias, stride, padding, dilation, groups, activation, pool)
            _accept(key, layer)
        return _batched(x, weight, bias, layer)
    check_backend(backend)
    layer = _checked(x, weight, bias, stride, padding, dilation, groups, activation, pool)
    if backend == "triton":
        return _batched(x, weight, bias, layer)
    reference = _compiled_reference() if backend == "compile" else conv_relu_pool_reference
    settings: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return reference(x, weight, bias, **settings, activation=activation, pool=pool)


def _checked(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> str:
    """The layer's text. Raises ArgumentError for anything wrong with tensors or settings."""
    check_tensors(x, weight, bias)
    kernel = tuple(weight.shape[2:])
    layer = parse_layer(kernel, *settings)
    check_channels(x, weight, bias, layer.groups)
    spatial_sizes(tuple(x.shape[-len(kernel) :]), kernel, layer)
    return layer.text()


_ACCEPTED: dict[Any, str] = {}
"""Layers of calls that were checked before, by everything the checks look at: a small network's step is short."""
_MOST_ACCEPTED = 4096


def _key(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Any:
    """What `_checked` depends on, as a key; None when it cannot be one (lists as settings, something not a tensor) or
    should not (dtypes that only autocast makes equal)."""
    try:
        tensors = [x, weight] if bias is None else [x, weight, bias]
        if any([t.dtype is not x.dtype for t in tensors]):
            return None
        # Types too: a stride of True or 1.0 equals 1 and is refused all the same.
        pool = settings[-1]
        kinds = [_kind(s) for s in (*settings, *(vars(pool).values() if pool is not None else ()))]
        key = (*[(t.shape, t.device, t.layout) for t in tensors], x.dtype, settings, *kinds)
        hash(key)
    except (AttributeError, TypeError):
        return None
    return key


def _kind(value: Any) -> Any:
    return tuple([type(v) for v in value]) if type(value) is tuple else type(value)


def _accept(key: Any, layer: str) -> None:
    if key is not None:
        if len(_ACCEPTED) >= _MOST_ACCEPTED:
            _ACCEPTED.clear()
        _ACCEPTED[key] = layer


def _batched(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
    if x.dim() == weight.dim():
        return call(x, weight, bias, layer)
    return call(x.unsqueeze(0), weight, bias, layer).squeeze(0)


@functools.cache
def _compiled_reference() -> Callable[..., Tensor]:
    return torch.compile(conv_relu_pool_reference)
