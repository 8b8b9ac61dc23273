"""The registered operators `tidepool::conv_norm_act*`.

    conv_norm_act                    with running statistics, which it only reads; saves nothing
    conv_norm_act_training           with the batch's statistics; updates running_mean and running_var in place
    conv_norm_act_forward(_training) the same, with what backward needs: (y, z, codes of the convolution's pool,
                                     coefficients, codes of the norm's stage), empty where there is none
    conv_norm_act_backward           gradients at z, residual, norm weight and norm bias; from z on, backward is
                                     conv_relu_pool_dgrad and conv_relu_pool_wgrad

What is updated in place is declared, so that torch.compile orders and keeps the updates. `layer` is a text of
`norm_arguments.parse_norm_layer`.
"""

from typing import Any

import torch
from torch import Tensor

from kernels import norm_operators as operators
from kernels.norm_autograd import OP, autograd, autograd_training, call
from kernels.operator_autograd import autograd_internal

__all__ = ["call", "ops"]

_TENSORS = (
    "Tensor x, Tensor weight, Tensor? norm_weight, Tensor? norm_bias, {mean} running_mean, {var} running_var, "
    "Tensor? conv_bias, Tensor? residual"
)
_FIXED = _TENSORS.format(mean="Tensor", var="Tensor") + ", float eps, str layer"
_UPDATED = _TENSORS.format(mean="Tensor(a!)?", var="Tensor(b!)?") + ", float momentum, float eps, str layer"
_SAVED = "(Tensor, Tensor, Tensor, Tensor, Tensor)"
_LIBRARY = torch.library.Library("tidepool", "FRAGMENT")
_LIBRARY.define(f"conv_norm_act({_FIXED}) -> Tensor")
_LIBRARY.define(f"conv_norm_act_training({_UPDATED}) -> Tensor")
_LIBRARY.define(f"conv_norm_act_forward({_FIXED}) -> {_SAVED}")
_LIBRARY.define(f"conv_norm_act_forward_training({_UPDATED}) -> {_SAVED}")
_LIBRARY.define(
    "conv_norm_act_backward(Tensor grad, Tensor z, Tensor code, Tensor coefficients, Tensor? residual, "
    "ScalarType norm_dtype, ScalarType? residual_dtype, bool training, bool[] needs, SymInt[] x_size, "
    "SymInt[] weight_size, str layer) -> (Tensor, Tensor, Tensor, Tensor)"
)
ops = torch.ops.tidepool


def _autocast(device_type: str, name: str) -> Any:
    """As PyTorch's: the convolution in the low precision; batch norm and what follows take what comes."""

    def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        if tensor is None or not tensor.is_floating_point() or tensor.dtype == torch.float64:
            return tensor
        return tensor.to(dtype)

    def autocast(*arguments: Any) -> Tensor:
        x, weight, *norm, conv_bias, residual = arguments[:8]
        dtype = torch.get_autocast_dtype(device_type)
        with torch.autocast(device_type, enabled=False):
            convolved = (cast(x, dtype), cast(weight, dtype), *norm, cast(conv_bias, dtype), residual)
            return getattr(ops, name)(*convolved, *arguments[8:])

    return autocast


for _name, _real, _fake in (
    ("conv_norm_act", operators.infer, operators.fake_infer),
    ("conv_norm_act_training", operators.infer_training, operators.fake_infer),
    ("conv_norm_act_forward", operators.forward, operators.fake_forward),
    ("conv_norm_act_forward_training", operators.forward_training, operators.fake_forward),
    ("conv_norm_act_backward", operators.backward, operators.fake_backward),
):
    _LIBRARY.impl(_name, _real, "CPU")
    _LIBRARY.impl(_name, _real, "CUDA")
    torch.library.register_fake(f"tidepool::{_name}", _fake, lib=_LIBRARY)
    if _name not in ("conv_norm_act", "conv_norm_act_training"):
        _LIBRARY.impl(_name, autograd_internal(getattr(ops, _name).default, OP), "Autograd")
for _name, _recording in (("conv_norm_act", autograd), ("conv_norm_act_training", autograd_training)):
    _LIBRARY.impl(_name, _recording, "Autograd")
    _LIBRARY.impl(_name, _autocast("cpu", _name), "AutocastCPU")
    _LIBRARY.impl(_name, _autocast("cuda", _name), "AutocastCUDA")
