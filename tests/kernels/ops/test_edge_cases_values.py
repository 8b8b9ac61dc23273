"""Edge cases 26-34: NaN, infinities, ties, signed zeros, and where sums are kept."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.kernels.activations.listed import ACTIVATIONS as EVERY
from tests.kernels.activations.listed import every_activation
from tests.kernels.exact import DEVICE, DTYPES, assert_as_pytorch, integers
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool
from tidepool.kernels.activations import Activation
from tidepool.kernels.conv.choose import conv_act_pool_dgrad
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.pooling import Pool
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.oracle.reference import pool_reference
from tidepool.kernels.tiles.dense import DgradTile, ForwardTile
from tidepool.kernels.tiles.windowed import WindowedDgradTile

NAN, INF = float("nan"), float("inf")
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
ACTIVATIONS = pytest.mark.parametrize("activation", ["relu", None])
EXACT = pytest.mark.parametrize("activation", ["relu", None, Activation("leaky_relu", 0.25)], ids=str)


def random(*size: int, seed: int = 0) -> Tensor:
    return integers(size, torch.float32, torch.Generator().manual_seed(seed + sum(size)))


def through(values: Tensor, grad: Tensor | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    """y and dx of the op with a 1 x 1 filter of 1, so that `values` (H, W) are the convolution's outputs."""
    x = values.view(1, 1, *values.shape).to(DEVICE).requires_grad_()
    y = conv_relu_pool(x, torch.ones(1, 1, 1, 1, dtype=x.dtype, device=DEVICE), **options, backend="triton")
    grad = torch.ones_like(y) if grad is None else grad.to(DEVICE).view(y.shape)
    (dx,) = torch.autograd.grad(y, x, grad)
    return y.detach().cpu()[0, 0], dx.cpu()[0, 0]


def assert_close_to_pytorchs(values: Tensor, activation: Activation, pool: Pool) -> None:
    """y and dx of `through` are PyTorch's, NaN to NaN, as far as float32 rounds the activation.

    PyTorch's in float64 and value by value: on some CPUs its float32 GELU, by way of oneDNN, is NaN at infinity, and
    its vectorised loops have other derivatives of NaN for some. What loses its window has no gradient, where PyTorch's
    is NaN if the slope is: 0 times it."""
    found = through(values, activation=activation, pool=pool)
    x = values.double().view(1, 1, *values.shape).requires_grad_()
    active = torch.stack([activation.reference(value) for value in x.flatten()]).view_as(x)
    y = pool_reference(active, pool, 2)
    dactive, dx = torch.autograd.grad(y, [active, x], torch.ones_like(y))
    dx = torch.where(dactive == 0, 0, dx)
    for ours, theirs in zip(found, (y.detach()[0, 0], dx[0, 0]), strict=True):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-6, equal_nan=True)


@every_dtype
@ACTIVATIONS
def test_26_the_last_nan_wins_its_window_even_over_infinity(activation: str | None, dtype: torch.dtype) -> None:
    values = torch.tensor([[NAN, INF, 1.0, 5.0], [NAN, 3.0, 2.0, NAN]], dtype=dtype)
    y, dx = through(values, activation=activation, pool=MaxPool(2))
    assert y.isnan().all()
    assert dx.tolist() == [[0, 0, 0, 0], [1, 0, 0, 1]]
    assert_as_pytorch(values.view(1, 1, 2, 4), torch.ones(1, 1, 1, 1, dtype=dtype), activation=activation)


@pytest.mark.parametrize("pool", [MaxPool(3, 1, 1), MaxPool(3, 2), MaxPool(2, 1, dilation=2), AvgPool(2)], ids=repr)
@EXACT
def test_26_nans_anywhere(pool: Any, activation: str | Activation | None) -> None:
    values = random(2, 1, 6, 7)
    values[values == 2] = NAN
    values[values == -2] = INF
    assert values.isnan().any()
    assert_as_pytorch(values, torch.ones(1, 1, 1, 1), activation=activation, pool=pool)


@pytest.mark.parametrize("pool", [MaxPool(2), MaxPool(2, 1), AvgPool(2, 1), None], ids=repr)
@every_activation
def test_26_nan_and_infinities_of_every_activation(activation: Activation, pool: Pool) -> None:
    values = torch.tensor([[NAN, INF, -1.0, 5.0, -INF, -INF, 2.0], [NAN, 3.0, -INF, INF, -INF, -INF, -3.0]])
    assert_close_to_pytorchs(values, activation, pool)


