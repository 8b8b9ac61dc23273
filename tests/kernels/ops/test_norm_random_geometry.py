"""Layers with a norm that nobody thought of: random geometry, layouts, order of the stages, against PyTorch in float64.

24 layers by default, the same ones every time: TIDEPOOL_NORM_GEOMETRIES=2000 for a long run.
"""

import os
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.exact import INTERPRETED
from tests.kernels.norm_layers import NormLayer, call, leaves, norm_tensors, normalised_size
from tests.kernels.ops.test_random_geometry import Draw, examples, laid_out, layers
from tidepool.kernels.runtime.errors import ArgumentError

EXAMPLES = int(os.environ.get("TIDEPOOL_NORM_GEOMETRIES", "24"))


def outcome(layer: NormLayer, tensors: dict[str, Tensor | None], grad: Tensor, backend: str) -> dict[str, Any]:
    """y, gradients and running statistics, by name."""
    copies = {
        name: None if t is None else t.clone() if name.startswith("running") else t.detach().requires_grad_()
        for name, t in tensors.items()
    }
    y = call(layer, copies, backend)
    y.backward(grad)
    found = {"y": y.detach()}
    for name, copy in copies.items():
        if copy is not None:
            found[name] = copy if name.startswith("running") else copy.grad
    return found


@pytest.mark.full
@pytest.mark.skipif(not INTERPRETED, reason="float64 products are compiled for no GPU's tensor cores")
@examples(EXAMPLES)
@given(
    drawn=st.integers(1, 3).flatmap(lambda rank: layers(rank, dtypes=(torch.float64,))),
    activation=st.sampled_from(("relu", "silu", "gelu", None)),
    flags=st.tuples(*[st.booleans()] * 5),
)
@pytest.mark.timeout(0)
@pytest.mark.default
def test_results_are_pytorchs_in_float64(drawn: Draw, activation: str | None, flags: tuple[bool, ...]) -> None:
    training, residual, conv_bias, affine, first = flags
    options = drawn.options | {"activation": activation, "pool_first": first and drawn.options["pool"] is not None}
    layer = NormLayer("drawn", drawn.x, drawn.weight, options, training, residual, conv_bias, affine)
    tensors = norm_tensors(layer, torch.float64, torch.float64, seed=drawn.seed)
    layouts = {"x": drawn.x_layout, "weight": drawn.weight_layout, "residual": drawn.grad_layout}
    layouts |= dict.fromkeys(("conv_bias", "norm_weight", "norm_bias"), drawn.bias_layout)
    for name, layout in layouts.items():
        tensor = tensors[name]
        tensors[name] = None if tensor is None else laid_out(tensor, layout)
    size = normalised_size(layer)
    if training and size[0] * size[2:].numel() == 1:
        with pytest.raises(ArgumentError, match="Expected more than 1 value per channel"):
            call(layer, tensors, "triton")
        return
    with torch.no_grad():
        like = call(layer, leaves(tensors), "cudnn")
    generator = torch.Generator().manual_seed(drawn.seed)
    grad = laid_out(torch.randn(like.shape, generator=generator, dtype=torch.float64), drawn.grad_layout)
    # PyTorch gets dense tensors: its batch_norm on a CPU (2.13), in eval mode, gives a contiguous input of shape
    # 1 x 2 x 1 x 2 a wrong gradient where the incoming one has strides 4, 1, 2, 2.
    packed = {name: None if t is None else t.contiguous() for name, t in tensors.items()}
    expected, found = outcome(layer, packed, grad.contiguous(), "cudnn"), outcome(layer, tensors, grad, "triton")
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape, name
        # A batch of nearly equal values is divided by a deviation of nearly 0: relative to the largest.
        reach = 1e-8 * max(float(tensor.abs().max()), 1.0) if tensor.numel() else 0.0
        torch.testing.assert_close(found[name], tensor, rtol=1e-8, atol=reach, msg=lambda text, n=name: f"{n}: {text}")
