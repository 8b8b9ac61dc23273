"""The passes around another library's convolution: PyTorch's values to the bit, and the fused forward's codes."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.exact import DEVICE, DTYPES, INTERPRETED, assert_equal, integer_inputs, integers
from tests.kernels.guarded_memory import PATTERNS, guarded_memory
from tests.kernels.ops.test_random_geometry import Draw, examples, laid_out, layers, tensors
from tests.kernels.shapes import CASES, NAMED, Case
from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.conv.choose import conv_act_pool_forward
from tidepool.kernels.conv.epilogue import (
    CHANNELS_LAST_TILES,
    CONTIGUOUS_TILE,
    PassTile,
    conv_act_pool_epilogue,
    conv_act_pool_unpool,
)
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.formats import empty_in_format, is_channels_last
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.pooling import Pool
from tidepool.kernels.layer.saved import empty_saved
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.oracle.reference import activate, pool_reference

EXACT = [case for case in CASES if case.options.get("activation", "relu") in ("relu", None)]
IN_16_BITS = ("padded_3x3_pool_2", "channels_last", "resnet_stem", "no_pool", "average", "waveform", "video_overlap")
SMOOTH = [case for case in CASES if case not in EXACT]


def described(case: Case) -> tuple[Geometry, Shapes]:
    """The kernels' view of a case."""
    return build_geometry(case.x, case.weight, parse_layer(case.weight[2:], **case.options))


def settings_of(options: dict[str, Any]) -> dict[str, Any]:
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "activation": "relu", "pool": MaxPool(2)}
    return {**defaults, **options}


def convolved(geometry: Geometry, shapes: Shapes, dtype: torch.dtype, seed: int, channels_last: bool) -> Tensor:
    """A convolution's output: normal values, rounded to quarters so that windows hold ties."""
    size = (shapes.batch, geometry.groups * geometry.filters, *shapes.conv[3 - geometry.rank :])
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    v = (values.mul(4).round() / 4).to(dtype)
    return v.contiguous(memory_format=torch.channels_last) if channels_last and v.dim() == 4 else v


def epilogue(
    v: Tensor, bias: Tensor | None, geometry: Geometry, shapes: Shapes, tile: PassTile | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    size = (*v.shape[:2], *shapes.output[3 - geometry.rank :])
    y = empty_in_format(size, v, is_channels_last(v))
    code, winner = empty_saved(y, geometry, shapes)
    conv_act_pool_epilogue(v, bias, y, code, winner, geometry, shapes, tile)
    return y, code, winner


def in_pytorch(v: Tensor, options: dict[str, Any]) -> Tensor:
    """PyTorch's activation and pool of a CPU tensor."""
    pool: Pool = options.get("pool", MaxPool(2))
    return pool_reference(activate(v, options.get("activation", "relu")), pool, v.dim() - 2)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, dtype) for case in EXACT for dtype in DTYPES if dtype == torch.float32 or case.name in IN_16_BITS],
    ids=lambda value: value.name if isinstance(value, Case) else str(value)[6:],
)
def test_values_are_pytorchs_and_so_is_the_way_back(case: Case, dtype: torch.dtype) -> None:
    geometry, shapes = described(case)
    v = convolved(geometry, shapes, dtype, 0, case.channels_last).to(DEVICE)
    bias = torch.randn(v.shape[1], generator=torch.Generator().manual_seed(1)).to(dtype).to(DEVICE)
    y, code, _ = epilogue(v, bias if case.bias else None, geometry, shapes)
    pool = case.options.get("pool", MaxPool(2))
    # An average is a sum in another order: PyTorch's CPU sums 16 bits in float32 too.
    close = 0.0 if not isinstance(pool, AvgPool) else torch.finfo(dtype).eps
    biased = v.cpu() + bias.cpu().reshape(-1, *[1] * (v.dim() - 2)) if case.bias else v.cpu()
    leaf = biased.float().requires_grad_()
    expected = in_pytorch(leaf, case.options)
    torch.testing.assert_close(y.cpu().float(), expected.to(dtype).float(), rtol=close, atol=close)

    grad = integers(tuple(y.shape), dtype, torch.Generator().manual_seed(2))
    g = torch.empty_like(v)
    conv_act_pool_unpool(grad.to(DEVICE), code, None, g, geometry, shapes)
    (expected_g,) = torch.autograd.grad(expected, leaf, grad.float())
    torch.testing.assert_close(g.cpu().float(), expected_g.to(dtype).float(), rtol=close, atol=close)


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.name)
def test_smooth_activations_are_close_in_float64_and_their_gradient_exact(case: Case) -> None:
    geometry, shapes = described(case)
    v = convolved(geometry, shapes, torch.float64, 0, case.channels_last)
    y, code, winner = epilogue(v.to(DEVICE), None, geometry, shapes)
    leaf = v.clone().requires_grad_()
    expected = in_pytorch(leaf, case.options)
    torch.testing.assert_close(y.cpu(), expected.detach(), rtol=1e-12, atol=1e-12)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    g = torch.empty_like(v, device=DEVICE)
    saved = winner if winner is not None else v.to(DEVICE)
    conv_act_pool_unpool(grad.to(DEVICE), code, saved, g, geometry, shapes)
    (expected_g,) = torch.autograd.grad(expected, leaf, grad)
    torch.testing.assert_close(g.cpu(), expected_g, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "window_of_255"], ids=lambda case: case.name)
