"""The fast detector of planted faults: every kernel on small odd layers, against PyTorch, in memory that tells.

Inputs are small integers, so results must be equal to the bit; where a result is not exact (smooth activations,
averages over 3 or 9) float64 is compared closely. Every input is followed in memory by NaN and every output lies
between guards, so that a lost mask shows even where it changes no result. `tests/kernels` is the full proof; this
module is what `python -m tests.faults` runs on each mutation first.
"""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import tidepool.kernels.auto.layer
import tidepool.kernels.conv.choose
import tidepool.kernels.conv.depthwise
import tidepool.kernels.conv.epilogue
import tidepool.kernels.conv.forward
from tests.kernels.exact import INTERPRETED, integer_inputs, integers, outcome
from tests.kernels.guarded_memory import PATTERNS, guarded_memory
from tests.kernels.shapes import Case
from tidepool.kernels import Activation, AvgPool, MaxPool, conv_relu_pool
from tidepool.kernels.auto import plan
from tidepool.kernels.conv.epilogue import PassTile
from tidepool.kernels.layer.geometry import Geometry
from tidepool.kernels.operators.call import forget_calls
from tidepool.kernels.oracle.reference import conv_act_pool_reference
from tidepool.kernels.tiles.dense import DepthwiseTile, DgradTile, ForwardTile, WgradTile, joint_elements
from tidepool.kernels.tiles.windowed import WindowedDgradTile, WindowedWgradTile

pytestmark = [
    pytest.mark.skipif(not INTERPRETED, reason="made for the interpreter; on a GPU tests/kernels runs compiled"),
    # The interpreter computes masked-out columns too; nobody reads them.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning"),
]

