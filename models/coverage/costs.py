"""Operations and bytes of a network's layers in a training step, each layer by itself, without running anything.

Convolutions are `auto.roofline`'s. A norm behind one adds bytes, each tensor counted once a pass over it:

    this project's kernels   forward: z (and the residual) read, y written, with a byte for each y where a pool or a
                             sum decides what backward needs; backward: dy, z and those bytes read twice, dz (and the
                             residual's gradient) written
    eager PyTorch            forward: z read twice and written; sum, activation and pool each read and write; backward:
                             the same passes back, and dz's needs its gradient and z twice
"""

from math import prod

import torch

from tidepool.kernels.activations import as_activation
from tidepool.kernels.auto.roofline import layer_cost
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.pooling import MaxPool
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.models.fused import Call

INDEX_BYTES = 8


def call_cost(call: Call, fused: bool) -> tuple[int, int]:
    """Floating-point operations and bytes moved by one call of a fused op in a training step.

    `fused`: by this project's kernels, otherwise by eager PyTorch.
    """
    size = call.dtype.itemsize
    if call.conv is None:
        x, y = prod(call.x_size) * size, prod(call.y_size) * size
        return 0, (2 * x + 2 * y if call.op == "global_average_pool" else 2 * x + 3 * y)
    geometry, shapes = convolution_of(call)
    cost = layer_cost(
        geometry,
        shapes,
        call.dtype,
        "train",
        "fused" if fused else "eager",
        bias=call.conv.bias is not None,
        input_gradient=call.differentiated,
    )
    moved = cost.bytes_moved
    if call.norm is not None:
        z = shapes.batch * call.conv.weight.shape[0] * prod(shapes.output)
        moved += (_fused_norm_bytes if fused else _eager_norm_bytes)(call, z, prod(call.y_size))
    return cost.flops, moved


def convolution_of(call: Call) -> tuple[Geometry, Shapes]:
    """The call's convolution with its pool: all of it, or what comes before the norm."""
    conv = call.conv
    assert conv is not None
    weight = tuple(conv.weight.shape)
    behind_norm = call.norm is not None and not call.pool_first
    layer = parse_layer(
        weight[2:],
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        None if call.norm is not None else call.activation,
        None if behind_norm else call.pool,
    )
    return build_geometry(call.x_size, weight, layer)


def _fused_norm_bytes(call: Call, z: int, y: int) -> int:
    size, residual = call.dtype.itemsize, int(call.residual)
    pool = None if call.pool_first else call.pool
    sides = pool is None and residual and as_activation(call.activation).needs_side
    code = y if isinstance(pool, MaxPool) or sides else 0
    forward = (z * (1 + residual) + y) * size + code
    backward = 2 * ((z + y) * size + code) + z * (1 + residual) * size
    return forward + backward


def _eager_norm_bytes(call: Call, z: int, y: int) -> int:
    size, passes = call.dtype.itemsize, 3 + 5
    passes += 3 if call.residual else 0
    passes += 0 if as_activation(call.activation).is_identity else 2 + 3
    moved = passes * z * size
    if call.pool is not None and not call.pool_first:
        moved += 2 * (z + y) * size
        moved += 2 * y * INDEX_BYTES if isinstance(call.pool, MaxPool) else 0
    return moved


def linear_cost(x_size: tuple[int, ...], outputs: int, differentiated: bool, dtype: torch.dtype) -> tuple[int, int]:
    """Operations and bytes of a linear layer on x (*, inputs) in a training step."""
    samples, inputs = prod(x_size[:-1]), x_size[-1]
    x, w, y = samples * inputs, inputs * outputs, samples * outputs
    products = 3 if differentiated else 2
    return products * 2 * samples * inputs * outputs, products * (x + w + y) * dtype.itemsize
