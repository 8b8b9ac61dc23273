"""Real and fake implementations of the `tidepool::conv_act_pool*` operators, and when they may be called directly.

A real implementation allocates results as a `LayerCall` says and launches kernels. A fake one gives sizes, dtypes and
formats only, sizes possibly symbolic. What is registered takes a layer's text and parses it at its entry; from there on
a layer is a `Layer`.
"""

import functools
import operator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tidepool.kernels.activations import Activation
from tidepool.kernels.conv.choose import bind_dgrad, bind_forward, bind_wgrad, conv_act_pool_dgrad, conv_act_pool_wgrad
from tidepool.kernels.conv.learned_slope import conv_act_pool_slope
from tidepool.kernels.layer.checks import check_channels, check_tensors
from tidepool.kernels.layer.formats import empty_in_format, in_strides_of, output_format, strides
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.learned_slope import before_slope, check_slope
from tidepool.kernels.layer.saved import empty_saved
from tidepool.kernels.layer.settings import Layer, layer_from_text
from tidepool.kernels.layer.sizes import build_geometry, spatial_sizes
from tidepool.kernels.operators.call import LayerCall, geometry_of, layer_call
from tidepool.kernels.runtime import mode
from tidepool.kernels.runtime.launch import operand_kind
from tidepool.kernels.runtime.mode import mode_of

# --- The dispatcher, and the way around it ---------------------------------------------------------------------------


_dispatch_keys_of = torch._C._dispatch_keys  # looked up once: this runs four times a step


def dispatch_keys(tensor: Tensor) -> int:
    """The tensor's dispatch keys as a number."""
    return _dispatch_keys_of(tensor).raw_repr()


def plain_keys(device: str) -> int:
    """Dispatch keys of an ordinary tensor, put together by name: making one would start CUDA."""
    names = (device, f"Autograd{device}", f"Autocast{device}", "ADInplaceOrView")
    keys = [torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, name)) for name in names]
    return functools.reduce(operator.or_, keys).raw_repr()


PLAIN_KEYS = {plain_keys("CPU"), plain_keys("CUDA")}
"""Dispatch keys of an ordinary tensor where kernels may run: no subclass, wrapper, lazy conjugate or other layout."""


def no_mode_is_on() -> bool:
    """Whether no mode, transform or trace of PyTorch wants to see operators."""
    return (
        torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
        and torch._C._get_tracing_state() is None
    )


def may_skip_dispatcher(grad: Tensor) -> bool:
    """Whether the dispatcher would only pass this gradient on to the kernels."""
    return no_mode_is_on() and dispatch_keys(grad) in PLAIN_KEYS


# --- Real implementations --------------------------------------------------------------------------------------------


def check_device(x: Tensor) -> None:
    """Raise ArgumentError or UnsupportedTarget unless the kernels run where x is."""
    mode_of(x.device)


def _given(tensor: Tensor) -> Tensor | None:
    """None for the empty stand-in of a tensor that was not saved."""
    return tensor if tensor.dim() > 1 else None


def or_nothing(tensor: Tensor | None, like: Tensor) -> Tensor:
    """The tensor, or the empty stand-in for None that an operator can return."""
    return like.new_empty(0) if tensor is None else tensor


def run_inference(
    x: Tensor, weight: Tensor, bias: Tensor | None, call: LayerCall, slope: Tensor | None = None
) -> Tensor:
    """The layer's result; nothing is saved."""
    y = call.y.allocate()
    launch_forward(x, weight, bias, y, None, None, call, slope)
    return y


def run_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, call: LayerCall, slope: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The layer's result, with the codes or bits and the winners that backward needs (None: not needed)."""
    y = call.y.allocate()
    code = None if call.code is None else call.code.allocate()
    winner = None if call.winner is None else call.winner.allocate()
    launch_forward(x, weight, bias, y, code, winner, call, slope)
    return y, code, winner


def launch_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    call: LayerCall,
    slope: Tensor | None = None,
    tile: Any = None,
) -> None:
    """`conv_act_pool_forward` on the tensors of `call`, made ready once for each of what else it depends on."""
    # `call` stands for the layouts of x and weight in forward; backward may hand in others, as hooks have left them.
    layouts, saves = (x.stride(), weight.stride()), code is not None or winner is not None
    kind, aligned = operand_kind(x.dtype, call.y.device), x.data_ptr() % 16 == 0
    key = (mode.forced, layouts, saves, bias is None, None if slope is None else slope.numel(), kind, aligned, tile)
    launch = call.launches.get(key)
    if launch is None:
        launch = bind_forward(x, weight, bias, y, code, winner, call.geometry, call.shapes, tile, slope)
        call.launches[key] = launch
    launch(x, weight, bias, y, code, winner, slope)


def input_gradient(
    grad: Tensor, code: Tensor | None, saved: Tensor | None, weight: Tensor, call: LayerCall, tile: Any = None
) -> Tensor:
    """Gradient with respect to x, in x's memory format."""
    dx = call.dx.allocate()
    saved = in_strides_of(code, saved)
    layouts = (grad.stride(), strides(code), strides(saved), weight.stride())
    key = (mode.forced, "dgrad", layouts, operand_kind(grad.dtype, call.dx.device), tile)
    launch = call.launches.get(key)
    if launch is None:
        launch = bind_dgrad(grad, code, saved, weight, dx, call.geometry, call.shapes, tile)
        call.launches[key] = launch
    launch(grad, code, saved, weight, dx)
    return dx


