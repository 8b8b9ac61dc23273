"""`conv_relu_pool`: conv + bias + activation + pool and its backward, on the backend of your choice."""

import functools

import torch
from torch import Tensor

from kernels.arguments import ArgumentError, check_backend, check_tensors, parse_layer, spatial_sizes
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
    check_backend(backend)
    check_tensors(x, weight, bias, groups)
    layer = parse_layer(tuple(weight.shape[2:]), stride, padding, dilation, groups, activation, pool)
    spatial_sizes(tuple(x.shape[2 - weight.dim() :]), tuple(weight.shape[2:]), layer)
    if backend == "triton":
        raise ArgumentError("the triton backend has not landed yet")
    return conv_relu_pool_reference(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, activation=activation, pool=pool
    )
