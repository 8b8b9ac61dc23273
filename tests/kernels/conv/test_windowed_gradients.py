"""The windowed gradients, forced upon layers of every kind they fit and at every tile that ships, against PyTorch."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import tidepool.kernels.conv.choose
from tests.kernels import error_rule
from tests.kernels.exact import DEVICE, assert_as_pytorch, integer_inputs, integers
from tests.kernels.shapes import Case
from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.conv.windowed_dgrad import prepare_windowed_dgrad
from tidepool.kernels.conv.windowed_wgrad import prepare_windowed_wgrad
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.operators.call import forget_calls
from tidepool.kernels.runtime.targets import SM_90, TARGETS, Target, having
from tidepool.kernels.tiles import windowed as windowed_tiles
from tidepool.kernels.tiles.candidates import dgrad_candidates, tile_from_json, tile_to_json, wgrad_candidates
from tidepool.kernels.tiles.dense import DgradTile, WgradTile, dgrad_tile, wgrad_tile
from tidepool.kernels.tiles.windowed import (
    WindowedDgradTile,
    WindowedWgradTile,
    windowed_dgrad_tiles,
    windowed_wgrad_tiles,
)

Force = Callable[[WindowedDgradTile, WindowedWgradTile], None]
DGRAD = [tile for tile, _ in (*windowed_tiles.PLAIN_DGRAD, *windowed_tiles.ANY_DGRAD)]
WGRAD = [replace(tile, splits=2) for tile, _ in (*windowed_tiles.PLAIN_WGRAD, *windowed_tiles.ANY_WGRAD)]
SMALL = (WindowedDgradTile(32, 16, 16), WindowedWgradTile(16, 16, 16, taps=2, splits=3))


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Force:
    """Makes both gradients run windowed, in the given tiles."""

    def use(dgrad: WindowedDgradTile, wgrad: WindowedWgradTile) -> None:
        monkeypatch.setattr(tidepool.kernels.conv.choose, "dgrad_tile", lambda *_: dgrad)
        monkeypatch.setattr(tidepool.kernels.conv.choose, "wgrad_tile", lambda *_: wgrad)
        forget_calls()

    yield use
    forget_calls()


FITTING = (
    Case("odd_channels", (1, 21, 5, 7), (48, 21, 2, 3), {"padding": 1}, channels_last=True),
    Case("grouped_strided", (2, 18, 9, 7), (32, 9, 3, 2), {"groups": 2, "stride": (2, 1), "padding": 1}),
    Case("overlap_ceil", (1, 9, 7, 9), (16, 9, 2, 2), {"pool": MaxPool(3, 2, 1, ceil_mode=True)}),
    Case("dilated_both", (1, 5, 9, 9), (16, 5, 3, 2), {"dilation": (2, 3), "pool": MaxPool(2, 2, 0, 2)}),
    Case("gaps", (2, 4, 9, 10), (16, 4, 2, 5), {"pool": MaxPool((1, 2), (2, 4)), "activation": None}),
    Case("no_pool_strided", (2, 7, 9, 8), (32, 7, 3, 3), {"pool": None, "stride": 2, "padding": 1}),
    Case("neither", (1, 20, 6, 5), (16, 20, 1, 1), {"pool": None, "activation": None}, bias=False),
    Case("waveform", (2, 6, 33), (16, 6, 5), {"stride": 2, "padding": 2, "pool": MaxPool(2)}),
    Case("video", (1, 4, 4, 5, 6), (16, 4, 2, 3, 2), {"pool": MaxPool((1, 2, 2)), "padding": (1, 0, 1)}),
)


@pytest.mark.parametrize("case", FITTING, ids=lambda case: case.name)
def test_gradients_of_every_kind_of_layer(case: Case, force: Force, ieee_float32: None) -> None:
    force(*SMALL)
    assert_as_pytorch(*integer_inputs(case, torch.float16, seed=5), **case.options)


def test_error_rule_where_windows_overlap(force: Force, ieee_float32: None) -> None:
    force(*SMALL)
    case = Case("overlap", (1, 10, 7, 8), (16, 10, 2, 3), {"padding": 1, "pool": MaxPool(3, 2)}, channels_last=True)
    error_rule.check(case, torch.bfloat16, device=DEVICE, seed=6)


@pytest.mark.parametrize("number", range(max(len(DGRAD), len(WGRAD))))
def test_every_shipped_tile(number: int, force: Force, ieee_float32: None) -> None:
    dgrad, wgrad = DGRAD[min(number, len(DGRAD) - 1)], WGRAD[min(number, len(WGRAD) - 1)]
    force(dgrad, wgrad)
    case = Case("shipped", (2, 24, 5, 7), (64, 24, 1, 3), {"padding": (0, 1)}, channels_last=True)
    assert_as_pytorch(*integer_inputs(case, torch.bfloat16, seed=number), **case.options)


def test_gradient_where_relu_was_off_is_not_looked_at(force: Force, ieee_float32: None) -> None:
    force(*SMALL)
    x, weight, bias = integer_inputs(Case("off", (1, 4, 6, 6), (16, 4, 3, 3)), torch.float32, seed=1)
    y = torch.nn.functional.max_pool2d(torch.relu(torch.nn.functional.conv2d(x, weight, bias)), 2)
    grad = torch.where(y > 0, integers(tuple(y.shape), y.dtype, torch.Generator().manual_seed(2)), torch.nan)
    assert grad.isnan().any()
    assert_as_pytorch(x, weight, bias, grad=grad)


def test_gradient_of_a_sum_is_read_by_its_strides(force: Force) -> None:
    force(*SMALL)
    x, weight, bias = integer_inputs(Case("sum", (2, 4, 7, 6), (16, 4, 3, 3)), torch.float32, seed=3)
    assert_as_pytorch(x, weight, bias, grad=torch.ones(()).expand(2, 16, 2, 2))


def layer(x: tuple[int, ...], weight: tuple[int, ...], **settings: object) -> tuple[Geometry, Shapes]:
    """Geometry and sizes of a layer with ReLU and a 2x2 max pool unless told otherwise."""
    defaults = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "activation": "relu", "pool": MaxPool(2)}
    return build_geometry(x, weight, parse_layer(weight[2:], **{**defaults, **settings}))


VGG = (
    ((64, 64, 224, 224), (64, 64, 3, 3)),
    ((64, 128, 112, 112), (128, 128, 3, 3)),
    ((64, 256, 56, 56), (256, 256, 3, 3)),
    ((64, 512, 14, 14), (512, 512, 3, 3)),
)


@pytest.mark.parametrize(("x", "weight"), VGG)
def test_pooled_layers_of_vgg_run_windowed_on_sm_90_with_work_for_every_multiprocessor(
    x: tuple[int, ...], weight: tuple[int, ...]
) -> None:
    geometry, shapes = layer(x, weight)
    dgrad = dgrad_tile(geometry, shapes.phase_pixels(geometry), SM_90, "half")
    wgrad = wgrad_tile(geometry, shapes.conv_pixels, SM_90, "half", 4 * 132)
    assert isinstance(dgrad, WindowedDgradTile)
    assert isinstance(wgrad, WindowedWgradTile)
    phases, pixels = windowed_tiles.phase_pixels(geometry, shapes)
    assert phases * pixels // dgrad.block_p * (geometry.channels // dgrad.block_c) >= 132
    tiles = 3 * (3 // wgrad.taps) * (geometry.channels // wgrad.block_c) * (geometry.filters // wgrad.block_k)
    if wgrad.splits > 1:  # no round for a few programs
        assert tiles * wgrad.splits > 0.79 * 264 * -(-tiles * wgrad.splits // 264)
    assert dgrad.block_c == min(geometry.channels, 256)


@pytest.mark.parametrize(
    ("tiles", "most", "splits"),
    [(9, 1000, 28), (36, 1000, 7), (3, 1000, 84), (264, 1000, 1), (144, 1000, 1), (144, 2, 1), (2000, 9, 1), (9, 4, 4)],
)
def test_splits_fill_their_last_round(tiles: int, most: int, splits: int) -> None:
    assert windowed_tiles.even_splits(tiles, 264, most) == splits


def test_one_program_wanted_is_one_split() -> None:
    geometry, shapes = layer(*VGG[0])
    tiles = windowed_wgrad_tiles(geometry, shapes.conv_pixels, SM_90, "half", 1)
    assert {tile.splits for tile in tiles} == {1}


def test_a_layer_with_few_pixels_gets_small_tiles() -> None:
    geometry, shapes = layer((1, 256, 4, 4), (256, 256, 3, 3))
    tile = windowed_dgrad_tiles(geometry, shapes.phase_pixels(geometry), SM_90, "half")[0]
    assert tile.block_p * tile.block_c <= 64 * 16


@pytest.mark.parametrize(("channels", "block_c"), [(16, 16), (24, 32), (48, 64), (96, 128), (128, 128), (512, 256)])
def test_channels_are_not_cut_finer_than_is_worth_while(channels: int, block_c: int) -> None:
    geometry, shapes = layer((64, channels, 56, 56), (64, channels, 3, 3))
    tile = windowed_dgrad_tiles(geometry, shapes.phase_pixels(geometry), SM_90, "half")[0]
    assert (tile.block_p, tile.block_c) == (64 if block_c < 64 else 128, block_c)


UNFIT = (
    {"pool": AvgPool(2)},
    {"activation": "silu"},
    {"activation": "hardsigmoid"},
    {"activation": "leaky_relu"},
    {"pool": MaxPool(5)},
    {"groups": 64},
)


@pytest.mark.parametrize("settings", UNFIT, ids=str)
def test_other_layers_are_left_to_the_general_kernels_and_refused_here(settings: dict[str, object]) -> None:
    groups = settings.get("groups", 1)
    x, weight = torch.empty(2, 64, 16, 16), torch.empty(64, 64 // groups, 3, 3)
    geometry, shapes = layer(tuple(x.shape), tuple(weight.shape), **settings)
    y = torch.empty(2, 64, *shapes.output[1:])
    for target in TARGETS:
        assert windowed_dgrad_tiles(geometry, shapes.phase_pixels(geometry), target, "half") == []
        assert windowed_wgrad_tiles(geometry, shapes.conv_pixels, target, "half", 528) == []
    with pytest.raises(ValueError, match="does not fit"):
        prepare_windowed_dgrad(y, None, weight, x, geometry, shapes, SMALL[0])
    with pytest.raises(ValueError, match="does not fit"):
        prepare_windowed_wgrad(y, None, x, (True, True), geometry, shapes, SMALL[1])


def test_a_step_that_does_not_divide_the_filters_is_refused() -> None:
    x, weight = torch.empty(1, 4, 8, 8), torch.empty(48, 4, 3, 3)
    geometry, shapes = layer(tuple(x.shape), tuple(weight.shape))
    with pytest.raises(ValueError, match="block_k=32"):
        prepare_windowed_dgrad(
            torch.empty(1, 48, 4, 4), None, weight, x, geometry, shapes, WindowedDgradTile(32, 16, 32)
        )
    steps = {t.block_k for t in windowed_dgrad_tiles(geometry, shapes.phase_pixels(geometry), SM_90, "half")}
    assert steps == {16}


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("pool", [MaxPool(2), MaxPool(3, 2), MaxPool(3, 1), MaxPool(2, 1, 0, 2), None], ids=str)
def test_candidates_fit_shared_memory_and_end_with_the_general_tiles(target: Target, pool: MaxPool | None) -> None:
    geometry, shapes = layer((64, 256, 28, 28), (256, 256, 3, 3), pool=pool)
    limit = target.shared_block
    dgrad = dgrad_candidates(geometry, shapes, target, "half")
    wgrad = wgrad_candidates(geometry, shapes, target, "half", 528)
    for tile in (*dgrad, *wgrad):
        if isinstance(tile, WindowedDgradTile):
            assert windowed_tiles.dgrad_shared_bytes(tile, geometry) <= limit
        elif isinstance(tile, WindowedWgradTile):
            assert windowed_tiles.wgrad_shared_bytes(tile, geometry) <= limit
    assert isinstance(dgrad[-1], DgradTile)
    assert isinstance(wgrad[-1], WgradTile)
    if pool == MaxPool(2):
        assert isinstance(dgrad[0], WindowedDgradTile)
        assert isinstance(wgrad[0], WindowedWgradTile if target in having("wgmma", "tcgen05") else WgradTile)


def test_tiles_survive_json_and_nonsense_is_refused() -> None:
    for tile in (*DGRAD, *WGRAD):
        assert tile_from_json(json.loads(json.dumps(tile_to_json(tile)))) == tile
    with pytest.raises(ValueError, match="taps is 0, expected 1 to 8"):
        tile_from_json({**tile_to_json(WGRAD[0]), "taps": 0})


def test_float32_is_left_to_the_general_kernels() -> None:
    geometry, shapes = layer((64, 128, 112, 112), (128, 128, 3, 3))
    for operands in ("tf32", "ieee"):
        assert isinstance(dgrad_tile(geometry, shapes.phase_pixels(geometry), SM_90, operands), DgradTile)
        assert isinstance(wgrad_tile(geometry, shapes.conv_pixels, SM_90, operands, 528), WgradTile)
