"""The fast detector of faults in the kernels around a norm, as `test_detector` is for the convolutions'.

float64 against PyTorch's float64 on small odd layers, in tiles much smaller than they are: many programs, masked
tails, parts merged in two rounds, sums in three shares. Every input is followed in memory by NaN.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import tidepool.kernels.norm.backward
import tidepool.kernels.norm.forward
import tidepool.kernels.norm.statistics
import tidepool.kernels.ops.images
from tests.faults.test_detector import followed_by_nan
from tests.kernels.exact import INTERPRETED
from tests.kernels.guarded_memory import PATTERNS, guarded_memory
from tests.kernels.norm_layers import NormLayer, call, leaves, norm_tensors
from tidepool.kernels import AvgPool, MaxPool, global_average_pool, squeeze_excite
from tidepool.kernels.operators.norm_call import forget_norm_calls
from tidepool.kernels.tiles.dense import DepthwiseTile, ForwardTile
from tidepool.kernels.tiles.norm import NormTile

pytestmark = [
    pytest.mark.skipif(not INTERPRETED, reason="made for the interpreter; on a GPU tests/kernels runs compiled"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

LAYERS = (
    NormLayer("residual", (2, 3, 6, 5), (5, 3, 3, 2), {"padding": (1, 0)}, residual=True, conv_bias=True),
    NormLayer("pooled", (2, 3, 7, 9), (5, 3, 3, 3), {"pool": MaxPool((3, 2), 2, 1)}, channels_last=True),
    NormLayer("silu", (2, 4, 6, 5), (6, 2, 2, 3), {"groups": 2, "activation": "silu"}, residual=True),
    NormLayer("average", (2, 3, 6, 5), (3, 3, 2, 2), {"pool": AvgPool((2, 3), 1, (0, 1))}, residual=True),
    NormLayer("depthwise", (2, 5, 6, 5), (10, 1, 3, 2), {"groups": 5, "activation": "gelu", "pool": MaxPool(2)}),
    NormLayer("first", (2, 3, 8, 7), (5, 3, 3, 3), {"pool": MaxPool(2, 1), "pool_first": True}, residual=True),
    NormLayer("average_first", (2, 3, 6, 8), (4, 3, 2, 3), {"pool": AvgPool(2), "pool_first": True}, affine=False),
    NormLayer(
        "depthwise_first", (2, 3, 7, 6), (3, 1, 2, 2), {"groups": 3, "pool": AvgPool(2), "pool_first": True},
        residual=True,
    ),
    NormLayer("video", (1, 2, 3, 4, 5), (3, 2, 2, 2, 2), {"activation": None}, residual=True),
)  # fmt: skip


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiles much smaller than the layers."""
    forward, statistics = tidepool.kernels.norm.forward, tidepool.kernels.norm.statistics

    def tile(channels: int, pixels: int, innermost: bool, target: str, programs_wanted: int = 0) -> NormTile:
        return NormTile(2, 8, splits=3 if programs_wanted else 1)

    for module in (forward, tidepool.kernels.norm.backward, tidepool.kernels.ops.images):
        monkeypatch.setattr(module, "norm_tile", tile)
    monkeypatch.setattr(forward, "forward_tile", lambda *_: ForwardTile(8, 8, 8, 1, flat=True))
    monkeypatch.setattr(forward, "depthwise_tile", lambda *_: DepthwiseTile(8, 8))
    monkeypatch.setattr(statistics, "_MOST_AT_ONCE", 4)
    monkeypatch.setattr(statistics, "MERGE_PARTS", 2)
    forget_norm_calls()  # launches made ready with other tiles
    yield
    forget_norm_calls()


def scales(y: Tensor) -> Tensor:
    """y's incoming gradient: eighths, exact in bf16, whose sums are not."""
    return ((torch.arange(1, y.numel() + 1).view(y.shape) * 37 % 101 - 40) / 8).to(y.dtype)


def outcome(layer: NormLayer, tensors: dict[str, Tensor | None], backend: str, **others: Any) -> dict[str, Tensor]:
    """y, gradients and running statistics; and y again without gradients."""
    copies = {
        name: None if t is None else t.clone() if name.startswith("running") else t.detach().requires_grad_()
        for name, t in tensors.items()
    }
    y = call(layer, copies, backend, **others)
    y.backward(scales(y))
    found = {"y": y.detach()}
    for name, copy in copies.items():
        if copy is not None:
            gradient = copy if name.startswith("running") else copy.grad
            assert gradient is not None
            found[name] = gradient
    with torch.no_grad():
        found["inferred"] = call(layer, leaves(tensors), backend, **others)
    return found


