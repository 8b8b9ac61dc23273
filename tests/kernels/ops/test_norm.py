"""`conv_norm_act` with backend="triton": the error rule, equality to the bit where sums are exact, and memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.activations.listed import every_activation, every_pool
from tests.kernels.exact import DEVICE, assert_equal, integers
from tests.kernels.guarded_memory import PATTERNS, guarded_memory
from tests.kernels.norm_error_rule import check
from tests.kernels.norm_layers import (
    LAYERS,
    NAMED,
    NormLayer,
    call,
    exact_tensors,
    leaves,
    norm_tensors,
    normalised_size,
    results,
)
from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.activations import Activation
from tidepool.kernels.layer.pooling import Pool

pytestmark = pytest.mark.usefixtures("ieee_float32")

MIXED = ("resnet_block", "resnet_stem", "speednet", "mbconv_depthwise", "grouped_silu_average", "frozen_pool_first")


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_error_rule_in_float32(layer: NormLayer) -> None:
    check(layer, torch.float32)


@pytest.mark.parametrize("name", MIXED)
def test_error_rule_in_16_bits_with_a_float32_norm(name: str) -> None:
    """bfloat16 and float16 by turns."""
    check(NAMED[name], (torch.bfloat16, torch.float16)[MIXED.index(name) % 2], norm_dtype=torch.float32)


@pytest.mark.parametrize("name", ["vgg_bn", "frozen_depthwise"])
def test_error_rule_all_in_bfloat16(name: str) -> None:
    check(NAMED[name], torch.bfloat16)


@pytest.mark.full
@pytest.mark.parametrize("training", [True, False], ids=["training", "frozen"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_pool
@every_activation
def test_error_rule_of_every_activation(activation: Activation, pool: Pool, dtype: torch.dtype, training: bool) -> None:
    options = {"padding": 1, "activation": activation, "pool": pool}
    layer = NormLayer(str(activation), (2, 3, 6, 7), (5, 3, 2, 2), options, training=training, residual=True)
    # Hardsigmoid and tanh flatten: rounded to bfloat16, up to 23 % of the windows of six hold near ties.
    check(layer, dtype, norm_dtype=torch.float32, most_undecided=0.25)


EXACT = (
    NormLayer("residual", (2, 3, 6, 5), (5, 3, 3, 3), {"padding": 1}, residual=True, conv_bias=True),
    NormLayer("max_of_ties", (2, 3, 9, 8), (4, 3, 3, 3), {"padding": 1, "pool": MaxPool(3, 2, 1)}, residual=True),
    NormLayer("average", (1, 4, 7, 6), (6, 2, 3, 2), {"groups": 2, "pool": AvgPool(2, 1)}),
    NormLayer("average_first", (2, 3, 6, 8), (4, 3, 3, 3), {"pool": AvgPool(2), "pool_first": True}, residual=True),
    NormLayer("max_first", (2, 3, 8, 7), (5, 3, 2, 3), {"pool": MaxPool(2, 1), "pool_first": True}, channels_last=True),
    NormLayer("depthwise", (2, 5, 7, 8), (10, 1, 3, 3), {"groups": 5, "pool": MaxPool(2), "stride": (1, 2)}),
    NormLayer("linear_video", (1, 2, 3, 5, 4), (3, 2, 2, 2, 2), {"activation": None}, residual=True),
    NormLayer("relu6", (2, 3, 6, 5), (4, 3, 3, 3), {"activation": "relu6"}, residual=True),
    NormLayer("relu6_max", (2, 3, 9, 8), (4, 3, 3, 3), {"activation": "relu6", "pool": MaxPool(3, 2, 1)}),
    NormLayer("relu6_average", (1, 3, 6, 7), (4, 3, 3, 2), {"activation": "relu6", "pool": AvgPool(2, 1)}),
    NormLayer(
        "leaky_max", (2, 3, 6, 7), (4, 3, 2, 2), {"activation": Activation("leaky_relu", 0.25), "pool": MaxPool(2, 1)}
    ),
    NormLayer(
        "falling_max",
        (1, 4, 6, 7),
        (4, 1, 2, 2),
        {"activation": Activation("leaky_relu", -0.5), "pool": MaxPool(2, 1), "groups": 4},
    ),
)


@pytest.mark.parametrize("layer", EXACT, ids=lambda layer: layer.name)
def test_frozen_norm_of_integers_equals_pytorch_to_the_bit(layer: NormLayer) -> None:
    """Values, ties, ReLU's side at 0 and every gradient; with gradients recorded and in one kernel without."""
    dtype = (torch.float16, torch.float32)[EXACT.index(layer) % 2]
    tensors = exact_tensors(layer, dtype)
    frozen: dict[str, Any] = {"training": False, "eps": 0.0}
    with torch.no_grad():
        expected = call(layer, tensors, "cudnn", **frozen)
        assert_equal(call(layer, tensors, "triton", **frozen), expected, "y in one kernel")
    grad = integers(tuple(expected.shape), dtype, torch.Generator().manual_seed(1))
    wide = {name: None if t is None else t.float() for name, t in tensors.items()}
    truth = results(layer, wide, grad.float(), "cudnn", **frozen)
    for name, found in results(layer, tensors, grad, "triton", **frozen).items():
        assert_equal(found, truth[name].to(dtype), name, strides=False)


