"""What a call of the op needs besides its tensors, worked out once per layer, sizes, layouts, dtype and device."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tidepool.kernels.layer import learned_slope
from tidepool.kernels.layer.formats import empty_in_format, is_channels_last, output_format
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.saved import empty_saved, windows_cover
from tidepool.kernels.layer.settings import Layer, layer_from_text
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.runtime import mode
from tidepool.kernels.runtime.caches import Remembered
from tidepool.kernels.runtime.mode import Mode


@dataclass(frozen=True, slots=True)
class Blank:
    """A result to be allocated, unwritten or zeroed, at every call."""

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    zeroed: bool = False

    def allocate(self) -> Tensor:
        """By strides: `torch.empty` with a memory format takes half as long again."""
        tensor = torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device)
        return tensor.zero_() if self.zeroed else tensor


@dataclass(frozen=True, slots=True, eq=False)
class LayerCall:
    """A layer met with tensors of given sizes and strides: its geometry and the results to allocate.

    `code` and `winner` are what forward saves for backward (None: nothing). `smooth_average`: backward computes the
    convolution again. `behind_slope`: what is left of backward behind a learned slope, if there is one. `device_type`
    is what autocast asks by. `launches`: kernels made ready, by what they depend on besides.
    """

    layer: Layer
    geometry: Geometry
    shapes: Shapes
    y: Blank
    code: Blank | None
    winner: Blank | None
    dx: Blank
    x_channels_last: bool
    smooth_average: bool
    behind_slope: "LayerCall | None"
    device_type: str
    launches: dict[Any, Callable[..., None]] = field(default_factory=dict)


@functools.lru_cache(maxsize=4096)
def geometry_of(x_size: torch.Size, weight_size: torch.Size, text: str) -> tuple[Geometry, Shapes]:
    """Geometry of the layer that wrote `text`, as operators are given it, on tensors of these sizes.

    The same objects every time: looking launches up by them compares nothing.
    """
    return build_geometry(x_size, weight_size, layer_from_text(text))


def layer_call(x: Tensor, weight: Tensor, layer: Layer, device: torch.device | None = None) -> LayerCall:
    """The LayerCall of a layer that fits x (N, C, *spatial) and weight; on x's device unless told."""
    device = x.device if device is None else device
    return _layer_call(mode.forced, x.shape, x.stride(), x.dtype, device, weight.shape, weight.stride(), layer)


@functools.lru_cache(maxsize=4096)
def _layer_call(
    forced: Mode | None,
    x_size: torch.Size,
    x_stride: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    weight_size: torch.Size,
    weight_stride: tuple[int, ...],
    layer: Layer,
) -> LayerCall:
    # Formats and results are read off tensors without memory.
    x = torch.empty_strided(x_size, x_stride, dtype=dtype, device="meta")
    weight = torch.empty_strided(weight_size, weight_stride, dtype=dtype, device="meta")
    geometry, shapes = geometry_of(x_size, weight_size, layer.text())
    channels_last = is_channels_last(x)
    size = (shapes.batch, weight_size[0], *shapes.output[3 - geometry.rank :])
    y = empty_in_format(size, x, output_format(x, weight))
    code, winner = empty_saved(y, geometry, shapes)
    zeroed = geometry.saves_bits and not windows_cover(geometry, shapes)
    return LayerCall(
        layer,
        geometry,
        shapes,
        _blank(y, device),
        None if code is None else _blank(code, device, zeroed),
        None if winner is None else _blank(winner, device),
        _blank(empty_in_format(x_size, x, channels_last), device),
        channels_last,
        layer.smooth_average,
        _layer_call(
            forced, x_size, x_stride, dtype, device, weight_size, weight_stride, learned_slope.behind_slope(layer)
        )
        if layer.activation.learned
        else None,
        device.type,
    )


def _blank(tensor: Tensor, device: torch.device, zeroed: bool = False) -> Blank:
    return Blank(tensor.shape, tensor.stride(), tensor.dtype, device, zeroed)


KNOWN: Remembered[LayerCall] = Remembered()
"""Calls on plain tensors that were checked before, by everything that the checks and the results' layouts depend on: a
small network's step is short, and most of it would be spent there."""


def forget_calls() -> None:
    """Forget every call and the launches made ready with it: for tests that change what a launch would decide."""
    KNOWN.clear()
    _layer_call.cache_clear()
