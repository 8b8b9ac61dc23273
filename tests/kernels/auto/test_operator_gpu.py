"""`backend="auto"` on a GPU: behind cuDNN its values are eager PyTorch's to the bit, and graphs capture it."""

import pytest
import torch
from torch import Tensor

from tests.kernels.exact import INTERPRETED
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool
from tidepool.kernels.auto import plan
from tidepool.kernels.auto.plan import FORWARD_WAYS, GRADIENT_WAYS, Choice, LayerPlan
from tidepool.kernels.oracle.reference import conv_act_pool_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs an NVIDIA GPU and compiled kernels"),
]


def tensors(dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(8, 64, 30, 28, generator=generator, device="cuda", dtype=torch.float32)
    weight = torch.randn(96, 64, 3, 3, generator=generator, device="cuda") / 24
    bias = torch.randn(96, generator=generator, device="cuda")
    x, weight = (t.to(dtype).contiguous(memory_format=torch.channels_last) for t in (x, weight))
    return x, weight, bias.to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("pool", [MaxPool(2), MaxPool(3, 2, 1), None], ids=["2x2", "3x3", "none"])
def test_the_epilogue_behind_cudnn_is_eager_pytorch_to_the_bit(pool: MaxPool | None, dtype: torch.dtype) -> None:
    x, weight, bias = tensors(dtype)
    torch.backends.cudnn.deterministic = True
    try:
        with plan.use(LayerPlan(inference=Choice("epilogue"))), torch.no_grad():
            found = conv_relu_pool(x, weight, bias, padding=1, pool=pool, backend="auto")
        expected = conv_act_pool_reference(x, weight, bias, padding=1, pool=pool)
    finally:
        torch.backends.cudnn.deterministic = False
    assert torch.equal(found, expected)


@pytest.mark.parametrize("forward", FORWARD_WAYS)
def test_backward_under_autocast_convolves_again_as_forward_did(forward: str) -> None:
    given = tensors(torch.float32)
    outcomes = []
    torch.backends.cudnn.deterministic = True
    try:
        for under_autocast in (False, True):
            leaves = [t.clone().requires_grad_() for t in given]
            with plan.use(LayerPlan(forward=Choice(forward))):
                y = conv_relu_pool(*leaves, padding=1, activation="silu", pool=AvgPool(2), backend="auto")
            with torch.autocast("cuda", torch.bfloat16, enabled=under_autocast):
                outcomes.append(torch.autograd.grad(y.sum(), leaves))
    finally:
        torch.backends.cudnn.deterministic = False
    for plain, autocast in zip(*outcomes, strict=True):
        assert torch.equal(plain, autocast)


@pytest.mark.parametrize("forward", FORWARD_WAYS)
@pytest.mark.parametrize("gradient", GRADIENT_WAYS)
def test_a_captured_step_replays_on_new_inputs(forward: str, gradient: str) -> None:
    x, weight, bias = (t.requires_grad_() for t in tensors())
    mixed = LayerPlan(forward=Choice(forward), dgrad=Choice(gradient), wgrad=Choice(gradient))

    def step() -> tuple[Tensor, ...]:
        y = conv_relu_pool(x, weight, bias, padding=1, backend="auto")
        return y.detach(), *torch.autograd.grad(y.float().square().sum(), (x, weight, bias))

    with plan.use(mixed):
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        with torch.no_grad():
            x.mul_(-1)
        graph.replay()
        for got, expected in zip(captured, step(), strict=True):
            torch.testing.assert_close(got, expected)


def test_without_a_table_a_layer_is_planned_by_assumption_and_right() -> None:
    x, weight, bias = tensors()
    y = conv_relu_pool(x.requires_grad_(), weight, bias, padding=1, backend="auto")
    y.sum().backward()
    expected = conv_act_pool_reference(x.detach().float(), weight.float(), bias.float(), padding=1)
    torch.testing.assert_close(y.detach().float(), expected, rtol=0.02, atol=0.02)
    assert x.grad is not None
