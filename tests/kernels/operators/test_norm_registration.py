"""The registered operators around a norm: opcheck, autograd's rules, autocast, torch.compile."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.kernels.exact import DEVICE, INTERPRETED
from tests.kernels.norm_layers import NAMED, NormLayer, call, device_of, leaves, norm_tensors
from tidepool.kernels import AvgPool, MaxPool, conv_norm_act
from tidepool.kernels.layer.norm_settings import parse_norm_layer
from tidepool.kernels.operators.norm_registration import ops
from tidepool.kernels.runtime import launch

TESTS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
LAYERS = {
    "residual max": ("relu", MaxPool(2), False, True),
    "silu average": ("silu", AvgPool(2), False, True),
    "pool first": ("relu", MaxPool(2), True, False),
}


def arguments(name: str, differentiable: bool, channels_last: bool) -> tuple[list[Tensor | None], str]:
    """The operators' tensors, running statistics included, and the layer's text."""
    activation, pool, pool_first, has_residual = LAYERS[name]
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        tensor = torch.randn(size, generator=generator).to(DEVICE)
        if channels_last and len(size) == 4:
            tensor = tensor.to(memory_format=torch.channels_last)
        return tensor.requires_grad_(differentiable)

    norm = [normal(4), normal(4), torch.zeros(4, device=DEVICE), torch.ones(4, device=DEVICE)]
    residual = normal(2, 4, 6, 5) if has_residual else None
    layer = parse_norm_layer((3, 3), 1, 1, 1, 1, activation, pool, pool_first).text()
    return [normal(2, 3, 6, 5), normal(4, 3, 3, 3), *norm, None, residual], layer


def opcheck(operator: Any, arguments: tuple[Any, ...], tests: tuple[str, ...] = TESTS) -> None:
    assert set(torch.library.opcheck(operator.default, arguments, test_utils=tests).values()) == {"SUCCESS"}


@pytest.mark.full
@pytest.mark.parametrize("name", LAYERS)
def test_opcheck_of_training(name: str) -> None:
    """That running_mean and running_var change and nothing else does is part of the schema, and checked."""
    tensors, layer = arguments(name, differentiable=True, channels_last=name == "silu average")
    opcheck(ops.conv_norm_act_training, (*tensors, 0.1, 1e-5, layer))


def test_opcheck_of_inference_and_without_optional_tensors() -> None:
    tensors, layer = arguments("residual max", differentiable=True, channels_last=True)
    opcheck(ops.conv_norm_act, (*tensors, 1e-5, layer))
    x, weight = tensors[:2]
    opcheck(ops.conv_norm_act_training, (x, weight, None, None, None, None, None, None, 0.1, 1e-5, layer), TESTS[:3])


@pytest.mark.full
@pytest.mark.parametrize("name", LAYERS)
def test_opcheck_of_the_internal_operators(name: str) -> None:
    tensors, layer = arguments(name, differentiable=False, channels_last=False)
    opcheck(ops.conv_norm_act_forward, (*tensors, 1e-5, layer), TESTS[:3])
    opcheck(ops.conv_norm_act_forward_training, (*tensors, 0.1, 1e-5, layer), TESTS[:3])
    y, z, _, coefficients, code = ops.conv_norm_act_forward(*tensors, 1e-5, layer)
    x, weight, residual = tensors[0], tensors[1], tensors[-1]
    assert x is not None
    assert weight is not None
    dtype = None if residual is None else residual.dtype
    for needs in ([True, residual is not None, True, True], [False, False, False, True]):
        given = (torch.ones_like(y), z, code, coefficients, residual, torch.float32, dtype, True, needs)
        opcheck(ops.conv_norm_act_backward, (*given, list(x.shape), list(weight.shape), layer), TESTS[:3])


@contextlib.contextmanager
def noted_launches(launched: list[str]) -> Iterator[None]:
    """Append the name of every kernel that is launched."""
    usual = launch._launcher or launch.launch_now

    def noting(kernel: Any, grid: tuple[int, ...], *arguments: Any, **keywords: Any) -> None:
        launched.append(kernel.__name__)
        usual(kernel, grid, *arguments, **keywords)

    launch.replace_launcher(noting)
    try:
        yield
    finally:
        launch.replace_launcher(None)


DIFFERENTIABLE = ("x", "weight", "norm_weight", "norm_bias", "conv_bias", "residual")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wanted", [*[(name,) for name in DIFFERENTIABLE], ("x", "norm_bias")], ids="+".join)
def test_only_the_gradients_asked_for_are_computed(wanted: tuple[str, ...], training: bool) -> None:
    """The gradient equals the one computed with all others, and no kernel runs that it does not need."""
    layer = NormLayer("all", (2, 3, 5, 6), (4, 3, 3, 3), {"padding": 1}, residual=True, conv_bias=True)
    tensors = norm_tensors(layer, torch.float32, torch.float32, seed=0)
    every = leaves(tensors, device=DEVICE)
    call(layer, every, "triton", training=training).square().sum().backward()
    some = leaves(tensors, wanted, DEVICE)
    y = call(layer, some, "triton", training=training)
    launched: list[str] = []
    with noted_launches(launched):
        y.square().sum().backward()
    for name in wanted:
        expected, found = every[name], some[name]
        assert expected is not None
        assert found is not None
        assert expected.grad is not None
        assert found.grad is not None
        assert torch.equal(found.grad, expected.grad), name
    sums, dz = {"norm_weight", "norm_bias"}, {"x", "weight", "conv_bias"}
    assert ("conv_norm_act_reduce_kernel" in launched) == bool(set(wanted) & (sums | (dz if training else set())))
    assert ("conv_norm_act_dnorm_kernel" in launched) == bool(set(wanted) & (dz | {"residual"}))
    assert any("dgrad" in kernel for kernel in launched) == ("x" in wanted)
    assert any("wgrad" in kernel for kernel in launched) == bool(set(wanted) & {"weight", "conv_bias"})


def test_autograd_grad_computes_only_what_it_returns() -> None:
    layer = NAMED["resnet_block"]
    given = leaves(norm_tensors(layer, torch.float32, torch.float32, seed=0))
    placed = {
        name: None if t is None else t.detach().to(DEVICE).requires_grad_(t.requires_grad) for name, t in given.items()
    }
    y = call(layer, placed, "triton")
    (dresidual,) = torch.autograd.grad(y.sum(), [placed["residual"]], retain_graph=True)  # type: ignore[list-item]
    dx, dweight = torch.autograd.grad(y.sum(), [placed["x"], placed["weight"]])  # type: ignore[list-item]
    assert [t.shape for t in (dresidual, dx, dweight)] == [y.shape, layer.x, layer.weight]


def test_second_derivatives_and_forward_mode_are_refused_in_one_line() -> None:
    layer = NAMED["downsample"]
    given = leaves(norm_tensors(layer, torch.float32, torch.float32, seed=0))
    placed = {n: None if t is None else t.detach().to(DEVICE).requires_grad_(t.requires_grad) for n, t in given.items()}
    y = call(layer, placed, "triton")
    x = placed["x"]
    assert x is not None
    (dx,) = torch.autograd.grad(y.square().sum(), [x], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"conv_.* with backend='triton' has no second derivative"):
        dx.sum().backward()
    with torch.autograd.forward_ad.dual_level():
        placed["x"] = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))
        with pytest.raises(NotImplementedError, match="conv_norm_act with backend='triton' has no forward-mode"):
            call(layer, placed, "triton")


def penalty(layer: NormLayer, backend: str, asked: str, by: str, between: bool) -> Tensor:
    """Derivative, by one input, of a loss with a penalty on the gradient by another; y's own gradient is a constant.
    `between`: the inputs are results of other operators."""
    tensors = leaves(norm_tensors(layer, torch.float64, torch.float64, seed=0), (asked, by), device_of(backend))
    inputs = {name: t * 1 if between and t is not None and t.requires_grad else t for name, t in tensors.items()}
    of, to = inputs[asked], inputs[by]
    assert of is not None
    assert to is not None
    y = call(layer, inputs, backend)
    (gradient,) = torch.autograd.grad(y.sum(), of, create_graph=True)
    return torch.autograd.grad(0 * y.sum() + gradient.square().sum(), to)[0].cpu()


@pytest.mark.skipif(not INTERPRETED, reason="float64 products are compiled for no GPU's tensor cores")
@pytest.mark.parametrize("between", [False, True], ids=["leaves", "results"])
@pytest.mark.parametrize("by", ["x", "weight", "norm_weight", "norm_bias", "conv_bias", "residual"])
@pytest.mark.parametrize("asked", ["x", "weight", "norm_weight", "norm_bias", "conv_bias", "residual"])
@pytest.mark.parametrize(("activation", "training"), [("silu", True), ("relu", True), ("silu", False)])
def test_a_penalty_on_a_gradient_is_right_or_refused(
    activation: str, training: bool, asked: str, by: str, between: bool
) -> None:
    """Edge case 42, also where a gradient depends on an input only through the coefficients and z."""
    options = {"padding": 1, "activation": activation}
    layer = NormLayer("all", (2, 2, 3, 4), (3, 2, 3, 3), options, training, residual=True, conv_bias=True)
    found: Tensor | str
    try:
        found = penalty(layer, "triton", asked, by, between)
    except NotImplementedError as refusal:
        found = str(refusal)
    if isinstance(found, str):
        assert "conv_norm_act with backend='triton' has no second derivative: use backend='cudnn'" in found
    else:
        expected = penalty(layer, "cudnn", asked, by, between)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)  # sums in another order, in float64


@pytest.mark.parametrize("name", ["resnet_block", "mbconv_depthwise", "frozen_depthwise"])
def test_gradients_that_are_recorded_are_the_same(name: str) -> None:
    tensors = norm_tensors(NAMED[name], torch.float32, torch.float32, seed=0)
    outcomes = []
    for create_graph in (False, True):
        given = leaves(tensors, device=DEVICE)
        wanted = [t for t in given.values() if t is not None and t.requires_grad]
        total = call(NAMED[name], given, "triton").sum()
        outcomes.append(torch.autograd.grad(total, wanted, create_graph=create_graph))
    for plain, recorded in zip(*outcomes, strict=True):
        assert torch.equal(plain, recorded)


@pytest.mark.parametrize("residual_dtype", [None, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("training", [True, False])
def test_autocast_convolves_in_bfloat16_and_norms_in_float32(
    training: bool, residual_dtype: torch.dtype | None
) -> None:
    """Dtypes of results and gradients are eager PyTorch's, also where a float32 residual makes the sum float32."""
    layer = NormLayer("block", (2, 3, 6, 5), (4, 3, 3, 3), {"padding": 1}, residual=residual_dtype is not None)
    tensors = norm_tensors(layer, torch.float32, torch.float32, seed=0)
    if tensors["residual"] is not None and residual_dtype is not None:
        tensors["residual"] = tensors["residual"].to(residual_dtype)
    found = {}
    for backend in ("triton", "cudnn"):
        device = DEVICE if backend == "triton" else "cpu"
        placed = leaves({name: None if t is None else t.to(device) for name, t in tensors.items()})
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            y = call(layer, placed, backend, training=training)
            with torch.no_grad():
                inferred = call(layer, placed, backend, training=False)
        y.float().square().sum().backward()
        gradients = {name: t.grad for name, t in placed.items() if t is not None and t.requires_grad}
        found[backend] = {"y": y.detach(), "inferred": inferred, **gradients, "mean": placed["running_mean"]}
    for name, expected in found["cudnn"].items():
        ours = found["triton"][name]
        assert ours is not None
        assert expected is not None
        assert ours.dtype == expected.dtype, name
        torch.testing.assert_close(
            ours.cpu().float(), expected.float(), rtol=0.05, atol=0.05 * expected.float().abs().max()
        )


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile's CPU code needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_fullgraph_compile_keeps_gradients_and_the_updates_of_running_statistics(fresh_dynamo: None) -> None:
    """Two layers in one graph that share statistics; three steps, so that stale ones would show."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 3, 3, 3, 3, generator=generator).to(DEVICE)

    def step(x: Tensor, first: Tensor, second: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        z = conv_norm_act(x, first, None, None, mean, variance, padding=1, training=True, backend="triton")
        return conv_norm_act(
            z, second, None, None, mean, variance, padding=1, residual=x, training=False, backend="triton"
        )

    compiled = torch.compile(step, fullgraph=True)
    outcomes = []
    for function in (step, compiled):
        leaves_of = [weight.clone().requires_grad_() for weight in weights]
        mean, variance = torch.zeros(3, device=DEVICE), torch.ones(3, device=DEVICE)
        for batch in range(3):
            x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(batch)).to(DEVICE)
            function(x, *leaves_of, mean, variance).square().sum().backward()
        outcomes.append((*(leaf.grad for leaf in leaves_of), mean, variance))
    for eager, graph in zip(*outcomes, strict=True):
        torch.testing.assert_close(graph, eager, rtol=1e-6, atol=1e-6)


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile's CPU code needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_fullgraph_compile_with_dynamic_sizes_and_a_momentum_that_changes(fresh_dynamo: None) -> None:
    def step(x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor, momentum: float) -> Tensor:
        settings = {"padding": 1, "training": True, "momentum": momentum, "backend": "triton"}
        return conv_norm_act(x, weight, None, None, mean, variance, **settings)

    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    # Calls that were checked before are none of a trace's business, which cannot read NumPy's integers in settings.
    conv_norm_act(weight, weight, None, None, None, None, groups=np.int64(1), training=True, backend="triton")
    outcomes = []
    for function in (step, torch.compile(step, fullgraph=True, dynamic=True)):
        mean, variance = torch.zeros(4, device=DEVICE), torch.ones(4, device=DEVICE)
        results = []
        for batch in (2, 3, 4):
            x = torch.randn(batch, 3, 6, 4 + batch, generator=torch.Generator().manual_seed(batch)).to(DEVICE)
            results.append(function(x, weight, mean, variance, 1 / batch))
        outcomes.append((*results, mean, variance))
    for eager, graph in zip(*outcomes, strict=True):
        assert torch.equal(graph, eager)
