"""Layers nobody thought of: random geometry, layouts and dtypes, equal to PyTorch to the bit.

Inputs are small integers, so that every sum is exact whatever its order; PyTorch computes in float64 on dense copies
and is rounded to the dtype, which is then the one right answer. Plain `pytest` draws 40 layers, the same ones every
time; the tests marked `full` draw 300, and 100 more most of which PyTorch refuses, and the op has to. The long run
takes an hour and a half on two cores:

    TIDEPOOL_GEOMETRIES=20000 pytest -m full --timeout 0 tests/kernels/ops/test_random_geometry.py

Not drawn, because it would be rounded: SiLU, GELU, and averages that divide by other than 2^n pixels, so none with
`ceil_mode` or without `count_include_pad`. `tests/kernels/shapes.py` and edge cases 17 have fixed layers of these.
"""

import os
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.exact import DEVICE, INTERPRETED, assert_equal, integers, outcome, placed
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool
from tidepool.kernels.oracle.reference import conv_act_pool_reference
from tidepool.kernels.runtime.errors import ArgumentError

EXAMPLES = int(os.environ.get("TIDEPOOL_GEOMETRIES", "100"))
SOME = 40
"""What plain `pytest` draws."""
WIDE = (torch.float32, *([torch.float64] if INTERPRETED else []))
NARROW = (torch.float16, torch.bfloat16)
LAYOUTS = ("contiguous", "channels_last", "transposed", "stepped", "expanded", "offset")
BIAS_LAYOUTS = ("contiguous", "stepped", "expanded", "offset")


@dataclass(frozen=True)
class Draw:
    """One random layer: sizes, the op's arguments, how its tensors lie in memory, and the seed of their values."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool
    options: dict[str, Any]
    dtype: torch.dtype
    x_layout: str
    weight_layout: str
    grad_layout: str
    seed: int
    bias_layout: str


def _each(strategy: st.SearchStrategy[int], rank: int) -> st.SearchStrategy[int | tuple[int, ...]]:
    """One number for all dimensions, or one each."""
    return strategy | st.tuples(*[strategy] * rank)


def _spread(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


@st.composite
def pools(draw: st.DrawFn, rank: int) -> MaxPool | AvgPool | None:
    """Any pool whose padding fits its window."""
    kind = draw(st.sampled_from(("max", "max", "average", None)))
    if kind is None:
        return None
    stride = draw(st.none() | _each(st.integers(1, 3), rank))
    # Sums are divided by the window: 2^n pixels, padding counted, no partial windows, or averages would round.
    most = 3 if rank < 3 else 2  # overlapping 3 x 3 x 3 windows take the interpreter a second
    kernel = draw(_each(st.sampled_from((1, 2, 4)[:most]) if kind == "average" else st.integers(1, most), rank))
    padding = draw(st.just(0) | st.tuples(*(st.integers(0, k // 2) for k in _spread(kernel, rank))))
    if kind == "average":
        return AvgPool(kernel, stride, padding)
    return MaxPool(kernel, stride, padding, draw(st.just(1) | _each(st.integers(1, 2), rank)), draw(st.booleans()))


@st.composite
def spatial_sizes(draw: st.DrawFn, rank: int, kernel: tuple[int, ...], options: dict[str, Any]) -> tuple[int, ...]:
    """Input sizes from the smallest that leaves a pixel to some pixels more."""
    pool, padding = options["pool"], options["padding"]
    stride, dilation = _spread(options["stride"], rank), _spread(options["dilation"], rank)
    sizes = []
    for i in range(rank):
        reach = dilation[i] * (kernel[i] - 1)
        padded = {"valid": 0, "same": reach}[padding] if isinstance(padding, str) else 2 * _spread(padding, rank)[i]
        conv = 1
        if pool is not None:
            window, step = _spread(pool.kernel, rank)[i], _spread(getattr(pool, "dilation", 1), rank)[i]
            conv = max((window - 1) * step + 1 - 2 * _spread(pool.padding, rank)[i], step)
            if isinstance(pool, AvgPool) and rank == 3:
                conv = max(conv, window)
        conv += draw(st.integers(0, 4 if rank < 3 else 2))
        least = (conv - 1) * stride[i] + 1 + reach - padded
        sizes.append(max(least, 1) + draw(st.integers(0, stride[i] - 1)))
    return tuple(sizes)


@st.composite
def layers(draw: st.DrawFn, rank: int, dtypes: tuple[torch.dtype, ...] = WIDE + NARROW, fitting: bool = True) -> Draw:
    """Any layer; where `fitting` is not asked for, mostly such as PyTorch refuses."""
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    per_group, filters = draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel = draw(st.tuples(*[st.integers(1, 3)] * rank))
    stride = draw(st.just(1) | _each(st.integers(1, 3), rank))
    words = st.sampled_from(("same", "valid") if stride == 1 or not fitting else ("valid",))
    padding = draw(words | _each(st.integers(0, 2) if fitting else st.integers(-1, 3), rank))
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": draw(st.just(1) | _each(st.integers(1, 3), rank)),
        "groups": groups,
        "activation": draw(st.sampled_from(("relu", "relu", None))),
        "pool": draw(pools(rank)),
    }
    smallest = st.tuples(*[st.integers(0, 4)] * rank)
    spatial = draw(spatial_sizes(rank, kernel, options) if fitting else smallest)
    layouts = st.sampled_from(LAYOUTS)
    return Draw(
        (draw(st.integers(1, 3)), groups * per_group, *spatial),
        (filters, per_group, *kernel),
        draw(st.booleans()),
        options,
        draw(st.sampled_from(dtypes)),
        draw(layouts),
        draw(layouts),
        draw(layouts),
        draw(st.integers(0, 2**16)),
        draw(st.sampled_from(BIAS_LAYOUTS)),
    )


def laid_out(t: Tensor, layout: str) -> Tensor:
    """The same values, elsewhere in memory. Expanded: the first image's values for all."""
    if layout == "channels_last" and t.dim() > 3:
        return t.to(memory_format=torch.channels_last if t.dim() == 4 else torch.channels_last_3d)
    if layout == "transposed":
        return t.transpose(1, -1).contiguous().transpose(1, -1)
    if layout == "stepped":
        return t.repeat_interleave(2, -1)[..., ::2]
    if layout == "expanded":
        return t[:1].expand(t.shape)
    if layout == "offset":
        return torch.cat([torch.full_like(t[:1], 77.0), t])[1:]
    return t


