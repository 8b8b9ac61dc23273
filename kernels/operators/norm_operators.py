"""The `tidepool::conv_norm_act*` operators as they are called: arguments in the order of their schemas, sorted and
handed to `operators.norm_implementations`. `layer` is the text of a `layer.norm_settings.NormSettings`, parsed here."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tidepool.kernels.layer.norm_settings import norm_settings_from_text
from tidepool.kernels.operators import norm_implementations as implementations
from tidepool.kernels.operators.conv_implementations import check_device, or_nothing
from tidepool.kernels.operators.norm_call import Norm, NormCall, norm_call, norm_call_behind
from tidepool.kernels.operators.norm_implementations import Results


class Tensors(NamedTuple):
    """The tensors that every operator begins with, in the order of the schemas."""

    x: Tensor
    weight: Tensor
    norm_weight: Tensor | None
    norm_bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    conv_bias: Tensor | None
    residual: Tensor | None

    @property
    def operands(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        return self.x, self.weight, self.conv_bias, self.residual

    @property
    def norm(self) -> Norm:
        return self.norm_weight, self.norm_bias, self.running_mean, self.running_var

    def call(self, layer: str) -> NormCall:
        """What the layer that wrote `layer` makes of these tensors."""
        return norm_call(self.x, self.weight, self.residual, norm_settings_from_text(layer))

    @property
    def differentiated(self) -> tuple[Tensor | None, ...]:
        return self.x, self.weight, self.norm_weight, self.norm_bias, self.conv_bias, self.residual


def infer(*arguments: Any) -> Tensor:
    *given, eps, layer = arguments
    tensors = Tensors(*given)
    check_device(tensors.x)
    return implementations.infer(*tensors.operands, tensors.norm, eps, tensors.call(layer))


def infer_training(*arguments: Any) -> Tensor:
    return forward_training(*arguments)[0]


def forward(*arguments: Any) -> Results:
    *given, eps, layer = arguments
    tensors = Tensors(*given)
    check_device(tensors.x)
    return implementations.forward(*tensors.operands, tensors.norm, None, eps, tensors.call(layer)).as_results()


def forward_training(*arguments: Any) -> Results:
    *given, momentum, eps, layer = arguments
    tensors = Tensors(*given)
    check_device(tensors.x)
    return train(tensors, momentum, eps, tensors.call(layer)).as_results()


def train(tensors: Tensors, momentum: float, eps: float, call: NormCall) -> implementations.Normed:
    """`implementations.forward` with the batch's statistics; the running ones, if given, are updated."""
    normed = implementations.forward(*tensors.operands, tensors.norm, momentum, eps, call)
    for statistics in (tensors.running_mean, tensors.running_var):
        if statistics is not None and not statistics.is_inference():
            # What autograd's own in-place operators do: a graph that needs the old values notices.
            torch.autograd.graph.increment_version(statistics)
    return normed


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
    settings = norm_settings_from_text(layer)
    call = norm_call_behind(z, torch.Size(x_size), torch.Size(weight_size), residual_dtype, settings)
    gradients = implementations.backward(
        grad, z, code if code.dim() > 1 else None, coefficients, residual, norm_dtype, residual_dtype, training,
        (needs[0], needs[1], needs[2], needs[3]), call,
    )  # fmt: skip
    return tuple(or_nothing(gradient, grad) for gradient in gradients)


def fake_forward(*arguments: Any) -> Results:
    *given, _, layer = arguments
    tensors = Tensors(*given)
    return implementations.fake_forward(*tensors.operands, tensors.norm, False, norm_settings_from_text(layer))


def fake_forward_training(*arguments: Any) -> Results:
    *given, _, _, layer = arguments
    tensors = Tensors(*given)
    return implementations.fake_forward(*tensors.operands, tensors.norm, True, norm_settings_from_text(layer))


def fake_infer(*arguments: Any) -> Tensor:
    return fake_forward(*arguments)[0]


def fake_infer_training(*arguments: Any) -> Tensor:
    return fake_forward_training(*arguments)[0]


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
