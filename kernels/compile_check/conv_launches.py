"""What a layer of `conv_act_pool` launches: forward, both gradients and the passes around them, at the rules' tiles;
and every shipped tile by itself, chosen by a rule or not."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tidepool.kernels.compile_check.compile import dtypes_on
from tidepool.kernels.compile_check.conv_cases import CASES, Case
from tidepool.kernels.conv.choose import conv_act_pool_dgrad, conv_act_pool_forward, conv_act_pool_wgrad
from tidepool.kernels.conv.epilogue import conv_act_pool_epilogue, conv_act_pool_unpool
from tidepool.kernels.conv.learned_slope import conv_act_pool_slope
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.dtypes import BY_NAME
from tidepool.kernels.layer.formats import empty_in_format
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.learned_slope import behind_slope
from tidepool.kernels.layer.saved import empty_saved
from tidepool.kernels.layer.settings import Layer
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.operators.conv_implementations import values_of
from tidepool.kernels.runtime.launch import channels_are_neighbours, operand_kind
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.runtime.targets import Target
from tidepool.kernels.tiles import dense as tiles
from tidepool.kernels.tiles import hopper as hopper_tiles
from tidepool.kernels.tiles.few_channels import FEW_CHANNELS, FEW_CHANNELS_TARGETS
from tidepool.kernels.tiles.windowed import windowed_dgrad_tiles, windowed_wgrad_tiles

_DTYPE_OF = {"half": "bf16", "tf32": "tf32", "ieee": "fp32"}
_PROGRAMS_WANTED = 512


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """A layer's tensors, on the CPU and unwritten: compiling asks for dtypes, sizes, strides and alignment only."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    conv: Tensor
    y: Tensor
    code: Tensor | None
    winner: Tensor | None
    saved: Tensor | None
    slope: Tensor | None
    geometry: Geometry
    shapes: Shapes
    layer: Layer

    def forward(self, tile: Any = None) -> None:
        conv_act_pool_forward(
            self.x, self.weight, self.bias, self.y, self.code, self.winner, self.geometry, self.shapes, tile,
            slope=self.slope,
        )  # fmt: skip

    def infer(self) -> None:
        conv_act_pool_forward(
            self.x, self.weight, self.bias, self.y, None, None, self.geometry, self.shapes, slope=self.slope
        )

    def dgrad(self, tile: Any = None) -> Tensor:
        """dx, with y for its own gradient."""
        dx = torch.empty_like(self.x)
        conv_act_pool_dgrad(self.y, self.code, self.saved, self.weight, dx, self.geometry, self.shapes, tile)
        return dx

    def wgrad(self, tile: Any = None) -> tuple[Tensor, Tensor]:
        """dweight and dbias, with y for its own gradient."""
        dweight, dbias = torch.empty_like(self.weight), torch.empty_like(self.bias)
        conv_act_pool_wgrad(self.y, self.code, self.saved, self.x, dweight, dbias, self.geometry, self.shapes, tile)
        return dweight, dbias

    def bias_gradient(self) -> None:
        conv_act_pool_wgrad(self.y, self.code, self.saved, self.x, None, self.bias, self.geometry, self.shapes)

    def passes(self) -> None:
        conv_act_pool_epilogue(
            self.conv, self.bias, self.y, self.code, self.winner, self.geometry, self.shapes, slope=self.slope
        )
        if self.slope is None:
            conv_act_pool_unpool(self.y, self.code, self.saved, torch.empty_like(self.conv), self.geometry, self.shapes)

    def slope_pass(self) -> "Tensors":
        """The pass over the values that were kept, for one slope and for one a filter; returns the layer behind it."""
        assert self.saved is not None
        assert self.slope is not None
        dz, values = torch.empty_like(self.saved), values_of(self.saved.shape, self.layer)
        for slope in (self.slope, self.slope[:1]):
            conv_act_pool_slope(self.y, self.saved, slope, dz, torch.empty_like(slope), *values)
        conv_act_pool_slope(self.y, self.saved, self.slope, dz, None, *values)
        layer = behind_slope(self.layer)
        geometry, shapes = build_geometry(self.x.shape, self.weight.shape, layer)
        behind: dict[str, Any] = {"y": dz, "winner": None, "saved": None, "slope": None}
        return replace(self, **behind, geometry=geometry, shapes=shapes, layer=layer)


