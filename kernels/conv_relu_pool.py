"""`conv_relu_pool`: conv + bias + activation + pool and its backward, on the backend of your choice."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from kernels.arguments import Layer, check_backend, check_channels, check_tensors, parse_layer, spatial_sizes
from kernels.operator_registration import ops
from kernels.pooling import MaxPool, Pool, Size
from kernels.reference import conv_relu_pool_reference


def conv_relu_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: str | None = "relu",
    pool: Pool = MaxPool(2),  # noqa: B008 (frozen)
    backend: str = "auto",
) -> Tensor:
    """pool(activation(conv(x, weight) + bias)), forward and backward each as one kernel per result.

    x (N, C, *spatial) or (C, *spatial); weight (K, C/groups, *kernel); bias (K,) or None; one, two or three spatial
    dimensions, read off `weight`. `stride`, `padding` ("same" and "valid" too) and `dilation` are the convolution's,
    in pixels, one number or one per dimension. `activation` is "relu", "silu", "gelu" or None, `pool` a MaxPool, an
    AvgPool or None. Returns (N, K, *output) or (K, *output) in x's dtype, channels_last if x or weight is.

    `backend`: "triton" runs this project's kernels alone; "cudnn" is eager PyTorch (oneDNN on a CPU); "compile" the
    same under torch.compile; "auto" the fastest measured choice for the shape, which without a GPU is eager PyTorch.

    Values and gradients are PyTorch's for the same composition: the first of equal window elements wins, the last NaN
    beats everything, relu'(0) = 0. Raises ArgumentError (a ValueError and a RuntimeError) that names the argument.
    """
    check_backend(backend)
    check_tensors(x, weight, bias)
    kernel = tuple(weight.shape[2:])
    layer = parse_layer(kernel, stride, padding, dilation, groups, activation, pool)
    check_channels(x, weight, bias, layer.groups)
    spatial_sizes(tuple(x.shape[-len(kernel) :]), kernel, layer)
    if backend == "triton":
        return _triton(x, weight, bias, layer)
    reference = _compiled_reference() if backend == "compile" else conv_relu_pool_reference
    return reference(
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation=activation,
        pool=pool,
    )


def _triton(x: Tensor, weight: Tensor, bias: Tensor | None, layer: Layer) -> Tensor:
    batched = x.dim() == weight.dim()
    y = ops.conv_relu_pool(
        x if batched else x.unsqueeze(0), weight, bias,
        layer.stride, layer.padding, layer.dilation, layer.groups, layer.activation, layer.pool,
        layer.window, layer.pool_stride, layer.pool_padding, layer.pool_dilation,
        layer.ceil_mode, layer.count_include_pad,
    )  # fmt: skip
    return y if batched else y.squeeze(0)


@functools.cache
def _compiled_reference() -> Callable[..., Tensor]:
    return torch.compile(conv_relu_pool_reference)
