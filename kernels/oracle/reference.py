"""The ops in plain PyTorch: the opponent (`backend="cudnn"`), and in float64 the oracle.

    y = pool(activation(conv(x, weight) + bias))              `conv_act_pool_reference`
    y = pool(activation(norm(conv(x, weight)) + residual))    `conv_norm_act_reference`, and its companions

On an NVIDIA GPU these calls are cuDNN's, on a CPU oneDNN's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tidepool.kernels.activations import NamedActivation, as_activation
from tidepool.kernels.layer.pooling import AvgPool, MaxPool, Pool, Size

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def activate(x: Tensor, activation: NamedActivation) -> Tensor:
    """`activation` of x in plain PyTorch."""
    return as_activation(activation).reference(x)


def pool_reference(x: Tensor, pool: Pool, rank: int) -> Tensor:
    """`x` (N, K, *spatial) or (K, *spatial) pooled by PyTorch."""
    if isinstance(pool, MaxPool):
        return _MAX_POOL[rank](x, pool.kernel, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
    if isinstance(pool, AvgPool):
        return _AVG_POOL[rank](
            x, pool.kernel, pool.stride or pool.kernel, pool.padding, pool.ceil_mode, pool.count_include_pad
        )
    return x


def conv_act_pool_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    activation: NamedActivation = "relu",
    pool: Pool = MaxPool(2),  # noqa: B008 (frozen)
) -> Tensor:
    """x (N, C, *spatial) or (C, *spatial); weight (K, C/groups, *kernel); same result shape as `conv_relu_pool`."""
    rank = weight.dim() - 2
    y = CONV[rank](x, weight, bias, stride, padding, dilation, groups)
    batched = y.dim() == weight.dim()
    y = activate(y if batched else y.unsqueeze(0), activation)  # one slope a filter: channels are dimension 1
    return pool_reference(y if batched else y.squeeze(0), pool, rank)


def conv_norm_act_reference(
    x: Tensor,
    weight: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    conv_bias: Tensor | None = None,
    residual: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: NamedActivation = "relu",
    pool: Pool = None,
    pool_first: bool = False,
) -> Tensor:
    """x (N, C, *spatial), weight (K, C/groups, *kernel), the norm's tensors (K,); result and updates as
    `conv_norm_act` has them."""
    rank = weight.dim() - 2
    z = CONV[rank](x, weight, conv_bias, stride, padding, dilation, groups)
    if pool_first:
        z = pool_reference(z, pool, rank)
    u = F.batch_norm(z, running_mean, running_var, norm_weight, norm_bias, training, momentum, eps)
    if residual is not None:
        u = u + residual
    y = activate(u, activation)
    return y if pool_first else pool_reference(y, pool, rank)


def squeeze_excite_reference(x: Tensor, gate: Tensor) -> Tensor:
    """x (N, C, *spatial) times the sigmoid of its gate (N, C, 1, ...)."""
    return x * torch.sigmoid(gate)


def global_average_pool_reference(x: Tensor, *, keepdim: bool = True) -> Tensor:
    """Mean over the spatial dimensions of x (N, C, *spatial)."""
    return x.mean(tuple(range(2, x.dim())), keepdim=keepdim)
