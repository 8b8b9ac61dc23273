"""conv + batch norm + activation and its companions in plain PyTorch: the opponent, and in float64 the oracle."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.pooling import Pool, Size
from kernels.reference import activate, pool_reference

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


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
    activation: str | None = "relu",
    pool: Pool = None,
    pool_first: bool = False,
) -> Tensor:
    """x (N, C, *spatial), weight (K, C/groups, *kernel), the norm's tensors (K,); result and updates as
    `conv_norm_act` has them."""
    rank = weight.dim() - 2
    z = _CONV[rank](x, weight, conv_bias, stride, padding, dilation, groups)
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
