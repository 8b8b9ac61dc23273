"""A learned slope as one more tensor of the operators: derivatives, dispatch, plans, and what is kept for backward."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from tests.kernels import error_rule
from tests.kernels.exact import DEVICE, INTERPRETED, integers
from tests.kernels.operators.test_gradcheck import inputs
from tests.kernels.operators.test_opcheck import opcheck, tensors, text
from tests.kernels.operators.test_saved_tensors import CONV, POOLED, K, saved_bytes
from tests.kernels.shapes import Case
from tidepool.kernels import AvgPool, MaxPool, conv_act_pool
from tidepool.kernels.activations import Activation
from tidepool.kernels.auto import plan
from tidepool.kernels.auto.plan import Choice, LayerPlan
from tidepool.kernels.layer.pooling import Pool
from tidepool.kernels.operators.conv_registration import ops
from tidepool.kernels.oracle.reference import conv_act_pool_reference

POOLS = {"max": MaxPool(2), "overlap": MaxPool(3, 2, 1), "average": AvgPool(2), "none": None}
PRELU = Activation("prelu")
every_pool = pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
every_number = pytest.mark.parametrize("slopes", [1, 4], ids=["one_for_all", "one_a_filter"])
interpreted = pytest.mark.skipif(not INTERPRETED, reason="plans CPU tensors, which only the interpreter runs")


def leaves(slopes: int = 4, seed: int = 0) -> list[Tensor]:
    """x, weight, bias and slope."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((2, 3, 8, 7), (4, 3, 3, 2), (4,), (slopes,))
    return [torch.randn(size, generator=generator).to(DEVICE).requires_grad_() for size in sizes]


def layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    slope: Tensor,
    pool: Pool = MaxPool(2),  # noqa: B008 (frozen)
    backend: str = "triton",
) -> Tensor:
    return conv_act_pool(x, weight, bias, activation=Activation("prelu", slope), pool=pool, backend=backend)


