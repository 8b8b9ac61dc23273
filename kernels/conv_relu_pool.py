"""`conv_relu_pool`: conv + bias + activation + pool and its backward, on the backend of your choice."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels.arguments import check_backend, check_channels, check_tensors, parse_layer, spatial_sizes
from kernels.layer_call import KNOWN, LayerCall, layer_call, remember
from kernels.operator_implementations import PLAIN_KEYS, dispatch_keys
from kernels.operator_registration import call_direct, may_call_directly, ops
from kernels.planned_operator import call_planned_directly, is_planned
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
    AvgPool or None. Returns (N, K, *output) or (K, *output) in x's dtype, channels_last if x or weight is (contiguous
    where N = 0, and from an unbatched x through a pool).

    `backend`: "triton" runs this project's kernels alone; "cudnn" is eager PyTorch (oneDNN on a CPU); "compile" the
    same under torch.compile; "auto" is on a GPU what `plan` decides, forward and each gradient apart, by a table that
    `python -m kernels.tune` measured (kernels/PLAN.md), and on a CPU eager PyTorch.

    Values and gradients are PyTorch's for the same composition: the first of equal window elements wins, the last NaN
    beats everything, relu'(0) = 0. Raises ArgumentError (a ValueError and a RuntimeError) that names the argument.
    """
    planned = backend == "auto" and is_planned(x)
    if (planned or backend == "triton") and not torch.compiler.is_compiling():
        key, known = _look_up(x, weight, bias, stride, padding, dilation, groups, activation, pool)
        if known is None:
            layer = _checked(x, weight, bias, stride, padding, dilation, groups, activation, pool)
            if key is None or x.dim() != weight.dim():
                return _batched(x, weight, bias, layer, planned)
            known = remember(key, layer_call(x, weight, layer))
        if may_call_directly(known):
            return (call_planned_directly if planned else call_direct)(x, weight, bias, known)
        return _batched(x, weight, bias, known.layer, planned)
    check_backend(backend)
    layer = _checked(x, weight, bias, stride, padding, dilation, groups, activation, pool)
    if planned or backend == "triton":
        return _batched(x, weight, bias, layer, planned)
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


def _look_up(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    activation: Any,
    pool: Any,
) -> tuple[Any, LayerCall | None]:
    """What `_checked` and `layer_call` depend on, as a key, and what is known under it. The key is None when there
    cannot be one (lists as settings, something not a tensor) or should not: dtypes that only autocast makes equal,
    subclasses and wrappers of tensors."""
    try:
        dtype, device = x.dtype, x.get_device()
        if weight.dtype is not dtype or weight.get_device() != device:
            return None, None
        if dispatch_keys(x) not in PLAIN_KEYS or dispatch_keys(weight) not in PLAIN_KEYS:
            return None, None
        bias_size = None
        if bias is not None:
            if bias.dtype is not dtype or bias.get_device() != device or dispatch_keys(bias) not in PLAIN_KEYS:
                return None, None
            bias_size = bias.shape
        # Types too: a stride of True or 1.0 equals 1 and is refused all the same.
        kinds: Any = (stride.__class__, padding.__class__, dilation.__class__, groups.__class__)
        if tuple in kinds:
            kinds += tuple([v.__class__ for s in (stride, padding, dilation) if s.__class__ is tuple for v in s])
        key = (
            dtype, device, x.shape, x.stride(), weight.shape, weight.stride(), bias_size,
            stride, padding, dilation, groups, activation, pool, kinds, None if pool is None else pool.kinds,
        )  # fmt: skip
        return key, KNOWN.get(key)
    except (AttributeError, TypeError):
        return None, None


def _batched(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, planned: bool) -> Tensor:
    operator = ops.conv_relu_pool_auto if planned else ops.conv_relu_pool
    if x.dim() == weight.dim():
        return operator(x, weight, bias, layer)
    y = operator(x.unsqueeze(0), weight, bias, layer).squeeze(0)
    # Of one picture without a batch PyTorch's pools give a contiguous result, whatever the weight's format.
    return y if " pool=none " in layer else y.contiguous()


@functools.cache
def _compiled_reference() -> Callable[..., Tensor]:
    return torch.compile(conv_relu_pool_reference)
