"""Edge cases 38-41 and 44: which gradients are computed, what is saved, what may be edited, and that calls repeat.

44 is here over threads; `test_conv` repeats ten kinds of layer, `REPEATED`.
"""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.kernels.exact import DEVICE, DTYPES, assert_as_pytorch
from tests.kernels.ops.edge_cases import LAYERS, every_layer, ours, tensors
from tests.kernels.shapes import NAMED
from tidepool.kernels.oracle.reference import conv_act_pool_reference


@pytest.mark.parametrize("asked", list(itertools.product([False, True], repeat=3)), ids=str)
@pytest.mark.parametrize("name", ["relu max", "relu average", "gelu average", "silu alone"])
def test_38_only_the_gradients_asked_for(asked: tuple[bool, bool, bool], name: str) -> None:
    layer = LAYERS[name]
    everything = [t.requires_grad_() for t in tensors()]
    y = ours(*everything, **layer)
    y.backward(torch.ones_like(y))
    leaves = [t.requires_grad_(wanted) for t, wanted in zip(tensors(), asked, strict=True)]
    found = ours(*leaves, **layer)
    assert torch.equal(found, y)
    assert found.requires_grad == any(asked)
    if any(asked):
        found.backward(torch.ones_like(found))
    for leaf, wanted, full in zip(leaves, asked, everything, strict=True):
        if wanted:
            assert torch.equal(leaf.grad, full.grad)  # type: ignore[arg-type]
        else:
            assert leaf.grad is None


@every_layer
def test_38_without_bias(layer: dict[str, Any]) -> None:
    x, weight, _ = tensors()
    zero = torch.zeros(4, device=DEVICE)
    assert torch.equal(ours(x, weight, None, **layer), ours(x, weight, zero, **layer))
    if layer.get("activation", "relu") in ("relu", None):
        assert_as_pytorch(x.cpu(), weight.cpu(), None, **layer)


@pytest.mark.parametrize("between", [False, True], ids=["leaves", "results"])
def test_38_autograd_grad_of_some_inputs_computes_no_others(monkeypatch: pytest.MonkeyPatch, between: bool) -> None:
    from tidepool.kernels.operators import conv_autograd as operator_autograd

    everything = torch.autograd.grad(ours(*(leaves := [t.requires_grad_() for t in tensors()])).sum(), leaves)
    ran: list[str] = []
    for name in ("input_gradient", "weight_gradient"):
        original = getattr(operator_autograd, name)

        def counted(*args: Any, _name: str = name, _original: Callable[..., Any] = original, **kwargs: Any) -> Any:
            ran.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(operator_autograd, name, counted)
    dgrad, wgrad = "input_gradient", "weight_gradient"
    for asked, expected in (([0], [dgrad]), ([1], [wgrad]), ([2], [wgrad]), ([0, 2], [dgrad, wgrad])):
        leaves = [t.requires_grad_() for t in tensors()]
        y = ours(*(leaf * 1 for leaf in leaves) if between else leaves)
        ran.clear()
        found = torch.autograd.grad(y.sum(), [leaves[i] for i in asked])
        assert ran == expected
        for gradient, i in zip(found, asked, strict=True):
            assert torch.equal(gradient, everything[i])
    y = ours(*leaves)
    ran.clear()
    y.sum().backward(inputs=[leaves[1]])
    assert ran == [wgrad]
    assert leaves[0].grad is None


def test_38_no_grad_and_inference_mode_save_nothing() -> None:
    leaves = [t.requires_grad_() for t in tensors()]
    expected = ours(*leaves).detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y = ours(*leaves)
        assert y.grad_fn is None
        assert torch.equal(y, expected)


@pytest.mark.parametrize("edited", [0, 1], ids=["x", "weight"])
@every_layer
def test_39_a_saved_tensor_edited_in_place_is_an_error(layer: dict[str, Any], edited: int) -> None:
    leaves = [t.requires_grad_() for t in tensors()]
    y = ours(*leaves, **layer)
    with torch.no_grad():
        leaves[edited].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("bias_kind", ["leaf", "constant", "inference"])
@every_layer
def test_39_the_bias_is_not_needed_any_more(layer: dict[str, Any], bias_kind: str) -> None:
    """No convolution's backward looks at it: it may be edited in place, and be an inference tensor (case 41)."""
    outcomes = []
    for device, function in ((DEVICE, ours), ("cpu", conv_act_pool_reference)):
        x, weight, bias = (t.to(device) for t in tensors())
        if bias_kind == "inference":
            with torch.inference_mode():
                bias = bias.clone()
        leaves = [x.requires_grad_(), weight.requires_grad_()]
        if bias_kind == "leaf":
            leaves.append(bias.requires_grad_())
        y = function(x, weight, bias, **layer)
        with torch.inference_mode(bias_kind == "inference"), torch.no_grad():
            bias.add_(1)
        outcomes.append(torch.autograd.grad(y.sum(), leaves))
    for found, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(found.cpu(), expected)


@every_layer
def test_39_the_output_may_be_edited_in_place(layer: dict[str, Any]) -> None:
    leaves, others = ([t.requires_grad_() for t in tensors()] for _ in range(2))
    y = ours(*leaves, **layer)
    y.mul_(3)
    y.sum().backward()
    (3 * ours(*others, **layer)).sum().backward()
    for edited, plain in zip(leaves, others, strict=True):
        assert torch.equal(edited.grad, plain.grad)  # type: ignore[arg-type]


def test_40_second_backward_is_an_error() -> None:
    leaves = [t.requires_grad_() for t in tensors()]
    total = ours(*leaves).sum()
    total.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        total.backward()


@every_layer
def test_40_retain_graph_doubles_exactly(layer: dict[str, Any]) -> None:
    leaves = [t.requires_grad_() for t in tensors()]
    total = ours(*leaves, **layer).sum()
    total.backward(retain_graph=True)
    once = [t.grad.clone() for t in leaves]  # type: ignore[union-attr]
    total.backward()
    for leaf, gradient in zip(leaves, once, strict=True):
        assert torch.equal(leaf.grad, 2 * gradient)  # type: ignore[arg-type]


@pytest.mark.parametrize("which", [0, 1], ids=["x", "weight"])
def test_41_inference_tensors_in_training_are_an_error(which: int) -> None:
    leaves = list(tensors())
    with torch.inference_mode():
        leaves[which] = leaves[which].clone()
    leaves[1 - which].requires_grad_()
    messages = []
    for function in (conv_act_pool_reference, ours):
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward") as refusal:
            function(*leaves)
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_44_two_calls_are_equal_to_the_bit(dtype: torch.dtype) -> None:
    case = NAMED["groups"]
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator).to(dtype).to(DEVICE) for size in (case.x, case.weight))
    before = torch.get_num_threads()
    runs = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        y = ours(*leaves, **case.options)
        runs.append((y, *torch.autograd.grad(y, leaves, torch.full_like(y, 0.7))))
    torch.set_num_threads(before)
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)
