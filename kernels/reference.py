"""The op in plain PyTorch: the opponent (`backend="cudnn"`), and in float64 the oracle.

    y = pool(activation(conv(x, weight) + bias))

On an NVIDIA GPU these calls are cuDNN's, on a CPU oneDNN's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.pooling import AvgPool, MaxPool, Pool, Size

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def activate(x: Tensor, activation: str | None) -> Tensor:
    """ReLU, SiLU, exact (erf) GELU, or nothing."""
    if activation == "relu":
        return torch.relu(x)
    if activation == "silu":
        return F.silu(x)
    if activation == "gelu":
        return F.gelu(x)
    return x


def pool_reference(x: Tensor, pool: Pool, rank: int) -> Tensor:
    """`x` (N, K, *spatial) or (K, *spatial) pooled by PyTorch."""
    if isinstance(pool, MaxPool):
        return _MAX_POOL[rank](x, pool.kernel, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
    if isinstance(pool, AvgPool):
        return _AVG_POOL[rank](
            x, pool.kernel, pool.stride or pool.kernel, pool.padding, pool.ceil_mode, pool.count_include_pad
        )
    return x


def conv_relu_pool_reference(
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
) -> Tensor:
    """x (N, C, *spatial) or (C, *spatial); weight (K, C/groups, *kernel); same result shape as `conv_relu_pool`."""
    rank = weight.dim() - 2
    y = _CONV[rank](x, weight, bias, stride, padding, dilation, groups)
    return pool_reference(activate(y, activation), pool, rank)
