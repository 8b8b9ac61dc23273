"""The fast detector of faults in the forward kernels of boxes of pixels, as `test_detector` is for the others.

Both are made to run what the interpreter would give to the portable kernel, in boxes much smaller than the layers.
"""

from typing import Any

import pytest
import torch

import tidepool.kernels.conv.choose
from tests.faults.test_detector import check, check_inference, followed_by_nan
from tests.kernels.exact import INTERPRETED, integer_inputs
from tests.kernels.shapes import Case
from tidepool.kernels import Activation, AvgPool, MaxPool
from tidepool.kernels.operators.call import forget_calls
from tidepool.kernels.runtime.mode import Mode
from tidepool.kernels.tiles.few_channels import FewChannelsTile
from tidepool.kernels.tiles.hopper import HOPPER_TARGET, HopperTile

pytestmark = [
    pytest.mark.skipif(not INTERPRETED, reason="made for the interpreter; on a GPU tests/kernels runs compiled"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


def layer(name: str, x: tuple[int, ...], weight: tuple[int, ...], channels_last: bool = True, **options: Any) -> Case:
    return Case(name, x, weight, options, channels_last=channels_last)


LAYERS = (
    layer("odd", (3, 24, 7, 11), (19, 24, 3, 2), padding=(1, 2)),
    layer("dilated", (1, 16, 9, 8), (7, 16, 3, 2), dilation=(1, 3), padding=(2, 1)),
    layer("strided", (3, 16, 8, 12), (9, 16, 3, 4), stride=2, padding=(1, 2)),
    layer("average_bits", (1, 16, 6, 10), (11, 16, 2, 2), pool=AvgPool(2)),
    layer("ceil", (1, 16, 5, 8), (9, 16, 1, 1), pool=MaxPool(2, ceil_mode=True)),
    layer("no_pool", (5, 16, 3, 9), (9, 16, 2, 2), pool=None),
    layer("rgb", (3, 3, 7, 11), (19, 3, 3, 2), padding=(1, 2)),
    layer("rgb_planes", (1, 3, 9, 6), (5, 3, 2, 3), channels_last=False),
    layer("rgb_boxes_in_a_row", (2, 3, 3, 20), (5, 3, 2, 2)),
    layer("few_strided", (1, 2, 15, 14), (5, 2, 2, 3), stride=(2, 1), dilation=(1, 3), padding=(2, 4)),
    layer("few_ceil", (1, 1, 8, 5), (6, 1, 1, 1), pool=MaxPool(2, ceil_mode=True)),
)


@pytest.fixture(autouse=True)
def small_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward as on compute capability 9.0, several boxes and several programs a layer."""
    hopper, few = HopperTile(16, 2, 4, 8, 16, persistent=True), FewChannelsTile(16, 4, 8)
    monkeypatch.setattr(tidepool.kernels.conv.choose, "mode_of", lambda _: Mode(HOPPER_TARGET, interpreted=True))
    monkeypatch.setattr(tidepool.kernels.conv.choose, "hopper_tile", lambda *_: hopper)
    monkeypatch.setattr(tidepool.kernels.conv.choose, "wastes_boxes", lambda *_: False)
    monkeypatch.setattr(tidepool.kernels.conv.choose, "few_channels_candidates", lambda *_: [few])
    forget_calls()  # launches made ready with other tiles


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_equal_to_the_bit_in_boxes(case: Case) -> None:
    check(*integer_inputs(case, torch.float16, seed=0), **case.options)


WITHOUT_GRADIENT = (
    layer("bits", (1, 16, 4, 6), (9, 16, 2, 2), pool=AvgPool(2)),
    layer("codes", (1, 16, 4, 6), (9, 16, 2, 2)),
    layer("few_bits", (1, 3, 4, 6), (9, 3, 2, 2), pool=AvgPool(2)),
)


@pytest.mark.parametrize("case", WITHOUT_GRADIENT, ids=lambda case: case.name)
def test_without_gradients_nothing_is_noted(case: Case) -> None:
    check_inference(case, torch.float16, close=0)


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("pool", [MaxPool(2), None], ids=["max", "none"])
def test_slopes_are_those_of_the_filters(channels: int, pool: MaxPool | None) -> None:
    """More filters than a tile holds, and NaN behind the last one's slope."""
    case = layer("learned", (1, channels, 6, 9), (19, channels, 2, 2))
    slope = followed_by_nan((torch.arange(19) % 5 - 1).half())
    check(*integer_inputs(case, torch.float16, seed=1), activation=Activation("prelu", slope), pool=pool)


@pytest.mark.parametrize("channels", [2, 16])
def test_ties_are_those_of_rounded_results(channels: int) -> None:
    x = torch.zeros(1, channels, 2, 4, dtype=torch.float16)
    x[:, 0] = 2048
    x[:, 1, 0, 1] = x[:, 1, 1, 3] = 1  # 2049 has no place in float16 and becomes 2048
    x = x.to(memory_format=torch.channels_last)
    grad = torch.tensor([[[[1, 2]]]], dtype=torch.float16)
    check(x, torch.ones(1, channels, 1, 1, dtype=torch.float16), None, grad)
