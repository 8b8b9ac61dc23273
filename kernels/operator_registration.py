"""The registered operators `tidepool::conv_relu_pool*`: real, fake, autograd and autocast implementations.

    conv_relu_pool          what users call; saves nothing
    conv_relu_pool_forward  the same, with what backward needs
    conv_relu_pool_dgrad    gradient with respect to x
    conv_relu_pool_wgrad    gradients with respect to weight and bias

They are defined through the low-level `torch.library.Library` with an `autograd.Function` at the Autograd key: half the
host time of `torch.library.custom_op`. Every operator takes a layer's settings spelled out, one number per dimension
(`arguments.Layer` is the same list with names).
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack, get_unwrapped, is_functorch_wrapped_tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from kernels.arguments import ArgumentError, Layer, build_geometry, check_channels, check_tensors, spatial_sizes
from kernels.conv_relu_pool_dgrad import conv_relu_pool_dgrad
from kernels.conv_relu_pool_forward import conv_relu_pool_forward, empty_saved
from kernels.conv_relu_pool_wgrad import conv_relu_pool_wgrad
from kernels.geometry import Geometry, Shapes
from kernels.memory_format import empty_in_format, output_format
from kernels.runtime import INTERPRETED

_LAYER = (
    "int[] stride, int[] padding, int[] dilation, int groups, str activation, str pool, int[] window, "
    "int[] pool_stride, int[] pool_padding, int[] pool_dilation, bool ceil_mode, bool count_include_pad"
)
_LIBRARY = torch.library.Library("tidepool", "DEF")
_LIBRARY.define(f"conv_relu_pool(Tensor x, Tensor weight, Tensor? bias, {_LAYER}) -> Tensor")
_LIBRARY.define(f"conv_relu_pool_forward(Tensor x, Tensor weight, Tensor? bias, {_LAYER}) -> (Tensor, Tensor, Tensor)")
_LIBRARY.define(
    "conv_relu_pool_dgrad(Tensor grad, Tensor code, Tensor saved, Tensor weight, SymInt[] x_size, bool channels_last, "
    f"{_LAYER}) -> Tensor"
)
_LIBRARY.define(
    "conv_relu_pool_wgrad(Tensor grad, Tensor code, Tensor saved, Tensor x, Tensor weight, bool needs_weight, "
    f"bool needs_bias, {_LAYER}) -> (Tensor, Tensor)"
)
ops = torch.ops.tidepool


@functools.lru_cache(maxsize=4096)
def _geometry(x_size: torch.Size, weight_size: torch.Size, settings: tuple[Any, ...]) -> tuple[Geometry, Shapes]:
    """Geometry of a call, worked out once per shape and settings (settings: `_hashable` ones)."""
    return build_geometry(x_size, weight_size, Layer(*settings))


def _hashable(settings: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tuple(s) if isinstance(s, (list, tuple)) else s for s in settings)


def _check_device(x: Tensor) -> None:
    if INTERPRETED and x.device.type != "cpu":
        raise ArgumentError(f"backend='triton' is interpreted here and takes CPU tensors, but x is on {x.device}")
    if not INTERPRETED and not x.is_cuda:
        raise ArgumentError(
            f"backend='triton' takes CUDA tensors, but x is on {x.device}: move it, or set TRITON_INTERPRET=1 before "
            "importing kernels to run the kernels in the interpreter"
        )


def _given(tensor: Tensor) -> Tensor | None:
    """None for the empty stand-in of a tensor that was not saved."""
    return tensor if tensor.dim() > 1 else None


def _empty_results(x: Tensor, weight: Tensor, geometry: Geometry, shapes: Shapes) -> Tensor:
    size = (shapes.batch, weight.shape[0], *shapes.output[3 - geometry.rank :])
    return empty_in_format(size, x, output_format(x, weight))


def _infer(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
    _check_device(x)
    geometry, shapes = _geometry(x.shape, weight.shape, _hashable(settings))
    y = _empty_results(x, weight, geometry, shapes)
    conv_relu_pool_forward(x, weight, bias, y, None, None, geometry, shapes)
    return y


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    _check_device(x)
    geometry, shapes = _geometry(x.shape, weight.shape, _hashable(settings))
    y = _empty_results(x, weight, geometry, shapes)
    code, winner = empty_saved(y, geometry, shapes)
    conv_relu_pool_forward(x, weight, bias, y, code, winner, geometry, shapes)
    return y, _or_nothing(code, x), _or_nothing(winner, x)


def _or_nothing(tensor: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if tensor is None else tensor


def _dgrad(
    grad: Tensor, code: Tensor, saved: Tensor, weight: Tensor, x_size: list[int], channels_last: bool, *settings: Any
) -> Tensor:
    _check_device(grad)
    geometry, shapes = _geometry(torch.Size(x_size), weight.shape, _hashable(settings))
    dx = empty_in_format(tuple(x_size), grad, channels_last)
    conv_relu_pool_dgrad(grad, _given(code), _given(saved), weight, dx, geometry, shapes)
    return dx


def _wgrad(
    grad: Tensor,
    code: Tensor,
    saved: Tensor,
    x: Tensor,
    weight: Tensor,
    needs_weight: bool,
    needs_bias: bool,
    *settings: Any,
) -> tuple[Tensor, Tensor]:
    _check_device(grad)
    geometry, shapes = _geometry(x.shape, weight.shape, _hashable(settings))
    dweight = torch.empty_like(weight) if needs_weight else None
    dbias = grad.new_empty(weight.shape[0]) if needs_bias else None
    conv_relu_pool_wgrad(grad, _given(code), _given(saved), x, dweight, dbias, geometry, shapes)
    return _or_nothing(dweight, grad), _or_nothing(dbias, grad)


def _fake_infer(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
    layer = Layer(*settings)
    check_tensors(x, weight, bias)
    check_channels(x, weight, bias, layer.groups)
    _, output = spatial_sizes(tuple(x.shape[2:]), tuple(weight.shape[2:]), layer)
    return empty_in_format((x.shape[0], weight.shape[0], *output), x, output_format(x, weight))


def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    y = _fake_infer(x, weight, bias, *settings)
    geometry, shapes = build_geometry(x.shape, weight.shape, Layer(*settings))
    code, winner = empty_saved(y, geometry, shapes)
    return y, _or_nothing(code, x), _or_nothing(winner, x)


def _fake_dgrad(
    grad: Tensor, code: Tensor, saved: Tensor, weight: Tensor, x_size: list[int], channels_last: bool, *settings: Any
) -> Tensor:
    return empty_in_format(tuple(x_size), grad, channels_last)


def _fake_wgrad(
    grad: Tensor,
    code: Tensor,
    saved: Tensor,
    x: Tensor,
    weight: Tensor,
    needs_weight: bool,
    needs_bias: bool,
    *settings: Any,
) -> tuple[Tensor, Tensor]:
    dweight = torch.empty_like(weight) if needs_weight else None
    dbias = grad.new_empty(weight.shape[0]) if needs_bias else None
    return _or_nothing(dweight, grad), _or_nothing(dbias, grad)


def _refuse_forward_mode(*tensors: Tensor | None) -> None:
    for tensor in tensors:
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                "conv_relu_pool with backend='triton' has no forward-mode derivative: use backend='cudnn' for jvp"
            )


def _is_differentiated(*tensors: Tensor | None) -> bool:
    """Whether a result computed from these tensors has to be recorded. Refuses forward mode."""
    if forward_ad._current_level >= 0:
        _refuse_forward_mode(*tensors)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _apply(function: Any, *arguments: Any) -> Any:
    """`function.apply`, allowed inside torch.func too: by the time an operator's Autograd key is reached, the transform
    has chosen its level, and the function stays on it. What an outer level would differentiate as well is refused."""
    if not torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)
    forward_mode = any(i.key() == TransformType.Jvp for i in get_interpreter_stack() or ())
    if forward_mode or any(_requires_grad_outside(a) for a in arguments if isinstance(a, Tensor)):
        raise NotImplementedError(
            "conv_relu_pool with backend='triton' is differentiated by one torch.func transform at a time: "
            "use backend='cudnn' for nested ones and for jvp"
        )
    with enable_single_level_autograd_function():
        return function.apply(*arguments)


def _requires_grad_outside(tensor: Tensor) -> bool:
    """Whether a level of torch.func outside the innermost, or plain autograd, records operations on this tensor."""
    while is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
        if tensor.requires_grad:
            return True
    return False


class _ConvReLUPool(_SingleLevelFunction):
    """Saves x, weight and what `Geometry` says of the outputs; computes the gradients of what requires one."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
        return ops.conv_relu_pool_forward(x, weight, bias, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, bias, *settings = inputs
        _, code, winner = output
        ctx.mark_non_differentiable(code, winner)
        ctx.set_materialize_grads(False)
        ctx.smooth_average = settings[5] == "avg" and settings[4] in ("silu", "gelu")
        x_needed = ctx.needs_input_grad[1] or ctx.smooth_average
        ctx.save_for_backward(x if x_needed else None, weight, bias if ctx.smooth_average else None, code, winner)
        ctx.x_size, ctx.channels_last, ctx.settings = x.shape, output_format(x), settings

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> Any:
        settings = ctx.settings
        nothing = (None,) * len(settings)
        if grad is None:
            return None, None, None, *nothing
        x, weight, bias, code, saved = ctx.saved_tensors
        dx = dweight = dbias = None
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        if ctx.smooth_average:
            # The convolution once more, without activation and pool: cheaper to redo than to keep.
            saved = ops.conv_relu_pool(x, weight, bias, *_without_activation_and_pool(settings))
        if needs_x:
            dx = ops.conv_relu_pool_dgrad(grad, code, saved, weight, ctx.x_size, ctx.channels_last, *settings)
        if needs_weight or needs_bias:
            # Without dweight x is only looked at for its size.
            like = x if x is not None else grad.new_empty(1).expand(ctx.x_size)
            dweight, dbias = ops.conv_relu_pool_wgrad(
                grad, code, saved, like, weight, needs_weight, needs_bias, *settings
            )
        return dx, dweight if needs_weight else None, dbias if needs_bias else None, *nothing


class _FirstDerivative(_SingleLevelFunction):
    """A gradient operator's result, recorded so that differentiating it once more is answered, not silently wrong."""

    @staticmethod
    def forward(operator: Any, *arguments: Any) -> Any:
        return operator(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            "conv_relu_pool with backend='triton' has no second derivative: use backend='cudnn' for double backward"
        )


def _without_activation_and_pool(settings: tuple[Any, ...]) -> tuple[Any, ...]:
    rank = len(settings[0])
    ones, zeros = [1] * rank, [0] * rank
    return *settings[:4], "none", "none", ones, ones, zeros, ones, False, True


def _autograd(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
    if _is_differentiated(x, weight, bias):
        return _apply(_ConvReLUPool, x, weight, bias, *settings)[0]
    with torch._C._AutoDispatchBelowAutograd():
        return ops.conv_relu_pool(x, weight, bias, *settings)


def _autograd_forward(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    if _is_differentiated(x, weight, bias):
        return _apply(_ConvReLUPool, x, weight, bias, *settings)
    with torch._C._AutoDispatchBelowAutograd():
        return ops.conv_relu_pool_forward(x, weight, bias, *settings)


def _autograd_gradient(operator: Any) -> Any:
    def autograd(*arguments: Any) -> Any:
        if _is_differentiated(*(a for a in arguments if isinstance(a, Tensor))):
            return _apply(_FirstDerivative, operator, *arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    return autograd


def _autocast(device_type: str) -> Any:
    def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        if tensor is None or not tensor.is_floating_point() or tensor.dtype == torch.float64:
            return tensor
        return tensor.to(dtype)

    def autocast(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
        dtype = torch.get_autocast_dtype(device_type)
        with torch.autocast(device_type, enabled=False):
            return ops.conv_relu_pool(cast(x, dtype), cast(weight, dtype), cast(bias, dtype), *settings)

    return autocast


for _name, _real, _fake in (
    ("conv_relu_pool", _infer, _fake_infer),
    ("conv_relu_pool_forward", _forward, _fake_forward),
    ("conv_relu_pool_dgrad", _dgrad, _fake_dgrad),
    ("conv_relu_pool_wgrad", _wgrad, _fake_wgrad),
):
    _LIBRARY.impl(_name, _real, "CPU")
    _LIBRARY.impl(_name, _real, "CUDA")
    torch.library.register_fake(f"tidepool::{_name}", _fake, lib=_LIBRARY)
_LIBRARY.impl("conv_relu_pool", _autograd, "Autograd")
_LIBRARY.impl("conv_relu_pool_forward", _autograd_forward, "Autograd")
_LIBRARY.impl("conv_relu_pool_dgrad", _autograd_gradient(ops.conv_relu_pool_dgrad.default), "Autograd")
_LIBRARY.impl("conv_relu_pool_wgrad", _autograd_gradient(ops.conv_relu_pool_wgrad.default), "Autograd")
_LIBRARY.impl("conv_relu_pool", _autocast("cpu"), "AutocastCPU")
_LIBRARY.impl("conv_relu_pool", _autocast("cuda"), "AutocastCUDA")
