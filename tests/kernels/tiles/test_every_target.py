"""Every rule has a tile for every layer on every card, within the card's limits, and `auto` a plan."""

import itertools
from typing import Any

import pytest
import torch

from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.auto.plan import assumed_plan, candidates
from tidepool.kernels.auto.roofline import PASSES, VARIANTS, layer_cost, reference_device
from tidepool.kernels.conv.epilogue import pass_tile
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.runtime.targets import TARGETS, Target, UnsupportedTarget, target_of
from tidepool.kernels.tiles import dense, few_channels, hopper, windowed
from tidepool.kernels.tiles.dense import DgradTile, ForwardTile, Shipped, WgradTile
from tidepool.kernels.tiles.norm import norm_tile
from tidepool.kernels.tiles.windowed import WindowedDgradTile, WindowedWgradTile

OPERANDS = ("half", "tf32", "ieee")
POOLS = (MaxPool(2), MaxPool(3, 2, 1), AvgPool(2), MaxPool(5), None)
ACTIVATIONS = ("relu", "silu", "gelu", None)
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "dense": ((4, 64, 28, 28), (128, 64, 3, 3), {"padding": 1}),
    "large": ((64, 256, 56, 56), (256, 256, 3, 3), {"padding": 1}),
    "one image": ((1, 512, 14, 14), (512, 512, 3, 3), {"padding": 1}),
    "few channels": ((8, 3, 32, 32), (64, 3, 3, 3), {"padding": 1}),
    "odd": ((3, 21, 17, 19), (19, 21, 3, 2), {}),
    "strided": ((4, 64, 56, 56), (128, 64, 3, 3), {"stride": 2, "padding": 1}),
    "grouped": ((4, 64, 28, 28), (64, 16, 3, 3), {"groups": 4}),
    "depthwise": ((4, 64, 28, 28), (64, 1, 3, 3), {"groups": 64}),
    "waveform": ((4, 32, 4000), (64, 32, 9), {"stride": 4}),
    "video": ((2, 16, 16, 28, 28), (32, 16, 3, 3, 3), {"padding": 1}),
}
CAPABILITIES = (80, 81, 86, 87, 88, 89, 90, 100, 101, 103, 110, 120, 121, 125)
MADE_UP = ("gfx90a", "gfx940", "gfx942", "gfx950", "gfx1100", "gfx1150", "gfx1200", "gfx1201")
CARDS = (*(target_of("cuda", number) for number in CAPABILITIES), *(target_of("hip", name) for name in MADE_UP))
EVERY = tuple(dict.fromkeys((*TARGETS, *CARDS)))


def layers() -> list[tuple[Geometry, Shapes]]:
    """Every size with every pool and activation."""
    found = []
    for (x, weight, settings), pool, activation in itertools.product(SIZES.values(), POOLS, ACTIVATIONS):
        layer = parse_layer(weight[2:], activation=activation, pool=pool, **settings)
        found.append(build_geometry(x, weight, layer))
    return found


LAYERS = layers()


@pytest.mark.parametrize("target", EVERY, ids=str)
def test_forward_and_both_gradients_have_a_tile(target: Target) -> None:
    for (geometry, shapes), operands, channels_last in itertools.product(LAYERS, OPERANDS, (True, False)):
        if geometry.depthwise:
            continue
        forward = dense.forward_tile(geometry, shapes.num_outputs, target, operands, channels_last)
        dgrad = dense.dgrad_tile(geometry, shapes.phase_pixels(geometry), target, operands, channels_last)
        wgrad = dense.wgrad_tile(geometry, shapes.conv_pixels, target, operands, 528, channels_last)
        assert isinstance(forward, ForwardTile)
        assert isinstance(dgrad, DgradTile | WindowedDgradTile)
        assert isinstance(wgrad, WgradTile | WindowedWgradTile)


