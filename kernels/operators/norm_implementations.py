"""Real and fake implementations of the `tidepool::conv_norm_act*` operators.

A real implementation allocates results as a `NormCall` says and launches kernels. A fake one gives sizes, dtypes and
formats only, sizes possibly symbolic.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tidepool.kernels.layer.formats import strides
from tidepool.kernels.layer.norm_checks import check_norm_sizes, check_norm_tensors
from tidepool.kernels.layer.norm_settings import NormSettings
from tidepool.kernels.layer.saved import empty_saved
from tidepool.kernels.norm.backward import Saved, bind_dnorm, bind_reduce
from tidepool.kernels.norm.forward import bind_convolution, bind_inference, bind_normalise, saves_residual
from tidepool.kernels.norm.statistics import bind_coefficients, statistics_dtype
from tidepool.kernels.operators.call import Blank
from tidepool.kernels.operators.conv_implementations import or_nothing
from tidepool.kernels.operators.norm_call import (
    Norm,
    NormCall,
    build_normed_layer,
    empty_code,
    empty_y,
    empty_z,
)

Results = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""y, z, the convolution's code, the coefficients and the norm's code; empty where nothing has to be saved."""


# --- Real implementations --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Normed:
    """What forward leaves: the result, and what backward needs (None: not needed)."""

    y: Tensor
    z: Tensor
    conv_code: Tensor | None
    coefficients: Tensor
    code: Tensor | None

    def as_results(self) -> Results:
        """As an operator returns them."""
        conv_code, code = or_nothing(self.conv_code, self.z), or_nothing(self.code, self.z)
        return self.y, self.z, conv_code, self.coefficients, code


def infer(
    x: Tensor,
    weight: Tensor,
    conv_bias: Tensor | None,
    residual: Tensor | None,
    norm: Norm,
    eps: float,
    call: NormCall,
) -> Tensor:
    """y with running statistics; nothing is saved. One kernel, or two where the residual is wider than x."""
    y_blank = call.y
    if y_blank.dtype != x.dtype or call.empty:
        return forward(x, weight, conv_bias, residual, norm, None, eps, call).y
    y = y_blank.allocate()
    layouts = (x.stride(), weight.stride(), strides(residual))
    launch = call.made_ready(
        ("infer", layouts, conv_bias is None, eps),
        lambda: bind_inference(x, weight, conv_bias, norm, residual, y, call.layer, eps),
    )
    launch(x, weight, conv_bias, norm, residual, y)
    return y


def forward(
    x: Tensor,
    weight: Tensor,
    conv_bias: Tensor | None,
    residual: Tensor | None,
    norm: Norm,
    momentum: float | None,
    eps: float,
    call: NormCall,
) -> Normed:
    """y and what backward needs; `momentum` None: with the running statistics, else with the batch's."""
    z, y = call.z.allocate(), call.y.allocate()
    conv_code, code, coefficients = _allocated(call.conv_code), _allocated(call.code), call.coefficients.allocate()
    if call.empty:  # nothing to normalise, and running statistics stay, as PyTorch has it
        return Normed(y, z, conv_code, coefficients.zero_(), code)
    parts = None if momentum is None else call.parts.allocate()
    convolve = call.made_ready(
        ("convolve", x.stride(), weight.stride(), conv_bias is None, parts is None, x.data_ptr() % 16 == 0),
        lambda: bind_convolution(x, weight, conv_bias, z, conv_code, parts, call.layer),
    )
    convolve(x, weight, conv_bias, z, conv_code, parts)
    _launch_coefficients(coefficients, parts, norm, momentum, eps, call)
    normalise = call.made_ready(
        ("normalise", strides(residual)), lambda: bind_normalise(z, residual, y, code, call.layer)
    )
    normalise(z, coefficients, residual, y, code)
    return Normed(y, z, conv_code, coefficients, code)


def _allocated(blank: Blank | None) -> Tensor | None:
    return None if blank is None else blank.allocate()


