"""`conv_act_pool`: conv + bias + activation + pool and its backward, on the backend of your choice."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tidepool.kernels.activations import Activation, NamedActivation
from tidepool.kernels.auto.operator import call_planned_directly, is_planned
from tidepool.kernels.layer.arguments import check_backend, parse_layer
from tidepool.kernels.layer.checks import check_channels, check_tensors
from tidepool.kernels.layer.learned_slope import check_slope, learned_slope
from tidepool.kernels.layer.pooling import MaxPool, Pool, Size
from tidepool.kernels.layer.settings import Layer, first_of_equals
from tidepool.kernels.layer.sizes import spatial_sizes
from tidepool.kernels.operators.call import KNOWN, LayerCall, layer_call
from tidepool.kernels.operators.conv_implementations import PLAIN_KEYS, dispatch_keys
from tidepool.kernels.operators.conv_registration import call_direct, may_call_directly, ops
from tidepool.kernels.oracle.reference import conv_act_pool_reference
from tidepool.kernels.runtime import mode


def conv_act_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: NamedActivation,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    pool: Pool = MaxPool(2),  # noqa: B008 (frozen)
    backend: str = "auto",
) -> Tensor:
    """pool(activation(conv(x, weight) + bias)), forward and backward each as one kernel per result.

    x (N, C, *spatial) or (C, *spatial); weight (K, C/groups, *kernel); bias (K,) or None; one, two or three spatial
    dimensions, read off `weight`. `stride`, `padding` ("same" and "valid" too) and `dilation` are the convolution's,
    in pixels, one number or one per dimension. `activation` is a name ("relu", "silu", "gelu", "gelu_tanh",
    "leaky_relu", "relu6", "hardswish", "hardsigmoid", "elu", "sigmoid", "tanh", "mish"), an `Activation` with its
    parameter (`Activation("prelu", slope)` with a tensor of one learned slope or K of them), or None; `pool` a MaxPool,
    an AvgPool or None. Returns (N, K, *output) or (K, *output) in x's dtype, channels_last if x or weight is
    (contiguous where N = 0, and from an unbatched x through a pool).

    `backend`: "triton" runs this project's kernels alone; "cudnn" is eager PyTorch (oneDNN on a CPU); "compile" the
    same under torch.compile; "auto" is on a GPU what `plan` decides, forward and each gradient apart, by a table that
    `python -m tidepool.kernels.tune` measured (kernels/PLAN.md), and on a CPU eager PyTorch.

    Values and gradients are PyTorch's for the same composition: the first of equal window elements wins, the last NaN
    beats everything, relu'(0) = 0. Raises ArgumentError (a ValueError and a RuntimeError) that names the argument.
    """
    planned = backend == "auto" and is_planned(x)
    slope = None if activation.__class__ is str else learned_slope(activation)
    if (planned or backend == "triton") and not torch.compiler.is_compiling():
        key, known = _look_up(x, weight, bias, slope, stride, padding, dilation, groups, activation, pool)
        if known is None:
            layer = _checked(x, weight, bias, slope, stride, padding, dilation, groups, activation, pool)
            if key is None or x.dim() != weight.dim():
                return _batched(x, weight, bias, layer, planned, slope)
            known = KNOWN.remember(key, layer_call(x, weight, first_of_equals(layer)))
        if may_call_directly(known):
            return (call_planned_directly if planned else call_direct)(x, weight, bias, known, slope)
        return _batched(x, weight, bias, known.layer, planned, slope)
    check_backend(backend)
    layer = _checked(x, weight, bias, slope, stride, padding, dilation, groups, activation, pool)
    if planned or backend == "triton":
        return _batched(x, weight, bias, layer, planned, slope)
    reference = _compiled_reference() if backend == "compile" else conv_act_pool_reference
    settings: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return reference(x, weight, bias, **settings, activation=activation, pool=pool)


def conv_relu_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: NamedActivation = "relu",
    pool: Pool = MaxPool(2),  # noqa: B008 (frozen)
    backend: str = "auto",
) -> Tensor:
    """`conv_act_pool` with ReLU as the default activation."""
    return conv_act_pool(
        x, weight, bias, activation=activation, stride=stride, padding=padding, dilation=dilation, groups=groups,
        pool=pool, backend=backend,
    )  # fmt: skip


def prepared_conv_act_pool(
    *,
    stride: Size,
    padding: Size | str,
    dilation: Size,
    groups: int,
    activation: NamedActivation,
    pool: Pool,
    backend: str,
) -> Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]:
    """`conv_act_pool` as a function of (x, weight, bias, slope), for calls of which all have the sizes, dtypes, devices
    and settings of the first: guarded by who captured them, they are checked once.

    A `slope` that is not None is `activation`'s learned one. Layouts may differ, and modes, transforms and autocast may
    come and go.
    """
    settings: dict[str, Any] = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "pool": pool,
    }  # fmt: skip
    known: tuple[Any, LayerCall] | None = None

    def call(x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor | None = None) -> Tensor:
        nonlocal known
        chosen = activation if slope is None else Activation("prelu", slope)
        if backend == "cudnn" or (backend == "auto" and not is_planned(x)):
            return conv_act_pool_reference(x, weight, bias, **settings, activation=chosen)
        if known is not None and known[0] == (mode.forced, x.stride(), weight.stride()) and may_call_directly(known[1]):
            return call_direct(x, weight, bias, known[1], slope)
        y = conv_act_pool(x, weight, bias, **settings, activation=chosen, backend=backend)
        if backend == "triton" and not torch.compiler.is_compiling():
            found = _look_up(x, weight, bias, slope, stride, padding, dilation, groups, chosen, pool)[1]
            known = None if found is None else ((mode.forced, x.stride(), weight.stride()), found)
        return y

    return call


def check_conv_act_pool(
    x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor | None, *, activation: NamedActivation,
    **settings: Any,
) -> None:  # fmt: skip
    """What `conv_act_pool` would say of these tensors (fake ones too) and settings. Raises ArgumentError."""
    names = ("stride", "padding", "dilation", "groups")
    _checked(x, weight, bias, slope, *(settings[name] for name in names), activation, settings["pool"])


def _checked(x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor | None, *settings: Any) -> Layer:
    """The layer. Raises ArgumentError for anything wrong with tensors or settings."""
    check_tensors(x, weight, bias)
    kernel = tuple(weight.shape[2:])
    layer = parse_layer(kernel, *settings)
    check_channels(x, weight, bias, layer.groups)
    check_slope(x, weight, slope, layer.activation)
    spatial_sizes(tuple(x.shape[-len(kernel) :]), kernel, layer)
    return layer


def _look_up(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    slope: Tensor | None,
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
        if slope is not None:
            if slope.dtype is not dtype or slope.get_device() != device or dispatch_keys(slope) not in PLAIN_KEYS:
                return None, None
            activation = (activation.text, slope.shape)  # the tensor itself is not kept
        # Types too: a stride of True or 1.0 equals 1 and is refused all the same.
        kinds: Any = (stride.__class__, padding.__class__, dilation.__class__, groups.__class__)
        if tuple in kinds:
            kinds += tuple([v.__class__ for s in (stride, padding, dilation) if s.__class__ is tuple for v in s])
        key = (
            mode.forced, dtype, device, x.shape, x.stride(), weight.shape, weight.stride(), bias_size,
            stride, padding, dilation, groups, activation, pool, kinds, None if pool is None else pool.kinds,
        )  # fmt: skip
        return key, KNOWN.get(key)
    except (AttributeError, TypeError):
        return None, None


def _batched(
    x: Tensor, weight: Tensor, bias: Tensor | None, layer: Layer, planned: bool, slope: Tensor | None
) -> Tensor:
    operator = ops.conv_act_pool_auto if planned else ops.conv_act_pool
    if x.dim() == weight.dim():
        return operator(x, weight, bias, layer.text(), slope)
    y = operator(x.unsqueeze(0), weight, bias, layer.text(), slope).squeeze(0)
    # Of one image without a batch PyTorch's pools give a contiguous result, whatever the weight's format.
    return y if layer.pool == "none" else y.contiguous()


@functools.cache
def _compiled_reference() -> Callable[..., Tensor]:
    return torch.compile(conv_act_pool_reference)
