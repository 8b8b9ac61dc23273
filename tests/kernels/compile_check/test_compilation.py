"""The operator inside `torch.compile`: one graph, fixed and changing shapes, training and inference, autocast."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.kernels.exact import DEVICE
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile's CPU code needs a C++ compiler"),
    # What the compiled graphs say about being compiled.
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

LAYERS = {
    "relu_max": {"padding": 1},
    "same_overlapping": {"padding": "same", "pool": MaxPool(3, 2, 1, ceil_mode=True)},
    "relu_avg": {"pool": AvgPool(2)},
    "silu_avg": {"activation": "silu", "pool": AvgPool(3, 2, 1)},
    "plain": {"activation": None, "pool": None, "stride": 2},
}


def small_integers(*size: int, seed: int) -> Tensor:
    """Integers in [-2, 2], whose sums are exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, size, generator=generator).float().to(DEVICE)


def step(layer: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Output and the three gradients of a weighted sum of it."""
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    y = layer(*leaves)
    scale = torch.arange(y.numel(), device=y.device, dtype=y.dtype).reshape(y.shape) % 7
    return [y.detach(), *torch.autograd.grad((y * scale).sum(), leaves)]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_fullgraph_compile_gives_the_eager_operators_values_and_gradients(name: str, dynamic: bool) -> None:
    torch._dynamo.reset()

    def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return conv_relu_pool(x, weight, bias, backend="triton", **LAYERS[name])  # type: ignore[arg-type]

    compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic)
    weight, bias = small_integers(5, 3, 3, 3, seed=1), small_integers(5, seed=2)
    for n, h in ((2, 9), (3, 11)):
        x = small_integers(n, 3, h, 10, seed=n)
        for got, expected in zip(step(compiled, x, weight, bias), step(layer, x, weight, bias), strict=True):
            assert torch.equal(got, expected)


def test_changing_sizes_compile_once_when_dynamic() -> None:
    torch._dynamo.reset()
    weight = small_integers(4, 3, 3, 3, seed=1)
    compiled = torch.compile(lambda x: conv_relu_pool(x, weight, backend="triton"), fullgraph=True, dynamic=True)
    compiled(small_integers(2, 3, 9, 10, seed=1))
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for n, h in ((3, 12), (5, 17), (4, 21)):
        compiled(small_integers(n, 3, h, 10 + n, seed=n))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def test_compiled_inference_saves_nothing_and_keeps_channels_last() -> None:
    torch._dynamo.reset()
    x = small_integers(2, 3, 9, 10, seed=1).to(memory_format=torch.channels_last)
    weight = small_integers(4, 3, 3, 3, seed=2)
    compiled = torch.compile(lambda x, w: conv_relu_pool(x, w, backend="triton"), fullgraph=True)
    with torch.no_grad():
        y = compiled(x, weight)
    assert torch.equal(y, conv_relu_pool(x, weight, backend="triton"))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_compile_under_autocast_gives_low_precision_outputs_and_fp32_gradients() -> None:
    torch._dynamo.reset()
    x, weight = small_integers(2, 3, 9, 10, seed=1), small_integers(4, 3, 3, 3, seed=2).requires_grad_()
    compiled = torch.compile(lambda x, w: conv_relu_pool(x, w, backend="triton"), fullgraph=True)
    with torch.autocast(torch.device(DEVICE).type, torch.bfloat16):
        y = compiled(x, weight)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
