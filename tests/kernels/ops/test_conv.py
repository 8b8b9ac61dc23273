"""The op against PyTorch on every named layer: within the error rule, and to the bit where sums are exact."""

import shutil
from dataclasses import replace

import pytest
import torch

from tests.kernels import error_rule
from tests.kernels.activations.listed import every_activation, every_pool
from tests.kernels.exact import DEVICE, DTYPES, assert_as_pytorch, integer_inputs, integers
from tests.kernels.guarded_memory import PATTERNS, guarded_memory
from tests.kernels.shapes import CASES, NAMED, Case
from tidepool.kernels import AvgPool, MaxPool, conv_act_pool, conv_relu_pool
from tidepool.kernels.activations import Activation, as_activation
from tidepool.kernels.layer.pooling import Pool

PIECEWISE_LINEAR = [
    case
    for case in CASES
    if case.options.get("activation") not in ("silu", "gelu")
    # Averages over other than 2^n pixels are rounded, by PyTorch in 16 bits at every step.
    and case.name not in ("average_of_what_exists", "average_alone")
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))


@every_dtype
@every_case
def test_within_the_error_rule(case: Case, dtype: torch.dtype, ieee_float32: None) -> None:
    error_rule.check(case, dtype, device=DEVICE)


BASES = (
    Case("padded", (2, 3, 6, 7), (5, 3, 2, 2), {"padding": 1}),
    Case("depthwise", (2, 4, 7, 6), (8, 1, 2, 2), {"groups": 4}, channels_last=True),
)
every_base = pytest.mark.parametrize("base", BASES, ids=lambda case: case.name)


def layer_with(base: Case, activation: Activation, pool: Pool) -> Case:
    """A layer with another activation and pool."""
    return replace(
        base, name=f"{base.name} {activation} {pool}", options={**base.options, "activation": activation, "pool": pool}
    )


@every_base
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_pool
@every_activation
def test_every_activation_within_the_error_rule(
    activation: Activation, pool: Pool, dtype: torch.dtype, base: Case, ieee_float32: None
) -> None:
    error_rule.check(layer_with(base, activation, pool), dtype, device=DEVICE)


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile's CPU code needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("activation", "pool"),
    [("hardswish", MaxPool(3, 2, 1)), ("mish", AvgPool(2)), (Activation("leaky_relu", 0.25), None)],
    ids=str,
)
def test_backend_compile_is_pytorch_with_every_kind_of_activation(activation: str | Activation, pool: Pool) -> None:
    torch._dynamo.reset()
    inputs, _ = error_rule.draw(layer_with(BASES[0], as_activation(activation), pool), torch.float32, seed=0)
    options = {**BASES[0].options, "activation": activation, "pool": pool}
    outcomes = [
        error_rule.results(lambda x, w, b, backend=backend: conv_act_pool(x, w, b, **options, backend=backend), inputs)
        for backend in ("compile", "cudnn")
    ]
    for name, expected in outcomes[1].items():
        torch.testing.assert_close(outcomes[0][name], expected, rtol=1e-5, atol=1e-5)


@every_base
@every_dtype
@pytest.mark.parametrize("pool", [MaxPool(3, 2, 1), AvgPool(2, 1), None], ids=["max", "average", "none"])
@pytest.mark.parametrize(
    "activation", [Activation("relu6"), Activation("leaky_relu", 0.25), Activation("leaky_relu", -0.5)], ids=str
)
def test_exact_activations_equal_to_the_bit_on_small_integers(
    activation: Activation, pool: Pool, dtype: torch.dtype, base: Case
) -> None:
    """Sums of integers meet ReLU6's both kinks, and a slope of 1/4 or -1/2 is exact in every dtype.

    Strides are for other tests: a depthwise weight's second dimension is of size 1, and its stride means nothing."""
    case = layer_with(base, activation, pool)
    assert_as_pytorch(*integer_inputs(case, dtype, seed=0), strides=False, **case.options)


