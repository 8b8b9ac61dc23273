"""What a call of `conv_norm_act` needs besides its tensors, worked out once per layer, sizes, layouts and dtype.

`norm` is the norm's tensors in the operators' order: weight, bias, running mean, running variance, each (K,) or None.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tidepool.kernels.layer.formats import empty_in_format, is_channels_last, output_format
from tidepool.kernels.layer.norm_settings import NormSettings
from tidepool.kernels.layer.saved import empty_saved
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.norm.forward import (
    NormedLayer,
    Parts,
    saves_code,
    statistics_parts,
)
from tidepool.kernels.norm.statistics import statistics_dtype
from tidepool.kernels.operators.call import Blank, LayerCall, layer_call
from tidepool.kernels.runtime import mode
from tidepool.kernels.runtime.caches import Remembered
from tidepool.kernels.runtime.launch import operand_kind
from tidepool.kernels.runtime.mode import Mode

Norm = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True, slots=True, eq=False)
class NormCall:
    """A layer met with tensors of given sizes and strides: its geometry and the results to allocate.

    `conv_code` and `code` are what forward saves for backward (None: nothing), `parts` where statistics are written
    (`pixels` of z in each). `convolution`: the layer of the convolution alone, whose gradients follow dz. `launches`:
    kernels made ready, by what they depend on besides.
    """

    settings: NormSettings
    layer: NormedLayer
    convolution: LayerCall
    z: Blank
    y: Blank
    conv_code: Blank | None
    code: Blank | None
    coefficients: Blank
    parts: Blank
    pixels: int
    empty: bool
    launches: dict[Any, Callable[..., Any]] = field(default_factory=dict)

    def made_ready(self, key: tuple[Any, ...], make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """The launch kept under `key`, made at the first call."""
        key = (mode.forced, *key)
        launch = self.launches.get(key)
        if launch is None:
            launch = self.launches[key] = make()
        return launch


@functools.lru_cache(maxsize=4096)
def normed_layer(x_size: torch.Size, weight_size: torch.Size, settings: NormSettings) -> NormedLayer:
    """The layer's geometry on tensors of these sizes."""
    return build_normed_layer(x_size, weight_size, settings)


def build_normed_layer(x_size: torch.Size, weight_size: torch.Size, settings: NormSettings) -> NormedLayer:
    """`normed_layer` of sizes that may be symbolic."""
    geometry, shapes = build_geometry(x_size, weight_size, settings.convolution)
    z_size = (x_size[0], weight_size[0], *shapes.output[3 - geometry.rank :])
    ones = (weight_size[0], 1, *(1,) * geometry.rank)
    return NormedLayer(geometry, shapes, *build_geometry(z_size, ones, settings.norm))


def empty_z(x: Tensor, weight: Tensor, layer: NormedLayer) -> Tensor:
    """The unwritten output of the convolution (and its pool)."""
    size = (layer.conv_shapes.batch, weight.shape[0], *layer.conv_shapes.output[3 - layer.conv.rank :])
    return empty_in_format(size, x, output_format(x, weight))


def empty_y(z: Tensor, residual: Tensor | None, layer: NormedLayer) -> Tensor:
    """The unwritten result, of the dtype of z promoted with the residual's."""
    size = (z.shape[0], z.shape[1], *layer.norm_shapes.output[3 - layer.conv.rank :])
    dtype = z.dtype if residual is None else torch.promote_types(z.dtype, residual.dtype)
    return empty_in_format(size, z, is_channels_last(z), dtype)


def empty_code(y: Tensor, residual: Tensor | None, layer: NormedLayer) -> Tensor | None:
    """Unwritten codes of y; None where backward needs none."""
    if not saves_code(layer.norm, residual is not None):
        return None
    return empty_saved(y, layer.written, layer.norm_shapes)[0]


def norm_call(x: Tensor, weight: Tensor, residual: Tensor | None, settings: NormSettings) -> NormCall:
    """The NormCall of a layer that fits x (N, C, *spatial), weight and residual (its dtype is all that counts)."""
    return _norm_call(
        mode.forced, x.shape, x.stride(), x.dtype, x.device, weight.shape, weight.stride(),
        None if residual is None else residual.dtype, operand_kind(x.dtype, x.device), settings,
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _like_contiguous(size: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.empty(size, dtype=dtype, device="meta")


def norm_call_behind(
    z: Tensor,
    x_size: torch.Size,
    weight_size: torch.Size,
    residual_dtype: torch.dtype | None,
    settings: NormSettings,
) -> NormCall:
    """A NormCall for the backward of the norm alone, whose launches go by the layouts of what they are given."""
    x, weight = _like_contiguous(x_size, z.dtype), _like_contiguous(weight_size, z.dtype)
    return _norm_call(
        mode.forced, x_size, x.stride(), z.dtype, z.device, weight_size, weight.stride(), residual_dtype,
        operand_kind(z.dtype, z.device), settings,
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _norm_call(
    forced: Mode | None,
    x_size: torch.Size,
    x_stride: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    weight_size: torch.Size,
    weight_stride: tuple[int, ...],
    residual_dtype: torch.dtype | None,
    kind: str,
    settings: NormSettings,
) -> NormCall:
    # Formats and results are read off tensors without memory.
    x = torch.empty_strided(x_size, x_stride, dtype=dtype, device="meta")
    weight = torch.empty_strided(weight_size, weight_stride, dtype=dtype, device="meta")
    layer = normed_layer(x_size, weight_size, settings)
    z = empty_z(x, weight, layer)
    residual = None if residual_dtype is None else torch.empty(z.shape, dtype=residual_dtype, device="meta")
    y = empty_y(z, residual, layer)
    conv_code, code = empty_saved(z, layer.conv, layer.conv_shapes)[0], empty_code(y, residual, layer)
    filters, kept = weight_size[0], statistics_dtype(dtype)
    parts = Parts(0, 0) if z.numel() == 0 else statistics_parts(dtype, device, layer)
    return NormCall(
        settings=settings,
        layer=layer,
        convolution=layer_call(x, weight, settings.convolution, device),
        z=_blank(z, device),
        y=_blank(y, device),
        conv_code=None if conv_code is None else _blank(conv_code, device),
        code=None if code is None else _blank(code, device),
        coefficients=_rows(kept, device, 4, filters),
        parts=_rows(kept, device, parts.count, 2, filters),
        pixels=parts.pixels,
        empty=z.numel() == 0,
    )


KNOWN: Remembered[NormCall] = Remembered()
"""Calls on plain tensors that were checked before, by everything that the checks and the results' layouts depend on."""


def forget_norm_calls() -> None:
    """As `call.forget_calls`, of layers with a norm."""
    KNOWN.clear()
    _norm_call.cache_clear()


def _blank(tensor: Tensor, device: torch.device) -> Blank:
    return Blank(tensor.shape, tensor.stride(), tensor.dtype, device)


def _rows(dtype: torch.dtype, device: torch.device, *size: int) -> Blank:
    return _blank(torch.empty(size, dtype=dtype, device="meta"), device)