def weight_gradient(
    grad: Tensor,
    code: Tensor | None,
    saved: Tensor | None,
    x: Tensor,
    weight: Tensor,
    needs_weight: bool,
    needs_bias: bool,
    call: LayerCall,
    tile: Any = None,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients with respect to weight and bias; None where not needed."""
    dweight = torch.empty_like(weight) if needs_weight else None
    dbias = grad.new_empty(weight.shape[0]) if needs_bias else None
    saved = in_strides_of(code, saved)
    layouts = (grad.stride(), strides(code), strides(saved), x.stride(), weight.stride())
    key = (mode.forced, "wgrad", layouts, needs_weight, needs_bias, operand_kind(grad.dtype, call.y.device), tile)
    launch = call.launches.get(key)
    if launch is None:
        launch = bind_wgrad(grad, code, saved, x, dweight, dbias, call.geometry, call.shapes, tile)
        call.launches[key] = launch
    launch(grad, code, saved, x, dweight, dbias)
    return dweight, dbias


def slope_gradient(
    grad: Tensor, saved: Tensor, slope: Tensor, needs_z: bool, needs_slope: bool, layer: Layer
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients with respect to the values `saved` of `layer` and to its learned slope; None where not needed."""
    dz = torch.empty_like(saved) if needs_z else None
    dslope = slope.new_empty(slope.shape) if needs_slope else None
    conv_act_pool_slope(grad, saved, slope, dz, dslope, *values_of(saved.shape, layer))
    return dz, dslope


@functools.lru_cache(maxsize=4096)
def values_of(size: torch.Size, layer: Layer) -> tuple[Activation, Geometry, Shapes]:
    """The activation of a layer, and how what came before its `before_slope` meets values of this size."""
    ones = (size[1], size[1], *(1,) * (len(size) - 2))
    return layer.activation, *build_geometry(size, ones, before_slope(layer))


def infer(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, slope: Tensor | None = None) -> Tensor:
    check_device(x)
    return run_inference(x, weight, bias, layer_call(x, weight, layer_from_text(layer)), slope)


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, slope: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    check_device(x)
    y, code, winner = run_forward(x, weight, bias, layer_call(x, weight, layer_from_text(layer)), slope)
    return y, or_nothing(code, x), or_nothing(winner, x)


def dgrad(
    grad: Tensor, code: Tensor, saved: Tensor, weight: Tensor, x_size: list[int], channels_last: bool, layer: str
) -> Tensor:
    check_device(grad)
    geometry, shapes = geometry_of(torch.Size(x_size), weight.shape, layer)
    dx = empty_in_format(x_size, grad, channels_last)
    given = _given(code)
    conv_act_pool_dgrad(grad, given, in_strides_of(given, _given(saved)), weight, dx, geometry, shapes)
    return dx


def wgrad(
    grad: Tensor,
    code: Tensor,
    saved: Tensor,
    x: Tensor,
    weight: Tensor,
    needs_weight: bool,
    needs_bias: bool,
    layer: str,
) -> tuple[Tensor, Tensor]:
    check_device(grad)
    geometry, shapes = geometry_of(x.shape, weight.shape, layer)
    dweight = torch.empty_like(weight) if needs_weight else None
    dbias = grad.new_empty(weight.shape[0]) if needs_bias else None
    given = _given(code)
    conv_act_pool_wgrad(grad, given, in_strides_of(given, _given(saved)), x, dweight, dbias, geometry, shapes)
    return or_nothing(dweight, grad), or_nothing(dbias, grad)


def through_slope(
    grad: Tensor, saved: Tensor, slope: Tensor, needs_z: bool, needs_slope: bool, layer: str
) -> tuple[Tensor, Tensor]:
    check_device(grad)
    dz, dslope = slope_gradient(grad, saved, slope, needs_z, needs_slope, layer_from_text(layer))
    return or_nothing(dz, grad), or_nothing(dslope, grad)


# --- Fake implementations: shapes, dtypes and formats, sizes possibly symbolic ---------------------------------------


def fake_infer(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, slope: Tensor | None = None) -> Tensor:
    settings = layer_from_text(layer)
    check_tensors(x, weight, bias)
    check_slope(x, weight, slope, settings.activation)
    check_channels(x, weight, bias, settings.groups)
    _, output = spatial_sizes(tuple(x.shape[2:]), tuple(weight.shape[2:]), settings)
    return empty_in_format((x.shape[0], weight.shape[0], *output), x, output_format(x, weight))


def fake_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, layer: str, slope: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    y = fake_infer(x, weight, bias, layer, slope)
    geometry, shapes = build_geometry(x.shape, weight.shape, layer_from_text(layer))
    code, winner = empty_saved(y, geometry, shapes)
    return y, or_nothing(code, x), or_nothing(winner, x)


def fake_dgrad(
    grad: Tensor, code: Tensor, saved: Tensor, weight: Tensor, x_size: list[int], channels_last: bool, layer: str
) -> Tensor:
    return empty_in_format(tuple(x_size), grad, channels_last)


def fake_wgrad(
    grad: Tensor,
    code: Tensor,
    saved: Tensor,
    x: Tensor,
    weight: Tensor,
    needs_weight: bool,
    needs_bias: bool,
    layer: str,
) -> tuple[Tensor, Tensor]:
    dweight = torch.empty_like(weight) if needs_weight else None
    dbias = grad.new_empty(weight.shape[0]) if needs_bias else None
    return or_nothing(dweight, grad), or_nothing(dbias, grad)


def fake_through_slope(
    grad: Tensor, saved: Tensor, slope: Tensor, needs_z: bool, needs_slope: bool, layer: str
) -> tuple[Tensor, Tensor]:
    dz = torch.empty_like(saved) if needs_z else None
    dslope = slope.new_empty(slope.shape) if needs_slope else None
    return or_nothing(dz, grad), or_nothing(dslope, grad)