QUARTER = Activation("leaky_relu", 0.25)
EXACT = (
    Case("odd", (2, 3, 9, 7), (5, 3, 3, 2), {"padding": (1, 2)}),
    Case(
        "depthwise",
        (2, 5, 13, 7),
        (10, 1, 3, 2),
        {"groups": 5, "stride": (3, 2), "padding": (2, 1), "dilation": (4, 1), "pool": MaxPool((2, 3), 1)},
    ),
    Case(
        "strided", (2, 3, 11, 10), (4, 3, 3, 2), {"stride": (3, 2), "padding": (1, 2), "pool": MaxPool((2, 3), (1, 2))}
    ),
    Case(
        "stride_meets_dilation",
        (1, 2, 14, 17),
        (3, 2, 3, 4),
        {"stride": (3, 4), "dilation": (2, 6), "padding": (4, 5), "pool": MaxPool((2, 1))},
    ),
    Case("dilated", (1, 2, 9, 12), (3, 2, 3, 4), {"stride": (1, 2), "dilation": (2, 1), "padding": (1, 2)}),
    Case("groups", (2, 6, 6, 5), (9, 2, 3, 3), {"groups": 3, "padding": 1, "pool": MaxPool((1, 2), 1)}),
    Case("gaps_between_windows", (2, 2, 9, 10), (3, 2, 2, 2), {"pool": MaxPool((2, 2), (3, 4))}),
    Case("overlap", (2, 2, 9, 8), (3, 2, 2, 2), {"pool": MaxPool((3, 2), 1, 1, dilation=(2, 3))}),
    Case(
        "overlap_floor", (2, 2, 8, 9), (3, 2, 1, 2), {"pool": MaxPool((2, 3), (1, 2)), "activation": None}, bias=False
    ),
    Case("padded_windows", (1, 2, 7, 6), (4, 2, 2, 3), {"pool": MaxPool(2, 2, 1, ceil_mode=True)}),
    Case(
        "even_kernel_same", (1, 3, 6, 7), (4, 3, 2, 4), {"padding": "same", "pool": MaxPool((2, 3))}, channels_last=True
    ),
    Case("no_pool", (2, 3, 5, 4), (4, 3, 3, 3), {"pool": None, "padding": 1}),
    Case("neither", (2, 3, 5, 4), (4, 3, 2, 3), {"activation": None, "pool": None}),
    Case("average_bits", (2, 4, 6, 7), (18, 2, 2, 3), {"groups": 2, "pool": AvgPool(2)}),
    Case("average_bits_in_whole_bytes", (1, 4, 4, 5), (16, 2, 2, 2), {"groups": 2, "pool": AvgPool(2)}),
    Case("average_padded", (1, 3, 5, 6), (10, 3, 2, 2), {"pool": AvgPool(2, 1, 1)}),
    Case("average_overlap", (2, 2, 9, 8), (3, 2, 2, 2), {"pool": AvgPool(4, 2)}),
    Case("leaky_max", (2, 3, 7, 6), (5, 3, 2, 3), {"activation": QUARTER, "pool": MaxPool(2, 1)}),
    Case("leaky_alone", (2, 3, 5, 4), (4, 3, 3, 3), {"activation": QUARTER, "pool": None, "padding": 1}),
    Case("leaky_average", (2, 4, 6, 7), (9, 4, 2, 3), {"activation": QUARTER, "pool": AvgPool(2)}),
    Case("leaky_big_window", (1, 2, 16, 11), (3, 2, 2, 2), {"activation": QUARTER, "pool": MaxPool((13, 10))}),
    Case("waveform", (2, 3, 17), (4, 3, 4), {"stride": 2, "padding": 3, "pool": MaxPool(3, 2)}),
    Case("video", (1, 2, 5, 6, 4), (3, 2, 2, 3, 2), {"padding": (1, 0, 1), "pool": MaxPool((2, 2, 1))}),
    Case(
        "video_overlap",
        (1, 2, 6, 4, 5),
        (3, 2, 3, 2, 2),
        {"stride": (2, 1, 1), "padding": (1, 0, 0), "pool": MaxPool((2, 1, 3), (1, 1, 2), (1, 0, 1))},
    ),
    Case("video_average", (1, 2, 5, 4, 6), (3, 2, 2, 1, 3), {"padding": (1, 0, 1), "pool": AvgPool((2, 1, 2))}),
    Case("depthwise_average", (2, 3, 6, 7), (9, 1, 2, 3), {"groups": 3, "padding": (1, 2), "pool": AvgPool((1, 2))}),
    Case("depthwise_video", (1, 3, 4, 5, 4), (3, 1, 3, 2, 2), {"groups": 3, "stride": (2, 1, 1), "padding": (1, 0, 1)}),
)
CLOSE = (
    Case("silu_max", (1, 3, 7, 8), (4, 3, 3, 2), {"activation": "silu", "pool": MaxPool((3, 2), 2, 1)}),
    Case("hardsigmoid_max", (1, 3, 7, 8), (4, 3, 3, 2), {"activation": "hardsigmoid", "pool": MaxPool((3, 2), 2, 1)}),
    Case("gelu_alone", (2, 2, 4, 5), (3, 2, 2, 3), {"activation": "gelu", "pool": None, "padding": 1}),
    Case("gelu_average", (2, 2, 7, 5), (3, 2, 2, 2), {"activation": "gelu", "pool": AvgPool(2, 1)}),
    Case(
        "average_of_what_exists",
        (2, 2, 8, 6),
        (5, 2, 3, 2),
        {"padding": 1, "pool": AvgPool(3, 2, 1, ceil_mode=True, count_include_pad=False)},
    ),
    Case("average_ceil", (1, 2, 8, 9), (3, 2, 2, 2), {"pool": AvgPool((2, 3), 2, (0, 1), ceil_mode=True)}),
    Case("depthwise_silu", (1, 3, 6, 5), (6, 1, 2, 3), {"groups": 3, "activation": "silu", "pool": MaxPool(2)}),
)
CUT = (
    Case("cut_channels", (2, 11, 5, 6), (19, 11, 2, 3), {"padding": (0, 1)}),
    Case("cut_groups_strided", (1, 18, 7, 6), (22, 9, 3, 2), {"groups": 2, "stride": (2, 1), "padding": 1}),
    Case("cut_overlap", (1, 9, 5, 6), (10, 9, 2, 2), {"pool": MaxPool(3, 2, 1, ceil_mode=True)}),
    Case(
        "cut_video_strided",
        (1, 9, 5, 6, 4),
        (10, 9, 2, 3, 2),
        {"stride": (3, 1, 1), "padding": (1, 1, 0), "pool": MaxPool((1, 2, 2))},
    ),
    Case("cut_stride_over_kernel", (1, 9, 8, 10), (10, 9, 2, 2), {"stride": 3, "padding": 1, "pool": MaxPool(2, 1)}),
    Case("cut_rows", (1, 3, 4, 7), (9, 3, 2, 2), {"pool": MaxPool((1, 2), (1, 2))}),
    Case("cut_average_bits", (1, 4, 5, 7), (19, 4, 2, 2), {"pool": AvgPool(2)}),
    Case("cut_depthwise", (2, 9, 7, 5), (18, 1, 3, 2), {"groups": 9, "stride": (2, 1), "padding": 1}),
    Case("cut_depthwise_average", (1, 11, 5, 4), (11, 1, 2, 2), {"groups": 11, "pool": AvgPool((2, 1))}, bias=False),
)
"""Cut into tiles of a few channels and pixels: many programs, masked tails, three splits that end within a block."""


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> bool:
    """Tiles much smaller than the layer. The parameter, returned, says whether taps and channels are one index."""
    flat: bool = request.param

    def forward(geometry: Geometry, *_: Any) -> ForwardTile:
        return ForwardTile(block_k=8, block_p=16, block_c=8, joint=joint_elements(geometry), flat=flat)

    tiles = (
        (tidepool.kernels.conv.forward, "forward_tile", forward),
        (tidepool.kernels.conv.choose, "dgrad_tile", lambda *_: DgradTile(32, 8, 16, flat)),
        (tidepool.kernels.conv.choose, "wgrad_tile", lambda *_: WgradTile(16, 32, 8, splits=3)),
        (tidepool.kernels.conv.depthwise, "depthwise_tile", lambda *_: DepthwiseTile(8, 16, splits=3)),
        (tidepool.kernels.conv.epilogue, "pass_tile", lambda *_: PassTile(8, 16)),
    )
    for module, name, tile in tiles:
        monkeypatch.setattr(module, name, tile)
    forget_calls()  # launches made ready with other tiles
    return flat


