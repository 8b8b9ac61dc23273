"""Edge cases 21-25: views in, memory formats out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.exact import DEVICE, INTERPRETED, assert_as_pytorch, assert_equal, integers, placed
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.operators.conv_implementations import fake_infer

LAST = torch.channels_last


def random(*size: int, seed: int = 0) -> Tensor:
    return integers(size, torch.float32, torch.Generator().manual_seed(seed + sum(size)))


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2),
    "permuted": lambda t: t.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
    "stepped": lambda t: t.repeat_interleave(2, -1).repeat_interleave(3, 1)[:, ::3, :, ::2],
    "flipped twice": lambda t: t.flip(-1).flip(-1),
    "first for all": lambda t: t[:1].expand(t.shape),
    "one channel for all": lambda t: t[:, :1].expand(t.shape),
    "one pixel for all": lambda t: t[..., :1, :1].expand(t.shape),
    "offset": lambda t: torch.cat([t.new_full((1, *t.shape[1:]), 50.0), t])[1:],
    "inner": lambda t: torch.nn.functional.pad(t, (2, 1, 1, 2), value=50.0)[..., 1:-2, 2:-1],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("which", ["x", "weight", "grad"])
def test_21_views_give_what_contiguous_tensors_give(view: str, which: str) -> None:
    tensors = {"x": random(2, 3, 7, 8), "weight": random(4, 3, 3, 2), "grad": random(2, 4, 2, 3)}
    seen = placed(VIEWS[view](tensors[which]), DEVICE)
    outcomes = []
    for tensor in (seen, seen.contiguous()):
        given = {**{name: t.to(DEVICE) for name, t in tensors.items()}, which: tensor}
        x, weight = given["x"].requires_grad_(), given["weight"].requires_grad_()
        y = conv_relu_pool(x, weight, backend="triton")
        outcomes.append((y, *torch.autograd.grad(y, [x, weight], given["grad"])))
    for name, found, expected in zip(("y", "dx", "dweight"), *outcomes, strict=True):
        assert_equal(found, expected, name, strides=False)


@pytest.mark.parametrize("view", VIEWS)
def test_21_views_give_what_pytorch_gives(view: str) -> None:
    x, weight = VIEWS[view](random(2, 3, 7, 8)), VIEWS[view](random(4, 3, 3, 2)).contiguous()
    assert_as_pytorch(x, weight, random(4), strides=False)


@pytest.mark.parametrize("pool", [MaxPool(2), MaxPool(3, 2, 1), AvgPool(2), None], ids=repr)
@pytest.mark.parametrize(("x_last", "weight_last"), [(True, True), (True, False), (False, True), (False, False)])
def test_22_channels_last_of_x_or_weight_gives_channels_last(x_last: bool, weight_last: bool, pool: Any) -> None:
    x = random(2, 3, 7, 8).to(memory_format=LAST if x_last else torch.contiguous_format)
    weight = random(4, 3, 3, 2).to(memory_format=LAST if weight_last else torch.contiguous_format)
    assert_as_pytorch(x, weight, random(4), pool=pool)
    leaves = [t.to(DEVICE).requires_grad_() for t in (x, weight)]
    y = conv_relu_pool(*leaves, pool=pool, backend="triton")
    dx, dweight = torch.autograd.grad(y.sum(), leaves)
    assert y.is_contiguous(memory_format=LAST) == (x_last or weight_last)
    assert y.is_contiguous() != (x_last or weight_last)
    assert dx.stride() == x.stride()
    assert dweight.stride() == weight.stride()


@pytest.mark.parametrize("pool", [MaxPool(2), AvgPool(2), None], ids=repr)
@pytest.mark.parametrize("spatial", [2, 3])
@pytest.mark.parametrize(("x_last", "weight_last"), [(True, True), (True, False), (False, True)])
def test_22_no_images_give_contiguous(x_last: bool, weight_last: bool, spatial: int, pool: Any) -> None:
    """As in PyTorch; dw keeps the weight's format. dx, without a number, is contiguous."""
    last = LAST if spatial == 2 else torch.channels_last_3d
    x, weight = torch.zeros(0, 3, *(7, 8, 4)[:spatial]), random(4, 3, *(3, 2, 2)[:spatial])
    x, weight = (x.to(memory_format=last) if x_last else x), (weight.to(memory_format=last) if weight_last else weight)
    leaves = [t.to(DEVICE).requires_grad_() for t in (x, weight)]
    y = conv_relu_pool(*leaves, pool=pool, backend="triton")
    expected = conv_relu_pool(x, weight, pool=pool, backend="cudnn")
    assert y.shape == expected.shape
    assert y.stride() == expected.stride()
    dx, dweight = torch.autograd.grad(y.sum(), leaves)
    assert dx.is_contiguous()
    assert dweight.stride() == weight.stride()
    settings = (1, 0, 1, 1, "relu", pool)
    fake = fake_infer(x.to("meta"), weight.to("meta"), None, parse_layer(tuple(weight.shape[2:]), *settings).text())
    assert fake.stride() == y.stride()


@pytest.mark.parametrize("last_of", ["x", "weight", "both"])
def test_22_channels_last_3d(last_of: str) -> None:
    """Of one video, and from avg_pool3d, PyTorch on a CPU gives contiguous results; ours follow the one rule."""
    x, weight = random(2, 2, 4, 5, 6), random(3, 2, 2, 2, 3)
    if last_of != "weight":
        x = x.to(memory_format=torch.channels_last_3d)
    if last_of != "x":
        weight = weight.to(memory_format=torch.channels_last_3d)
    assert_as_pytorch(x, weight, random(3), pool=MaxPool((1, 2, 2)))
    for pool in (MaxPool((1, 2, 2)), AvgPool(2), None):
        y = conv_relu_pool(x[:1].to(DEVICE), weight.to(DEVICE), pool=pool, backend="triton")
        assert y.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, *([torch.float64] if INTERPRETED else [])], ids=str)
