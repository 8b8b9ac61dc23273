"""PReLU, whose slope is a tensor that is learned: values and every gradient are PyTorch's, the slope's included."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tidepool.kernels.conv.learned_slope
from tests.kernels import error_rule
from tests.kernels.activations.listed import every_pool
from tests.kernels.exact import DEVICE, INTERPRETED, assert_equal, integer_inputs, integers, placed
from tests.kernels.guarded_memory import PATTERNS, guarded_memory
from tests.kernels.shapes import NAMED, Case
from tidepool.kernels import AvgPool, MaxPool, conv_act_pool
from tidepool.kernels.activations import Activation, as_activation
from tidepool.kernels.conv.learned_slope import SlopeTile
from tidepool.kernels.layer.pooling import Pool
from tidepool.kernels.operators.call import KNOWN
from tidepool.kernels.runtime.errors import ArgumentError

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
INFINITY, NAN = float("inf"), float("nan")
PRELU = Activation("prelu")
BOTH = ("triton", "cudnn")
RESULTS = ("y", "dx", "dweight", "dbias", "dslope")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_backend = pytest.mark.parametrize("backend", ["triton", "cudnn", "auto"])


def outcome(
    tensors: tuple[Tensor, Tensor, Tensor | None],
    slope: Tensor,
    options: dict[str, Any],
    backend: str,
    grad: Tensor | None = None,
) -> dict[str, Tensor | None]:
    """y and every gradient, by name; the kernels' computed where they run, PyTorch's on the CPU."""
    device = "cpu" if backend == "cudnn" else DEVICE
    leaves = [None if t is None else placed(t, device).requires_grad_() for t in (*tensors, slope)]
    x, weight, bias, learned = leaves
    assert x is not None
    assert weight is not None
    assert learned is not None
    y = conv_act_pool(x, weight, bias, activation=Activation("prelu", learned), backend=backend, **options)
    if grad is None:
        grad = integers(tuple(y.shape), y.dtype, torch.Generator().manual_seed(y.numel()))
    y.backward(placed(grad, device))
    return dict(zip(RESULTS, (y.detach(), *(None if t is None else t.grad for t in leaves)), strict=True))


def assert_as_pytorch(
    tensors: tuple[Tensor, Tensor, Tensor | None], slope: Tensor, grad: Tensor | None = None, **options: Any
) -> None:
    """Everything equal to the bit, NaN to NaN."""
    found, expected = (outcome(tensors, slope, options, backend, grad) for backend in BOTH)
    for name in RESULTS:
        assert_equal(found[name], expected[name], name)


def pixels(z: list[float], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, None]:
    """One row of pixels, and the filter that hands each to the activation as it is."""
    return torch.tensor(z, dtype=dtype).view(1, 1, -1), torch.ones(1, 1, 1, dtype=dtype), None


# --- The record ------------------------------------------------------------------------------------------------------


def test_records_are_equal_when_they_hold_the_same_tensor() -> None:
    slope = torch.tensor([0.25])
    assert Activation("prelu", slope) == Activation("prelu", slope)
    assert Activation("prelu", slope) != Activation("prelu", slope.clone())
    assert hash(Activation("prelu", slope)) == hash(Activation("prelu", slope))
    assert Activation("prelu", slope).without_slope == PRELU == as_activation("prelu")
    assert Activation("elu").without_slope == Activation("elu")


def test_a_layer_is_remembered_without_its_slope() -> None:
    x, weight = torch.randn(1, 2, 6, 6, device=DEVICE), torch.randn(3, 2, 3, 3, device=DEVICE)
    slopes = [torch.full((3,), value, device=DEVICE) for value in (0.25, 0.5)]
    results = []
    for slope in slopes:
        results.append(conv_act_pool(x, weight, activation=Activation("prelu", slope), pool=None, backend="triton"))
        assert len(KNOWN) == 1
    assert torch.equal(results[0].clamp(max=0) * 2, results[1].clamp(max=0))


@every_backend
@pytest.mark.parametrize(
    ("slope", "message"),
    [
        (torch.ones(3), "expected slope of activation prelu to hold 1 element or 4, .* but got slope of size .3."),
        (torch.ones(0), "but got slope of size .0."),
        (torch.ones(1, 4), "but got slope of size .1, 4."),
        (torch.ones(4).double(), "Input type .torch.float32. and slope type .torch.float64. should be the same"),
        (torch.ones(4).to_sparse(), "expected slope to be a dense .strided. tensor"),
        (torch.ones(4, device="meta"), "expected x and slope to be on the same device"),
        (None, 'expected activation prelu with its slope, Activation."prelu", slope., but got none'),
    ],
    ids=["three", "none", "two_dimensions", "dtype", "sparse", "device", "missing"],
)
def test_refusals_name_the_slope(slope: Tensor | None, message: str, backend: str) -> None:
    x, weight = torch.randn(1, 2, 6, 6), torch.randn(4, 2, 3, 3)
    with pytest.raises(ArgumentError, match=message):
        conv_act_pool(x, weight, activation=Activation("prelu", slope), backend=backend)


def test_a_slope_is_a_tensor() -> None:
    with pytest.raises(ArgumentError, match=r"expected the slope of activation prelu to be a Tensor, but got 0\.25"):
        Activation("prelu", 0.25)


# --- Values and gradients --------------------------------------------------------------------------------------------


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles much smaller than the layer, the values shared out among three programs a tile, the last of which gets
    fewer."""
    monkeypatch.setattr(tidepool.kernels.conv.learned_slope, "slope_tile", lambda *_: SlopeTile(8, 16, 3))
    monkeypatch.setattr(tidepool.kernels.conv.learned_slope, "_REDUCE_BLOCK", 16)
    tidepool.kernels.conv.learned_slope._prepare_reduce.cache_clear()