def tensors_of(case: Case, dtype: str) -> Tensors:
    """The tensors of a layer in a dtype of BY_NAME."""
    layer = parse_layer(case.weight[2:], **case.options)
    geometry, shapes = build_geometry(case.x, case.weight, layer)
    like = torch.empty(0, dtype=BY_NAME[dtype])

    def tensor(*size: int) -> Tensor:
        return empty_in_format(size, like, case.channels_last and len(case.x) > 3)

    y = tensor(case.x[0], case.weight[0], *shapes.output[3 - geometry.rank :])
    code, winner = empty_saved(y, geometry, shapes)
    slope = like.new_empty(case.weight[0]) if layer.activation.learned else None
    conv = tensor(case.x[0], case.weight[0], *shapes.conv[3 - geometry.rank :])
    return Tensors(
        x=tensor(*case.x),
        weight=tensor(*case.weight),
        bias=like.new_empty(case.weight[0]),
        conv=conv,
        y=y,
        code=code,
        winner=winner,
        saved=conv if geometry.smooth and geometry.pool == "avg" else winner,
        slope=slope,
        geometry=geometry,
        shapes=shapes,
        layer=layer,
    )


def launch_gradients(case: Case, dtype: str) -> None:
    """Both gradients of a layer, at the tiles the rules pick."""
    t = tensors_of(case, dtype)
    if t.slope is not None:
        t = t.slope_pass()
    if case.input_gradient:
        t.dgrad()
    t.wgrad()


def launch_case(case: Case, dtype: str) -> None:
    """Forward, both gradients, the reduction and the passes around a convolution at the tiles the rules pick; of some
    layers forward alone."""
    t = tensors_of(case, dtype)
    t.forward()
    if not t.geometry.depthwise:  # where forward has a kernel for some tensors only, the one for all others as well
        kind, target = operand_kind(t.x.dtype, t.x.device), mode_of(t.x.device).target
        t.forward(tiles.forward_tile(t.geometry, t.shapes.num_outputs, target, kind, channels_are_neighbours(t.x)))
    if case.forward_only:
        return
    launch_gradients(case, dtype)
    t.passes()
    if case.without_gradients:
        t.infer()
        (t if t.slope is None else t.slope_pass()).bias_gradient()


@dataclass(frozen=True)
class ShippedTile:
    """A shipped tile, on a layer in one dtype: of "forward", "dgrad" or "wgrad"."""

    case: Case
    dtype: str
    launcher: str
    tile: Any

    def launch(self) -> None:
        """Launch it on unwritten tensors."""
        launch: Callable[[Any], object] = getattr(tensors_of(self.case, self.dtype), self.launcher)
        launch(self.tile)


def shipped_tiles(target: Target, cases: Iterable[Case] = CASES) -> Iterator[ShippedTile]:
    """Every tile in the shipped lists that declares `target`, for each kind of operands it takes, on the case of
    `cases` that the list is tried on."""
    named = {case.name: case for case in cases}
    for launcher, shipped_list in (
        ("forward", (*tiles.FORWARD, *tiles.FORWARD_IN_STEPS)),
        ("dgrad", tiles.DGRAD),
        ("wgrad", tiles.WGRAD),
    ):
        for shipped in shipped_list:
            if target in shipped.targets:
                case = named["stem_7x7_s2" if shipped.heavy else "3x3_pool2"]
                for dtype in dtypes_on(target, tuple(_DTYPE_OF[kind] for kind in shipped.operands)):
                    yield ShippedTile(case, dtype, launcher, _made(shipped, launcher, tensors_of(case, dtype)))
    for case in (named["3x3_c256"], named["overlap_3_2"]):
        t = tensors_of(case, "bf16")
        for dgrad in windowed_dgrad_tiles(t.geometry, t.shapes.phase_pixels(t.geometry), target, "half"):
            yield ShippedTile(case, "bf16", "dgrad", dgrad)
        for wgrad in windowed_wgrad_tiles(t.geometry, t.shapes.conv_pixels, target, "half", _PROGRAMS_WANTED):
            yield ShippedTile(case, "bf16", "wgrad", wgrad)
    hopper = hopper_tiles.shipped_hopper_tiles() if target is hopper_tiles.HOPPER_TARGET else []
    few_channels = FEW_CHANNELS if target in FEW_CHANNELS_TARGETS else ()
    for name, boxed in (("3x3_pool2", hopper), ("rgb_3x3_pool2", few_channels)):
        for tile in boxed:
            yield ShippedTile(named[name], "bf16", "forward", tile)


def _made(shipped: tiles.Shipped, launcher: str, t: Tensors) -> Any:
    if launcher == "forward":
        return tiles.forward_tile_of(shipped, t.geometry)
    if launcher == "dgrad":
        return tiles.dgrad_tile_of(shipped, t.geometry)
    return tiles.wgrad_tile_of(shipped, t.geometry, t.shapes.conv_pixels, programs_wanted=_PROGRAMS_WANTED)
