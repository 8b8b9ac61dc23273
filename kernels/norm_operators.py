"""The `tidepool::conv_norm_act*` operators as they are called: arguments in the order of their schemas, sorted and
handed to `norm_implementations`."""

from typing import Any

import torch
from torch import Tensor

from kernels import norm_implementations as implementations
from kernels.norm_implementations import Norm, Results
from kernels.operator_implementations import check_device, or_nothing


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


def infer(*arguments: Any) -> Tensor:
    *tensors, eps, layer = arguments
    check_device(arguments[0])
    call = _Call(tuple(tensors))
    return implementations.infer(*call.operands, call.norm, eps, layer)


def infer_training(*arguments: Any) -> Tensor:
    return forward_training(*arguments)[0]


def forward(*arguments: Any) -> Results:
    *tensors, eps, layer = arguments
    check_device(arguments[0])
    call = _Call(tuple(tensors))
    return implementations.forward(*call.operands, call.norm, None, eps, layer)


def forward_training(*arguments: Any) -> Results:
    *tensors, momentum, eps, layer = arguments
    check_device(arguments[0])
    call = _Call(tuple(tensors))
    results = implementations.forward(*call.operands, call.norm, momentum, eps, layer)
    call.updated()
    return results


def backward(
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


def fake_forward(*arguments: Any) -> Results:
    call = _Call(arguments[:8])
    return implementations.fake_forward(*call.operands, call.norm, len(arguments) == 11, arguments[-1])


def fake_infer(*arguments: Any) -> Tensor:
    return fake_forward(*arguments)[0]


def fake_backward(
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