def examples(count: int) -> Any:
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if count <= 1000 else [Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def tensors(layer: Draw) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, weight and bias of a drawn layer, in its layouts."""
    generator = torch.Generator().manual_seed(layer.seed)
    x = laid_out(integers(layer.x, layer.dtype, generator), layer.x_layout)
    weight = laid_out(integers(layer.weight, layer.dtype, generator, most=1), layer.weight_layout)
    bias = laid_out(integers(layer.weight[:1], layer.dtype, generator), layer.bias_layout) if layer.bias else None
    return x, weight, bias


def exact(tensor: Tensor | None) -> Tensor | None:
    """A dense float64 copy for PyTorch.

    In float32 its CPU convolution (2.13, oneDNN) gives wrong sums for a transposed weight in two groups (6 x 2 x 1 x 2
    with strides 4, 1, 2, 2), and ends the process on a channels_last x of one channel (2 x 1 x 16 x 2, weight
    2 x 1 x 2 x 1, stride 3, padding (0, 1), dilation 3).
    """
    return None if tensor is None else tensor.double().clone(memory_format=torch.contiguous_format)


def check_equal(layer: Draw) -> None:
    x, weight, bias = tensors(layer)
    copies = [exact(t) for t in (x, weight, bias)]
    with torch.no_grad():
        size = conv_act_pool_reference(*copies, **layer.options).shape  # type: ignore[arg-type]
    grad = laid_out(integers(tuple(size), layer.dtype, torch.Generator().manual_seed(layer.seed)), layer.grad_layout)
    expected, _ = outcome(conv_act_pool_reference, *copies, exact(grad), "cpu", layer.options)  # type: ignore[arg-type]
    found, _ = outcome(conv_relu_pool, x, weight, bias, grad, DEVICE, {**layer.options, "backend": "triton"})
    for name, tensor in expected.items():
        assert_equal(found[name], None if tensor is None else tensor.to(layer.dtype), name, strides=False)


@examples(SOME)
@given(layer=st.integers(1, 3).flatmap(layers))
@pytest.mark.timeout(0)
@pytest.mark.default
def test_layers_of_every_rank_equal_pytorch_to_the_bit(layer: Draw) -> None:
    check_equal(layer)


@pytest.mark.full
@examples(EXAMPLES // 5)
@given(layer=layers(rank=1))
@pytest.mark.timeout(0)
def test_waveforms_equal_pytorch_to_the_bit(layer: Draw) -> None:
    check_equal(layer)


@pytest.mark.full
@examples(3 * EXAMPLES // 10)
@given(layer=layers(rank=2, dtypes=WIDE))
@pytest.mark.timeout(0)
def test_pictures_equal_pytorch_to_the_bit(layer: Draw) -> None:
    check_equal(layer)


@pytest.mark.full
@examples(3 * EXAMPLES // 10)
@given(layer=layers(rank=2, dtypes=NARROW))
@pytest.mark.timeout(0)
def test_pictures_in_16_bits_equal_pytorch_to_the_bit(layer: Draw) -> None:
    check_equal(layer)


@pytest.mark.full
@examples(EXAMPLES // 5)
@given(layer=layers(rank=3))
@pytest.mark.timeout(0)
def test_videos_equal_pytorch_to_the_bit(layer: Draw) -> None:
    check_equal(layer)


@pytest.mark.full
@examples(max(EXAMPLES // 3, 100))
@given(layer=st.integers(1, 3).flatmap(lambda rank: layers(rank, fitting=False)))
@pytest.mark.timeout(0)
def test_what_pytorch_refuses_is_refused(layer: Draw) -> None:
    x, weight, _ = tensors(layer)
    try:
        with torch.no_grad():
            expected = conv_act_pool_reference(exact(x), exact(weight), None, **layer.options)  # type: ignore[arg-type]
    except RuntimeError:
        expected = None
    if expected is None or expected.isinf().any():  # -inf: a window without a pixel (edge case 10)
        with pytest.raises(ArgumentError) as refusal:
            conv_relu_pool(placed(x, DEVICE), placed(weight, DEVICE), **layer.options, backend="triton")
        assert "\n" not in str(refusal.value)
    else:
        with torch.no_grad():
            found = conv_relu_pool(placed(x, DEVICE), placed(weight, DEVICE), **layer.options, backend="triton")
        assert_equal(found, expected.to(layer.dtype), "y", strides=False)