@every_dtype
@pytest.mark.parametrize(
    "pool", [MaxPool(2), MaxPool(3, 1, 1), MaxPool((2, 3), 1), MaxPool(2, 1, dilation=2)], ids=repr
)
def test_27_the_first_of_equals_wins(pool: MaxPool, dtype: torch.dtype) -> None:
    assert_as_pytorch(torch.ones(1, 1, 6, 6, dtype=dtype), torch.ones(1, 1, 1, 1, dtype=dtype), pool=pool)
    ties = random(2, 2, 6, 7).sign().to(dtype)
    assert_as_pytorch(ties, torch.ones(2, 2, 1, 1, dtype=dtype), pool=pool, activation=None)


def test_27_first_means_row_major() -> None:
    _, dx = through(torch.tensor([[1.0, 7.0], [7.0, 7.0]]))
    assert dx.tolist() == [[0, 1], [0, 0]]
    _, dx = through(torch.tensor([[1.0, 1.0], [7.0, 7.0]]))
    assert dx.tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_27_ties_that_rounding_makes(dtype: torch.dtype) -> None:
    """Sums 256 and 256.25 (bf16: 2048.25 in fp16) are one number once rounded: the first wins, though it is smaller."""
    large = 256.0 if dtype == torch.bfloat16 else 2048.0
    x = torch.tensor([[large, large, large, large], [0.0, 0.25, 0.5, 0.25]], dtype=dtype).view(1, 2, 2, 2)
    assert_as_pytorch(x, torch.ones(1, 2, 1, 1, dtype=dtype), grad=torch.ones(1, 1, 1, 1, dtype=dtype))
    leaf = x.to(DEVICE).requires_grad_()
    conv_relu_pool(leaf, torch.ones(1, 2, 1, 1, dtype=dtype, device=DEVICE), backend="triton").sum().backward()
    assert leaf.grad is not None
    assert leaf.grad[0, 0].tolist() == [[1, 0], [0, 0]]


@every_dtype
@pytest.mark.parametrize("pool", [MaxPool(2), MaxPool(3, 2, 1), MaxPool(3, 2, 1, ceil_mode=True)], ids=repr)
def test_28_all_minus_infinity(pool: MaxPool, dtype: torch.dtype) -> None:
    values = torch.full((6, 6), -INF, dtype=dtype)
    y, _ = through(values, activation=None, pool=pool)
    assert torch.equal(y, torch.full_like(y, -INF))
    assert_as_pytorch(values.view(1, 1, 6, 6), torch.ones(1, 1, 1, 1, dtype=dtype), activation=None, pool=pool)


def test_28_its_gradient_goes_to_the_first() -> None:
    _, dx = through(torch.full((2, 2), -INF), activation=None)
    assert dx.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("pool", [MaxPool(2, 2, 1), MaxPool(3, 1, 1), MaxPool(2, 3, 1, ceil_mode=True)], ids=repr)
def test_29_pool_padding_is_minus_infinity(pool: MaxPool) -> None:
    values = -1.0 - random(5, 5).abs()
    y, _ = through(values, activation=None, pool=pool)
    assert (y < 0).all()
    assert_as_pytorch(values.view(1, 1, 5, 5), torch.ones(1, 1, 1, 1), activation=None, pool=pool)


@pytest.mark.parametrize("pool", [None, MaxPool(1), AvgPool(1)], ids=repr)
def test_30_where_relu_is_on(pool: Any) -> None:
    """The mask is !(x <= 0): off at 0 and -0, on at the smallest positive number and at NaN."""
    values = torch.tensor([[0.0, -0.0, 1e-45, NAN, -1e-45, INF, -INF, 2.0]])
    y, dx = through(values, pool=pool)
    assert torch.equal(y.nan_to_num(7.0, INF), torch.tensor([[0.0, 0.0, 1e-45, 7.0, 0.0, INF, 0.0, 2.0]]))
    assert dx.tolist() == [[0, 0, 1, 1, 0, 1, 0, 1]]
    assert_as_pytorch(values.view(1, 1, 1, 8), torch.ones(1, 1, 1, 1), pool=pool)


