"""`backend="auto"` by a plan: every mix of this project's kernels and PyTorch's convolution is PyTorch's op.

PyTorch's CPU convolution stands in for cuDNN's. Inputs are small integers where results have to be equal to the bit.
"""

import itertools
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.activations.listed import every_activation, every_pool
from tests.kernels.exact import DEVICE, INTERPRETED, assert_equal, integer_inputs, integers, outcome
from tests.kernels.shapes import NAMED, Case
from tidepool.kernels import AvgPool, conv_relu_pool
from tidepool.kernels.activations import Activation
from tidepool.kernels.auto import operator as planned_operator
from tidepool.kernels.auto import plan
from tidepool.kernels.auto.operator import ops
from tidepool.kernels.auto.plan import EAGER, FORWARD_WAYS, GRADIENT_WAYS, Choice, LayerPlan
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.pooling import Pool
from tidepool.kernels.oracle.error_rule import draw, error_rule, in_pytorch, results, truth
from tidepool.kernels.oracle.reference import conv_act_pool_reference
from tidepool.kernels.runtime import launch, mode

interpreted = pytest.mark.skipif(not INTERPRETED, reason="plans CPU tensors, which only the interpreter runs")
MIXES = tuple(itertools.product(FORWARD_WAYS, GRADIENT_WAYS, GRADIENT_WAYS))
LAYERS = (
    NAMED["padded_3x3_pool_2"],
    Case("channels_last", (2, 5, 8, 9), (6, 5, 3, 3), {"padding": (0, 1), "stride": (1, 2)}, channels_last=True),
    NAMED["depthwise_average"],
    NAMED["neither"],
    NAMED["even_kernel_same"],
    NAMED["waveform"],
    NAMED["video_overlap"],
    Case("dilated_groups", (2, 6, 8, 7), (9, 2, 3, 3), {"groups": 3, "dilation": (2, 1), "pool": None}, bias=False),
)
UNPOOLING = LayerPlan(
    inference=Choice("epilogue"),
    forward=Choice("epilogue"),
    dgrad=Choice("cudnn"),
    wgrad=Choice("cudnn"),
    dgrad_alone=Choice("dense"),
    wgrad_alone=Choice("dense"),
)


def mixed(forward: str, dgrad: str, wgrad: str) -> LayerPlan:
    return LayerPlan(forward=Choice(forward), dgrad=Choice(dgrad), wgrad=Choice(wgrad))