# --- Derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.skipif(not INTERPRETED, reason="float64 products are compiled for no GPU's tensor cores")
@every_pool
@every_number
@pytest.mark.parametrize("groups", [1, 2], ids=["dense", "depthwise"])
def test_gradients_are_finite_differences(slopes: int, pool: Pool, groups: int) -> None:
    slope = torch.tensor([-0.6, 0.4, 1.7, 0.2][:slopes], dtype=torch.float64).requires_grad_()
    options = {"activation": Activation("prelu", slope.detach()), "pool": pool, "groups": groups}
    case = Case("prelu", (1, 2, 4, 5), (4, 2 // groups, 2, 2), options)

    def function(x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor) -> Tensor:
        return error_rule.in_triton(case, x, weight, bias, slope)

    assert gradcheck(function, (*inputs(case), slope), eps=1e-6, atol=1e-6, rtol=1e-6, fast_mode=pool != MaxPool(2))


@pytest.mark.full
@pytest.mark.parametrize("asked", [a for a in itertools.product([False, True], repeat=4) if any(a)], ids=str)
@pytest.mark.parametrize("backend", ["triton", "auto"])
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no_bias"])
def test_gradients_that_are_asked_for_alone(asked: tuple[bool, ...], backend: str, with_bias: bool) -> None:
    """By what requires a gradient, and by what `autograd.grad` names of a layer where everything does."""
    given = leaves()
    keep = [0, 1, 2, 3] if with_bias else [0, 1, 3]
    wanted = [i for i in keep if asked[i]]
    if not wanted:
        pytest.skip("the bias alone, of a layer without one")

    def call(some: dict[int, Tensor], pool: Pool) -> Tensor:
        return layer(some[0], some[1], some.get(2), some[3], pool, backend)

    for pool in POOLS.values():
        whole = {i: given[i].detach().clone().requires_grad_() for i in keep}
        expected = torch.autograd.grad(call(whole, pool).square().sum(), list(whole.values()))
        named = torch.autograd.grad(call(whole, pool).square().sum(), [whole[i] for i in wanted])
        part = {i: given[i].detach().clone().requires_grad_(i in wanted) for i in keep}
        alone = torch.autograd.grad(call(part, pool).square().sum(), [part[i] for i in wanted])
        for position, i in enumerate(wanted):
            assert torch.equal(named[position], expected[keep.index(i)])
            assert torch.equal(alone[position], expected[keep.index(i)])


def test_only_the_slope_asked_for_launches_no_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    given = leaves()
    y = layer(*given)

    def refuse(*_: Any) -> None:
        raise AssertionError("a gradient that nobody asked for")

    for name in ("input_gradient", "weight_gradient"):
        monkeypatch.setattr(f"tidepool.kernels.operators.conv_autograd.{name}", refuse)
    (dslope,) = torch.autograd.grad(y.sum(), given[3], retain_graph=True)
    assert dslope.abs().sum() > 0
    with pytest.raises(AssertionError, match="nobody asked for"):
        y.sum().backward()


@every_pool
def test_second_derivatives_are_refused(pool: Pool) -> None:
    for asked in range(4):
        given = leaves()
        gradient = torch.autograd.grad(layer(*given, pool=pool).square().sum(), given[asked], create_graph=True)[0]
        for by in range(4):
            with pytest.raises(NotImplementedError, match="no second derivative: use backend='cudnn'"):
                torch.autograd.grad(gradient.sum(), given[by], retain_graph=True)


@pytest.mark.parametrize("backend", ["triton", "auto"])
def test_forward_mode_is_refused_or_eager(backend: str) -> None:
    given = [t.detach() for t in leaves()]

    def by_slope(slope: Tensor) -> Tensor:
        return layer(*given[:3], slope, backend=backend)

    tangent = torch.ones(4, device=DEVICE)
    if backend == "triton":
        with pytest.raises(NotImplementedError, match="use backend='cudnn'"):
            torch.func.jvp(by_slope, (given[3],), (tangent,))
        return
    _, found = torch.func.jvp(by_slope, (given[3],), (tangent,))
    _, expected = torch.func.jvp(lambda s: layer(*given[:3], s, backend="cudnn"), (given[3],), (tangent,))
    torch.testing.assert_close(found, expected)


def test_a_slope_edited_in_place_before_backward_is_an_error() -> None:
    given = leaves()
    y = layer(*given)
    with torch.no_grad():
        given[3].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# --- Dispatch --------------------------------------------------------------------------------------------------------


@pytest.mark.full
@every_pool
@every_number
def test_operators_pass_opcheck(slopes: int, pool: Pool) -> None:
    x, weight, bias = tensors(channels_last=False)
    slope = integers((slopes,), torch.float32, torch.Generator().manual_seed(1)).to(DEVICE) + 0.5
    described = text({"activation": PRELU, "pool": pool})
    opcheck(ops.conv_act_pool_forward, (x, weight, bias, described, slope))
    y, _, saved = ops.conv_act_pool_forward(x, weight, bias, described, slope)
    if isinstance(pool, AvgPool):
        saved = ops.conv_act_pool(x, weight, bias, text({"activation": None, "pool": None}))
    for wanted in ((True, True), (True, False), (False, True)):
        opcheck(ops.conv_act_pool_slope, (torch.ones_like(y), saved, slope, *wanted, described))
    for tensor in (x, weight, bias, slope):
        tensor.requires_grad_()
    opcheck(ops.conv_act_pool, (x, weight, bias, described, slope))


@pytest.mark.full
@interpreted
@every_pool
def test_planned_operators_pass_opcheck(pool: Pool) -> None:
    given = UNPOOLING.text()
    x, weight, bias = tensors(channels_last=False)
    slope = torch.tensor([0.5, -0.5, 2.0, 0.0])
    described = text({"activation": PRELU, "pool": pool})
    y, _, saved = ops.conv_act_pool_planned_forward(x, weight, bias, described, given, slope)
    opcheck(ops.conv_act_pool_planned_forward, (x, weight, bias, described, given, slope))
    arguments = (torch.ones_like(y), saved, x, weight, bias, slope, list(x.shape), False, True, True, described, given)
    opcheck(ops.conv_act_pool_planned_slope, arguments)
    for tensor in (x, weight, bias, slope):
        tensor.requires_grad_()
    opcheck(ops.conv_act_pool_planned, (x, weight, bias, described, given, slope))


def test_an_operator_without_a_learned_slope_takes_none() -> None:
    x, weight, bias = tensors(channels_last=False)
    with torch.device("meta"), pytest.raises(RuntimeError, match="expected no slope for activation relu"):
        ops.conv_act_pool(x.to("meta"), weight.to("meta"), bias.to("meta"), text({}), torch.ones(4, device="meta"))


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ["triton", "auto", "cudnn"])
@every_pool
def test_autocast_computes_low_and_gives_parameters_full_gradients(pool: Pool, backend: str, low: torch.dtype) -> None:
    given = leaves()
    with torch.autocast(DEVICE, low):
        y = layer(*given, pool=pool, backend=backend)
    y.float().sum().backward()
    lowered = [t.detach().to(low).requires_grad_() for t in given]
    expected = layer(*lowered, pool=pool, backend=backend)
    expected.float().sum().backward()
    assert y.dtype == low
    assert torch.equal(y, expected)
    for found, low_leaf in zip(given, lowered, strict=True):
        assert found.grad is not None
        assert low_leaf.grad is not None
        assert found.grad.dtype == torch.float32
        assert torch.equal(found.grad, low_leaf.grad.float())


@pytest.mark.full
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("backend", ["triton", "auto"])
@every_pool
def test_compiles_into_one_graph(pool: Pool, backend: str, dynamic: bool) -> None:
    """The slope is an input of the graph: another one gives other results without a new trace."""
    torch.compiler.reset()
    traced: list[Any] = []

    def counted(graph: Any, _: Any) -> Any:
        traced.append(graph)
        return graph.forward

    compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic, backend=counted)
    for seed in range(2):
        found, expected = (results(function, leaves(seed=seed), pool, backend) for function in (compiled, layer))
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)
    assert len(traced) == 1


