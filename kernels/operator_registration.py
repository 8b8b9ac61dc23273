"""The registered operators `tidepool::conv_relu_pool*`, and the short way to them.

    conv_relu_pool          what users call; saves nothing
    conv_relu_pool_forward  the same, with what backward needs: (y, codes or bits, winners), empty where there is none
    conv_relu_pool_dgrad    gradient with respect to x
    conv_relu_pool_wgrad    gradients with respect to weight and bias

They are defined through the low-level `torch.library.Library` with an `autograd.Function` at the Autograd key: half the
host time of `torch.library.custom_op`. A layer's settings travel as one string, `arguments.Layer.text()`: a dispatch
costs by the argument, and unlike a number into a table a string means the same in another process (compiled graphs are
cached on disk).

On plain tensors outside every mode and transform, `call_direct` and backward skip the dispatcher, which would find
nothing to do on the way to the same functions.
"""

from typing import Any

import torch
from torch import Tensor

from kernels import operator_implementations as implementations
from kernels.layer_call import LayerCall
from kernels.operator_autograd import ConvReLUPool, autograd, autograd_internal

_LIBRARY = torch.library.Library("tidepool", "DEF")
_LIBRARY.define("conv_relu_pool(Tensor x, Tensor weight, Tensor? bias, str layer) -> Tensor")
_LIBRARY.define("conv_relu_pool_forward(Tensor x, Tensor weight, Tensor? bias, str layer) -> (Tensor, Tensor, Tensor)")
_LIBRARY.define(
    "conv_relu_pool_dgrad(Tensor grad, Tensor code, Tensor saved, Tensor weight, SymInt[] x_size, bool channels_last, "
    "str layer) -> Tensor"
)
_LIBRARY.define(
    "conv_relu_pool_wgrad(Tensor grad, Tensor code, Tensor saved, Tensor x, Tensor weight, bool needs_weight, "
    "bool needs_bias, str layer) -> (Tensor, Tensor)"
)
ops = torch.ops.tidepool
_record: Any = ConvReLUPool.apply  # type: ignore[attr-defined]


def may_call_directly(call: LayerCall) -> bool:
    """Whether nothing stands between a call on plain tensors and the kernels: no mode, transform, trace, autocast."""
    return implementations.no_mode_is_on() and not torch.is_autocast_enabled(call.device_type)


def call_direct(x: Tensor, weight: Tensor, bias: Tensor | None, call: LayerCall) -> Tensor:
    """What `ops.conv_relu_pool` would do, where `may_call_directly`."""
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return _record(x, weight, bias, call.layer, call)
    return implementations.run_inference(x, weight, bias, call)


def _autocast(device_type: str) -> Any:
    def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        if tensor is None or not tensor.is_floating_point() or tensor.dtype == torch.float64:
            return tensor
        return tensor.to(dtype)

    def autocast(x: Tensor, weight: Tensor, bias: Tensor | None, layer: str) -> Tensor:
        dtype = torch.get_autocast_dtype(device_type)
        with torch.autocast(device_type, enabled=False):
            return ops.conv_relu_pool(cast(x, dtype), cast(weight, dtype), cast(bias, dtype), layer)

    return autocast


for _name, _real, _fake in (
    ("conv_relu_pool", implementations.infer, implementations.fake_infer),
    ("conv_relu_pool_forward", implementations.forward, implementations.fake_forward),
    ("conv_relu_pool_dgrad", implementations.dgrad, implementations.fake_dgrad),
    ("conv_relu_pool_wgrad", implementations.wgrad, implementations.fake_wgrad),
):
    _LIBRARY.impl(_name, _real, "CPU")
    _LIBRARY.impl(_name, _real, "CUDA")
    torch.library.register_fake(f"tidepool::{_name}", _fake, lib=_LIBRARY)
    if _name != "conv_relu_pool":
        _LIBRARY.impl(_name, autograd_internal(getattr(ops, _name).default), "Autograd")
_LIBRARY.impl("conv_relu_pool", autograd, "Autograd")
_LIBRARY.impl("conv_relu_pool", _autocast("cpu"), "AutocastCPU")
_LIBRARY.impl("conv_relu_pool", _autocast("cuda"), "AutocastCUDA")
