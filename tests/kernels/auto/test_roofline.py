"""The count of bytes and operations, against counts done by hand."""

import pytest
import torch

from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.auto.roofline import (
    DEVICES,
    PASSES,
    Cost,
    Device,
    KernelCost,
    device_named,
    layer_cost,
    reference_device,
    roofline_seconds,
    saved_bytes,
)
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.pooling import Pool
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.runtime.targets import SM_90, TARGETS
from tidepool.kernels.tiles.dense import wgrad_tile

VGG16 = ((64, 224), (128, 112), (256, 56), (512, 28), (512, 14))
"""Channels and image size of the five layers of VGG-16 that are followed by a pool."""


def layer(
    batch: int,
    channels: int,
    filters: int,
    size: int,
    pool: Pool = MaxPool(2),  # noqa: B008 (frozen)
    activation: str | None = "relu",
    groups: int = 1,
) -> tuple[Geometry, Shapes]:
    """A padded 3 x 3 layer on square images."""
    settings = parse_layer((3, 3), 1, 1, 1, groups, activation, pool)
    return build_geometry((batch, channels, size, size), (filters, channels // groups, 3, 3), settings)


def test_vggs_second_block_by_hand() -> None:
    """128 -> 128 at 112 x 112, batch 64, bf16: X = V = 64*128*112*112*2 bytes, Y = V/4, codes V/8, indices V."""
    geometry, shapes = layer(64, 128, 128, 112)
    v, weight, bias = 205_520_896, 294_912, 256
    flops = 236_760_072_192  # 2 * 64 * 112 * 112 * 128 * 128 * 9
    splits = wgrad_tile(geometry, shapes.conv_pixels, SM_90, "half", 4 * 132).splits
    workspace = splits * 128 * (128 * 9 + 1) * 4

    forward = layer_cost(geometry, shapes, torch.bfloat16, "forward_training", "fused")
    assert (forward.flops, forward.bytes_read) == (flops, v + weight + bias)
    assert forward.bytes_written == v // 4 + v // 8
    backward = layer_cost(geometry, shapes, torch.bfloat16, "backward", "fused")
    assert backward.flops == 2 * flops
    assert backward.bytes_read == (v // 4 + v // 8 + weight) + (v // 4 + v // 8 + v) + workspace
    assert backward.bytes_written == v + workspace + (weight + bias)
    assert backward.workspace_bytes == workspace
    inference = layer_cost(geometry, shapes, torch.bfloat16, "forward", "fused")
    assert inference.bytes_written == v // 4

    # Convolution, bias in place, ReLU, pool; then back through pool, ReLU, dgrad, wgrad and the bias's sum.
    forward = layer_cost(geometry, shapes, torch.bfloat16, "forward", "eager")
    assert forward.bytes_read == (v + weight) + (v + bias) + v + v
    assert forward.bytes_written == v + v + v + (v // 4 + v)
    backward = layer_cost(geometry, shapes, torch.bfloat16, "backward", "eager")
    assert backward.bytes_read == (v // 4 + v) + 2 * v + (v + weight) + 2 * v + v
    assert backward.bytes_written == v + v + v + weight + bias
    assert backward.flops == 2 * flops

    mix = layer_cost(geometry, shapes, torch.bfloat16, "train", "mix")
    assert mix.bytes_read == (v + weight) + (v + bias) + (v // 4 + v // 8) + (v + weight) + 2 * v + v
    assert mix.bytes_written == v + (v // 4 + v // 8) + v + v + weight + bias


@pytest.mark.parametrize("batch", [64, 256])
@pytest.mark.parametrize(("channels", "size"), VGG16)
def test_a_fused_step_of_vgg_moves_at_most_45_percent_of_eagers_bytes(channels: int, size: int, batch: int) -> None:
    geometry, shapes = layer(batch, channels, channels, size)
    fused, eager = (layer_cost(geometry, shapes, torch.bfloat16, "train", v) for v in ("fused", "eager"))
    assert fused.workspace_bytes > 0
    assert fused.bytes_moved <= 0.45 * eager.bytes_moved


def test_parts_add_up_and_a_first_layer_needs_no_dgrad() -> None:
    geometry, shapes = layer(8, 3, 64, 32)
    for variant in ("fused", "eager", "mix"):
        cost = {p: layer_cost(geometry, shapes, torch.float16, p, variant) for p in PASSES}
        assert cost["train"].bytes_moved == cost["forward_training"].bytes_moved + cost["backward"].bytes_moved
        without = layer_cost(geometry, shapes, torch.float16, "backward", variant, input_gradient=False)
        assert without == cost["wgrad"]
        assert without.flops == cost["backward"].flops // 2


def test_what_is_saved() -> None:
    def saved(pool: Pool, activation: str | None, variant: str) -> int:
        return saved_bytes(*layer(2, 8, 16, 8, pool, activation), torch.float32, variant)

    v, y = 2 * 16 * 64 * 4, 2 * 16 * 16 * 4
    assert saved(MaxPool(2), "relu", "fused") == y // 4
    assert saved(MaxPool(2), "relu", "eager") == v + 2 * y
    assert saved(AvgPool(2), "relu", "fused") == v // 32
    assert saved(None, "relu", "fused") == v // 4
    assert saved(None, "relu", "eager") == v
    assert saved(None, None, "fused") == saved(None, None, "eager") == 0
    assert saved(MaxPool(2), "silu", "fused") == y // 4 + y
    assert saved(MaxPool(2), "silu", "eager") == 2 * v + 2 * y
    assert saved(MaxPool(17, 1, 8), "relu", "fused") == 2 * (v // 4)  # 289 elements: 16-bit codes


def test_smooth_averages_convolve_again_and_depthwise_bias_needs_no_pass() -> None:
    geometry, shapes = layer(2, 8, 16, 8, AvgPool(2), "gelu")
    backward = layer_cost(geometry, shapes, torch.float16, "backward", "fused")
    assert backward.kernels[0].name == "convolution again"
    assert backward.flops == 3 * layer_cost(geometry, shapes, torch.float16, "forward", "fused").flops
    depthwise = layer_cost(*layer(2, 8, 8, 8, groups=8), torch.float16, "forward", "eager")
    assert [kernel.name for kernel in depthwise.kernels] == ["convolution", "activation", "pool"]


def test_roofline_adds_the_slower_side_of_every_kernel() -> None:
    device = Device("test", {"half": 2.0, "ieee": 1.0}, 1e9, SM_90, 1)
    kernels = (KernelCost("product", 4 * 10**12, 10**9, 0, "half"), KernelCost("copy", 0, 10**9, 2 * 10**9, "ieee"))
    assert roofline_seconds(Cost(kernels), device) == pytest.approx(2.0 + 3.0)


def test_devices_by_the_drivers_name() -> None:
    for gpu, name in (
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ):
        named = device_named(gpu)
        assert named is not None
        assert named.name == name
    assert device_named("NVIDIA L400") is None


def test_every_target_has_a_card_to_bound_times_by() -> None:
    for target in TARGETS:
        card = reference_device(target, "Some GPU")
        assert card.name == "Some GPU"
        assert card.target is target
        if target.is_nvidia:
            known = next(device for device in DEVICES if device.target is target)
            assert card.copy_bytes_per_s == known.copy_bytes_per_s
            assert card.source == f"data sheet of {known.name}"


def test_unknown_words_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="but got 'sideways' and 'fused'") as refusal:
        layer_cost(*layer(1, 1, 1, 4), torch.float32, "sideways", "fused")
    assert "\n" not in str(refusal.value)