@pytest.mark.parametrize("pool", [None, MaxPool(2), MaxPool((2, 3), 1), AvgPool(2, 1)], ids=repr)
@pytest.mark.parametrize("activation", [a for a in EVERY if a.formula.kinks], ids=str)
def test_30_every_kink_is_on_the_side_that_pytorch_puts_it(activation: Activation, pool: Pool) -> None:
    """Integers from -7 to 7: every kink occurs, and so do ties of values that a flat piece makes equal."""
    values = torch.randint(-7, 8, (12, 14), generator=torch.Generator().manual_seed(0)).float()
    assert all((values == kink).any() for kink in activation.formula.kinks)
    assert_close_to_pytorchs(values, activation, pool)


@every_dtype
@pytest.mark.parametrize("pool", [None, MaxPool(2), MaxPool(2, 1), AvgPool(2), AvgPool(2, 1)], ids=repr)
def test_31_where_relu_is_off_no_gradient_passes_be_it_nan(pool: Any, dtype: torch.dtype) -> None:
    values = torch.full((4, 4), -1.0, dtype=dtype)
    y, _ = through(values, pool=pool)
    bad = torch.full(y.shape, NAN, dtype=dtype)
    bad.view(-1)[::2] = INF
    _, dx = through(values, bad, pool=pool)
    assert torch.equal(dx, torch.zeros(4, 4, dtype=dtype))
    weight = torch.ones(2, 1, 1, 1, dtype=dtype)
    weight[1] = -1  # its filter is on, and gets the NaN
    grad = bad.expand(1, 2, *y.shape)
    assert_as_pytorch(values.view(1, 1, 4, 4), weight, torch.zeros(2, dtype=dtype), grad=grad, pool=pool)


@pytest.mark.parametrize("pool", [MaxPool(2), MaxPool(3, 2, 1), MaxPool(3, 1)], ids=repr)
@pytest.mark.parametrize("with_nan", [False, True])
def test_32_pooling_first_makes_no_difference(pool: MaxPool, with_nan: bool) -> None:
    x, weight, bias = random(2, 2, 7, 8), random(3, 2, 2, 2), random(3)
    if with_nan:
        x[0, 0, 2, 3], x[1, 1, 5, 5] = NAN, INF
    fields = (pool.kernel, pool.stride, pool.padding)
    expected = torch.relu(F.max_pool2d(F.conv2d(x, weight, bias), *fields))
    leaves = [t.to(DEVICE).requires_grad_() for t in (x, weight, bias)]
    found = conv_relu_pool(*leaves, pool=pool, backend="triton")
    torch.testing.assert_close(found.detach().cpu(), expected, rtol=0, atol=0, equal_nan=True)
    grad = random(*expected.shape)
    gradients = torch.autograd.grad(found, leaves, grad.to(DEVICE))
    swapped = [t.clone().requires_grad_() for t in (x, weight, bias)]
    y = torch.relu(F.max_pool2d(F.conv2d(*swapped), *fields))
    for ours, theirs in zip(gradients, torch.autograd.grad(y, swapped, grad), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("layer", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 2}], ids=repr)
@EXACT
def test_33_a_bad_pixel_spreads_to_its_receptive_field_and_no_farther(
    layer: dict[str, Any], bad: float, activation: str | Activation | None
) -> None:
    """Also the channels and pixels that tiles are padded with must not meet it: infinity times 0 is NaN."""
    x, weight = random(2, 2, 9, 9), random(3 if "groups" not in layer else 4, 2 // layer.get("groups", 1), 3, 3)
    x[1, 1, 4, 5] = bad
    options = {"activation": activation, "pool": MaxPool(2), **layer}
    y = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), **options, backend="triton").cpu()
    assert y[0].isfinite().all()
    assert_as_pytorch(x, weight, random(weight.shape[0]), **options)


def test_33_infinity_times_a_zero_weight_is_nan() -> None:
    x, weight = torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 3, 3)
    x[0, 0, 2, 2] = INF
    y = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), pool=None, backend="triton")
    assert y.isnan().all()


@pytest.mark.parametrize("bad", [NAN, INF])
def test_33_a_bad_gradient_spreads_as_in_pytorch(bad: float) -> None:
    x, weight, grad = random(2, 2, 7, 7), random(3, 2, 3, 3), random(2, 3, 2, 2)
    grad[0, 1, 1, 0] = bad
    assert_as_pytorch(x, weight, random(3), grad=grad)