def test_batch_norm_of_plus_and_minus_one_equals_pytorch_to_the_bit() -> None:
    """Mean 0 and variance 1 exactly, 16 values a channel: every number on the way is a float16."""
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0])
    x = torch.stack([signs, signs.roll(1), -signs], 0).repeat(2, 1, 1).view(2, 3, 2, 4)
    layer = NormLayer("signs", (2, 3, 2, 4), (3, 3, 1, 1), {"activation": "relu", "eps": 1e-12}, residual=True)
    tensors = exact_tensors(layer, torch.float32) | {"x": x, "weight": torch.eye(3).view(3, 3, 1, 1)}
    grad = integers((2, 3, 2, 4), torch.float32, torch.Generator().manual_seed(3))
    expected = results(layer, tensors, grad, "cudnn")
    for name, found in results(layer, tensors, grad, "triton").items():
        if not name.startswith("running"):  # 0.9, 0.1 and 16/15 are no float32 numbers
            assert_equal(found, expected[name], name, strides=False)


REPEATED = ("resnet_block", "speednet", "depthwise_pooled", "frozen_pool_first")


@pytest.mark.parametrize("name", REPEATED)
def test_results_repeat_to_the_bit_and_nothing_is_read_unwritten_or_written_outside(name: str) -> None:
    layer = NAMED[name]
    tensors = norm_tensors(layer, torch.float32, torch.float32, seed=0)
    with torch.no_grad():
        grad = torch.randn(call(layer, leaves(tensors), "cudnn").shape, generator=torch.Generator().manual_seed(0))
    runs = []
    for pattern in PATTERNS:
        with guarded_memory(pattern) as allocations:
            found = results(layer, tensors, grad, "triton")
        for allocation in allocations:
            allocation.check_guards()
        runs.append((found, [allocation.contents() for allocation in allocations]))
    (first, first_bytes), (second, second_bytes) = runs
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key
    # Whatever was allocated on the way was written in full: codes, statistics, partial sums.
    assert all(torch.equal(one, other) for one, other in zip(first_bytes, second_bytes, strict=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["vgg_bn", "mbconv_depthwise", "average_first"])
def test_no_pytorch_convolution_pool_or_norm_is_called(name: str, training: bool, no_pytorch_norms: None) -> None:
    layer = NAMED[name]
    tensors = norm_tensors(layer, torch.float32, torch.float32, seed=0)
    found = leaves(tensors)
    y = call(layer, found, "triton", training=training)
    y.sum().backward()
    for key, tensor in found.items():
        assert key.startswith("running") or tensor is None or tensor.grad is not None, key
    with torch.no_grad():
        call(layer, tensors, "triton", training=training)


def saved_bytes(layer: NormLayer, dtype: torch.dtype) -> int:
    """Bytes kept for backward beside the arguments and z."""
    drawn = norm_tensors(layer, dtype, torch.float32, seed=0)
    tensors = leaves(drawn, device=DEVICE)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call(layer, tensors, "triton")
    given = {t.data_ptr() for t in tensors.values() if t is not None}
    own = [t for t in kept if t.data_ptr() not in given and t.numel()]
    z = [t for t in own if t.dtype == dtype and t.shape == normalised_size(layer)]
    assert len(z) == 1
    return sum(t.numel() * t.element_size() for t in own if t is not z[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_beside_z_is_at_most_a_byte_per_output(dtype: torch.dtype) -> None:
    """Never the normalised or activated values; the coefficients are 4 float32 a channel."""
    block = NormLayer("block", (2, 3, 6, 5), (4, 3, 3, 3), {"padding": 1})
    coefficients, outputs = 4 * 4 * 4, 2 * 4 * 6 * 5
    assert saved_bytes(block, dtype) == coefficients
    assert saved_bytes(NormLayer("block", block.x, block.weight, block.options, residual=True), dtype) == (
        coefficients + outputs
    )
    pooled = NormLayer("pooled", block.x, block.weight, {"padding": 1, "pool": MaxPool(2), "activation": "silu"})
    assert saved_bytes(pooled, dtype) == coefficients + 2 * 4 * 3 * 2
    first = NormLayer("first", block.x, block.weight, {"padding": 1, "pool": MaxPool(2), "pool_first": True})
    assert saved_bytes(first, dtype) == coefficients + 2 * 4 * 3 * 2