def test_saved_codes_bits_and_winners_are_the_fused_forwards(case: Case) -> None:
    """On integers both convolutions are exact, so what the two forwards save has to be the same bytes. So has y, but
    for an activation of several operations, which the compiler fuses otherwise in another kernel."""
    geometry, shapes = described(case)
    x, weight, bias = (None if t is None else t.to(DEVICE) for t in integer_inputs(case, torch.float32, seed=3))
    assert x is not None
    assert weight is not None
    size = (shapes.batch, case.weight[0], *shapes.output[3 - geometry.rank :])
    y = empty_in_format(size, x, case.channels_last)
    code, winner = empty_saved(y, geometry, shapes)
    conv_act_pool_forward(x, weight, bias, y, code, winner, geometry, shapes)
    plain = parse_layer(case.weight[2:], **{**settings_of(case.options), "activation": None, "pool": None})
    linear, linear_shapes = build_geometry(case.x, case.weight, plain)
    v = empty_in_format((*size[:2], *shapes.conv[3 - geometry.rank :]), x, case.channels_last)
    conv_act_pool_forward(x, weight, None, v, None, None, linear, linear_shapes)
    again = epilogue(v, bias, geometry, shapes)
    for name, first, second in zip(("y", "code", "winner"), (y, code, winner), again, strict=True):
        if name == "y" and geometry.smooth and not INTERPRETED:
            torch.testing.assert_close(second, first, rtol=4 * torch.finfo(y.dtype).eps, atol=0)
        else:
            assert_equal(second, first, name)


@pytest.mark.parametrize("tile", [PassTile(8, 16), CHANNELS_LAST_TILES[0], CONTIGUOUS_TILE], ids=str)
@pytest.mark.parametrize("name", ["33_channels_17_filters", "average", "depthwise_average"])
def test_every_tile_gives_the_same_and_writes_nothing_outside(name: str, tile: PassTile) -> None:
    geometry, shapes = described(NAMED[name])
    v = convolved(geometry, shapes, torch.float32, 4, channels_last=True).to(DEVICE)
    bias = torch.ones(v.shape[1], device=DEVICE)
    expected = epilogue(v, bias, geometry, shapes)
    grad, g = torch.ones_like(expected[0]), torch.empty_like(v)
    conv_act_pool_unpool(grad, expected[1], None, g, geometry, shapes)
    for pattern in PATTERNS:
        with guarded_memory(pattern) as allocations:
            found = epilogue(v, bias, geometry, shapes, tile)
            back = torch.empty_like(v)
            conv_act_pool_unpool(grad, expected[1], None, back, geometry, shapes, tile)
        for allocation in allocations:
            allocation.check_guards()
        for label, first, second in zip(("y", "code", "winner"), expected, found, strict=True):
            assert_equal(second, first, label)
        assert_equal(back, g, "g")


@pytest.mark.parametrize("pool", [MaxPool(3), AvgPool(2), None], ids=["max", "average", "none"])
def test_not_a_number_and_infinity(pool: Pool) -> None:
    nan, inf = float("nan"), float("inf")
    v = torch.tensor([[[nan, 1, nan, 1, -0.0, -1, -inf, -inf, -inf, inf, nan, 2]]], device=DEVICE)
    options = {"pool": pool}
    settings = parse_layer((1,), **settings_of(options))
    geometry, shapes = build_geometry(v.shape, (1, 1, 1), settings)
    y, code, _ = epilogue(v, None, geometry, shapes)
    leaf = v.cpu().requires_grad_()
    expected = in_pytorch(leaf, options)
    assert_equal(y, expected.detach(), "y")
    grad = torch.arange(1.0, y.numel() + 1).reshape(y.shape)
    grad[..., -2] = nan  # where it meets no active element it must not show
    g = torch.empty_like(v)
    conv_act_pool_unpool(grad.to(DEVICE), code, None, g, geometry, shapes)
    (expected_g,) = torch.autograd.grad(expected, leaf, grad)
    assert_equal(g, expected_g, "g")


@pytest.mark.full
@examples(60)
@given(layer=st.integers(1, 3).flatmap(layers))
@pytest.mark.timeout(0)
def test_random_layers_and_layouts_equal_pytorch_to_the_bit(layer: Draw) -> None:
    x, weight, bias = tensors(layer)
    geometry, shapes = build_geometry(x.shape, weight.shape, parse_layer(tuple(weight.shape[2:]), **layer.options))
    generator = torch.Generator().manual_seed(layer.seed)
    size = (shapes.batch, weight.shape[0], *shapes.conv[3 - geometry.rank :])
    v = laid_out(integers(size, layer.dtype, generator), layer.x_layout)
    leaf = v.detach().clone().float().requires_grad_()
    biased = leaf if bias is None else leaf + bias.float().reshape(-1, *[1] * geometry.rank)
    expected = in_pytorch(biased, layer.options)
    y, code, _ = epilogue(v.to(DEVICE), None if bias is None else bias.to(DEVICE), geometry, shapes)
    assert_equal(y, expected.detach().to(layer.dtype), "y", strides=False)
    grad = laid_out(integers(tuple(y.shape), layer.dtype, generator), layer.grad_layout)
    g = laid_out(
        torch.zeros(size, dtype=layer.dtype), "contiguous" if "exp" in layer.weight_layout else layer.weight_layout
    )
    g = g.to(DEVICE)
    conv_act_pool_unpool(grad.to(DEVICE), code, None, g, geometry, shapes)
    (expected_g,) = torch.autograd.grad(expected, leaf, grad.float())
    assert_equal(g, expected_g.to(layer.dtype), "g", strides=False)