def results(function: Callable[..., Tensor], given: list[Tensor], pool: Pool, backend: str) -> list[Tensor]:
    y = function(*given, pool=pool, backend=backend)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), given)]


@pytest.mark.full
def test_backend_compile_is_pytorch() -> None:
    given = leaves()
    for one, other in zip(results(layer, given, None, "compile"), results(layer, given, None, "cudnn"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


# --- Plans -----------------------------------------------------------------------------------------------------------

UNPOOLING = LayerPlan(
    inference=Choice("epilogue"),
    forward=Choice("epilogue"),
    dgrad=Choice("cudnn"),
    wgrad=Choice("cudnn"),
    dgrad_alone=Choice("dense"),
    wgrad_alone=Choice("dense"),
)
MIXES = [
    UNPOOLING,
    LayerPlan(forward=Choice("epilogue"), dgrad=Choice("fused"), wgrad=Choice("dense")),
    LayerPlan(forward=Choice("fused"), dgrad=Choice("cudnn"), wgrad=Choice("fused")),
]


def by(given: LayerPlan) -> Callable[..., Tensor]:
    def planned(*arguments: Any, **options: Any) -> Tensor:
        with plan.use(given):
            return layer(*arguments, **options, backend="auto")

    return planned


@interpreted
@every_pool
@every_number
@pytest.mark.parametrize("given", MIXES, ids=["unpooling", "epilogue", "fused"])
def test_every_mix_is_pytorch_to_the_bit(given: LayerPlan, slopes: int, pool: Pool) -> None:
    generator = torch.Generator().manual_seed(slopes)
    sizes = ((2, 3, 8, 7), (4, 3, 3, 2), (4,), (slopes,))
    values = [integers(size, torch.float32, generator) for size in sizes]

    def outcome(function: Callable[..., Tensor]) -> list[Tensor]:
        at = [t.clone().requires_grad_() for t in values]
        y = function(*at, pool=pool)
        grad = integers(tuple(y.shape), y.dtype, torch.Generator().manual_seed(0))
        return [y.detach(), *torch.autograd.grad(y, at, grad)]

    for found, expected in zip(outcome(by(given)), outcome(eager), strict=True):
        assert torch.equal(found, expected)


def eager(x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor, pool: Pool) -> Tensor:
    return conv_act_pool_reference(x, weight, bias, activation=Activation("prelu", slope), pool=pool)


@interpreted
@every_pool
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_mixes_keep_the_error_rule(dtype: torch.dtype, pool: Pool) -> None:
    case = Case("prelu", (2, 3, 9, 8), (5, 3, 3, 2), {"activation": PRELU, "pool": pool, "padding": 1})
    drawn, undecided = error_rule.draw(case, dtype, 0)
    assert undecided <= 0.02
    exact, twin = (error_rule.truth(case, drawn), error_rule.results(in_pytorch(case), drawn))
    for given in MIXES:
        with plan.use(given):
            ours = error_rule.results(in_auto(case), drawn)
        assert ours.keys() == exact.keys()
        for name, tensor in ours.items():
            error_rule.error_rule(f"{dtype}, {name}", tensor, twin[name], exact[name])


def in_pytorch(case: Case) -> Callable[..., Tensor]:
    return lambda *given: error_rule.in_pytorch(case, *given)


def in_auto(case: Case) -> Callable[..., Tensor]:
    return lambda *given: error_rule.in_triton(case, *given, backend="auto")


@interpreted
def test_inference_by_a_plan() -> None:
    x, weight, bias, slope = (t.detach() for t in leaves())
    with plan.use(UNPOOLING), torch.no_grad():
        found = layer(x, weight, bias, slope, backend="auto")
    torch.testing.assert_close(found, layer(x, weight, bias, slope, backend="cudnn"), rtol=1e-5, atol=1e-5)


# --- What is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_number
def test_what_is_saved(slopes: int, dtype: torch.dtype) -> None:
    """Winners and their codes under a max pool, the convolution without a pool, a copy of the bias under an average;
    and the slope, which is nobody's copy."""
    slope = torch.full((1 if slopes == 1 else K,), 0.25, dtype=dtype, device=DEVICE, requires_grad=True)
    own = slope.numel() * dtype.itemsize
    activation = Activation("prelu", slope)
    expected = {MaxPool(2): POOLED * (1 + dtype.itemsize), None: CONV * dtype.itemsize, AvgPool(2): K * dtype.itemsize}
    for pool, size in expected.items():
        found, kept = saved_bytes(dtype, pool=pool, activation=activation)
        assert found == size + own
        assert any(t.data_ptr() == slope.data_ptr() for t in kept)


def test_inference_saves_nothing() -> None:
    given = leaves()
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.no_grad():
        assert layer(*given).grad_fn is None
    assert not kept
