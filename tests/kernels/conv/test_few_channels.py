"""The forward of few channels: right on every kind of layer it takes, whatever its tile, and on no other."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import tidepool.kernels.conv.choose
import tidepool.kernels.runtime.launch
from tests.kernels import error_rule
from tests.kernels.exact import DEVICE, INTERPRETED, assert_as_pytorch, integer_inputs
from tests.kernels.shapes import Case, built
from tidepool.kernels import Activation, AvgPool, MaxPool
from tidepool.kernels.operators.call import forget_calls
from tidepool.kernels.runtime.mode import Mode
from tidepool.kernels.runtime.targets import SM_80
from tidepool.kernels.tiles.few_channels import (
    FEW_CHANNELS,
    FewChannelsTile,
    few_channels_candidates,
    fits_few_channels,
)


def layer(name: str, x: tuple[int, ...], weight: tuple[int, ...], channels_last: bool = True, **options: Any) -> Case:
    return Case(name, x, weight, options, channels_last=channels_last)


CASES = {
    case.name: case
    for case in (
        layer("rgb", (2, 3, 11, 35), (19, 3, 3, 3), padding=1),
        layer("rgb_planes", (1, 3, 9, 37), (17, 3, 3, 3), channels_last=False, padding=1),
        layer("lenet", (2, 1, 14, 12), (6, 1, 5, 5), padding=2),
        layer("strided", (1, 3, 21, 17), (9, 3, 3, 3), stride=2, padding=1, pool=None),
        layer("strides_and_dilation", (1, 2, 23, 30), (5, 2, 3, 5), stride=(2, 1), dilation=(1, 3), padding=(4, 5)),
        layer("one_by_one", (1, 3, 6, 7), (33, 3, 1, 1)),
        layer("full_length", (1, 4, 9, 9), (3, 4, 2, 4), pool=MaxPool(2, ceil_mode=True)),
        layer("average_bits", (1, 3, 7, 10), (11, 3, 2, 2), pool=AvgPool(2)),
        layer("silu", (1, 3, 8, 9), (9, 3, 3, 3), activation="silu"),
        layer("prelu", (1, 3, 8, 9), (19, 3, 3, 3), activation=Activation("prelu")),
    )
}
EXACT = [name for name in CASES if name not in ("silu", "prelu")]
Force = Callable[[FewChannelsTile], None]


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Iterator[Force]:
    """Makes forward use the kernel with the given tile, and holds it to having launched it."""
    launched: list[tuple[str, int, int]] = []
    forced: list[FewChannelsTile] = []

    def spy(kernel: Any, grid: tuple[int, ...], *args: Any, **keywords: Any) -> None:
        launched.append((kernel.__name__, keywords.get("BLOCK_K", 0), keywords.get("BLOCK_H", 0)))
        tidepool.kernels.runtime.launch.launch_now(kernel, grid, *args, **keywords)

    def use(tile: FewChannelsTile) -> None:
        if INTERPRETED:
            monkeypatch.setattr(tidepool.kernels.conv.choose, "mode_of", lambda _: Mode(SM_80, interpreted=True))
        monkeypatch.setattr(tidepool.kernels.conv.choose, "few_channels_candidates", lambda *_: [tile])
        forced.append(tile)

    forget_calls()
    tidepool.kernels.runtime.launch.replace_launcher(spy)
    yield use
    tidepool.kernels.runtime.launch.replace_launcher(None)
    forget_calls()
    for tile in forced:
        assert ("conv_act_pool_few_channels_kernel", tile.block_k, tile.block_h) in launched


@pytest.mark.parametrize("name", EXACT)
def test_equals_pytorch_on_small_integers(name: str, force: Force) -> None:
    force(FewChannelsTile(16, 4, 32))
    case = CASES[name]
    assert_as_pytorch(*integer_inputs(case, torch.float16, seed=5), **case.options)


@pytest.mark.parametrize("name", ["rgb", "lenet", "silu", "prelu"])
def test_meets_the_error_rule(name: str, force: Force) -> None:
    force(FewChannelsTile(32, 4, 32))
    error_rule.check(CASES[name], torch.bfloat16, device=DEVICE, seed=6)


@pytest.mark.parametrize("tile", FEW_CHANNELS, ids=str)
def test_result_does_not_depend_on_the_tile(tile: FewChannelsTile, force: Force) -> None:
    force(tile)
    assert_as_pytorch(*integer_inputs(CASES["rgb"], torch.bfloat16, seed=7), **CASES["rgb"].options)


def test_nan_reaches_its_windows_and_no_others(force: Force) -> None:
    force(FewChannelsTile(16, 4, 32))
    x, weight, bias = integer_inputs(CASES["rgb"], torch.float16, seed=9)
    x[0, 1, 4, 5] = x[0, 2, 10, 34] = torch.nan
    x[1, 0, 0, 0] = torch.inf
    assert_as_pytorch(x, weight, bias, **CASES["rgb"].options)


@pytest.mark.parametrize(
    ("x", "weight", "options", "fits"),
    [
        ((2, 3, 9, 9), (4, 3, 3, 3), {}, True),
        ((2, 4, 9, 9), (4, 4, 3, 3), {}, False),  # 36 products
        ((2, 8, 9, 9), (4, 8, 2, 2), {}, False),  # 16 bytes of channels
        ((2, 3, 9, 9), (4, 3, 3, 3), {"pool": MaxPool(3, 2)}, False),
        ((2, 3, 9), (4, 3, 3), {}, False),
        ((2, 6, 9, 9), (4, 3, 3, 3), {"groups": 2}, False),
    ],
)
def test_only_layers_it_can_compute_fit(
    x: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any], fits: bool
) -> None:
    geometry, _ = built(Case("any", x, weight, options))
    assert fits_few_channels(geometry, "half") is fits
    assert not fits_few_channels(geometry, "ieee")


def test_the_rule_takes_the_tile_with_the_fewest_filters_to_spare() -> None:
    def first(filters: int) -> int:
        return few_channels_candidates(built(Case("any", (1, 3, 8, 8), (filters, 3, 3, 3)))[0])[0].block_k

    assert [first(filters) for filters in (6, 16, 20, 32, 64, 96, 128)] == [16, 16, 32, 32, 64, 64, 64]
