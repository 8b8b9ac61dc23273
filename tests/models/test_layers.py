"""The op as a module: it hands everything on, and starts its weights as He et al. say."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kernels import AvgPool, MaxPool
from models.layers import ConvReLUPool, fully_connected


def _input(channels: int = 4) -> torch.Tensor:
    return torch.randn(2, channels, 11, 9, generator=torch.Generator().manual_seed(0))


def test_default_is_convolution_bias_and_relu() -> None:
    layer = ConvReLUPool(4, 6, 3, backend="cudnn")
    torch.nn.init.normal_(layer.bias)
    torch.testing.assert_close(layer(_input()), F.conv2d(_input(), layer.weight, layer.bias).relu())


@pytest.mark.parametrize(
    ("settings", "conv", "pool"),
    [
        ({"stride": 2, "padding": 1}, {"stride": 2, "padding": 1}, None),
        ({"dilation": 2, "groups": 2}, {"dilation": 2, "groups": 2}, None),
        ({"padding": "same", "pool": MaxPool(3, stride=2)}, {"padding": "same"}, lambda x: F.max_pool2d(x, 3, 2)),
        ({"pool": AvgPool(2)}, {}, lambda x: F.avg_pool2d(x, 2)),
    ],
    ids=["stride and padding", "dilation and groups", "same and max-pool", "average pool"],
)
def test_settings_reach_the_op(settings: dict[str, Any], conv: dict[str, Any], pool: Any) -> None:
    layer = ConvReLUPool(4, 6, 3, backend="cudnn", **settings)
    expected = F.conv2d(_input(), layer.weight, layer.bias, **conv).relu()
    torch.testing.assert_close(layer(_input()), expected if pool is None else pool(expected))


def test_without_bias_and_activation() -> None:
    layer = ConvReLUPool(4, 6, 3, bias=False, activation=None, backend="cudnn")
    assert layer.bias is None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    torch.testing.assert_close(layer(_input()), F.conv2d(_input(), layer.weight))


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^groups=3; expected a divisor of 4 in and 6 out channels$"):
        ConvReLUPool(4, 6, 3, groups=3)


@pytest.mark.parametrize(
    ("activation", "groups", "variance"),
    [("relu", 1, 2 / (32 * 9)), ("relu", 4, 2 / (8 * 9)), (None, 1, 1 / (32 * 9))],
)
def test_weights_start_with_the_variance_of_the_paper(activation: str | None, groups: int, variance: float) -> None:
    torch.manual_seed(0)
    layer = ConvReLUPool(32, 256, 3, groups=groups, activation=activation)
    assert layer.bias is not None
    assert layer.bias.abs().max() == 0
    # The variance of n normal samples is off by a relative sqrt(2 / n); four of those.
    tolerance = 4 * math.sqrt(2 / layer.weight.numel())
    assert layer.weight.square().mean().item() == pytest.approx(variance, rel=tolerance)
    assert abs(layer.weight.mean().item()) < 4 * math.sqrt(variance / layer.weight.numel())


@pytest.mark.parametrize(("rectified", "variance"), [(True, 2 / 300), (False, 1 / 300)])
def test_fully_connected_weights_start_likewise(rectified: bool, variance: float) -> None:
    torch.manual_seed(0)
    layer = fully_connected(300, 500, rectified=rectified)
    assert layer.bias.abs().max() == 0
    assert layer.weight.square().mean().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / 150_000))


def test_its_description_names_what_it_runs() -> None:
    text = repr(ConvReLUPool(4, 6, 3, padding=1, pool=MaxPool(2), backend="triton"))
    assert "(6, 4, 3, 3)" in text
    assert "padding=1" in text
    assert "MaxPool(kernel=2" in text
    assert "backend=triton" in text