def test_22_whatever_the_dtype(dtype: torch.dtype) -> None:
    x, weight = random(2, 3, 7, 8).to(dtype).to(memory_format=LAST), random(4, 3, 3, 2).to(dtype)
    y = conv_relu_pool(x.to(DEVICE), weight.to(DEVICE), backend="triton")
    assert y.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("size", [(2, 1, 6, 7), (2, 3, 1, 1), (1, 1, 1, 1), (1, 1, 6, 7)])
@pytest.mark.parametrize("x_last", [False, True])
@pytest.mark.parametrize("filters", [1, 4])
def test_23_where_both_formats_are_true_at_once(size: tuple[int, ...], x_last: bool, filters: int) -> None:
    """One channel, or one pixel: values are PyTorch's, and the output is in every format that PyTorch's is in."""
    x, weight = random(*size), random(filters, size[1], 1, 1)
    x = x.to(memory_format=LAST) if x_last else x
    assert x.is_contiguous()
    assert x.is_contiguous(memory_format=LAST)
    pool = MaxPool(2) if size[-1] > 1 else None
    assert_as_pytorch(x, weight, random(filters), pool=pool, strides=False)
    ours, theirs = (
        conv_relu_pool(x.to(device), weight.to(device), pool=pool, backend=backend)
        for device, backend in ((DEVICE, "triton"), ("cpu", "cudnn"))
    )
    for memory_format in (torch.contiguous_format, LAST):
        assert ours.is_contiguous(memory_format=memory_format) == theirs.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("pool", [MaxPool(2), MaxPool(3, 1, 1), AvgPool(2), None], ids=repr)
@pytest.mark.parametrize("activation", ["relu", None])
def test_24_gradients_of_a_sum_have_stride_zero(pool: Any, activation: str | None) -> None:
    x, weight, bias = random(2, 3, 6, 7), random(4, 3, 3, 3), random(4)
    leaves = [t.to(DEVICE).requires_grad_() for t in (x, weight, bias)]
    y = conv_relu_pool(*leaves, padding=1, pool=pool, activation=activation, backend="triton")
    seen = []
    y.register_hook(lambda grad: seen.append(grad.stride()))
    y.sum().backward()
    assert seen == [(0, 0, 0, 0)]
    ones = torch.ones(y.shape)
    options = {"padding": 1, "pool": pool, "activation": activation}
    assert_as_pytorch(x, weight, bias, grad=ones[:1, :1, :1, :1].expand(y.shape), **options)
    again = [t.to(DEVICE).requires_grad_() for t in (x, weight, bias)]
    conv_relu_pool(*again, **options, backend="triton").backward(ones.to(DEVICE))
    for spread, full in zip(leaves, again, strict=True):
        assert torch.equal(spread.grad, full.grad)


@pytest.mark.parametrize("x_last", [False, True])
@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("pool", [MaxPool(2), AvgPool(2), None], ids=repr)
def test_25_gradient_in_the_other_format(x_last: bool, activation: str, pool: Any) -> None:
    x, weight = random(2, 3, 6, 7), random(4, 3, 3, 3)
    x = (x.to(memory_format=LAST) if x_last else x).to(DEVICE)
    outcomes = []
    for memory_format in (torch.contiguous_format, LAST):
        leaves = [t.detach().to(DEVICE).requires_grad_() for t in (x, weight)]
        y = conv_relu_pool(*leaves, pool=pool, activation=activation, padding=1, backend="triton")
        grad = random(*y.shape).to(DEVICE).to(memory_format=memory_format)
        outcomes.append(torch.autograd.grad(y, leaves, grad))
    for name, found, expected in zip(("dx", "dweight"), *outcomes, strict=True):
        assert_equal(found, expected, name)
    if activation == "relu":
        assert_as_pytorch(x.cpu(), weight, grad=grad.cpu(), pool=pool, padding=1)


BIASES: dict[str, Callable[[Tensor], Tensor]] = {
    "stepped": lambda t: t.repeat_interleave(2)[::2],
    "one for all": lambda t: t[:1].expand(t.shape),
    "column": lambda t: t[:, None].expand(-1, 3).contiguous()[:, 1],
    "offset": lambda t: torch.cat([t.new_full((1,), 50.0), t])[1:],
}


@pytest.mark.parametrize("view", BIASES)
@pytest.mark.parametrize(
    "options",
    [{}, {"groups": 3}, {"groups": 3, "pool": AvgPool(2)}, {"activation": "gelu", "pool": AvgPool(2)}, {"pool": None}],
    ids=str,
)
def test_21_a_bias_may_be_a_view(view: str, options: dict[str, Any]) -> None:
    x, weight = random(2, 3, 6, 6), random(6, 3 // options.get("groups", 1), 3, 3)
    bias = BIASES[view](random(6))
    settings = {**options, "backend": "triton"}
    outcomes = []
    for seen in (bias, bias.contiguous()):
        leaves = [x.to(DEVICE).requires_grad_(), weight.to(DEVICE).requires_grad_()]
        y = conv_relu_pool(*leaves, placed(seen, DEVICE), **settings)
        outcomes.append((y, *torch.autograd.grad(y.sum(), leaves)))
    for found, expected in zip(*outcomes, strict=True):
        assert torch.equal(found, expected)
    if options.get("activation") != "gelu":
        assert_as_pytorch(x, weight, bias, **options)
