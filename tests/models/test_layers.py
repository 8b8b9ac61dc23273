"""The op as a module: it hands everything on, and starts its weights as He et al. say."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tidepool.kernels import AvgPool, MaxPool
from tidepool.models.layers import AdaptiveAvgPool, ConvActPool, ConvNormAct, fully_connected, pool_where_it_fits


def _input(channels: int = 4) -> torch.Tensor:
    return torch.randn(2, channels, 11, 9, generator=torch.Generator().manual_seed(0))


def test_default_is_convolution_bias_and_relu() -> None:
    layer = ConvActPool(4, 6, 3, backend="cudnn")
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
    layer = ConvActPool(4, 6, 3, backend="cudnn", **settings)
    expected = F.conv2d(_input(), layer.weight, layer.bias, **conv).relu()
    torch.testing.assert_close(layer(_input()), expected if pool is None else pool(expected))


def test_without_bias_and_activation() -> None:
    layer = ConvActPool(4, 6, 3, bias=False, activation=None, backend="cudnn")
    assert layer.bias is None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    torch.testing.assert_close(layer(_input()), F.conv2d(_input(), layer.weight))


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^groups=3; expected a divisor of 4 in and 6 out channels$"):
        ConvActPool(4, 6, 3, groups=3)


@pytest.mark.parametrize(
    ("activation", "groups", "variance"),
    [("relu", 1, 2 / (32 * 9)), ("relu", 4, 2 / (8 * 9)), (None, 1, 1 / (32 * 9))],
)
def test_weights_start_with_the_variance_of_the_paper(activation: str | None, groups: int, variance: float) -> None:
    torch.manual_seed(0)
    layer = ConvActPool(32, 256, 3, groups=groups, activation=activation)
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


@pytest.mark.parametrize(("rank", "conv", "pool"), [(1, F.conv1d, F.max_pool1d), (3, F.conv3d, F.max_pool3d)])
def test_other_ranks(rank: int, conv: Any, pool: Any) -> None:
    layer = ConvActPool(2, 3, 3, rank=rank, padding=1, pool=MaxPool(2), backend="cudnn")
    x = torch.randn(2, 2, *(6, 5, 4)[:rank], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), pool(conv(x, layer.weight, layer.bias, padding=1).relu(), 2))


def test_kernels_have_a_number_for_each_dimension() -> None:
    assert ConvActPool(2, 3, (1, 3, 5), rank=3).weight.shape == (3, 2, 1, 3, 5)
    with pytest.raises(ValueError, match=r"^kernel_size=\(3, 3\), rank=3; expected"):
        ConvActPool(2, 3, (3, 3), rank=3)


@pytest.mark.parametrize("pool_first", [False, True])
def test_norm_residual_activation_and_pool_in_their_order(pool_first: bool) -> None:
    layer = ConvNormAct(4, 6, 3, padding=1, activation="silu", pool=MaxPool(2), pool_first=pool_first, backend="cudnn")
    z = F.conv2d(_input(), layer.conv.weight, padding=1)
    z = F.max_pool2d(z, 2) if pool_first else z
    residual = torch.ones_like(z)
    y = F.silu(F.batch_norm(z, None, None, training=True) + residual)
    torch.testing.assert_close(layer(_input(), residual), y if pool_first else F.max_pool2d(y, 2))
    assert layer.norm.num_batches_tracked == 1


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 13), (3, 20)])
@pytest.mark.parametrize("output", [(7, 7), (6, 6), (5, 9)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_adaptive_pools_are_pytorchs(size: tuple[int, int], output: tuple[int, int], dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).to(dtype)
    torch.testing.assert_close(AdaptiveAvgPool(output)(x), F.adaptive_avg_pool2d(x, output))


def test_an_adaptive_pool_of_the_right_size_is_nothing() -> None:
    x = torch.randn(2, 3, 7, 7)
    assert AdaptiveAvgPool((7, 7))(x) is x


@pytest.mark.parametrize("size", [(4, 5), (1, 5), (4, 1), (2, 1)])
@pytest.mark.parametrize(("window", "padding"), [((2, 2), None), ((1, 2), None), ((2, 2), (0, 1))])
def test_pools_leave_alone_what_they_do_not_fit(size: Any, window: Any, padding: Any) -> None:
    pool, left = pool_where_it_fits(size, window, padding)
    layer = ConvActPool(1, 1, 1, pool=pool, backend="cudnn")
    assert tuple(layer(torch.zeros(1, 1, *size)).shape[2:]) == left
    for whole, side, rest in zip(size, window, left, strict=True):
        assert rest == whole if whole < side else rest >= whole // side


def test_one_pixel_is_not_pooled() -> None:
    assert pool_where_it_fits((1, 1), (2, 2)) == (None, (1, 1))


def test_its_description_names_what_it_runs() -> None:
    text = repr(ConvActPool(4, 6, 3, padding=1, pool=MaxPool(2), backend="triton"))
    assert "(6, 4, 3, 3)" in text
    assert "padding=1" in text
    assert "MaxPool(kernel=2" in text
    assert "backend=triton" in text