@every_dtype
@pytest.mark.parametrize("case", PIECEWISE_LINEAR, ids=lambda case: case.name)
def test_equal_to_the_bit_on_small_integers(case: Case, dtype: torch.dtype) -> None:
    if case.name == "video_average" and dtype != torch.float32:
        pytest.skip("PyTorch has no 16-bit avg_pool3d on a CPU")
    assert_as_pytorch(*integer_inputs(case, dtype, seed=0), **case.options)


@pytest.mark.parametrize("elements", [254, 255, 256])
def test_winner_codes_at_the_edge_of_a_byte(elements: int) -> None:
    """Windows up to 254 elements are coded in a byte (255 says "off"), larger ones in 16 bits; any element may win."""
    x = torch.zeros(3, 1, elements)
    for image, winner in enumerate((0, elements // 2, elements - 1)):
        x[image, 0, winner] = 1.0
    assert_as_pytorch(x, torch.ones(1, 1, 1), grad=torch.ones(3, 1, 1), pool=MaxPool(elements))


@every_case
def test_nothing_is_read_unwritten_or_written_outside(case: Case) -> None:
    x, weight, bias = (None if t is None else t.to(DEVICE) for t in integer_inputs(case, torch.float32, seed=1))
    assert x is not None
    assert weight is not None
    runs = []
    for pattern in PATTERNS:
        leaves = [None if t is None else t.detach().requires_grad_() for t in (x, weight, bias)]
        with guarded_memory(pattern) as allocations:
            y = conv_relu_pool(leaves[0], leaves[1], leaves[2], **case.options, backend="triton")
            grad = integers(tuple(y.shape), y.dtype, torch.Generator().manual_seed(2)).to(DEVICE)
            y.backward(grad)
        for allocation in allocations:
            allocation.check_guards()
        results = [y.detach(), *(leaf.grad for leaf in leaves if leaf is not None)]
        assert len(allocations) >= len(results)
        runs.append([allocation.contents() for allocation in allocations])
    assert len(runs[0]) == len(runs[1])
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second), "part of a tensor was never written"


SILENT = [case for case in CASES if case.name not in ("vgg_for_cifar", "window_of_255")]


@pytest.mark.parametrize("case", SILENT, ids=lambda case: case.name)
def test_no_pytorch_convolution_or_pooling_runs(case: Case, no_pytorch_layers: None) -> None:
    x, weight, bias = (
        None if t is None else t.to(DEVICE).requires_grad_() for t in integer_inputs(case, torch.float32, seed=3)
    )
    assert x is not None
    assert weight is not None
    y = conv_relu_pool(x, weight, bias, **case.options, backend="triton")
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    assert weight.grad is not None


def test_pytorch_convolution_and_pooling_do_raise_there(no_pytorch_layers: None) -> None:
    """The test above can fail: eager PyTorch meets the same fixture."""
    case = NAMED["padded_3x3_pool_2"]
    x, weight, bias = (None if t is None else t.to(DEVICE) for t in integer_inputs(case, torch.float32, seed=3))
    with pytest.raises(AssertionError, match="aten::convolution"):
        conv_relu_pool(x, weight, bias, backend="cudnn")  # type: ignore[arg-type]
    assert x is not None
    with pytest.raises(AssertionError, match="aten::max_pool2d"):
        torch.nn.functional.max_pool2d(x, 2)
    with pytest.raises(AssertionError, match="aten::avg_pool2d"):
        torch.nn.functional.avg_pool2d(x, 2)


REPEATED = (
    "padded_3x3_pool_2", "resnet_stem", "groups", "depthwise_times_two", "depthwise_average", "no_pool", "average",
    "silu_max", "gelu_average", "video_overlap",
)  # fmt: skip


@every_dtype
@pytest.mark.parametrize("name", REPEATED)
def test_two_calls_are_equal_to_the_bit(name: str, dtype: torch.dtype) -> None:
    inputs, _ = error_rule.draw(NAMED[name], dtype, seed=4)
    inputs = error_rule.Inputs(*(None if t is None else t.to(DEVICE) for t in vars(inputs).values()))  # type: ignore[arg-type]

    def ours(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return conv_relu_pool(x, weight, bias, **NAMED[name].options, backend="triton")

    first, second = error_rule.results(ours, inputs), error_rule.results(ours, inputs)
    assert all(torch.equal(first[key], second[key]) for key in first)