@pytest.mark.parametrize("target", EVERY, ids=str)
def test_windowed_tiles_fit_the_shared_memory(target: Target) -> None:
    for geometry, shapes in LAYERS:
        for dgrad in windowed.windowed_dgrad_tiles(geometry, shapes.phase_pixels(geometry), target, "half"):
            assert windowed.dgrad_shared_bytes(dgrad, geometry) <= target.shared_block
        for wgrad in windowed.windowed_wgrad_tiles(geometry, shapes.conv_pixels, target, "half", 528):
            assert windowed.wgrad_shared_bytes(wgrad, geometry) <= target.shared_block


@pytest.mark.parametrize("target", EVERY, ids=str)
@pytest.mark.parametrize("shipped", [dense.FORWARD, dense.DGRAD, dense.WGRAD], ids=["forward", "dgrad", "wgrad"])
def test_every_kind_of_operand_has_a_tile_heavy_or_not(shipped: tuple[Shipped, ...], target: Target) -> None:
    for operands, heavy in itertools.product(OPERANDS, (True, False)):
        fitting = [s for s in shipped if target in s.targets and operands in s.operands and s.heavy == heavy]
        assert fitting, f"{operands}, heavy={heavy}"
        bytes_each = {"half": 2, "tf32": 4, "ieee": 4}[operands]
        for s in fitting:  # both operands, as many times as loads are in flight
            assert (s.stages - 1) * (s.rows + s.columns) * s.step * bytes_each <= target.shared_block
            assert s.rows * s.columns <= target.registers // 2


@pytest.mark.parametrize("target", EVERY, ids=str)
def test_kernels_of_one_kind_of_card_have_tiles_on_it_alone(target: Target) -> None:
    for geometry, shapes in LAYERS:
        if target is hopper.HOPPER_TARGET and hopper.fits_hopper(geometry, shapes, "half"):
            tile = hopper.hopper_tile(geometry, shapes)
            assert 2 * (tile.stages - 1) * (tile.block_k + tile.pixels) * tile.block_c <= target.shared_block
        if target in few_channels.FEW_CHANNELS_TARGETS and few_channels.fits_few_channels(geometry, "half"):
            assert few_channels.few_channels_candidates(geometry)


@pytest.mark.parametrize("target", EVERY, ids=str)
def test_depthwise_layers_norms_and_passes_have_a_tile_of_few_registers(target: Target) -> None:
    for geometry, shapes in LAYERS:
        filters = geometry.groups * geometry.filters
        if geometry.depthwise:
            depthwise = dense.depthwise_tile(geometry, geometry.rows, shapes.conv_pixels, target, 528)
            assert depthwise.block_k * depthwise.block_p <= 32 * 32
        for innermost in (True, False):
            norm = norm_tile(filters, shapes.conv_pixels, innermost, target, 528)
            assert norm.block_k * norm.block_p <= 64 * 32
            of_pass = pass_tile(filters, shapes.conv_pixels, innermost, target)
            assert of_pass.block_k * of_pass.block_p <= 64 * 32


@pytest.mark.parametrize("target", EVERY, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_auto_has_a_plan_and_candidates_for_every_layer(dtype: torch.dtype, target: Target) -> None:
    card = reference_device(target, "Some GPU")
    kinds = ("half",) if dtype.itemsize == 2 else ("tf32", "ieee")
    for geometry, shapes in LAYERS:
        assert assumed_plan(geometry, shapes, dtype, card).inference.way in ("fused", "epilogue", "eager")
        for pass_, operands in itertools.product(("inference", "forward", "dgrad", "wgrad"), kinds):
            assert candidates(pass_, geometry, shapes, target, operands, 4 * target.multiprocessors)
    geometry, shapes = LAYERS[0]
    for pass_, variant in itertools.product(PASSES, VARIANTS):
        assert layer_cost(geometry, shapes, dtype, pass_, variant, device=card).bytes_moved > 0


def test_no_card_below_8_0_has_a_target() -> None:
    for number in (50, 61, 70, 75):
        with pytest.raises(UnsupportedTarget):
            target_of("cuda", number)
