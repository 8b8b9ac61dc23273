"""Edge case 42: derivatives beyond the first, forward mode, `torch.func` and checkpoints."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from tests.kernels.exact import assert_equal
from tests.kernels.ops.edge_cases import every_layer, ours, tensors
from tidepool.kernels.oracle.reference import conv_act_pool_reference


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
        expected = penalty(lambda *t: conv_act_pool_reference(*t, **layer), there, asked, by, results)
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


@pytest.mark.filterwarnings("ignore:There is a performance drop because we have not yet implemented the batching rule")
@every_layer
def test_42_per_sample_gradients_of_parameters_that_require_gradients(layer: dict[str, Any]) -> None:
    """As of an nn.Module's own parameters, which plain autograd would differentiate as well."""
    x, weight, bias = tensors()
    weight.requires_grad_(), bias.requires_grad_()

    def loss(w: Tensor, b: Tensor, sample: Tensor) -> Tensor:
        return ours(sample[None], w, b, **layer).square().sum()

    found = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(None, None, 0))(weight, bias, x)
    for index, sample in enumerate(x):
        for gradient, expected in zip(
            found, torch.autograd.grad(loss(weight, bias, sample), (weight, bias)), strict=True
        ):
            assert_equal(gradient[index].detach(), expected, "gradient")


@pytest.mark.parametrize("by", range(3), ids=["by x", "by weight", "by bias"])
@pytest.mark.parametrize("asked", range(3), ids=["dx", "dweight", "dbias"])
@every_layer
def test_42_what_plain_autograd_makes_of_a_transforms_gradient_is_right_or_refused(
    layer: dict[str, Any], asked: int, by: int
) -> None:
    leaves = [t.requires_grad_(i in (asked, by)) for i, t in enumerate(tensors())]

    def derivative(function: Callable[..., Tensor], given: list[Tensor]) -> Tensor:
        gradient = torch.func.grad(lambda *t: function(*t, **layer).sum(), argnums=asked)(*given)
        return torch.autograd.grad(0 * given[by].sum() + gradient.square().sum(), given[by])[0]

    found: Tensor | str
    try:
        found = derivative(ours, leaves)
    except NotImplementedError as refusal:
        found = str(refusal)
    if isinstance(found, str):
        assert "no second derivative: use backend='cudnn'" in found
        return
    there = [t.detach().cpu().requires_grad_() for t in leaves]
    torch.testing.assert_close(found.cpu(), derivative(conv_act_pool_reference, there))


@every_layer
def test_42_a_loss_beside_its_transforms_gradient_is_refused_or_right(layer: dict[str, Any]) -> None:
    """The value of `grad_and_value` of parameters that require gradients has a first derivative in plain autograd."""
    x, weight, bias = tensors()
    weight.requires_grad_()
    gradient, value = torch.func.grad_and_value(lambda w: ours(x, w, bias, **layer).sum())(weight)
    with pytest.raises(NotImplementedError, match="no second derivative: use backend='cudnn'"):
        value.backward()
    assert_equal(gradient.detach(), torch.autograd.grad(ours(x, weight, bias, **layer).sum(), weight)[0], "gradient")


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
    expected = jacobian(lambda b: conv_act_pool_reference(x.cpu(), weight.cpu(), b), bias.cpu())
    assert_equal(jacobian(lambda b: ours(x, weight, b), bias), expected, "jacobian")
    assert_equal(torch.func.jacrev(lambda b: ours(x, weight, b))(bias), expected, "jacrev")


def test_42_checkpointing_recomputes_the_same() -> None:
    leaves, others = ([t.requires_grad_() for t in tensors()] for _ in range(2))
    torch.utils.checkpoint.checkpoint(ours, *leaves, use_reentrant=False).sum().backward()
    ours(*others).sum().backward()
    for found, expected in zip(leaves, others, strict=True):
        assert torch.equal(found.grad, expected.grad)  # type: ignore[arg-type]