@pytest.mark.parametrize("shared", [False, True], ids=["one_a_filter", "one_for_all"])
@pytest.mark.parametrize("pool", [MaxPool(3, 2, 1), AvgPool(2), None], ids=["max", "average", "none"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_sums_split_among_programs_and_nothing_written_outside(
    channels_last: bool, pool: Pool, shared: bool, small_tiles: None
) -> None:
    case = Case("split", (2, 2, 9, 8), (19, 2, 2, 2), channels_last=channels_last)
    slope = (torch.arange(1 if shared else 19) % 4 - 1).float()
    for pattern in PATTERNS:
        with guarded_memory(pattern) as allocations:
            assert_as_pytorch(integer_inputs(case, torch.float32, seed=6), slope, pool=pool)
        for allocation in allocations:
            allocation.check_guards()


@pytest.mark.parametrize("slope", [0.25, -0.5, 0.0, -0.0, 1.0, 3.0, NAN, INFINITY, -INFINITY], ids=str)
@pytest.mark.parametrize("z", [-2.0, -0.0, 0.0, 2.0, INFINITY, -INFINITY, NAN], ids=str)
@pytest.mark.parametrize("grad", [1.5, 0.0, INFINITY, NAN], ids=str)
def test_one_number_is_pytorchs(z: float, slope: float, grad: float) -> None:
    """At 0 and of NaN the derivative is the slope; infinities and NaN of all three meet each other as there."""
    assert_as_pytorch(pixels([z]), torch.tensor([slope]), torch.tensor([[[grad]]]), pool=None)


@every_dtype
@pytest.mark.parametrize("slope", [0.25, -0.75, 0.0, 1.0, 2.5], ids=str)
@pytest.mark.parametrize("pool", [MaxPool(4), MaxPool(3, 2, 1), None], ids=["side_by_side", "overlapping", "none"])
def test_winners_are_those_of_activated_values(pool: Pool, slope: float, dtype: torch.dtype) -> None:
    """Negative slopes turn the order round, 0 makes ties, over 1 the negative values grow."""
    assert_as_pytorch(pixels(MIXED, dtype), torch.tensor(slope, dtype=dtype), pool=pool)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_ties_of_rounded_values_fall_as_pytorchs(dtype: torch.dtype) -> None:
    """Neighbours of a dtype, of which the slope and rounding make equal ones: the first of them gets the gradient."""
    generator = torch.Generator().manual_seed(3)
    steps = torch.randint(0, 4, (400, 4), generator=generator)
    z = (-1.875 - steps * torch.finfo(dtype).eps).to(dtype)
    slope = torch.tensor([0.6], dtype=dtype)
    candidates = F.prelu(z, slope)
    tied = (candidates == candidates.amax(1, keepdim=True)) & (z != z.amax(1, keepdim=True))
    assert tied.any()
    x = z.view(1, 1, -1), torch.ones(1, 1, 1, dtype=dtype), None
    found, expected = (outcome(x, slope, {"pool": MaxPool(4)}, backend) for backend in BOTH)
    for name in ("y", "dx"):
        assert_equal(found[name], expected[name], name)


MIXED = [-1, 2, -3, 0.5, -2, -2, -1, -4, 3, 3, -0.0, 0, -1, -5, 0.25, -8, 1.5, -1.5, 4, -4]


@pytest.mark.parametrize("slope", [NAN, INFINITY, -INFINITY], ids=str)
def test_a_slope_that_is_no_finite_number_takes_windows_as_in_pytorch(slope: float) -> None:
    """PyTorch also multiplies by it the 0 that losing pixels get, and has NaN there (README, "Known limits")."""
    found, expected = (outcome(pixels(MIXED), torch.tensor([slope]), {"pool": MaxPool(4)}, b) for b in BOTH)
    for name in ("y", "dbias", "dslope"):
        assert_equal(found[name], expected[name], name)
    dx, twin = found["dx"], expected["dx"]
    assert dx is not None
    assert twin is not None
    won = dx != 0  # NaN too
    assert won.any()
    assert_equal(dx[won], twin[won], "dx of winners")
    assert ((twin[~won] == 0) | twin[~won].isnan()).all()


@pytest.mark.parametrize("values", [[NAN, 1, -1, 2], [1, -1, NAN, NAN], [INFINITY, -1, -2, -3]], ids=str)
@pytest.mark.parametrize("slope", [0.5, -0.5, 0.0], ids=str)
@pytest.mark.parametrize("pool", [MaxPool(2), AvgPool(2), None], ids=["max", "average", "none"])
def test_nan_and_infinity_in_windows_are_pytorchs(values: list[float], slope: float, pool: Pool) -> None:
    assert_as_pytorch(pixels(values), torch.tensor([slope]), pool=pool)


def test_minus_infinity_that_loses_sends_nothing_to_the_slope() -> None:
    """PyTorch multiplies it by the 0 that its gradient is, and has NaN (kernels/README.md, "Known limits")."""
    found, expected = (outcome(pixels([-INFINITY, 1.0]), torch.tensor([0.5]), {}, b) for b in BOTH)
    assert found["dslope"] == 0
    assert torch.isnan(expected["dslope"]).all()  # type: ignore[arg-type]


EXACT = (
    "padded_3x3_pool_2", "channels_last", "strided", "groups", "depthwise_times_two", "depthwise_average",
    "resnet_stem", "overlap_dilated_pool", "ceil_mode", "even_kernel_same", "window_of_255", "no_pool", "average",
    "waveform", "waveform_average", "video", "video_overlap",
)  # fmt: skip


@pytest.mark.full
@every_dtype
@pytest.mark.parametrize("shared", [False, True], ids=["one_a_filter", "one_for_all"])
@pytest.mark.parametrize("name", EXACT)
def test_equal_to_the_bit_on_small_integers(name: str, shared: bool, dtype: torch.dtype) -> None:
    case = NAMED[name]
    slope = torch.arange(1 if shared else case.weight[0]) % 4 - 1
    assert_as_pytorch(integer_inputs(case, dtype, seed=2), slope.to(dtype), **options_of(case))


def options_of(case: Case) -> dict[str, Any]:
    return {name: value for name, value in case.options.items() if name != "activation"}


RULED = ("padded_3x3_pool_2", "channels_last", "depthwise_average", "resnet_stem", "no_pool", "video_overlap")


@every_dtype
@pytest.mark.parametrize("shared", [False, True], ids=["one_a_filter", "one_for_all"])
@pytest.mark.parametrize("name", RULED)
def test_within_the_error_rule(name: str, shared: bool, dtype: torch.dtype) -> None:
    activation = Activation("prelu", torch.tensor([-0.3])) if shared else PRELU
    error_rule.check(with_activation(NAMED[name], activation), dtype, device=DEVICE, most_undecided=0.02)


@pytest.mark.full
@every_dtype
@every_pool
@pytest.mark.parametrize("groups", [1, 3], ids=["dense", "depthwise"])
def test_every_pool_within_the_error_rule(pool: Pool, groups: int, dtype: torch.dtype) -> None:
    options = {"padding": 1, "pool": pool, "groups": groups, "activation": PRELU}
    case = Case("prelu", (2, 3, 9, 8), (6, 3 // groups, 3, 2), options)
    error_rule.check(case, dtype, device=DEVICE, most_undecided=0.02)


def with_activation(case: Case, activation: Activation) -> Case:
    options = {**case.options, "activation": activation}
    return Case(case.name, case.x, case.weight, options, case.bias, case.channels_last)


# --- Slopes of every layout, and no pixels ---------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [MaxPool(2), AvgPool(2), None], ids=["max", "average", "none"])
@pytest.mark.parametrize("kind", ["stepped", "expanded", "a_number"])
def test_slopes_of_every_layout(kind: str, pool: Pool) -> None:
    slope = {"stepped": torch.arange(8.0)[::2], "expanded": torch.tensor(-2.0).expand(4), "a_number": torch.tensor(3.0)}
    tensors = integer_inputs(Case("layout", (2, 3, 7, 6), (4, 3, 3, 3)), torch.float32, seed=4)
    found, expected = (outcome(tensors, slope[kind], {"pool": pool}, backend) for backend in BOTH)
    for name in RESULTS:
        assert_equal(found[name], expected[name], name, strides=name != "dslope")


@every_backend
@pytest.mark.parametrize("pool", [MaxPool(2), None], ids=["max", "none"])
def test_an_unbatched_image_has_a_slope_a_filter(pool: Pool, backend: str) -> None:
    """Not a slope a row of pixels, as F.prelu would take the second dimension for."""
    x, weight, bias = integer_inputs(Case("one", (1, 3, 7, 6), (5, 3, 3, 3)), torch.float32, seed=5)
    slope = torch.tensor([-1.0, 2, 0, 1, 3])
    single = outcome((x[0], weight, bias), slope, {"pool": pool}, backend)
    batched = outcome((x, weight, bias), slope, {"pool": pool}, "cudnn")
    for name in RESULTS:
        found, expected = single[name], batched[name]
        assert expected is not None
        assert_equal(found, expected[0] if name in ("y", "dx") else expected, name, strides=False)


@pytest.mark.parametrize("pool", [MaxPool(2), AvgPool(2), None], ids=["max", "average", "none"])
def test_no_images_give_gradients_of_zero(pool: Pool) -> None:
    tensors = (torch.empty(0, 3, 7, 6), torch.randn(4, 3, 3, 3), torch.randn(4))
    assert_as_pytorch(tensors, torch.randn(4), pool=pool)


# --- How it is computed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [MaxPool(3, 2, 1), AvgPool(2), None], ids=["max", "average", "none"])
def test_two_calls_are_equal_to_the_bit(pool: Pool, small_tiles: None) -> None:
    generator = torch.Generator().manual_seed(7)
    sizes = ((3, 2, 9, 7), (19, 2, 2, 2), (19,), (19,))
    x, weight, bias, slope = (torch.randn(size, generator=generator) for size in sizes)
    first, second = (outcome((x, weight, bias), slope, {"pool": pool}, "triton") for _ in range(2))
    for name in RESULTS:
        assert_equal(second[name], first[name], name)


@pytest.mark.parametrize("pool", [MaxPool(2), AvgPool(2), None], ids=["max", "average", "none"])
def test_no_pytorch_convolution_or_pooling_runs(pool: Pool, no_pytorch_layers: None) -> None:
    tensors = integer_inputs(Case("ours", (2, 3, 7, 6), (4, 3, 3, 3)), torch.float32, seed=8)
    outcome(tensors, torch.ones(4), {"pool": pool}, "triton")


@pytest.mark.skipif(not INTERPRETED, reason="float64 products are compiled for no GPU's tensor cores")
def test_float64_is_computed_in_float64() -> None:
    generator = torch.Generator().manual_seed(9)
    sizes = ((2, 3, 7, 6), (4, 3, 3, 3), (4,), (4,), (2, 4, 2, 2))
    x, weight, bias, slope, grad = (torch.randn(s, generator=generator, dtype=torch.float64) for s in sizes)
    found, expected = (outcome((x, weight, bias), slope, {}, b, grad) for b in BOTH)
    for name in RESULTS:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-13, atol=1e-13)