@pytest.mark.parametrize("size", [(2, 5, 5, 9), (3, 2, 11), (1, 3, 2, 3, 4)], ids=str)
def test_gates_and_global_pools_are_close_in_float64(size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=generator, dtype=torch.float64)
    gate = torch.randn(*size[:2], *[1] * (len(size) - 2), generator=generator, dtype=torch.float64)
    results = []
    for backend, place in (("cudnn", Tensor.clone), ("triton", followed_by_nan)):
        given = [place(t).detach().requires_grad_() for t in (x, gate)]
        with guarded_memory(PATTERNS[0]) as allocations:
            y = squeeze_excite(*given, backend=backend)
            mean = global_average_pool(y, backend=backend)
            (mean.square().sum() + (y * x).sum()).backward()
        for allocation in allocations:
            allocation.check_guards()
        results.append((y.detach(), mean.detach(), *(t.grad for t in given)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


FROZEN = ("residual", "depthwise", "first")


@pytest.mark.parametrize(
    ("layer", "training"),
    [
        pytest.param(each, t, id=f"{each.name}-{t}")
        for each in LAYERS
        for t in (True, False)
        if t or each.name in FROZEN
    ],
)
def test_close_in_float64(layer: NormLayer, training: bool) -> None:
    tensors = norm_tensors(layer, torch.float64, torch.float64, seed=0)
    others = {"training": training, "momentum": 0.3, "eps": 1e-3}
    expected = outcome(layer, tensors, "cudnn", **others)
    followed = {name: None if t is None else followed_by_nan(t) for name, t in tensors.items()}
    with guarded_memory(PATTERNS[training]) as allocations:
        found = outcome(layer, followed, "triton", **others)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-9, msg=lambda text, n=name: f"{n}: {text}")
    for allocation in allocations:
        allocation.check_guards()


def assert_rounded(found: Tensor, exact: Tensor, name: str) -> None:
    """bf16 within half a unit of its last place of the float64 value, and what float32 sums leave: rounded, not cut."""
    assert found.dtype == torch.bfloat16, name
    unit = torch.exp2(torch.floor(torch.log2(exact.abs().clamp(min=1e-3))) - 7)
    off = ((found.double() - exact).abs() / unit).max()
    assert off < 0.51, f"{name}: off by {off:.2f} units of the last place"


def copying(activation: str | None) -> tuple[NormLayer, dict[str, Tensor | None]]:
    """A layer whose convolution copies its input, so that what follows it is rounded once, and its tensors in bf16."""
    options = {"groups": 7, "activation": activation}
    layer = NormLayer("rounded", (3, 7, 5, 6), (7, 1, 1, 1), options, residual=True)
    tensors = norm_tensors(layer, torch.bfloat16, torch.bfloat16, seed=0)
    return layer, tensors | {"weight": torch.ones(7, 1, 1, 1, dtype=torch.bfloat16)}


def doubled(tensors: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if t is None else t.double() for name, t in tensors.items()}


def test_results_are_rounded_to_nearest() -> None:
    layer, tensors = copying(None)
    exact, found = outcome(layer, doubled(tensors), "cudnn"), outcome(layer, tensors, "triton")
    for name in exact.keys() - {"weight"}:  # whose gradient is 0: a norm undoes what the filter's factor does
        assert_rounded(found[name], exact[name], name)


def test_a_smooth_activations_gradients_are_rounded_to_nearest() -> None:
    """The activation's input is rounded, as if it were stored: its slope is taken there."""
    layer, tensors = copying("silu")
    (plain, _), found = copying(None), outcome(layer, tensors, "triton")
    rounded = call(plain, leaves(doubled(tensors)), "cudnn").detach().bfloat16().double().requires_grad_()
    y = torch.nn.functional.silu(rounded)
    (residual,) = torch.autograd.grad(y, rounded, scales(y))
    assert_rounded(found["y"], y.detach(), "y")
    assert_rounded(found["residual"], residual, "dresidual")


def test_an_average_is_rounded_before_it_is_normalised() -> None:
    plain, tensors = copying(None)
    options = {**plain.options, "pool": AvgPool((1, 2)), "pool_first": True}
    layer = NormLayer("pooled_first", plain.x, plain.weight, options)
    tensors["residual"] = None
    x = tensors["x"]
    assert x is not None
    pooled = torch.nn.functional.avg_pool2d(x.double(), (1, 2)).bfloat16()
    with torch.no_grad():
        exact = call(plain, leaves(doubled(tensors | {"x": pooled})), "cudnn")
        assert_rounded(call(layer, leaves(tensors), "triton"), exact, "y")


def test_gates_and_global_pools_are_rounded_to_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    x, gate = (torch.randn(size, generator=generator).bfloat16() for size in ((2, 5, 5, 9), (2, 5, 1, 1)))
    results = []
    for backend, dtype in (("cudnn", torch.float64), ("triton", torch.bfloat16)):
        given = [t.to(dtype).requires_grad_() for t in (x, gate)]
        y, mean = squeeze_excite(*given, backend=backend), global_average_pool(given[0], backend=backend)
        gradients = torch.autograd.grad(y, given, x.to(dtype))
        results.append((y.detach(), mean.detach(), *gradients))
    for name, exact, found in zip(("y", "mean", "dx", "dgate"), *results, strict=True):
        assert_rounded(found, exact, name)


def test_a_large_mean_is_not_lost_in_squares() -> None:
    """In float32, deviations of 1 about 10,000: squares minus the mean's square would be off by several."""
    layer = NormLayer("large", (2, 3, 6, 5), (4, 3, 2, 2), {"activation": None}, conv_bias=True)
    tensors = norm_tensors(layer, torch.float32, torch.float32, seed=0)
    tensors["conv_bias"] = torch.full((4,), 1e4)
    with torch.no_grad():
        expected, found = (call(layer, leaves(tensors), backend) for backend in ("cudnn", "triton"))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_undefined_values_stay_in_their_channel_and_relu_selects() -> None:
    """Frozen statistics: a NaN pixel and an infinite gradient where ReLU is off, as PyTorch has them."""
    layer = NormLayer("frozen", (1, 2, 4, 5), (4, 1, 1, 1), {"groups": 2}, training=False, residual=True)
    tensors = norm_tensors(layer, torch.float64, torch.float64, seed=0)
    x = tensors["x"]
    assert x is not None
    x[0, 0, 1, 2] = torch.nan
    for backend_residual in (True, False):
        given = tensors if backend_residual else tensors | {"residual": None}
        results = []
        for backend in ("cudnn", "triton"):
            copies = leaves(given)
            y = call(layer, copies, backend)
            y.backward(torch.where(y == 0, torch.inf, 1.0))
            results.append((y.detach(), *(copies[name].grad for name in ("x", "norm_bias"))))  # type: ignore[union-attr]
        for expected, found in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
