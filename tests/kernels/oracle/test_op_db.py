"""Someone else's cases: the samples PyTorch tests its own convolutions and pools with, and inputs it says are wrong.

All 30 conv2d and 1,440 max_pool2d samples, values and gradients, and those of the other ranks and of average pooling.
Plain `pytest` runs three of the ten groups of max_pool2d's; the others and those of max_pool1d and max_pool3d (864 and
576) are `full`.

A pool is run as the op with an identity filter and no activation, which leaves every value as it is.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.kernels import error_rule
from tests.kernels.exact import DEVICE, assert_equal, integers
from tests.kernels.shapes import Case
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool

pytest.importorskip("expecttest", reason="torch.testing's op_db imports it")
op_db = pytest.importorskip("torch.testing._internal.common_methods_invocations").op_db
# That import forbids setting torch.backends' flags for the rest of the process, where other tests train.
torch.backends.disable_global_flags.__globals__["__allow_nonbracketed_mutation_flag"] = True

MAX_POOL: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@functools.cache
def _operator(name: str) -> Any:
    return next(op for op in op_db if op.name == f"nn.functional.{name}")


@functools.cache
def _samples(name: str) -> tuple[Any, ...]:
    """(x, args, kwargs) of every sample, drawn from a fixed seed."""
    torch.manual_seed(0)
    samples = _operator(name).sample_inputs("cpu", torch.float32, requires_grad=False)
    return tuple((s.input, s.args, s.kwargs) for s in samples)


def identity(x: Tensor, rank: int) -> Tensor:
    """A 1-wide filter that hands every channel on."""
    channels = x.shape[-rank - 1] if x.dim() > rank else 1
    return torch.eye(max(channels, 1), dtype=x.dtype).view(-1, max(channels, 1), *(1,) * rank)


def _fields(args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {**dict(zip(names, args, strict=False)), **kwargs}


# Convolutions: within the error rule.


@pytest.mark.parametrize(("name", "count"), [("conv1d", 10), ("conv2d", 30), ("conv3d", 20)])
def test_convolution_samples(name: str, count: int, ieee_float32: None) -> None:
    names = ("weight", "bias", "stride", "padding", "dilation", "groups")
    samples = _samples(name)
    assert len(samples) == count
    for x, args, kwargs in samples:
        options = {**_fields(args, kwargs, names), "activation": None, "pool": None}
        _within_rule(name, x, options.pop("weight"), options.pop("bias", None), options)


@pytest.mark.parametrize(("name", "count"), [("avg_pool1d", 9), ("avg_pool2d", 7), ("avg_pool3d", 8)])
def test_average_pool_samples(name: str, count: int) -> None:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    samples = _samples(name)
    assert len(samples) == count
    for x, args, kwargs in samples:
        fields = _fields(args, kwargs, names)
        if fields.pop("divisor_override", None) is not None:
            continue  # AvgPool has no such thing
        pool = AvgPool(fields.pop("kernel_size"), **fields)
        _within_rule(name, x, identity(x, int(name[-2])), None, {"activation": None, "pool": pool})


def _within_rule(name: str, x: Tensor, weight: Tensor, bias: Tensor | None, options: dict[str, Any]) -> None:
    case = Case(
        f"{name} {tuple(x.shape)} {tuple(weight.shape)} {options}", tuple(x.shape), tuple(weight.shape), options
    )
    y = error_rule.in_pytorch(case, x, weight, bias)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    inputs = error_rule.Inputs(x, weight, bias, grad)
    placed = error_rule.Inputs(*(None if t is None else t.to(DEVICE) for t in (x, weight, bias, grad)))  # type: ignore[arg-type]
    ours = error_rule.results(lambda *given: conv_relu_pool(*given, **options, backend="triton"), placed)
    twin = error_rule.results(functools.partial(error_rule.in_pytorch, case), inputs)
    for key, exact in error_rule.truth(case, inputs).items():
        error_rule.error_rule(f"{case.name}, {key}", ours[key], twin[key], exact)


# Max pools: to the bit.


def _groups(name: str) -> dict[str, list[tuple[list[Tensor], dict[str, Any]]]]:
    """Samples by shape and layout of x, then by settings. Those that differ only in whether PyTorch returns indices
    too, which the op never does, lie together: batched ones run in one call, batch after batch.
    """
    gathered: dict[str, dict[str, tuple[list[Tensor], dict[str, Any]]]] = defaultdict(dict)
    for x, args, kwargs in _samples(name):
        fields = _fields(args, kwargs, ("kernel_size", "stride", "padding", "dilation", "ceil_mode"))
        fields.pop("return_indices", None)
        key = f"{name} {tuple(x.shape)} {'contiguous' if x.is_contiguous() else 'channels last'}"
        gathered[key].setdefault(repr(sorted(fields.items())), ([], fields))[0].append(x)
    return {key: list(by_settings.values()) for key, by_settings in gathered.items()}


def _max_pool_groups(*names: str, default: int = 0) -> list[Any]:
    """A parameter for each group; the first `default` are not `full`."""
    groups = [(int(name[-2]), key, group) for name in names for key, group in _groups(name).items()]
    return [
        pytest.param(rank, group, id=key, marks=[] if number < default else pytest.mark.full)
        for number, (rank, key, group) in enumerate(groups)
    ]


def test_there_are_1440_max_pool2d_samples() -> None:
    assert sum(len(inputs) for group in _groups("max_pool2d").values() for inputs, _ in group) == 1440


@pytest.mark.parametrize(("rank", "samples"), _max_pool_groups("max_pool2d", default=1))
def test_max_pool2d_samples(rank: int, samples: list[tuple[list[Tensor], dict[str, Any]]]) -> None:
    _max_pools(rank, samples)


@pytest.mark.parametrize(("rank", "samples"), _max_pool_groups("max_pool1d", "max_pool3d"))
def test_max_pool1d_and_3d_samples(rank: int, samples: list[tuple[list[Tensor], dict[str, Any]]]) -> None:
    _max_pools(rank, samples)


def _max_pools(rank: int, samples: list[tuple[list[Tensor], dict[str, Any]]]) -> None:
    for inputs, settings in samples:
        for x in [torch.cat(inputs)] if inputs[0].dim() == rank + 2 else inputs:
            fields = dict(settings)
            pool = MaxPool(fields.pop("kernel_size"), **fields)
            leaf = x.clone().requires_grad_()
            expected = MAX_POOL[rank](leaf, **settings)
            grad = integers(tuple(expected.shape), x.dtype, torch.Generator().manual_seed(0), most=3)
            (expected_dx,) = torch.autograd.grad(expected, leaf, grad)
            leaf = x.to(DEVICE).requires_grad_()
            filters = identity(x, rank).to(DEVICE)
            found = conv_relu_pool(leaf, filters, activation=None, pool=pool, backend="triton")
            (found_dx,) = torch.autograd.grad(found, leaf, grad.to(DEVICE))
            assert_equal(found.detach(), expected.detach(), f"value of {settings}")
            assert_equal(found_dx, expected_dx, f"gradient of {settings}")


# Error inputs.

SAME_REFUSAL = {
    "3-dimensional input for 3-dimensional weight": r"Expected 2D \(unbatched\) or 3D \(batched\) input to conv1d",
    "4-dimensional input for 4-dimensional weight": r"Expected 3D \(unbatched\) or 4D \(batched\) input to conv2d",
    "weight should have at least three dimensions": "expected weight to have 3, 4 or 5 dimensions",
    "stride must be greater than zero": "pool.stride should be greater than zero",
    "dilation must be greater than zero": "pool.dilation should be greater than zero",
    "kernel_size must be greater than zero": "pool.kernel should be greater than zero",
    "Invalid computed output size: -2": "Output size is too small",
    r"Expected 2D or 3D \(batch mode\)": "Expected 2D|Kernel size can't be greater|expected input to have 1 channels",
    r"Expected 3D or 4D \(batch mode\)": "Kernel size can't be greater",
    r"input\'s non-batch dimensions": "Kernel size can't be greater|expected input to have 1 channels",
    "non-empty 4D or 5D": "Expected 4D",
}
"""PyTorch's words for a refusal, and the op's where they differ: it picks the rank by the weight's, names its own
arguments, and meets a pool's empty input as the convolution's."""

ERRORS = {"conv1d": 10, "conv2d": 10, "conv3d": 10, "max_pool1d": 24, "max_pool2d": 7, "max_pool3d": 7}
AVERAGE_ERRORS = {"avg_pool1d": 2, "avg_pool2d": 5, "avg_pool3d": 6}


@pytest.mark.parametrize(("name", "count"), [*ERRORS.items(), *AVERAGE_ERRORS.items()])
def test_error_inputs_are_refused(name: str, count: int) -> None:
    cases = list(_operator(name).error_inputs("cpu"))
    assert len(cases) == count
    for case in cases:
        sample = case.sample_input
        if "divisor_override" in sample.kwargs:
            continue
        words = next((ours for theirs, ours in SAME_REFUSAL.items() if theirs in case.error_regex), case.error_regex)
        with pytest.raises(case.error_type) as refusal:
            _call(name, sample.input, sample.args, sample.kwargs)
        assert re.search(words, str(refusal.value)), f"{refusal.value!r} where PyTorch says {case.error_regex!r}"
        assert "\n" not in str(refusal.value)


def _call(name: str, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The op with a sample's arguments."""
    if name.startswith("conv"):
        return conv_relu_pool(x, *args, **kwargs, pool=None, backend="triton")
    fields = {key: value for key, value in kwargs.items() if key != "return_indices"}
    pool = (MaxPool if name.startswith("max") else AvgPool)(fields.pop("kernel_size"), **fields)
    return conv_relu_pool(x, identity(x, int(name[-2])), pool=pool, backend="triton")