@pytest.mark.parametrize("bad", [NAN, INF])
def test_33_a_bad_weight_spoils_what_it_meets(bad: float) -> None:
    """y is PyTorch's. In dx it also reaches the edge, where it meets only the zeros that a product is padded with."""
    x, weight = random(2, 2, 7, 7), random(3, 2, 3, 3)
    weight[1, 0, 2, 1] = bad
    outcomes = []
    for device, backend in ((DEVICE, "triton"), ("cpu", "cudnn")):
        leaf = x.to(device).requires_grad_()
        y = conv_relu_pool(leaf, weight.to(device), backend=backend)
        (dx,) = torch.autograd.grad(y.sum(), leaf)
        outcomes.append((y.detach().cpu(), dx.cpu()))
    (y, dx), (expected_y, expected_dx) = outcomes
    torch.testing.assert_close(y, expected_y, rtol=0, atol=0, equal_nan=True)
    met = dx.isfinite()
    assert torch.equal(dx[met], expected_dx[met])
    assert met[:, 1].all()


@pytest.mark.parametrize(
    "tile", [DgradTile(64, 16, 16, True), DgradTile(64, 16, 16, False), WindowedDgradTile(64, 16, 16)], ids=repr
)
@pytest.mark.parametrize("kernel", [1, 3])
def test_33_a_bad_weight_spoils_no_pixel_that_its_stride_passes_over(
    kernel: int, tile: DgradTile | WindowedDgradTile
) -> None:
    """Of stride 2, tap (0, 0) meets the pixels of even rows and columns only."""
    weight = integers((16, 16, kernel, kernel), torch.float16, torch.Generator().manual_seed(0)).to(DEVICE)
    weight[0, 3, 0, 0] = NAN
    layer = parse_layer((kernel, kernel), 2, 0, 1, 1, None, None)
    geometry, shapes = build_geometry((1, 16, 9, 9), weight.shape, layer)
    grad = integers((1, 16, *shapes.conv[1:]), torch.float16, torch.Generator().manual_seed(1)).to(DEVICE)
    dx = torch.empty(1, 16, 9, 9, dtype=torch.float16, device=DEVICE)
    conv_act_pool_dgrad(grad, None, None, weight, dx, geometry, shapes, tile)
    met = dx[:, 3, ::2, ::2].isnan()
    assert met.any()
    assert dx.isnan().sum() == met.sum()


def test_34_sums_are_kept_in_float32() -> None:
    x = torch.tensor([60000.0, 60000.0, -60000.0, -60000.0]).half().view(1, 4, 1, 1)
    weight = torch.ones(1, 4, 1, 1).half()
    y = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), pool=None, activation=None, backend="triton")
    assert y.item() == 0.0
    assert_as_pytorch(x, weight, pool=None, activation=None)


def test_34_so_are_sums_over_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with every product in a step of its own: the accumulator is not stored narrower between steps."""
    import tidepool.kernels.conv.forward

    tile = ForwardTile(block_k=16, block_p=16, block_c=16, joint=1, flat=True)
    monkeypatch.setattr(tidepool.kernels.conv.forward, "forward_tile", lambda *_, **__: tile)
    x = torch.zeros(1, 64, 1, 1).half()
    x[0, ::16, 0, 0] = torch.tensor([60000.0, 60000.0, -60000.0, -60000.0]).half()
    weight = torch.ones(1, 64, 1, 1).half()
    y = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), pool=None, activation=None, backend="triton")
    assert y.item() == 0.0


def test_34_overflow_happens_in_the_final_store() -> None:
    x = torch.tensor([60000.0, 60000.0]).half().view(1, 2, 1, 1)
    weight = torch.ones(1, 2, 1, 1).half()
    for pool in (None, MaxPool(1)):
        y = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), pool=pool, backend="triton")
        assert y.item() == INF
    big = torch.full((2, 2), 60000.0).half()
    y, _ = through(big, pool=AvgPool(2))  # the window's sum would not fit float16, its mean does
    assert y.item() == 60000.0
    assert_as_pytorch(x, weight, pool=None)


def test_34_gradients_are_summed_in_float32_too() -> None:
    x = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).half().view(1, 1, 2, 2)
    weight = torch.ones(1, 1, 1, 1).half()
    grad = torch.full((1, 1, 2, 2), 60000.0).half()
    leaves = [t.to(DEVICE).requires_grad_() for t in (x, weight)]
    y = conv_relu_pool(*leaves, pool=None, activation=None, backend="triton")
    _, dweight = torch.autograd.grad(y, leaves, grad.to(DEVICE))
    assert dweight.item() == 0.0
