"""Statistics of a batch norm: merged without cancellation, and running as nn.BatchNorm keeps them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.kernels.exact import DEVICE
from tests.kernels.norm_error_rule import check
from tests.kernels.norm_layers import NAMED, NormLayer
from tidepool.kernels import MaxPool, conv_norm_act
from tidepool.kernels.norm.statistics import conv_norm_act_coefficients

NORMS = {3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}


def parts_of(z: Tensor, chunk: int) -> Tensor:
    """Statistics (parts, 2, K) of each `chunk` of z's (M, K) rows, in float64, rounded to float32."""
    pieces = z.double().split(chunk)
    rows = [torch.stack([p.mean(0), (p - p.mean(0)).square().sum(0)]) for p in pieces]
    return torch.stack(rows).float().to(DEVICE)


@pytest.mark.parametrize("offset", [0.0, 1e3, -3e4])
@pytest.mark.parametrize(("count", "chunk"), [(5, 8), (127, 3), (700, 2), (129, 1)])
def test_parts_merge_to_the_statistics_of_all(count: int, chunk: int, offset: float) -> None:
    """Few parts in one round and many in two, the last one short; deviations a 30,000th of the mean survive."""
    generator = torch.Generator().manual_seed(0)
    total = count * chunk - chunk // 2
    z = torch.randn(total, 3, generator=generator) + offset
    z = z * torch.tensor([1.0, 0.5, -2.0])
    image = z.t()[None, :, :].contiguous().to(DEVICE)
    parts = parts_of(z, chunk)
    found = conv_norm_act_coefficients(image, parts, chunk, None, None, None, None, 0.1, 1e-5).cpu().double()
    # The parts as they were given, rounded means and all, merged in float64.
    counts = torch.tensor([len(piece) for piece in z.split(chunk)]).double()[:, None]
    means, squares = parts.cpu().double().unbind(1)
    mean = (counts * means).sum(0) / total
    variance = (squares + counts * (means - mean).square()).sum(0) / total
    # float32 holds a mean to 2^-24 of its size; a group's mean so rounded moves the variance by less than the product
    # of that and the deviation, which is 10^5 times less than squares minus the mean's square would lose.
    reach = 2.0**-24 * 2 * abs(offset)
    torch.testing.assert_close(found[0], mean, rtol=2.0**-23, atol=1e-6)
    torch.testing.assert_close(found[1].pow(-2) - 1e-5, variance, rtol=3e-6, atol=reach * variance.max().sqrt() / 8)


@pytest.mark.usefixtures("ieee_float32")
@pytest.mark.parametrize("offset", [300.0, -1e4])
@pytest.mark.parametrize("name", ["vgg_bn", "depthwise_pooled"])
def test_error_rule_with_a_mean_far_beyond_the_deviation(name: str, offset: float) -> None:
    check(NAMED[name], torch.float32, offset=offset, most_undecided=0.35)