def followed_by_nan(tensor: Tensor) -> Tensor:
    """The same tensor as the first part of a longer one, whose last part is NaN."""
    longer = torch.cat([tensor, torch.full_like(tensor, torch.nan)])
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        longer = longer.contiguous(memory_format=torch.channels_last)
    return longer[: tensor.shape[0]]


def check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    grad: Tensor | None = None,
    *,
    close: float = 0.0,
    pattern: int = PATTERNS[0],
    backend: str = "triton",
    **options: Any,
) -> None:
    """y, dx, dweight and dbias are PyTorch's within `close` (0: to the bit), and nothing outside them was written.

    `pattern` fills unwritten memory. A sum that reads NaN from a guard and writes it to another leaves no trace.
    """
    expected, grad = outcome(conv_act_pool_reference, x, weight, bias, grad, "cpu", options)
    x, weight, grad = followed_by_nan(x), followed_by_nan(weight), followed_by_nan(grad)
    bias = None if bias is None else followed_by_nan(bias)
    with guarded_memory(pattern) as allocations:
        found, _ = outcome(conv_relu_pool, x, weight, bias, grad, "cpu", {**options, "backend": backend})
    for name, tensor in expected.items():
        explained = functools.partial("{}: {}".format, name)
        torch.testing.assert_close(found[name], tensor, rtol=close, atol=close, equal_nan=True, msg=explained)
    for allocation in allocations:
        allocation.check_guards()


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case.name)
def test_equal_to_the_bit(case: Case) -> None:
    check(*integer_inputs(case, torch.float32, seed=0), **case.options)


