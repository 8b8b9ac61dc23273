"""Real and fake implementations of the `tidepool::conv_norm_act*` operators.

`norm` is the norm's tensors in the operators' order: weight, bias, running mean, running variance, each (K,) or None.
"""

import functools

import torch
from torch import Tensor

from tidepool.kernels.layer.formats import empty_in_format, is_channels_last, output_format
from tidepool.kernels.layer.norm_checks import check_norm_sizes, check_norm_tensors
from tidepool.kernels.layer.norm_settings import NormSettings
from tidepool.kernels.layer.saved import empty_saved
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.norm.backward import Saved, conv_norm_act_dnorm, conv_norm_act_reduce
from tidepool.kernels.norm.forward import (
    NormedLayer,
    conv_norm_act_infer,
    conv_norm_act_normalise,
    convolve,
    convolve_with_statistics,
    saves_code,
    saves_residual,
)
from tidepool.kernels.norm.statistics import conv_norm_act_coefficients, statistics_dtype
from tidepool.kernels.operators.conv_implementations import or_nothing

Norm = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
Results = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""y, z, the convolution's code, the coefficients and the norm's code; empty where nothing has to be saved."""


@functools.lru_cache(maxsize=4096)
def normed_layer(x_size: torch.Size, weight_size: torch.Size, settings: NormSettings) -> NormedLayer:
    """The layer's geometry on tensors of these sizes."""
    return _normed_layer(x_size, weight_size, settings)


def _normed_layer(x_size: torch.Size, weight_size: torch.Size, settings: NormSettings) -> NormedLayer:
    geometry, shapes = build_geometry(x_size, weight_size, settings.convolution)
    z_size = (x_size[0], weight_size[0], *shapes.output[3 - geometry.rank :])
    ones = (weight_size[0], 1, *(1,) * geometry.rank)
    return NormedLayer(geometry, shapes, *build_geometry(z_size, ones, settings.norm))


def _empty_z(x: Tensor, weight: Tensor, layer: NormedLayer) -> Tensor:
    size = (layer.conv_shapes.batch, weight.shape[0], *layer.conv_shapes.output[3 - layer.conv.rank :])
    return empty_in_format(size, x, output_format(x, weight))


def _empty_y(z: Tensor, residual: Tensor | None, layer: NormedLayer) -> Tensor:
    size = (z.shape[0], z.shape[1], *layer.norm_shapes.output[3 - layer.conv.rank :])
    return empty_in_format(size, z, is_channels_last(z), _y_dtype(z, residual))


def _y_dtype(x: Tensor, residual: Tensor | None) -> torch.dtype:
    return x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)


def _empty_code(y: Tensor, residual: Tensor | None, layer: NormedLayer) -> Tensor | None:
    """Unwritten codes of y; None where backward needs none."""
    if not saves_code(layer.norm, residual is not None):
        return None
    return empty_saved(y, layer.written, layer.norm_shapes)[0]


# --- Real implementations --------------------------------------------------------------------------------------------


def infer(
    x: Tensor,
    weight: Tensor,
    conv_bias: Tensor | None,
    residual: Tensor | None,
    norm: Norm,
    eps: float,
    settings: NormSettings,
) -> Tensor:
    """y with running statistics; nothing is saved. One kernel, or two where the residual is wider than x."""
    layer = normed_layer(x.shape, weight.shape, settings)
    if _y_dtype(x, residual) != x.dtype:
        return _forward(x, weight, conv_bias, residual, norm, None, eps, settings)[0]
    size = (x.shape[0], weight.shape[0], *layer.norm_shapes.output[3 - layer.conv.rank :])
    y = empty_in_format(size, x, output_format(x, weight))
    conv_norm_act_infer(x, weight, conv_bias, norm, residual, y, layer, eps)
    return y


def forward(
    x: Tensor,
    weight: Tensor,
    conv_bias: Tensor | None,
    residual: Tensor | None,
    norm: Norm,
    momentum: float | None,
    eps: float,
    settings: NormSettings,
) -> Results:
    """y and what backward needs; `momentum` None: with the running statistics, else with the batch's."""
    y, z, conv_code, coefficients, code = _forward(x, weight, conv_bias, residual, norm, momentum, eps, settings)
    return y, z, or_nothing(conv_code, x), coefficients, or_nothing(code, x)


def _forward(
    x: Tensor,
    weight: Tensor,
    conv_bias: Tensor | None,
    residual: Tensor | None,
    norm: Norm,
    momentum: float | None,
    eps: float,
    settings: NormSettings,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None]:
    layer = normed_layer(x.shape, weight.shape, settings)
    z = _empty_z(x, weight, layer)
    y = _empty_y(z, residual, layer)
    code = _empty_code(y, residual, layer)
    if z.numel() == 0:  # nothing to normalise, and running statistics stay, as PyTorch has it
        conv_code = empty_saved(z, layer.conv, layer.conv_shapes)[0]
        return y, z, conv_code, z.new_zeros(4, z.shape[1], dtype=statistics_dtype(z.dtype)), code
    parts, chunk = None, 0
    if momentum is None:
        conv_code = convolve(x, weight, conv_bias, z, layer)
    else:
        conv_code, parts, chunk = convolve_with_statistics(x, weight, conv_bias, z, layer)
    coefficients = conv_norm_act_coefficients(z, parts, chunk, *norm, momentum or 0.0, eps)
    conv_norm_act_normalise(z, coefficients, residual, y, code, layer)
    return y, z, conv_code, coefficients, code


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
    x_size: torch.Size,
    weight_size: torch.Size,
    settings: NormSettings,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients at z, residual, norm weight and norm bias, those that `needs` names in this order; None for others."""
    layer = normed_layer(x_size, weight_size, settings)
    dz, dresidual, dweight, dbias = empty_gradients(z, norm_dtype, residual_dtype, needs)
    if z.numel() == 0:
        for gradient in (dweight, dbias):
            if gradient is not None:
                gradient.zero_()
        return dz, dresidual, dweight, dbias
    saved = Saved(z, code, coefficients.contiguous(), residual)  # a hook may bring it back in other strides
    has_residual = residual_dtype is not None
    means = None
    if dweight is not None or dbias is not None or (training and dz is not None):
        means = conv_norm_act_reduce(grad, saved, dweight, dbias, layer, has_residual)
    if dz is not None or dresidual is not None:
        conv_norm_act_dnorm(grad, saved, means if training else None, dz, dresidual, layer, has_residual)
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
    layer = _normed_layer(x.shape, weight.shape, settings)
    z = _empty_z(x, weight, layer)
    y = _empty_y(z, residual, layer)
    conv_code = empty_saved(z, layer.conv, layer.conv_shapes)[0]
    coefficients = z.new_empty(4, z.shape[1], dtype=statistics_dtype(z.dtype))
    return y, z, or_nothing(conv_code, x), coefficients, or_nothing(_empty_code(y, residual, layer), x)


def residual_for_backward(residual: Tensor | None, settings: NormSettings) -> Tensor | None:
    """The residual where backward needs it again."""
    return residual if residual is not None and saves_residual(settings.norm.activation, settings.norm.pool) else None
