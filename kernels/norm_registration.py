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

from kernels import norm_implementations as implementations
from kernels.norm_autograd import OP, autograd, autograd_training
from kernels.norm_implementations import Norm, Results
from kernels.operator_autograd import autograd_internal
from kernels.operator_implementations import check_device, or_nothing

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


class _Call:
    """An operator's tensors, in the order of its schema, sorted into what they are to the implementations."""

    def __init__(self, tensors: tuple[Any, ...]) -> None:
        x, weight, *norm, conv_bias, residual = tensors
        self.operands: tuple[Tensor, Tensor, Tensor | None, Tensor | None] = (x, weight, conv_bias, residual)
        self.norm: Norm = (norm[0], norm[1], norm[2], norm[3])

    def updated(self) -> None:
        """Tell autograd that the running statistics have changed, as its own in-place operators do."""
        for statistics in self.norm[2:]:
            if statistics is not None and not statistics.is_inference():
                torch.autograd.graph.increment_version(statistics)


def _infer(*arguments: Any) -> Tensor:
    *tensors, eps, layer = arguments
    check_device(arguments[0])
    call = _Call(tuple(tensors))
    return implementations.infer(*call.operands, call.norm, eps, layer)


def _infer_training(*arguments: Any) -> Tensor:
    return _forward_training(*arguments)[0]


def _forward(*arguments: Any) -> Results:
    *tensors, eps, layer = arguments
    check_device(arguments[0])
    call = _Call(tuple(tensors))
    return implementations.forward(*call.operands, call.norm, None, eps, layer)


def _forward_training(*arguments: Any) -> Results:
    *tensors, momentum, eps, layer = arguments
    check_device(arguments[0])
    call = _Call(tuple(tensors))
    results = implementations.forward(*call.operands, call.norm, momentum, eps, layer)
    call.updated()
    return results


def _backward(
    grad: Tensor,
    z: Tensor,
    code: Tensor,
    coefficients: Tensor,
    residual: Tensor | None,
    norm_dtype: torch.dtype,
    residual_dtype: torch.dtype | None,
    training: bool,
    needs: list[bool],
    x_size: list[int],
    weight_size: list[int],
    layer: str,
) -> tuple[Tensor, ...]:
    check_device(grad)
    gradients = implementations.backward(
        grad, z, code if code.dim() > 1 else None, coefficients, residual, norm_dtype, residual_dtype, training,
        (needs[0], needs[1], needs[2], needs[3]), torch.Size(x_size), torch.Size(weight_size), layer,
    )  # fmt: skip
    return tuple(or_nothing(gradient, grad) for gradient in gradients)


def _fake_forward(*arguments: Any) -> Results:
    call = _Call(arguments[:8])
    return implementations.fake_forward(*call.operands, call.norm, len(arguments) == 11, arguments[-1])


def _fake_infer(*arguments: Any) -> Tensor:
    return _fake_forward(*arguments)[0]


def _fake_backward(
    grad: Tensor,
    z: Tensor,
    code: Tensor,
    coefficients: Tensor,
    residual: Tensor | None,
    norm_dtype: torch.dtype,
    residual_dtype: torch.dtype | None,
    training: bool,
    needs: list[bool],
    x_size: list[int],
    weight_size: list[int],
    layer: str,
) -> tuple[Tensor, ...]:
    wanted = (needs[0], needs[1], needs[2], needs[3])
    gradients = implementations.empty_gradients(z, norm_dtype, residual_dtype, wanted)
    return tuple(or_nothing(gradient, grad) for gradient in gradients)


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
    ("conv_norm_act", _infer, _fake_infer),
    ("conv_norm_act_training", _infer_training, _fake_infer),
    ("conv_norm_act_forward", _forward, _fake_forward),
    ("conv_norm_act_forward_training", _forward_training, _fake_forward),
    ("conv_norm_act_backward", _backward, _fake_backward),
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
