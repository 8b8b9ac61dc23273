"""Fused conv + bias + activation + pool in Triton, forward and backward."""

from kernels.runtime import INTERPRETED, conv_library, kernel_mode  # isort: skip  (settles interpreting before triton is imported)

from kernels.conv_norm_act import conv_norm_act
from kernels.conv_relu_pool import conv_relu_pool
from kernels.global_average_pool import global_average_pool
from kernels.pooling import AvgPool, MaxPool
from kernels.squeeze_excite import squeeze_excite

__all__ = [
    "INTERPRETED",
    "AvgPool",
    "MaxPool",
    "conv_library",
    "conv_norm_act",
    "conv_relu_pool",
    "global_average_pool",
    "kernel_mode",
    "squeeze_excite",
]