@pytest.mark.parametrize("case", CLOSE, ids=lambda case: case.name)
def test_close_in_float64(case: Case) -> None:
    check(*integer_inputs(case, torch.float64, seed=0), close=1e-12, **case.options)


@pytest.mark.parametrize("small_tiles", [True, False], ids=["flat", "tap_by_tap"], indirect=True)
@pytest.mark.parametrize("case", CUT, ids=lambda case: case.name)
def test_equal_to_the_bit_in_small_tiles(case: Case, small_tiles: bool) -> None:
    check(*integer_inputs(case, torch.float32, seed=0), pattern=PATTERNS[small_tiles], **case.options)


WITHOUT_GRADIENT = [
    case
    for case in (*EXACT, *CLOSE)
    if case.name in ("odd", "average_bits", "leaky_max", "depthwise_average", "silu_max", "depthwise_silu")
]


def check_inference(case: Case, dtype: torch.dtype, close: float) -> None:
    """y is PyTorch's where no gradient is asked for. What would be noted for backward has no memory then: y stands in
    for it."""
    x, weight, bias = integer_inputs(case, dtype, seed=0)
    expected = conv_act_pool_reference(x, weight, bias, **case.options)
    with torch.no_grad(), guarded_memory(PATTERNS[0]) as allocations:
        y = conv_relu_pool(x, weight, bias, **case.options, backend="triton")
    torch.testing.assert_close(y, expected, rtol=close, atol=close)
    for allocation in allocations:
        allocation.check_guards()


@pytest.mark.parametrize("case", WITHOUT_GRADIENT, ids=lambda case: case.name)
def test_without_gradients_nothing_is_noted(case: Case) -> None:
    check_inference(case, torch.float64, close=1e-12)


WINDOWED = (
    Case("windows", (2, 9, 7, 6), (16, 9, 3, 2), {"padding": (1, 2)}, channels_last=True),
    Case(
        "windows_of_groups",
        (1, 6, 11, 10),
        (32, 3, 3, 2),
        {"groups": 2, "stride": 2, "dilation": (1, 2), "padding": (2, 1), "pool": MaxPool((1, 3), (1, 2))},
    ),
    Case(
        "windows_overlap", (1, 5, 7, 8), (16, 5, 2, 3), {"pool": MaxPool((2, 3), 1, (0, 1), (2, 1)), "activation": None}
    ),
    Case(
        "windows_of_video",
        (1, 3, 6, 4, 5),
        (16, 3, 2, 2, 3),
        {"dilation": (3, 1, 1), "pool": MaxPool((2, 2, 1)), "padding": (1, 0, 1)},
    ),
    Case(
        "windows_apart_in_depth",
        (1, 3, 7, 3, 4),
        (16, 3, 2, 2, 2),
        {"pool": MaxPool((2, 1, 2), (4, 1, 2), 0, (3, 1, 1))},
    ),
    Case("windows_of_one", (2, 4, 6, 5), (16, 4, 3, 3), {"pool": None, "stride": 2, "padding": 1}, bias=False),
)


