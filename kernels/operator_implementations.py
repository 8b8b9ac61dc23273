"""Real and fake implementations of the `tidepool::conv_relu_pool*` operators, and when they may be called directly.

A real implementation allocates results as a `LayerCall` says and launches kernels. A fake one gives sizes, dtypes and
formats only, sizes possibly symbolic.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kernels.arguments import (
    ArgumentError,
    build_geometry,
    check_channels,
    check_tensors,
    layer_from_text,
    spatial_sizes,
)
from kernels.conv_relu_pool_dgrad import bind_dgrad, conv_relu_pool_dgrad
from kernels.conv_relu_pool_forward import bind_forward, empty_saved
from kernels.conv_relu_pool_wgrad import bind_wgrad, conv_relu_pool_wgrad
from kernels.launch import operand_kind
from kernels.layer_call import LayerCall, geometry_of, layer_call
from kernels.memory_format import empty_in_format, in_strides_of, output_format, strides
from kernels.runtime import INTERPRETED

# --- The dispatcher, and the way around it ---------------------------------------------------------------------------


_dispatch_keys_of = torch._C._dispatch_keys  # looked up once: this runs four times a step


def dispatch_keys(tensor: Tensor) -> int:
    """The tensor's dispatch keys as a number."""
    return _dispatch_keys_of(tensor).raw_repr()


def _plain_keys() -> set[int]:
    if INTERPRETED:
        return {dispatch_keys(torch.empty(0))}
    return {dispatch_keys(torch.empty(0, device="cuda"))} if torch.cuda.is_available() else set()


PLAIN_KEYS = _plain_keys()
"""Dispatch keys of an ordinary tensor where the kernels run: no subclass, wrapper, lazy conjugate or other layout."""


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
    """Raise ArgumentError unless the kernels run where x is."""
    if INTERPRETED:
        if x.device.type != "cpu":
            raise ArgumentError(f"backend='triton' is interpreted here and takes CPU tensors, but x is on {x.device}")
    elif not x.is_cuda:
        raise ArgumentError(
            f"backend='triton' takes CUDA tensors, but x is on {x.device}: move it, or set TRITON_INTERPRET=1 before "
            "importing kernels to run the kernels in the interpreter"
        )


def _given(tensor: Tensor) -> Tensor | None:
    """None for the empty stand-in of a tensor that was not saved."""
    return tensor if tensor.dim() > 1 else None


def or_nothing(tensor: Tensor | None, like: Tensor) -> Tensor:
    """The tensor, or the empty stand-in for None that an operator can return."""
    return like.new_empty(0) if tensor is None else tensor


def run_inference(x: Tensor, weight: Tensor, bias: Tensor | None, call: LayerCall) -> Tensor:
    """The layer's result; nothing is saved."""
    y = call.y.allocate()
    launch_forward(x, weight, bias, y, None, None, call)
    return y


def run_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, call: LayerCall
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The layer's result, with the codes or bits and the winners that backward needs (None: not needed)."""
    y = call.y.allocate()
    code = None if call.code is None else call.code.allocate()
    winner = None if call.winner is None else call.winner.allocate()
    launch_forward(x, weight, bias, y, code, winner, call)
    return y, code, winner


def launch_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    code: Tensor | None,
    winner: Tensor | None,
    call: LayerCall,
    tile: Any = None,
) -> None:
    """`conv_relu_pool_forward` on the tensors of `call`, made ready once for each of what else it depends on."""
    # `call` stands for the layouts of x and weight in forward; backward may hand in others, as hooks have left them.
    layouts, saves = (x.stride(), weight.stride()), code is not None or winner is not None
    key = (layouts, saves, bias is None, operand_kind(x.dtype), x.data_ptr() % 16 == 0, tile)
    launch = call.launches.get(key)
    if launch is None:
        launch = bind_forward(x, weight, bias, y, code, winner, call.geometry, call.shapes, tile)
        call.launches[key] = launch
    launch(x, weight, bias, y, code, winner)


def input_gradient(
    grad: Tensor, code: Tensor | None, saved: Tensor | None, weight: Tensor, call: LayerCall, tile: Any = None
) -> Tensor:
    """Gradient with respect to x, in x's memory format."""
    dx = call.dx.allocate()
    saved = in_strides_of(code, saved)
    key = ("dgrad", grad.stride(), strides(code), strides(saved), weight.stride(), operand_kind(grad.dtype), tile)
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
    key = ("wgrad", layouts, needs_weight, needs_bias, operand_kind(grad.dtype), tile)
    launch = call.launches.get(key)
    if launch is None:
        launch = bind_wgrad(grad, code, saved, x, dweight, dbias, call.geometry, call.shapes, tile)
        call.launches[key] = launch
    launch(grad, code, saved, x, dweight, dbias)
    return dweight, dbias


def infer(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
    check_device(x)
    return run_inference(x, weight, bias, layer_call(x, weight, layer))


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> tuple[Tensor, Tensor, Tensor]:
    check_device(x)
    y, code, winner = run_forward(x, weight, bias, layer_call(x, weight, layer))
    return y, or_nothing(code, x), or_nothing(winner, x)


def dgrad(
    grad: Tensor, code: Tensor, saved: Tensor, weight: Tensor, x_size: list[int], channels_last: bool, layer: str
) -> Tensor:
    check_device(grad)
    geometry, shapes = geometry_of(torch.Size(x_size), weight.shape, layer)
    dx = empty_in_format(x_size, grad, channels_last)
    given = _given(code)
    conv_relu_pool_dgrad(grad, given, in_strides_of(given, _given(saved)), weight, dx, geometry, shapes)
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
    conv_relu_pool_wgrad(grad, given, in_strides_of(given, _given(saved)), x, dweight, dbias, geometry, shapes)
    return or_nothing(dweight, grad), or_nothing(dbias, grad)


# --- Fake implementations: shapes, dtypes and formats, sizes possibly symbolic ---------------------------------------


def fake_infer(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
    settings = layer_from_text(layer)
    check_tensors(x, weight, bias)
    check_channels(x, weight, bias, settings.groups)
    _, output = spatial_sizes(tuple(x.shape[2:]), tuple(weight.shape[2:]), settings)
    return empty_in_format((x.shape[0], weight.shape[0], *output), x, output_format(x, weight))


def fake_forward(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> tuple[Tensor, Tensor, Tensor]:
    y = fake_infer(x, weight, bias, layer)
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
