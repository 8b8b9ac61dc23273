"""Results do not depend on how a layer is cut up: many small programs, masked tails, several splits, joint elements."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import tidepool.kernels.conv.choose
import tidepool.kernels.conv.depthwise
import tidepool.kernels.conv.forward
import tidepool.kernels.operators.call
import tidepool.kernels.runtime.launch
from tests.kernels import error_rule
from tests.kernels.exact import DEVICE, INTERPRETED, assert_as_pytorch, integer_inputs
from tests.kernels.shapes import NAMED, Case, built
from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.tiles.dense import DepthwiseTile, DgradTile, ForwardTile, WgradTile, joint_elements

LEAST = 8 if INTERPRETED else 16  # what a compiled dot takes
Tile = ForwardTile | DgradTile | WgradTile | DepthwiseTile
Cut = Callable[[Tile], None]

TILED = {
    case.name: case
    for case in (
        Case("many_channels", (2, 21, 7, 6), (19, 21, 2, 3), {"padding": 1}),
        Case("grouped_strided", (2, 18, 9, 7), (22, 9, 3, 2), {"groups": 2, "stride": (2, 1), "padding": 1}),
        Case("overlap", (1, 9, 7, 9), (10, 9, 2, 2), {"pool": MaxPool(3, 2, 1, ceil_mode=True)}),
        Case("row_windows", (2, 5, 4, 9), (11, 5, 2, 2), {"pool": MaxPool((1, 2), (1, 2))}),
        Case("average_bits", (1, 5, 7, 9), (19, 5, 2, 2), {"pool": AvgPool(2)}),
        Case("video", (1, 3, 4, 5, 4), (9, 3, 2, 2, 2), {"pool": MaxPool((1, 2, 2))}),
    )
}


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cut]:
    """Makes the launchers use the given tile, whatever the layer, and holds them to having done so."""
    owner = {
        ForwardTile: (tidepool.kernels.conv.forward, "forward_tile"),
        DgradTile: (tidepool.kernels.conv.choose, "dgrad_tile"),
        WgradTile: (tidepool.kernels.conv.choose, "wgrad_tile"),
        DepthwiseTile: (tidepool.kernels.conv.depthwise, "depthwise_tile"),
    }
    used: list[Tile] = []
    launched: list[dict[str, Any]] = []

    def use(tile: Tile) -> None:
        monkeypatch.setattr(*owner[type(tile)], lambda *_, **__: tile)
        tidepool.kernels.operators.call.forget_calls()  # launches made ready with another tile
        used.append(tile)

    def spy(kernel: Any, grid: tuple[int, ...], *args: Any, **kwargs: Any) -> None:
        launched.append({"grid": grid, **kwargs})
        tidepool.kernels.runtime.launch.launch_now(kernel, grid, *args, **kwargs)

    tidepool.kernels.runtime.launch.replace_launcher(spy)
    yield use
    tidepool.kernels.runtime.launch.replace_launcher(None)
    for tile in used:
        blocks = {name.upper(): size for name, size in vars(tile).items() if name.startswith("block_")}
        assert any(blocks.items() <= launch.items() and max(launch["grid"]) > 1 for launch in launched)


def _check(case: Case) -> None:
    """To the bit on small integers, and within the error rule on normal numbers."""
    assert_as_pytorch(*integer_inputs(case, torch.float16, seed=5), **case.options)
    error_rule.check(case, torch.bfloat16, device=DEVICE, seed=6)


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "tap by tap"])
@pytest.mark.parametrize("name", TILED)
def test_forward_in_small_blocks(name: str, flat: bool, cut: Cut, ieee_float32: None) -> None:
    case = TILED[name]
    cut(ForwardTile(block_k=LEAST, block_p=16, block_c=LEAST, joint=joint_elements(built(case)[0]), flat=flat))
    _check(case)


@pytest.mark.parametrize(
    ("name", "joint"),
    [("many_channels", 1), ("many_channels", 2), ("row_windows", 1), ("average_bits", 1), ("average_bits", 2)],
)
def test_forward_with_fewer_elements_at_once(name: str, joint: int, cut: Cut, ieee_float32: None) -> None:
    cut(ForwardTile(block_k=16, block_p=16, block_c=16, joint=joint, flat=True))
    _check(TILED[name])


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "tap by tap"])
@pytest.mark.parametrize("name", TILED)
def test_dgrad_in_small_blocks(name: str, flat: bool, cut: Cut, ieee_float32: None) -> None:
    cut(DgradTile(block_p=16, block_c=LEAST, block_k=LEAST, flat=flat))
    _check(TILED[name])


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("name", TILED)
def test_wgrad_in_small_blocks_and_several_splits(name: str, splits: int, cut: Cut, ieee_float32: None) -> None:
    cut(WgradTile(block_k=LEAST, block_n=32, block_p=16, splits=splits))
    _check(TILED[name])


DEPTHWISE = {
    "max": Case("max", (2, 5, 6, 7), (10, 1, 3, 2), {"groups": 5, "padding": 1, "pool": MaxPool(3, 2, 1)}),
    "average": Case("average", (1, 11, 6, 5), (11, 1, 2, 2), {"groups": 11, "stride": 2, "pool": AvgPool(2, 1)}),
    "waveform": Case("waveform", (2, 3, 19), (9, 1, 4), {"groups": 3, "pool": MaxPool(2)}),
}


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise_in_small_blocks_and_several_splits(name: str, splits: int, cut: Cut, ieee_float32: None) -> None:
    cut(DepthwiseTile(block_k=8, block_p=16, splits=splits))
    _check(DEPTHWISE[name])


def test_more_splits_than_pixels(cut: Cut) -> None:
    case = NAMED["one_filter_one_pixel"]
    cut(WgradTile(block_k=16, block_n=16, block_p=16, splits=5))
    assert_as_pytorch(*integer_inputs(case, torch.float32, seed=5), **case.options)
