"""Saved tensors that come back in other strides, as hooks like `torch.autograd.graph.save_on_cpu` leave them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.exact import INTERPRETED
from tidepool.kernels import AvgPool, MaxPool, conv_norm_act, conv_relu_pool
from tidepool.kernels.auto import plan
from tidepool.kernels.auto.plan import Choice, LayerPlan

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="in float64, which is compiled for no GPU's tensor cores")
LAST = torch.channels_last
LAYERS: dict[str, dict[str, Any]] = {
    "relu-max": {"pool": MaxPool(2)},
    "relu": {"pool": None},
    "relu-average": {"pool": AvgPool(2)},
    "silu-max": {"activation": "silu", "pool": MaxPool(2)},
    "gelu": {"activation": "gelu", "pool": None},
    "gelu-average": {"activation": "gelu", "pool": AvgPool(2)},
    "depthwise": {"groups": 4, "pool": MaxPool(2)},
}


def contiguous(t: Tensor) -> Tensor:
    return t.clone(memory_format=torch.contiguous_format)


def reversed_dimensions(t: Tensor) -> Tensor:
    backwards = list(range(t.dim()))[::-1]
    return contiguous(t.permute(backwards)).permute(backwards)


def contiguous_floats(t: Tensor) -> Tensor:
    return contiguous(t) if t.is_floating_point() else t


def contiguous_codes(t: Tensor) -> Tensor:
    return t if t.is_floating_point() else contiguous(t)


HOOKS: tuple[Callable[[Tensor], Tensor], ...] = (contiguous, reversed_dimensions, contiguous_floats, contiguous_codes)


def tensors(*sizes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    return [t.to(memory_format=LAST) if t.dim() == 4 else t for t in drawn]


def gradients(
    function: Callable[..., Tensor], inputs: list[Tensor], hook: Callable[[Tensor], Tensor], create_graph: bool
) -> tuple[Tensor, ...]:
    leaves = [t.clone().requires_grad_() for t in inputs]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, hook):
        y = function(*leaves)
        return torch.autograd.grad(y, leaves, torch.ones_like(y).cumsum(-1), create_graph=create_graph)


@pytest.mark.parametrize("create_graph", [False, True], ids=["direct", "dispatched"])
@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
@pytest.mark.parametrize("backend", ["triton", "auto"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_do_not_depend_on_the_strides_of_what_was_saved(
    name: str, backend: str, hook: Callable[[Tensor], Tensor], create_graph: bool
) -> None:
    """Nor do those of a backward that comes after one whose saved tensors lay elsewhere."""
    settings = LAYERS[name]
    inputs = tensors((2, 4, 7, 6), (8, 4 // settings.get("groups", 1), 3, 3), (8,))

    def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with plan.use(LayerPlan(dgrad=Choice("dense"), wgrad=Choice("fused"))):
            return conv_relu_pool(x, weight, bias, padding=1, **settings, backend=backend)

    expected = gradients(
        lambda x, w, b: conv_relu_pool(x, w, b, padding=1, **settings, backend="cudnn"), inputs, lambda t: t, False
    )
    for seen in (hook, lambda t: t):
        for found, wanted in zip(gradients(layer, inputs, seen, create_graph), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_gradients_of_a_layer_with_a_norm_do_not_either(activation: str, hook: Callable[[Tensor], Tensor]) -> None:
    inputs = tensors((2, 4, 7, 6), (8, 4, 3, 3), (8,), (8,), (2, 8, 7, 6))

    def layer(backend: str) -> Callable[..., Tensor]:
        return lambda x, weight, scale, shift, residual: conv_norm_act(
            x, weight, scale, shift, None, None, residual=residual, padding=1, training=True, activation=activation,
            pool=MaxPool(2), backend=backend,
        )  # fmt: skip

    expected = gradients(layer("cudnn"), inputs, lambda t: t, False)
    for found, wanted in zip(gradients(layer("triton"), inputs, hook, False), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_weight_whose_memory_is_swapped_between_forward_and_backward() -> None:
    x, weight, _ = tensors((2, 4, 7, 6), (8, 4, 3, 3), (8,))
    found = []
    for data in (weight, contiguous(weight)):
        leaf = weight.clone().requires_grad_()
        given = x.clone().requires_grad_()
        y = conv_relu_pool(given, leaf, backend="triton")
        leaf.data = data
        found.append(torch.autograd.grad(y.sum(), [given, leaf]))
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)