def step(backend: str, norm: torch.nn.Module, x: Tensor, weight: Tensor, momentum: float) -> Tensor:
    return conv_norm_act(
        x, weight, norm.weight, norm.bias, norm.running_mean, norm.running_var, training=True, momentum=momentum,
        backend=backend,
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize(("rank", "momentum"), [(2, None), (2, 0.0), (2, 0.3), (2, 1.0), (1, 0.3), (3, 0.3)])
def test_running_statistics_are_the_modules(rank: int, momentum: float | None) -> None:
    """Three batches; None is a cumulative average, whose momentum the caller works out as the module does."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, *[2] * rank, generator=generator)
    ours, theirs = (NORMS[rank + 2](4, momentum=momentum).to(d) for d in (DEVICE, "cpu"))
    conv: Callable[..., Tensor] = getattr(torch.nn.functional, f"conv{rank}d")
    for batch in range(1, 4):
        x = torch.randn(2, 3, *[5, 4, 3][:rank], generator=generator) + batch
        theirs(conv(x, weight))
        step("triton", ours, x.to(DEVICE), weight.to(DEVICE), 1 / batch if momentum is None else momentum)
        torch.testing.assert_close(ours.running_mean.cpu(), theirs.running_mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.running_var.cpu(), theirs.running_var, rtol=1e-6, atol=1e-6)


def layer_call(backend: str, x: Tensor, **others: object) -> tuple[Tensor, Tensor, Tensor]:
    """y and running statistics of a depthwise 1x1 layer that copies its 2 channels."""
    weight = torch.ones(2, 1, 1, 1, dtype=x.dtype, device=x.device)
    mean, variance = torch.zeros(2, dtype=x.dtype), torch.ones(2, dtype=x.dtype)
    settings: dict = {"training": True, "activation": None, "groups": 2} | others
    mean, variance = mean.to(x.device), variance.to(x.device)
    y = conv_norm_act(x, weight, None, None, mean, variance, backend=backend, **settings)
    return y.cpu(), mean.cpu(), variance.cpu()


def test_a_constant_channel_has_variance_0_exactly() -> None:
    x = torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 1 / 3
    y, mean, variance = layer_call("triton", x.to(DEVICE), momentum=1.0)
    assert torch.equal(y[:, 1], torch.zeros(3, 5, 7))
    assert mean[1] == torch.tensor(1 / 3)
    assert variance[1] == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_and_infinity_spoil_their_own_channel_only(value: float) -> None:
    x = torch.randn(2, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    x[1, 0, 2, 3] = value
    y, *running = layer_call("triton", x.to(DEVICE))
    expected, *others = layer_call("cudnn", x)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert y[:, 0].isnan().all()
    for found, other in zip(running, others, strict=True):
        torch.testing.assert_close(found[1], other[1])
        assert not found[0].isfinite()
        assert not other[0].isfinite()


def test_an_empty_batch_leaves_the_running_statistics() -> None:
    for backend in ("triton", "cudnn"):
        device = DEVICE if backend == "triton" else "cpu"
        y, mean, variance = layer_call(backend, torch.empty(0, 2, 3, 4, device=device))
        assert y.shape == (0, 2, 3, 4)
        assert mean.tolist() == [0, 0]
        assert variance.tolist() == [1, 1]


def test_statistics_in_a_view_are_updated_in_place_and_their_version_rises() -> None:
    buffer = torch.zeros(2, 6, device=DEVICE)
    buffer[1] = 1
    mean, variance = buffer[0, ::3], buffer[1, ::3]
    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)).to(DEVICE) + 3
    weight = torch.eye(2, device=DEVICE)[:, :, None, None]
    before = buffer._version
    conv_norm_act(x, weight, None, None, mean, variance, training=True, momentum=1.0, backend="triton")
    torch.testing.assert_close(mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(variance, x.var((0, 2, 3)))
    assert buffer[:, 1:3].cpu().tolist() == [[0, 0], [1, 1]]
    assert buffer._version > before


def test_without_running_statistics_the_batchs_are_used() -> None:
    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    weight = torch.eye(2, device=DEVICE)[:, :, None, None]
    y = conv_norm_act(x, weight, None, None, None, None, training=True, activation=None, backend="triton")
    torch.testing.assert_close(y.mean((0, 2, 3)).cpu(), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(y.var((0, 2, 3), unbiased=False).cpu(), torch.ones(2), rtol=0, atol=1e-4)


def test_statistics_are_of_the_pooled_outputs_when_the_pool_comes_first() -> None:
    layer = NormLayer("first", (2, 3, 8, 8), (4, 3, 3, 3), {"pool": MaxPool(2), "pool_first": True})
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(layer.x, generator=generator), torch.randn(layer.weight, generator=generator)
    pooled = torch.nn.functional.max_pool2d(torch.nn.functional.conv2d(x, weight), 2)
    mean, variance = torch.zeros(4, device=DEVICE), torch.zeros(4, device=DEVICE)
    x, weight = x.to(DEVICE), weight.to(DEVICE)
    conv_norm_act(x, weight, None, None, mean, variance, training=True, momentum=1.0, backend="triton", **layer.options)
    torch.testing.assert_close(mean.cpu(), pooled.mean((0, 2, 3)))
    torch.testing.assert_close(variance.cpu(), pooled.var((0, 2, 3)))