@pytest.fixture
def windowed_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both gradients one window element at a time, in tiles much smaller than the layer."""
    dgrad, wgrad = WindowedDgradTile(32, 8, 16), WindowedWgradTile(8, 16, 16, taps=2, splits=2)
    monkeypatch.setattr(tidepool.kernels.conv.choose, "dgrad_tile", lambda *_: dgrad)
    monkeypatch.setattr(tidepool.kernels.conv.choose, "wgrad_tile", lambda *_: wgrad)
    forget_calls()


@pytest.mark.parametrize("case", WINDOWED, ids=lambda case: case.name)
def test_equal_to_the_bit_one_window_element_at_a_time(case: Case, windowed_tiles: None) -> None:
    check(*integer_inputs(case, torch.float32, seed=0), **case.options)


AROUND = (
    *(case for case in EXACT if case.name in ("odd", "overlap", "padded_windows", "average_bits", "no_pool", "video")),
    Case("groups_of_bits", (1, 2, 5, 6), (22, 1, 2, 2), {"groups": 2, "pool": AvgPool(2)}),
    *(case for case in CUT if case.name in ("cut_overlap", "cut_average_bits")),
)
"""Layers whose convolutions PyTorch computes: the passes around them are what is looked at."""


@pytest.fixture
def around_pytorch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """ "auto" is PyTorch's convolutions with this project's passes around them, bias included, as behind cuDNN."""
    monkeypatch.setattr(tidepool.kernels.auto.layer, "adds_bias", lambda *_: True)
    epilogue, cudnn, dense = plan.Choice("epilogue"), plan.Choice("cudnn"), plan.Choice("dense")
    with plan.use(plan.LayerPlan(forward=epilogue, dgrad=cudnn, wgrad=dense)):
        yield


@pytest.mark.parametrize("small_tiles", [True], ids=["small_tiles"], indirect=True)
@pytest.mark.parametrize("case", AROUND, ids=lambda case: case.name)
def test_equal_to_the_bit_around_pytorchs_convolution(case: Case, small_tiles: bool, around_pytorch: None) -> None:
    check(*integer_inputs(case, torch.float32, seed=0), backend="auto", **case.options)


AROUND_CLOSE = (
    Case("window_of_five", (1, 2, 17), (3, 2, 2), {"pool": AvgPool(5)}),
    *(case for case in CLOSE if case.name in ("silu_max", "gelu_average")),
)


@pytest.mark.parametrize("case", AROUND_CLOSE, ids=lambda case: case.name)
def test_close_in_float64_around_pytorchs_convolution(case: Case, around_pytorch: None) -> None:
    check(*integer_inputs(case, torch.float64, seed=0), close=1e-12, backend="auto", **case.options)


def test_a_bias_is_rounded_before_windows_are_compared(around_pytorch: None) -> None:
    """2048 + 1 is 2048 in float16, and so is 2047 + 1: a tie, which the first wins."""
    x, weight = row([2047, 2048, 1, 0], 1, torch.float16), torch.ones(1, 1, 1, dtype=torch.float16)
    grad = row([1, 2], 1, torch.float16)
    check(x, weight, torch.ones(1, dtype=torch.float16), grad, pool=MaxPool(2), backend="auto")


ONE = torch.ones(1, 1, 1)
"""A filter that copies its channel."""
LAYOUTS = {"dense": (ONE, 1), "depthwise": (torch.ones(2, 1, 1), 2)}
"""Filter and groups that hand the pool its input as it is: one channel, or two on the depthwise kernels."""


def row(values: list[float], groups: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(1, groups, len(values)): the same values in every channel."""
    return torch.tensor(values, dtype=dtype).expand(1, groups, len(values)).contiguous()


@pytest.fixture(params=LAYOUTS)
def copying(request: pytest.FixtureRequest) -> tuple[Tensor, int]:
    """A filter that copies, and its groups."""
    return LAYOUTS[request.param]


NAN, INF = float("nan"), float("inf")


def test_ties_and_not_a_number(copying: tuple[Tensor, int]) -> None:
    weight, groups = copying
    # First of equals, zeros of both signs, one NaN, the last of two NaNs, NaN beside inf, inf alone.
    x = row([1, 1, 2, 0, -0.0, -1, -1, NAN, 3, NAN, 1, NAN, INF, NAN, 1, INF, 4, INF], groups)
    grad = row([1, 2, 3, 4, 5, 6], groups)
    for activation in ("relu", None):
        check(x, weight, None, grad, groups=groups, activation=activation, pool=MaxPool(3))
    for pool in (MaxPool(2), MaxPool(3, 2), MaxPool(1)):
        check(x, weight, None, groups=groups, pool=pool)


