"""Layers of every kind on compiled code: exact integers, the error rule, norms and gates, under every schedule.

`pytest tests/kernels --on sm_90` runs all of the kernels' tests this way; here is what every run of the tests does.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.kernels import error_rule, norm_error_rule
from tests.kernels.exact import assert_as_pytorch, integer_inputs
from tests.kernels.norm_layers import LAYERS, NormLayer
from tests.kernels.shapes import CASES, Case
from tidepool import simulator
from tidepool.kernels import Activation, AvgPool, MaxPool, global_average_pool, squeeze_excite
from tidepool.kernels.activations import FORMULAS

RUNS = (
    ("sm_90", "late", torch.bfloat16),
    ("sm_80", "late", torch.float16),
    ("sm_90", "seeded:1", torch.float32),
)
Run = tuple[str, str, torch.dtype]

SMOOTH = [case for case in CASES if case.options.get("activation") in ("silu", "gelu")]
# Averages over other than 2^n pixels are rounded, by PyTorch in 16 bits at every step.
ROUNDED = ("average_of_what_exists", "average_alone")
EXACT = [case for case in CASES if case not in SMOOTH and case.name not in ROUNDED]
WIDE = (
    Case("tma_3x3", (2, 64, 10, 12), (64, 64, 3, 3), {"padding": 1}, channels_last=True),
    Case(
        "tma_stride_2", (2, 32, 12, 16), (48, 32, 3, 3), {"stride": 2, "padding": 1, "pool": None}, channels_last=True
    ),
    Case("tma_1x1", (3, 40, 6, 7), (72, 40, 1, 1), {"pool": None}, channels_last=True),
    Case("overlapping_windows", (1, 16, 12, 10), (32, 16, 3, 3), {"pool": MaxPool(3, 2, 1)}, channels_last=True),
)
"""Layers wide enough for Hopper's own forward and for the windowed gradients."""


def in_turn(cases: list[Case]) -> list[Any]:
    """Every layer with one of the runs."""
    runs = [(case, RUNS[number % len(RUNS)]) for number, case in enumerate(cases)]
    return [pytest.param(case, run, id=f"{case.name}-{run[0]}-{run[1]}-{str(run[2])[6:]}") for case, run in runs]


@pytest.mark.parametrize(("case", "run"), in_turn([*EXACT, *WIDE]))
def test_equal_to_the_bit_on_small_integers(case: Case, run: Run) -> None:
    name, schedule, dtype = run
    if case.name == "video_average":
        dtype = torch.float32  # PyTorch has no 16-bit avg_pool3d on a CPU
    with simulator.device(name, schedule):
        # A 1 x 1 weight's spatial strides mean nothing.
        strides = case.weight[2:] != (1, 1)
        assert_as_pytorch(*integer_inputs(case, dtype, seed=3), strides=strides, **case.options)


@pytest.mark.parametrize("pool", [MaxPool(2), AvgPool(2), None], ids=str)
@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_float64_to_the_bit(name: str, pool: Any) -> None:
    """Of a gradient that is made with the help of a byte Triton 3.7.1 compiled no product of float64."""
    case = Case("double", (2, 16, 9, 8), (32, 16, 3, 3), {"padding": 1, "pool": pool})
    with simulator.device(name, "late"):
        assert_as_pytorch(*integer_inputs(case, torch.float64, seed=0), device="cpu", **case.options)


@pytest.mark.parametrize(("case", "run"), in_turn([*SMOOTH, WIDE[0]]))
def test_meets_the_error_rule(case: Case, run: Run) -> None:
    name, schedule, dtype = run
    with simulator.device(name, schedule):
        error_rule.check(case, dtype, seed=4)


@pytest.mark.parametrize("run", RUNS[:2], ids=lambda run: f"{run[0]}-{run[1]}")
@pytest.mark.parametrize("layer", LAYERS[:4], ids=lambda layer: layer.name)
def test_norms_meet_the_error_rule(layer: NormLayer, run: Run) -> None:
    name, schedule, dtype = run
    with simulator.device(name, schedule):
        norm_error_rule.check(layer, dtype)


@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_gates_and_averages(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x, gate = torch.randn(2, 12, 7, 9, generator=generator), torch.randn(2, 12, 1, 1, generator=generator)
    grad = torch.randn(2, 12, 7, 9, generator=generator)
    found = []
    for backend in ("cudnn", "triton"):
        leaves = [t.clone().requires_grad_() for t in (x, gate)]
        with simulator.device(name, "late"):
            y = squeeze_excite(*leaves, backend=backend)
            mean = global_average_pool(leaves[0], backend=backend)
            found.append([y, mean, *torch.autograd.grad([y, mean], leaves, [grad, torch.ones_like(mean)])])
    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
@pytest.mark.parametrize("activation", ["gelu", "silu", "mish"])
def test_bias_gradients_behind_smooth_activations(activation: str, name: str) -> None:
    # Products that are summed across lanes: contracted, lanes stored sums of different bits to one place.
    case = Case("smooth_alone", (2, 3, 9, 9), (4, 3, 3, 3), {"activation": activation, "pool": None})
    with simulator.device(name):
        error_rule.check(case, torch.bfloat16, seed=4)


@pytest.mark.parametrize("pool", [None, MaxPool(2)], ids=str)
@pytest.mark.parametrize("name", sorted(set(FORMULAS) - {"none"}))
def test_gradients_of_every_activation_by_the_kernels_that_a_gpu_runs(name: str, pool: MaxPool | None) -> None:
    # Wide enough for the windowed gradients, which choose and do not multiply, where they fit: of hardsigmoid and
    # LeakyReLU they do not.
    case = Case("wide", (1, 16, 6, 8), (32, 16, 3, 3), {"activation": name, "pool": pool, "padding": 1})
    case = replace(case, channels_last=True)
    with simulator.device("sm_90"):
        error_rule.check(case, torch.float16, seed=4)


@pytest.mark.parametrize("pool", [None, MaxPool(2)], ids=str)
def test_leaky_relu_is_exact_where_its_slope_is(pool: MaxPool | None) -> None:
    case = Case("leaky", (1, 16, 6, 8), (32, 16, 3, 3), {"activation": Activation("leaky_relu", 0.5), "pool": pool})
    with simulator.device("sm_90"):
        assert_as_pytorch(*integer_inputs(case, torch.float16, seed=3), **case.options)


MISCOMPILED = (
    Case("smallest_nchw", (2, 3, 10, 10), (4, 3, 3, 2), {"padding": 1}),
    Case("smallest_channels_last", (2, 3, 10, 10), (4, 3, 4, 2), {"padding": 2}, channels_last=True),
    Case("two_by_four", (2, 3, 10, 10), (4, 3, 2, 4), {"padding": 1}),
)
"""The smallest layers whose float32 input gradient Triton 3.7.1 and 3.8.0 miscompile where a kernel divides by 2."""


@pytest.mark.default
@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
@pytest.mark.parametrize("case", MISCOMPILED, ids=lambda case: case.name)
def test_input_gradients_that_llvm_miscompiled(case: Case, name: str) -> None:
    with simulator.device(name):
        assert_as_pytorch(*integer_inputs(case, torch.float32, seed=0), **case.options)