def by(given: LayerPlan) -> Any:
    """`conv_relu_pool` by a plan, forward and backward."""

    def layer(x: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Tensor:
        with plan.use(given):
            return conv_relu_pool(x, weight, bias, **options, backend="auto")

    return layer


@pytest.mark.parametrize(
    ("case", "mix"),
    [(case, mix) for case in LAYERS for mix in (MIXES if case in LAYERS[:2] else MIXES[1::4])],
    ids=lambda value: value.name if isinstance(value, Case) else "-".join(value),
)
def test_every_mix_is_pytorch_to_the_bit(case: Case, mix: tuple[str, str, str]) -> None:
    x, weight, bias = integer_inputs(case, torch.float32, seed=0)
    expected, grad = outcome(conv_act_pool_reference, x, weight, bias, None, "cpu", case.options)
    found, _ = outcome(by(mixed(*mix)), x, weight, bias, grad, DEVICE, case.options)
    for name, tensor in expected.items():
        assert_equal(found[name], tensor, name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("name", ["channels_last", "average", "silu_max", "gelu_average"])
def test_mixes_keep_the_error_rule(name: str, dtype: torch.dtype) -> None:
    check(NAMED[name], dtype)


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=lambda dtype: str(dtype)[6:])
@every_pool
@every_activation
def test_mixes_of_every_activation_keep_the_error_rule(activation: Activation, pool: Pool, dtype: torch.dtype) -> None:
    options = {"padding": 1, "activation": activation, "pool": pool}
    check(Case(f"{activation} {pool}", (2, 3, 6, 7), (5, 3, 2, 2), options), dtype)


def check(case: Case, dtype: torch.dtype) -> None:
    """Hold three plans to the rule on one draw."""
    inputs, undecided = draw(case, dtype, 0, DEVICE)
    assert undecided <= 0.01
    exact, twin = truth(case, inputs), results(lambda x, w, b: in_pytorch(case, x, w, b), inputs)
    for given in (UNPOOLING, mixed("epilogue", "fused", "dense"), mixed("fused", "cudnn", "fused")):
        ours = results(lambda x, w, b, given=given: by(given)(x, w, b, **case.options), inputs)
        for result, tensor in ours.items():
            error_rule(f"{case.name}, {dtype}, {result}", tensor, twin[result], exact[result])


@interpreted
@pytest.mark.parametrize("asked", [a for a in itertools.product([False, True], repeat=3) if any(a)], ids=str)
@pytest.mark.parametrize("name", ["padded_3x3_pool_2", "gelu_average"])
def test_gradients_that_are_asked_for_alone(name: str, asked: tuple[bool, bool, bool]) -> None:
    case = NAMED[name]
    tensors = [t.double() for t in integer_inputs(case, torch.float32, seed=1) if t is not None]

    def gradients(function: Any) -> list[Tensor]:
        leaves = [t.clone().requires_grad_(needed) for t, needed in zip(tensors, asked, strict=True)]
        y = function(*leaves, **case.options)
        grad = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        return [y.detach(), *torch.autograd.grad(y, wanted, grad)]

    for found, expected in zip(gradients(by(UNPOOLING)), gradients(conv_act_pool_reference), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@interpreted
def test_39_the_bias_may_be_edited_after_forward() -> None:
    case = NAMED["gelu_average"]
    outcomes = []
    for function in (by(UNPOOLING), conv_act_pool_reference):
        x, weight, bias = (t.double().requires_grad_() for t in integer_inputs(case, torch.float32, seed=1))  # type: ignore[union-attr]
        y = function(x, weight, bias, **case.options)
        with torch.no_grad():
            bias.add_(1)
        outcomes.append(torch.autograd.grad(y.sum(), [x, weight, bias]))
    for found, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@interpreted
@pytest.mark.parametrize("way", ["fused", "epilogue", "eager"])
def test_inference_in_every_way(way: str) -> None:
    case = NAMED["channels_last"]
    x, weight, bias = integer_inputs(case, torch.float32, seed=2)
    with torch.no_grad():
        y = by(LayerPlan(inference=Choice(way)))(x, weight, bias, **case.options)
    assert_equal(y, conv_act_pool_reference(x, weight, bias, **case.options), "y")


def test_an_unbatched_picture_and_a_transposed_weight() -> None:
    x, weight = integers((3, 9, 7), torch.float32, torch.Generator().manual_seed(0)), torch.ones(3, 3, 3, 5).mT
    expected, grad = outcome(conv_act_pool_reference, x, weight, None, None, "cpu", {})
    found, _ = outcome(by(UNPOOLING), x, weight, None, grad, DEVICE, {})
    for name, tensor in expected.items():
        assert_equal(found[name], tensor, name, strides=False)


@interpreted
def test_no_pytorch_layer_runs_where_the_plan_names_none(no_pytorch_layers: None) -> None:
    x, weight, bias = integer_inputs(NAMED["padded_3x3_pool_2"], torch.float32, seed=3)
    y = by(mixed("fused", "dense", "dense"))(x.requires_grad_(), weight.requires_grad_(), bias, padding=1)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    with pytest.raises(AssertionError, match="aten::convolution"):
        by(UNPOOLING)(x, weight, bias, padding=1)


@pytest.fixture
def no_launches() -> Any:
    def refuse(kernel: Any, *_: Any, **__: Any) -> None:
        raise AssertionError(f"{kernel.__name__} was launched")

    launch.replace_launcher(refuse)
    yield
    launch.replace_launcher(None)


@interpreted
def test_without_a_plan_a_cpu_runs_eagerly_and_an_eager_plan_does_too(no_launches: None) -> None:
    x, weight, bias = integer_inputs(NAMED["padded_3x3_pool_2"], torch.float32, seed=3)
    expected = conv_act_pool_reference(x, weight, bias)
    assert_equal(conv_relu_pool(x.requires_grad_(), weight, bias, backend="auto"), expected, "y")
    assert_equal(by(EAGER)(x, weight, bias), expected, "y")
    with pytest.raises(AssertionError, match="was launched"):
        by(LayerPlan())(x, weight, bias)


def test_auto_decides_where_its_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [SimpleNamespace(device=torch.device(name), is_cuda=name == "cuda") for name in ("cpu", "cuda")]
    for asked, given, decides in (
        (None, False, [False, True]),
        (None, True, [True, True]),
        (True, False, [False, False]),
        (True, True, [True, True]),
        (False, False, [False, True]),
        (False, True, [False, True]),
    ):
        monkeypatch.setattr(mode, "interpreting_asked", lambda asked=asked: asked)
        monkeypatch.setattr(mode, "_known", {})
        monkeypatch.setattr(planned_operator, "is_given", lambda given=given: given)
        assert [planned_operator.is_planned(x) for x in places] == decides


@interpreted
def test_autocast_gives_low_precision_outputs_and_float32_gradients() -> None:
    x, weight, bias = integer_inputs(NAMED["padded_3x3_pool_2"], torch.float32, seed=4)
    weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = by(UNPOOLING)(x, weight, bias, padding=1)
        expected = conv_act_pool_reference(x, weight, bias, padding=1)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert_equal(y.detach(), expected.detach(), "y")
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


@interpreted
def test_forward_mode_and_transforms_run_eagerly_and_a_second_derivative_is_refused() -> None:
    x, weight, _ = integer_inputs(NAMED["padded_3x3_pool_2"], torch.float32, seed=5)
    _, tangent = torch.func.jvp(lambda t: by(UNPOOLING)(t, weight), (x,), (torch.ones_like(x),))
    _, expected = torch.func.jvp(lambda t: conv_act_pool_reference(t, weight), (x,), (torch.ones_like(x),))
    assert_equal(tangent, expected, "tangent")
    each = torch.func.vmap(torch.func.grad(lambda w, t: by(UNPOOLING)(t, w).sum()), in_dims=(None, 0))(weight, x)
    expected = [torch.func.grad(lambda w, t=t: conv_act_pool_reference(t, w).sum())(weight) for t in x]
    assert_equal(each, torch.stack(expected), "per-sample gradients")
    x.requires_grad_()
    (dx,) = torch.autograd.grad(by(UNPOOLING)(x, weight).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        dx.sum().backward()


@interpreted
@pytest.mark.parametrize("pool", [None, AvgPool(2)], ids=["none", "average"])
@pytest.mark.parametrize("results", [False, True], ids=["leaves", "results"])
@pytest.mark.parametrize("asked", range(3), ids=["dx", "dweight", "dbias"])
def test_a_penalty_on_a_gradient_of_a_smooth_layer_is_refused(asked: int, results: bool, pool: AvgPool | None) -> None:
    """Also where the other two are frozen, and so not saved; y's own gradient is a constant."""
    tensors = [t for t in integer_inputs(NAMED["padded_3x3_pool_2"], torch.float32, seed=7) if t is not None]
    leaves = [t.requires_grad_(i == asked) for i, t in enumerate(tensors)]
    inputs = [leaf * 1 for leaf in leaves] if results else leaves
    y = by(UNPOOLING)(*inputs, activation="gelu", pool=pool)
    (gradient,) = torch.autograd.grad(y.sum(), inputs[asked], create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(0 * y.sum() + gradient.square().sum(), inputs[asked])


@interpreted
def test_the_same_graph_may_run_backward_twice_and_outputs_may_be_edited() -> None:
    x, weight, bias = integer_inputs(NAMED["padded_3x3_pool_2"], torch.float32, seed=6)
    x.requires_grad_()
    y = by(UNPOOLING)(x, weight, bias)
    y.add_(1)
    y.sum().backward(retain_graph=True)
    assert x.grad is not None
    once = x.grad.clone()
    y.sum().backward()
    assert torch.equal(x.grad, 2 * once)


def test_operators_pass_opcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = integers((2, 3, 6, 5), torch.float32, generator), integers((4, 3, 2, 2), torch.float32, generator)
    layer = parse_layer((2, 2), 1, 0, 1, 1, "gelu", AvgPool(2)).text()
    plain = [t.to(DEVICE) for t in (x, weight, torch.ones(4))]
    leaves = [t.clone().requires_grad_() for t in plain]
    torch.library.opcheck(ops.conv_act_pool_planned, (*leaves, layer, UNPOOLING.text()))
    y, code, saved = ops.conv_act_pool_planned_forward(*plain, layer, UNPOOLING.text())
    rest = ([*x.shape], False, True, True, True, layer, UNPOOLING.text())
    arguments = (torch.ones_like(y), code, saved, *plain, *rest)
    torch.library.opcheck(ops.conv_act_pool_planned_backward, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile's CPU code needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compiles_into_one_graph_that_holds_the_plan(dynamic: bool) -> None:
    torch._dynamo.reset()
    x, weight, bias = integer_inputs(NAMED["padded_3x3_pool_2"], torch.float32, seed=7)
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph.code)
        return graph.forward

    from torch._dynamo.backends.common import aot_autograd

    backend = aot_autograd(fw_compiler=keep)
    compiled = torch.compile(
        lambda x, w, b: conv_relu_pool(x, w, b, padding=1, backend="auto"),
        fullgraph=True,
        dynamic=dynamic,
        backend=backend,
    )
    expected, grad = outcome(conv_act_pool_reference, x, weight, bias, None, "cpu", {"padding": 1})
    with plan.use(UNPOOLING):
        found, _ = outcome(compiled, x, weight, bias, grad, DEVICE, {})
    for name, tensor in expected.items():
        assert_equal(found[name], tensor, name)
    planned = "conv_act_pool_planned" in "".join(graphs)
    assert (
        planned is not dynamic
    )  # symbolic sizes have no entry in any table: PyTorch's own layers, for Inductor to fuse
