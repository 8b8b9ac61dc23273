"""Fused conv + bias + activation + pool in Triton, forward and backward."""

from tidepool.kernels.activations import Activation
from tidepool.kernels.layer.pooling import AvgPool, MaxPool
from tidepool.kernels.ops.average import global_average_pool
from tidepool.kernels.ops.conv import conv_act_pool, conv_relu_pool
from tidepool.kernels.ops.gate import squeeze_excite
from tidepool.kernels.ops.norm import conv_norm_act
from tidepool.kernels.runtime.caches import clear_caches
from tidepool.kernels.runtime.mode import conv_library, kernel_mode

__all__ = [
    "Activation",
    "AvgPool",
    "MaxPool",
    "clear_caches",
    "conv_act_pool",
    "conv_library",
    "conv_norm_act",
    "conv_relu_pool",
    "global_average_pool",
    "kernel_mode",
    "squeeze_excite",
]
