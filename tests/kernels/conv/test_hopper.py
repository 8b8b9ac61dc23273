"""The Hopper forward: right on every kind of layer it takes, whatever its tile, and out of the way of all others."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import tidepool.kernels.conv.choose
import tidepool.kernels.operators.call
import tidepool.kernels.runtime.launch
from tests.kernels import error_rule
from tests.kernels.exact import DEVICE, INTERPRETED, assert_as_pytorch, assert_equal, integer_inputs
from tests.kernels.shapes import Case, built
from tidepool.kernels import Activation, AvgPool, MaxPool, conv_relu_pool
from tidepool.kernels.conv.hopper import readable_by_tma
from tidepool.kernels.runtime.mode import Mode
from tidepool.kernels.tiles.candidates import forward_candidates
from tidepool.kernels.tiles.hopper import HOPPER_TARGET, HopperTile, fits_hopper, wastes_boxes

pytestmark = pytest.mark.skipif(
    not INTERPRETED and torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0),
    reason="compiled for compute capability 9.0 only",
)


def layer(name: str, x: tuple[int, ...], weight: tuple[int, ...], **options: Any) -> Case:
    return Case(name, x, weight, options, channels_last=True)


PRELU = Activation("prelu")
CASES = {
    case.name: case
    for case in (
        layer("odd", (2, 24, 13, 11), (19, 24, 3, 3), padding=1),
        layer("one_picture_1x1", (1, 8, 9, 17), (5, 8, 1, 1)),
        layer("dilated", (2, 16, 15, 14), (17, 16, 3, 2), padding=(2, 1), dilation=(2, 3)),
        layer("padding_beyond_the_box", (1, 16, 5, 4), (8, 16, 3, 3), padding=3),
        layer("blocks_of_channels", (1, 40, 8, 9), (70, 40, 2, 2)),
        layer("strided", (2, 16, 12, 14), (9, 16, 3, 3), stride=2, padding=1, pool=None),
        layer("strided_pool", (1, 32, 18, 20), (20, 32, 5, 5), stride=2, padding=2),
        layer("strided_even_filter", (3, 16, 8, 12), (8, 16, 2, 4), stride=2, padding=(0, 1), dilation=(1, 2)),
        layer("no_pool", (5, 16, 7, 9), (9, 16, 3, 3), padding=1, pool=None, activation=None),
        layer("relu_alone", (2, 16, 6, 9), (9, 16, 3, 3), padding=1, pool=None),
        layer("average_bits", (2, 16, 11, 10), (11, 16, 3, 3), padding=1, pool=AvgPool(2)),
        layer("average", (2, 16, 8, 10), (9, 16, 3, 3), pool=AvgPool(2), activation=None),
        layer("ceil", (1, 16, 9, 11), (9, 16, 1, 1), pool=MaxPool(2, ceil_mode=True)),
        layer("silu", (1, 16, 8, 9), (9, 16, 3, 3), pool=MaxPool(2), activation="silu"),
        layer("gelu_average", (1, 16, 8, 9), (9, 16, 3, 3), pool=AvgPool(2), activation="gelu"),
        layer("prelu", (1, 16, 8, 9), (19, 16, 3, 3), activation=PRELU),
        layer("prelu_average", (1, 16, 8, 9), (9, 16, 3, 3), pool=AvgPool(2), activation=PRELU),
    )
}
EXACT = [name for name, case in CASES.items() if case.options.get("activation") not in ("silu", "gelu", PRELU)]
SQUARE = HopperTile(64, 1, 8, 8, 16, persistent=False, stages=2)
TILES = {
    "persistent": HopperTile(64, 1, 8, 8, 16, persistent=True, stages=2),
    "pictures": HopperTile(64, 2, 2, 16, 32, persistent=False),
    "few_filters": HopperTile(16, 1, 4, 16, 16, persistent=False, warps=2),
}
Force = Callable[[HopperTile], None]


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Iterator[Force]:
    """Makes forward run as on compute capability 9.0 with the given tile, and holds it to having launched it."""
    launched: list[tuple[str, dict[str, Any]]] = []
    forced: list[HopperTile] = []

    def spy(kernel: Any, grid: tuple[int, ...], *args: Any, **keywords: Any) -> None:
        launched.append((kernel.__name__, keywords))
        tidepool.kernels.runtime.launch.launch_now(kernel, grid, *args, **keywords)

    def use(tile: HopperTile) -> None:
        monkeypatch.setattr(tidepool.kernels.conv.choose, "mode_of", lambda _: Mode(HOPPER_TARGET, INTERPRETED))
        monkeypatch.setattr(tidepool.kernels.conv.choose, "hopper_tile", lambda *_: tile)
        monkeypatch.setattr(tidepool.kernels.conv.choose, "wastes_boxes", lambda *_: False)
        tidepool.kernels.operators.call.forget_calls()  # launches made ready for another tile
        forced.append(tile)

    tidepool.kernels.runtime.launch.replace_launcher(spy)
    yield use
    tidepool.kernels.runtime.launch.replace_launcher(None)
    tidepool.kernels.operators.call.forget_calls()
    for tile in forced:
        assert any(
            name == "conv_act_pool_hopper_kernel"
            and keywords["BLOCK_K"] == tile.block_k
            and keywords["BLOCK_W"] == tile.block_w
            and keywords["PERSISTENT"] == tile.persistent
            for name, keywords in launched
        )


@pytest.mark.parametrize("name", EXACT)
def test_equals_pytorch_on_small_integers(name: str, force: Force) -> None:
    force(SQUARE)
    case = CASES[name]
    assert_as_pytorch(*integer_inputs(case, torch.float16, seed=5), **case.options)


@pytest.mark.parametrize("name", ["odd", "strided", "average", "silu", "gelu_average", "prelu", "prelu_average"])
def test_meets_the_error_rule(name: str, force: Force) -> None:
    force(SQUARE)
    error_rule.check(CASES[name], torch.bfloat16, device=DEVICE, seed=6)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("name", ["odd", "strided_even_filter", "average_bits"])
def test_result_does_not_depend_on_the_tile(name: str, tile: str, force: Force) -> None:
    force(TILES[tile])
    case = CASES[name]
    assert_as_pytorch(*integer_inputs(case, torch.bfloat16, seed=7), **case.options)


def test_without_a_bias_and_in_inference(force: Force) -> None:
    force(SQUARE)
    case = CASES["odd"]
    x, weight, _ = integer_inputs(case, torch.float16, seed=8)
    assert_as_pytorch(x, weight, None, **case.options)
    with torch.no_grad():
        found = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), padding=1, backend="triton")
    assert torch.equal(found.cpu(), conv_relu_pool(x, weight, padding=1, backend="cudnn"))


def test_nan_and_infinity_in_the_picture_reach_their_windows_and_no_others(force: Force) -> None:
    force(SQUARE)
    x, weight, bias = integer_inputs(CASES["odd"], torch.float16, seed=9)
    x[0, 3, 4, 5] = x[0, 23, 4, 6] = x[1, 0, 12, 10] = torch.nan
    x[1, 5, 0, 0] = torch.inf
    assert_as_pytorch(x, weight, bias, **CASES["odd"].options)


def test_weights_that_are_not_finite_meet_no_channels_that_are_not_there(force: Force) -> None:
    force(HopperTile(64, 1, 8, 8, 64, persistent=False, stages=2))  # 24 channels in a box of 64
    x, weight, bias = integer_inputs(CASES["odd"], torch.float16, seed=10)
    x = (x.abs() + 1).to(memory_format=torch.channels_last)  # no zero of the picture meets an infinity
    weight[3, 0, 1, 1], weight[18, 23, 2, 2] = torch.inf, torch.nan
    found = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), bias.to(DEVICE), backend="triton")  # type: ignore[union-attr]
    assert_equal(found.cpu(), conv_relu_pool(x, weight, bias, backend="cudnn"), "y")


SHAPED = (2, 16, 12, 12)


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({}, True),
        ({"stride": 2}, True),
        ({"pool": None}, True),
        ({"pool": MaxPool(3, 2)}, False),
        ({"pool": MaxPool(2, 1)}, False),
        ({"pool": MaxPool(2, 2, 1)}, False),
        ({"pool": MaxPool(2, 2, dilation=2)}, False),
        ({"stride": (1, 2)}, False),
        ({"stride": 3}, False),
    ],
)
def test_only_layers_it_can_compute_fit(options: dict[str, Any], fits: bool) -> None:
    geometry, shapes = built(Case("any", SHAPED, (8, 16, 3, 3), options))
    assert fits_hopper(geometry, shapes, "half") is fits
    assert not fits_hopper(geometry, shapes, "tf32")


@pytest.mark.parametrize(("side", "wastes"), [(4, True), (6, False), (14, False)])
def test_pictures_that_boxes_mostly_miss_are_left_to_the_portable_kernel(side: int, wastes: bool) -> None:
    geometry, shapes = built(Case("any", (64, 64, side, side), (64, 64, 3, 3), {"padding": 1}))
    assert wastes_boxes(geometry, shapes) is wastes
    first = forward_candidates(geometry, shapes, HOPPER_TARGET, "half")[0]
    assert isinstance(first, HopperTile) is not wastes


@pytest.mark.parametrize(
    ("x", "weight", "options"),
    [
        ((2, 12, 12, 12), (8, 12, 3, 3), {}),  # 12 channels: 24 bytes
        ((2, 24, 12, 12), (8, 24, 3, 3), {"stride": 2}),  # a step of 16 channels would reach into the next column
        ((2, 16, 13, 12), (8, 16, 3, 3), {"stride": 2}),  # no pairs of rows
        ((2, 16, 12), (8, 16, 3), {"pool": MaxPool(2)}),
        ((2, 32, 12, 12), (8, 16, 3, 3), {"groups": 2}),
    ],
)
def test_layers_of_other_sizes_do_not_fit(x: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any]) -> None:
    geometry, shapes = built(Case("any", x, weight, options))
    assert not fits_hopper(geometry, shapes, "half")


def _views() -> dict[str, torch.Tensor]:
    dense = torch.zeros(2, 16, 12, 12, dtype=torch.float16).to(memory_format=torch.channels_last)
    wide = torch.zeros(2, 32, 12, 12, dtype=torch.float16).to(memory_format=torch.channels_last)
    return {
        "dense": dense,
        "contiguous": torch.zeros(2, 16, 12, 12, dtype=torch.float16),
        "half_the_channels": wide[:, :16],
        "from_channel_3": wide[:, 3:19],
        "expanded": dense[:1].expand(2, -1, -1, -1),
        "every_other_column": dense[..., ::2],
    }


@pytest.mark.parametrize(
    ("view", "stride", "readable"),
    [
        ("dense", 1, True),
        ("dense", 2, True),
        ("half_the_channels", 1, True),
        ("half_the_channels", 2, False),
        ("every_other_column", 1, True),
        ("contiguous", 1, False),
        ("from_channel_3", 1, False),
        ("expanded", 1, False),
    ],
)
def test_views_a_descriptor_cannot_describe_are_left_to_the_portable_kernel(
    view: str, stride: int, readable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = _views()[view]
    case = Case("any", tuple(x.shape), (8, 16, 3, 3), {"stride": stride})
    assert readable_by_tma(x, built(case)[0]) is readable
    generator = torch.Generator().manual_seed(11)
    x.copy_(torch.randint(-2, 3, x.shape, generator=generator)) if view != "expanded" else None
    weight = torch.randint(-1, 2, (8, 16, 3, 3), generator=generator).half()
    monkeypatch.setattr(tidepool.kernels.conv.choose, "mode_of", lambda _: Mode(HOPPER_TARGET, INTERPRETED))
    monkeypatch.setattr(tidepool.kernels.conv.choose, "hopper_tile", lambda *_: SQUARE)
    monkeypatch.setattr(tidepool.kernels.conv.choose, "wastes_boxes", lambda *_: False)
    found = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), stride=stride, backend="triton")
    assert torch.equal(found.cpu(), conv_relu_pool(x, weight, stride=stride, backend="cudnn"))