def test_windows_of_minus_infinity(copying: tuple[Tensor, int]) -> None:
    weight, groups = copying
    x = row([-INF, -INF, -INF, -INF, 0, -INF], groups)
    check(x, weight, None, row([1, 2, 3], groups), groups=groups, activation=None, pool=MaxPool(2))
    check(x, weight, None, row([1, 2, 3, 4], groups), groups=groups, activation=None, pool=MaxPool(2, 2, 1))


def test_not_a_number_keeps_its_gradient(copying: tuple[Tensor, int]) -> None:
    weight, groups = copying
    x, grad = row([NAN, 1, 0, -1, -0.0, 2, -3, NAN], groups), row([1, 2, 3, 4], groups)
    check(x, weight, None, grad, groups=groups, pool=AvgPool(2))
    check(x, weight, None, torch.cat([grad, -grad], dim=2), groups=groups, pool=None)


def test_gradients_where_relu_is_off_are_selected_not_multiplied(copying: tuple[Tensor, int]) -> None:
    weight, groups = copying
    x, grad = row([-1, -2, 1, 2, 0, -3], groups), row([NAN, 1, INF], groups)
    check(x, weight, None, grad, groups=groups, pool=MaxPool(2))
    check(x, weight, None, grad, groups=groups, pool=AvgPool(2))
    check(x, weight, None, torch.cat([grad, grad.flip(2)], dim=2), groups=groups, pool=None)


