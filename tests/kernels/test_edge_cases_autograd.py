"""Edge cases 35-44: dtypes, devices, and everything autograd may ask. (43, beyond 2^31 elements, is in
`test_kernels_gpu`.)
"""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from kernels import INTERPRETED, AvgPool, MaxPool, conv_relu_pool
from kernels.arguments import ArgumentError
from kernels.reference import conv_relu_pool_reference
from tests.kernels.exact import DEVICE, DTYPES, assert_as_pytorch, assert_equal, integers
from tests.kernels.shapes import NAMED

LAYERS: dict[str, dict[str, Any]] = {
    "relu max": {},
    "max alone": {"activation": None, "pool": MaxPool(3, 2, 1)},
    "relu average": {"pool": AvgPool(2)},
    "relu alone": {"pool": None},
    "neither": {"activation": None, "pool": None},
    "silu max": {"activation": "silu"},
    "gelu average": {"activation": "gelu", "pool": AvgPool(2)},
    "silu alone": {"activation": "silu", "pool": None},
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


def random(*size: int, seed: int = 0) -> Tensor:
    return integers(size, torch.float32, torch.Generator().manual_seed(seed + sum(size))).to(DEVICE)


def tensors(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight, bias."""
    return random(2, 3, 6, 7).to(dtype), random(4, 3, 3, 2).to(dtype), random(4).to(dtype)


def ours(x: Tensor, weight: Tensor, bias: Tensor | None = None, **layer: Any) -> Tensor:
    return conv_relu_pool(x, weight, bias, **layer, backend="triton")


# 35-37: dtypes and devices.


@pytest.mark.parametrize("which", ["weight", "bias"])
@pytest.mark.parametrize("other", [torch.float64, torch.bfloat16], ids=str)
def test_35_different_dtypes_refused(which: str, other: torch.dtype) -> None:
    given = dict(zip(("x", "weight", "bias"), tensors(), strict=True))
    given[which] = given[which].to(other)
    with pytest.raises(ArgumentError) as refusal:
        conv_relu_pool(**given, backend="triton")
    assert str(refusal.value) == f"Input type (torch.float32) and {which} type ({other}) should be the same"


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool], ids=str)
def test_35_dtypes_that_are_no_floats_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ArgumentError, match=f"expected x to be float16, bfloat16, float32 or float64, but got {dtype}"):
        ours(*(t.to(dtype) for t in tensors()))


@pytest.mark.parametrize("which", ["weight", "bias"])
@pytest.mark.parametrize("other", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_35_autocast_turns_nothing_else_into_floats(which: str, other: torch.dtype) -> None:
    given = dict(zip(("x", "weight", "bias"), tensors(), strict=True))
    given[which] = given[which].to(other)
    refusal = rf"Input type \(torch.float32\) and {which} type \({other}\) should be the same"
    with torch.autocast(DEVICE, torch.bfloat16), pytest.raises(ArgumentError, match=refusal):
        conv_relu_pool(**given, backend="triton")


@pytest.mark.parametrize("which", ["x", "weight", "bias"])
@pytest.mark.parametrize("backend", ["triton", "cudnn"])
def test_36_different_devices_refused(which: str, backend: str) -> None:
    given = dict(zip(("x", "weight", "bias"), tensors(), strict=True))
    given[which] = given[which].to("meta")
    with pytest.raises(ArgumentError, match="to be on the same device, but x is on "):
        conv_relu_pool(**given, backend=backend)


def test_36_meta_tensors_give_the_shape() -> None:
    x, weight, bias = (t.to("meta") for t in tensors())
    y = ours(x, weight, bias)
    assert y.is_meta
    assert y.shape == (2, 4, 2, 3)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@every_layer
def test_37_autocast_computes_low_and_gives_parameters_full_gradients(layer: dict[str, Any], low: torch.dtype) -> None:
    leaves = [t.requires_grad_() for t in tensors()]
    with torch.autocast(DEVICE, low):
        y = ours(*leaves, **layer)
    assert y.dtype == low
    y.float().sum().backward()
    assert [t.grad.dtype for t in leaves] == [torch.float32] * 3  # type: ignore[union-attr]
    lowered = [t.detach().to(low).requires_grad_() for t in leaves]
    expected = ours(*lowered, **layer)
    assert torch.equal(y, expected)
    expected.float().sum().backward()
    for found, low_leaf in zip(leaves, lowered, strict=True):
        assert torch.equal(found.grad, low_leaf.grad.float())  # type: ignore[arg-type, union-attr]


def test_37_autocast_takes_mixed_dtypes_and_leaves_float64_alone() -> None:
    x, weight, bias = tensors()
    with torch.autocast(DEVICE, torch.bfloat16):
        assert ours(x.bfloat16(), weight, bias).dtype == torch.bfloat16
        if INTERPRETED:  # float64 is the interpreter's
            assert ours(x.double(), weight.double(), bias.double()).dtype == torch.float64
        with torch.autocast(DEVICE, enabled=False):
            assert ours(x, weight, bias).dtype == torch.float32
        with pytest.raises(ArgumentError, match="should be the same"):
            ours(x.double(), weight, bias)
    with pytest.raises(ArgumentError, match="should be the same"):
        ours(x.bfloat16(), weight, bias)


@every_layer
def test_37_backward_under_autocast_computes_as_forward_did(layer: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(t.shape, generator=generator).to(DEVICE) for t in tensors()]
    outcomes = []
    for under_autocast in (False, True):
        leaves = [t.clone().requires_grad_() for t in given]
        y = ours(*leaves, **layer)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=under_autocast):
            y.sum().backward()
        outcomes.append([leaf.grad for leaf in leaves])
    for plain, autocast in zip(*outcomes, strict=True):
        assert plain is not None
        assert autocast is not None
        assert torch.equal(plain, autocast)


# 38: what is asked for.


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
    from kernels import operator_autograd

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


# 39-41: the graph.


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
    for device, function in ((DEVICE, ours), ("cpu", conv_relu_pool_reference)):
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
    for function in (conv_relu_pool_reference, ours):
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward") as refusal:
            function(*leaves)
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]


# 42: higher derivatives and torch.func.


@every_layer
def test_42_second_derivatives_are_refused(layer: dict[str, Any]) -> None:
    leaves = [t.requires_grad_() for t in tensors()]
    (dx,) = torch.autograd.grad(ours(*leaves, **layer).square().sum(), leaves[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative: use backend='cudnn'"):
        dx.sum().backward()


def penalty(function: Callable[..., Tensor], given: list[Tensor], asked: int, by: int, results: bool) -> Tensor:
    """Derivative, by one input, of a loss with a penalty on the gradient by another; y's own gradient is a constant.
    `results`: the inputs are results of other operators."""
    leaves = [t.clone().requires_grad_(i in (asked, by)) for i, t in enumerate(given)]
    inputs = [leaf * 1 for leaf in leaves] if results else leaves
    y = function(*inputs)
    (gradient,) = torch.autograd.grad(y.sum(), inputs[asked], create_graph=True)
    return torch.autograd.grad(0 * y.sum() + gradient.square().sum(), inputs[by])[0]


@pytest.mark.parametrize("results", [False, True], ids=["leaves", "results"])
@pytest.mark.parametrize("by", range(3), ids=["by x", "by weight", "by bias"])
@pytest.mark.parametrize("asked", range(3), ids=["dx", "dweight", "dbias"])
@every_layer
def test_42_a_penalty_on_a_gradient_is_right_or_refused(
    layer: dict[str, Any], asked: int, by: int, results: bool
) -> None:
    """Also where the gradient depends on an input only through what forward saved, and that input was not saved."""
    found: Tensor | str
    try:
        found = penalty(lambda *t: ours(*t, **layer), list(tensors()), asked, by, results)
    except NotImplementedError as refusal:
        found = str(refusal)
    if isinstance(found, str):
        assert "no second derivative: use backend='cudnn'" in found
    else:
        there = [t.cpu() for t in tensors()]
        expected = penalty(lambda *t: conv_relu_pool_reference(*t, **layer), there, asked, by, results)
        torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_42_refusing_keeps_no_input_that_backward_does_without(activation: str) -> None:
    """Weight is frozen: forward notes where x and bias come from, and no more."""
    x, weight, bias = tensors()
    inputs = [t.requires_grad_() * 1 for t in (x, bias)]
    node: Any = ours(inputs[0], weight, inputs[1], activation=activation).grad_fn
    edges = node.edges or ()
    assert len(edges) == (2 if activation == "silu" else 0)
    assert all(t.untyped_storage().nbytes() == 0 for t in edges)
    kept = {t.untyped_storage().data_ptr() for t in node.saved_tensors if t is not None}
    assert not kept & {t.untyped_storage().data_ptr() for t in inputs}


@every_layer
def test_42_first_derivatives_with_create_graph_are_right(layer: dict[str, Any]) -> None:
    leaves = [t.requires_grad_() for t in tensors()]
    plain = torch.autograd.grad(ours(*leaves, **layer).sum(), leaves)
    recorded = torch.autograd.grad(ours(*leaves, **layer).sum(), leaves, create_graph=True)
    for found, expected in zip(recorded, plain, strict=True):
        assert torch.equal(found, expected)


def test_42_forward_mode_is_refused() -> None:
    x, weight, bias = tensors()
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        ours(forward_ad.make_dual(x, torch.ones_like(x)), weight, bias)
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(lambda w: ours(x, w, bias), (weight,), (torch.ones_like(weight),))
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jacfwd(lambda b: ours(x, weight, b))(bias)


@pytest.mark.parametrize("transform", ["hessian", "grad of grad"])
def test_42_nested_transforms_are_refused(transform: str) -> None:
    x, weight, bias = tensors()

    def loss(b: Tensor) -> Tensor:
        return ours(x, weight, b).square().sum()

    nested = (
        torch.func.hessian(loss)
        if transform == "hessian"
        else torch.func.grad(lambda b: torch.func.grad(loss)(b).sum())
    )
    with pytest.raises(NotImplementedError, match="use backend='cudnn'"):
        nested(bias)


@every_layer
def test_42_torch_func_grad_is_right(layer: dict[str, Any]) -> None:
    leaves = [t.requires_grad_() for t in tensors()]
    ours(*leaves, **layer).sum().backward()
    found = torch.func.grad(lambda *given: ours(*given, **layer).sum(), argnums=(0, 1, 2))(*tensors())
    for gradient, leaf in zip(found, leaves, strict=True):
        assert_equal(gradient, leaf.grad, "gradient")


@pytest.mark.filterwarnings("ignore:There is a performance drop because we have not yet implemented the batching rule")
def test_42_vmap_is_right() -> None:
    x, weight, bias = tensors()
    assert torch.equal(torch.func.vmap(lambda one: ours(one, weight, bias))(x), ours(x, weight, bias))
    several = torch.stack([weight, 2 * weight, -weight])
    found = torch.func.vmap(lambda w: ours(x, w, bias))(several)
    assert torch.equal(found, torch.stack([ours(x, w, bias) for w in several]))
    per_sample = torch.func.vmap(torch.func.grad(lambda w, one: ours(one, w, bias).sum()), in_dims=(None, 0))(weight, x)
    for one, gradient in zip(x, per_sample, strict=True):
        leaf = weight.clone().requires_grad_()
        ours(one, leaf, bias).sum().backward()
        assert torch.equal(gradient, leaf.grad)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:There is a performance drop because we have not yet implemented the batching rule")
def test_42_jacobians_are_right() -> None:
    x, weight, bias = tensors()
    jacobian = torch.autograd.functional.jacobian
    expected = jacobian(lambda b: conv_relu_pool_reference(x.cpu(), weight.cpu(), b), bias.cpu())
    assert_equal(jacobian(lambda b: ours(x, weight, b), bias), expected, "jacobian")
    assert_equal(torch.func.jacrev(lambda b: ours(x, weight, b))(bias), expected, "jacrev")


def test_42_checkpointing_recomputes_the_same() -> None:
    leaves, others = ([t.requires_grad_() for t in tensors()] for _ in range(2))
    torch.utils.checkpoint.checkpoint(ours, *leaves, use_reentrant=False).sum().backward()
    ours(*others).sum().backward()
    for found, expected in zip(leaves, others, strict=True):
        assert torch.equal(found.grad, expected.grad)  # type: ignore[arg-type]


# 44: repeatability, here over threads; `test_conv_relu_pool` repeats ten kinds of layer, `REPEATED`.


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