def _launch_coefficients(
    coefficients: Tensor, parts: Tensor | None, norm: Norm, momentum: float | None, eps: float, call: NormCall
) -> None:
    z, pixels = call.z, call.layer.norm_shapes.conv_pixels
    count = None if parts is None else parts.shape[0]
    launch = call.made_ready(
        ("coefficients", count is None, eps),
        lambda: bind_coefficients(z.dtype, z.device, z.size[1], pixels, count, call.pixels, eps),
    )
    launch(coefficients, parts, *norm, momentum or 0.0)


def backward(
    grad: Tensor,
    z: Tensor,
    code: Tensor | None,
    coefficients: Tensor,
    residual: Tensor | None,
    norm_dtype: torch.dtype,
    residual_dtype: torch.dtype | None,
    training: bool,
    needs: tuple[bool, bool, bool, bool],
    call: NormCall,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients at z, residual, norm weight and norm bias, those that `needs` names in this order; None for others."""
    dz, dresidual, dweight, dbias = empty_gradients(z, norm_dtype, residual_dtype, needs)
    if call.empty:
        for gradient in (dweight, dbias):
            if gradient is not None:
                gradient.zero_()
        return dz, dresidual, dweight, dbias
    saved = Saved(z, code, coefficients.contiguous(), residual)  # a hook may bring it back in other strides
    has_residual, means = residual_dtype is not None, None
    layouts = (grad.stride(), z.stride(), strides(code), strides(residual), has_residual)
    if dweight is not None or dbias is not None or (training and dz is not None):
        reduce = call.made_ready(("reduce", layouts), lambda: bind_reduce(grad, saved, call.layer, has_residual))
        means = reduce(grad, saved, dweight, dbias)
    if dz is not None or dresidual is not None:
        dnorm = call.made_ready(
            ("dnorm", layouts, dz is None, strides(dresidual)),
            lambda: bind_dnorm(grad, saved, dz, dresidual, call.layer, has_residual),
        )
        dnorm(grad, saved, means if training else None, dz, dresidual)
    return dz, dresidual, dweight, dbias


def empty_gradients(
    z: Tensor, norm_dtype: torch.dtype, residual_dtype: torch.dtype | None, needs: tuple[bool, bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Unwritten gradients at z, residual, norm weight and norm bias; None for those that `needs` does not name."""
    return (
        torch.empty_like(z) if needs[0] else None,
        torch.empty_like(z, dtype=residual_dtype) if needs[1] else None,
        z.new_empty(z.shape[1], dtype=norm_dtype) if needs[2] else None,
        z.new_empty(z.shape[1], dtype=norm_dtype) if needs[3] else None,
    )


# --- Fake implementations: sizes, dtypes and formats, sizes possibly symbolic -----------------------------------------


def fake_forward(
    x: Tensor,
    weight: Tensor,
    conv_bias: Tensor | None,
    residual: Tensor | None,
    norm: Norm,
    training: bool,
    settings: NormSettings,
) -> Results:
    """As `forward`, unwritten; checks what the public function checks."""
    groups = settings.convolution.groups
    check_norm_tensors(x, weight, *norm, conv_bias, residual, groups, training)
    check_norm_sizes(x.shape, weight.shape, None if residual is None else residual.shape, training, settings)
    layer = build_normed_layer(x.shape, weight.shape, settings)
    z = empty_z(x, weight, layer)
    y = empty_y(z, residual, layer)
    conv_code = empty_saved(z, layer.conv, layer.conv_shapes)[0]
    coefficients = z.new_empty(4, z.shape[1], dtype=statistics_dtype(z.dtype))
    return y, z, or_nothing(conv_code, x), coefficients, or_nothing(empty_code(y, residual, layer), x)


def residual_for_backward(residual: Tensor | None, settings: NormSettings) -> Tensor | None:
    """The residual where backward needs it again."""
    return residual if residual is not None and saves_residual(settings.norm.activation, settings.norm.pool) else None