@pytest.mark.parametrize("groups", [1, 2])
def test_an_infinite_weight_spoils_no_pixel_that_its_tap_does_not_meet(groups: int) -> None:
    """Of a stride of 2 odd pixels meet the middle tap alone: the first, infinite, is masked there, and read as 0."""
    weight = torch.ones(2, 2 // groups, 3)
    weight[0, 0, 0] = INF
    options: dict[str, Any] = {"stride": 2, "groups": groups, "activation": None, "pool": None}
    x, grad = integers((1, 2, 7), torch.float32, torch.Generator().manual_seed(0)), row([1, 2, 3], 2)
    expected, _ = outcome(conv_act_pool_reference, x, weight, None, grad, "cpu", options)
    found, _ = outcome(conv_relu_pool, x, weight, None, grad, "cpu", {**options, "backend": "triton"})
    for pixels in (slice(1, None, 2), slice(None)):
        channels = slice(None) if pixels.start else slice(1, None)
        torch.testing.assert_close(found["dx"][:, channels, pixels], expected["dx"][:, channels, pixels])


def check_infinite_gradient(groups: int) -> None:
    """dx of a stride of 2, where one pixel's gradient is infinite: taps that a phase lacks multiply it by no 0."""
    x, weight = torch.zeros(1, 4, 7, 9), torch.ones(16 * groups, 4 // groups, 3, 3)
    options: dict[str, Any] = {"stride": 2, "groups": groups, "activation": None, "pool": None}
    grad = torch.ones(1, len(weight), 3, 4)
    grad[0, 0, 1, 2] = INF
    expected, _ = outcome(conv_act_pool_reference, x, weight, None, grad, "cpu", options)
    found, _ = outcome(conv_relu_pool, x, weight, None, grad, "cpu", {**options, "backend": "triton"})
    torch.testing.assert_close(found["dx"], expected["dx"], rtol=0, atol=0)


@pytest.mark.parametrize("groups", [1, 4])
def test_an_infinite_gradient_spoils_no_pixel_that_no_tap_connects(groups: int) -> None:
    check_infinite_gradient(groups)


def test_an_infinite_gradient_spoils_no_pixel_one_window_element_at_a_time(windowed_tiles: None) -> None:
    check_infinite_gradient(groups=1)


@pytest.mark.parametrize(("dtype", "edge"), [(torch.float16, 2048), (torch.bfloat16, 256)], ids=["fp16", "bf16"])
def test_rounded_before_windows_are_compared(dtype: torch.dtype, edge: int, copying: tuple[Tensor, int]) -> None:
    """edge + 1 rounds to edge and edge + 3 to edge + 4: ties in the dtype that the sums' own type does not see."""
    _, groups = copying
    x = row([edge, 0, edge, 1, edge + 2, 1, edge + 4, 0], groups, dtype)
    weight = torch.ones(groups, 1, 2, dtype=dtype)
    check(x, weight, None, row([1, 2], groups, dtype), groups=groups, stride=2, pool=MaxPool(2))


def test_convolution_gradient_is_rounded_as_if_it_were_stored(copying: tuple[Tensor, int]) -> None:
    """2048 + 1 is 2048 in float16, before it is multiplied: 2049 - 2048 would leave 1 where PyTorch has 0."""
    _, groups = copying
    x = row([0, 1, 0, 1, 0], groups, torch.float16)  # pixels 1 and 3 win two windows each
    grad = torch.tensor([[2048, 1, -2048, 0], [-2048, 0, 0, 0]], dtype=torch.float16).repeat(groups, 1)[None]
    check(x, torch.ones_like(grad[0, :, :1, None]), None, grad, groups=groups, activation=None, pool=MaxPool(2, 1))


ROUNDED = (
    Case("rounded", (2, 5, 6, 7), (16, 5, 3, 2), {"padding": 1}),
    Case("rounded_depthwise", (2, 6, 7, 5), (12, 1, 3, 3), {"groups": 6}),
)


def check_rounded(case: Case) -> None:
    """Every result in bf16 is the exact one rounded to nearest: sums of integers up to thousands, in eight bits."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        integers(size, torch.bfloat16, generator, most=40) for size in (case.x, case.weight, (case.weight[0],))
    )
    options: dict[str, Any] = {**case.options, "activation": None, "pool": None}
    wide = [tensor.double() for tensor in (x, weight, bias)]
    y, _ = outcome(conv_act_pool_reference, *wide, None, "cpu", options)
    grad = integers(tuple(y["y"].shape), torch.bfloat16, generator, most=40)
    exact, _ = outcome(conv_act_pool_reference, *wide, grad.double(), "cpu", options)
    found, _ = outcome(conv_relu_pool, x, weight, bias, grad, "cpu", {**options, "backend": "triton"})
    for name, tensor in exact.items():
        explained = functools.partial("{}: {}".format, name)
        torch.testing.assert_close(found[name], tensor.bfloat16(), rtol=0, atol=0, msg=explained)


@pytest.mark.parametrize("case", ROUNDED, ids=lambda case: case.name)
def test_results_are_rounded_to_nearest(case: Case) -> None:
    check_rounded(case)


def test_windowed_gradients_are_rounded_to_nearest(windowed_tiles: None) -> None:
    check_rounded(ROUNDED[0])


@pytest.mark.parametrize("groups", [1, 3])
def test_bits_of_pixels_in_no_window_are_the_same_in_every_call(groups: int) -> None:
    case = Case("gaps", (1, 3, 7, 8), (6, 3 // groups, 2, 2), {"groups": groups, "pool": AvgPool(1, (2, 3))})
    x, weight, bias = integer_inputs(case, torch.float32, seed=0)
    runs = []
    for pattern in PATTERNS:
        with guarded_memory(pattern) as allocations:
            y = conv_relu_pool(x.clone().requires_grad_(), weight, bias, **case.options, backend="triton")
            y.backward(integers(tuple(y.shape), y.dtype, torch.Generator().manual_seed(0)))
        runs.append([allocation.contents() for allocation in allocations])
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))
