"""Floating-point operations of the operators, for `torch.utils.flop_counter`: those of the convolution's products.

As PyTorch's formulas do, they count a multiplication and an addition for each product of a pixel and a weight, those
with padding too, and neither bias, activation, pool nor norm. A gradient has as many products as forward: in a
convolution with groups PyTorch's formula for the weight's gradient counts them `groups` times. A convolution that
backward runs again, where a smooth activation's inputs are not kept, is counted again.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from tidepool.kernels.layer.norm_settings import norm_settings_from_text
from tidepool.kernels.layer.settings import Layer, layer_from_text
from tidepool.kernels.layer.sizes import spatial_sizes

Size = Sequence[int]


def _products(x: Size, weight: Size, layer: Layer) -> int:
    """Operations of one pass over x (N, C, *spatial) and weight (K, C/groups, *kernel)."""
    pixels, _ = spatial_sizes(x[2:], weight[2:], layer)
    return 2 * x[0] * prod(pixels) * prod(weight)


def conv_flops(x: Size, weight: Size, bias: Size | None, layer: str, *_: Any, **__: Any) -> int:
    """Of `conv_act_pool`, its forward, and the same as planned."""
    return _products(x, weight, layer_from_text(layer))


def dgrad_flops(
    grad: Size, code: Size, saved: Size, weight: Size, x: Size, channels_last: bool, layer: str, **_: Any
) -> int:
    """Of `conv_act_pool_dgrad`."""
    return _products(x, weight, layer_from_text(layer))


def wgrad_flops(
    grad: Size, code: Size, saved: Size, x: Size, weight: Size, needs_weight: bool, needs_bias: bool, layer: str,
    **_: Any,
) -> int:  # fmt: skip
    """Of `conv_act_pool_wgrad`: none where the bias alone wants a gradient."""
    return _products(x, weight, layer_from_text(layer)) if needs_weight else 0


def planned_backward_flops(
    grad: Size, code: Size, saved: Size, _x: Size | None, weight: Size, bias: Size | None, x: Size,
    channels_last: bool, needs_x: bool, needs_weight: bool, needs_bias: bool, layer: str, plan: str, **_: Any,
) -> int:  # fmt: skip
    """Of `conv_act_pool_planned_backward`. What a plan computes once more to save memory is not counted."""
    return (needs_x + needs_weight) * _products(x, weight, layer_from_text(layer))


def norm_flops(x: Size, weight: Size, *rest: Any, **_: Any) -> int:
    """Of `conv_norm_act`, its forward, and both in training; the settings come last."""
    return _products(x, weight, norm_settings_from_text(rest[-1]).convolution)
