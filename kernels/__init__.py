"""Fused conv + bias + activation + pool in Triton, forward and backward."""

from kernels.runtime import INTERPRETED, conv_library, kernel_mode  # isort: skip  (settles interpreting before triton is imported)

from kernels.conv_relu_pool import conv_relu_pool
from kernels.pooling import AvgPool, MaxPool

__all__ = ["INTERPRETED", "AvgPool", "MaxPool", "conv_library", "conv_relu_pool", "kernel_mode"]
