"""The layers that networks are made of: the fused op as a module, and a fully connected layer started as He et al. do.

K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers" (2015), equations 10 and 12: weights are drawn from
N(0, 2 / fan_in) where a rectifier follows, so that the variance of activations neither grows nor shrinks with depth,
and from N(0, 1 / fan_in) where none does; biases start at zero.
"""

import math

import torch
from torch import nn

from kernels import AvgPool, MaxPool, conv_relu_pool
from kernels.pooling import Size


class ConvReLUPool(nn.Module):
    """Convolution, bias, activation and pooling as one op: (N, C, *spatial) -> (N, K, *output).

    `rank` is the number of spatial dimensions: 1, 2 or 3. `weight` is (K, C / groups, *kernel); `bias` is (K,), or
    None with `bias=False`. Sizes are one number, or one for each dimension. The order is convolution, bias,
    activation, pool; `activation=None` and `pool=None` leave theirs out.

    Raises:
        ValueError: a channel count that `groups` does not divide, or a kernel that is not of `rank` dimensions.
            Whatever else is wrong, the op itself says at the first call.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        *,
        rank: int = 2,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = "relu",
        pool: MaxPool | AvgPool | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups}; expected a divisor of {in_channels} in and {out_channels} out channels")
        kernel = (kernel_size,) * rank if isinstance(kernel_size, int) else tuple(kernel_size)
        if rank not in (1, 2, 3) or len(kernel) != rank:
            raise ValueError(
                f"kernel_size={kernel_size}, rank={rank}; expected 1, 2 or 3 dimensions, a number for each"
            )
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.activation, self.pool, self.backend = activation, pool, backend
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *kernel))
        start_weight(self.weight, rectified=activation is not None)
        if bias:
            self.bias = nn.Parameter(torch.zeros(out_channels))
        else:
            self.register_parameter("bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, *spatial) -> (N, K, *output)."""
        return conv_relu_pool(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            activation=self.activation,
            pool=self.pool,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return (
            f"{tuple(self.weight.shape)}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}, activation={self.activation}, pool={self.pool}, "
            f"backend={self.backend}"
        )


def fully_connected(in_features: int, out_features: int, *, rectified: bool) -> nn.Linear:
    """A linear layer with zero bias and weights for a rectifier to follow (`rectified`) or none."""
    layer = nn.Linear(in_features, out_features)
    start_weight(layer.weight, rectified=rectified)
    nn.init.zeros_(layer.bias)
    return layer


def start_weight(weight: torch.Tensor, *, rectified: bool) -> None:
    """Fill (out, in, ...) in place from N(0, 2 / fan_in), or N(0, 1 / fan_in) unless `rectified`."""
    fan_in = weight[0].numel()
    nn.init.normal_(weight, std=math.sqrt((2 if rectified else 1) / fan_in))


def pool_where_it_fits(
    size: tuple[int, ...], window: tuple[int, ...], padding: tuple[int, ...] | None = None
) -> tuple[MaxPool | None, tuple[int, ...]]:
    """A max-pool for pictures of `size` that leaves alone each dimension smaller than its window, and the size left.

    None for the pool when it would leave every dimension alone.
    """
    fits = [whole >= side for whole, side in zip(size, window, strict=True)]
    window = tuple(side if fit else 1 for side, fit in zip(window, fits, strict=True))
    padding = tuple(pad if fit else 0 for pad, fit in zip(padding or (0,) * len(size), fits, strict=True))
    left = tuple((s + 2 * p - w) // w + 1 for s, w, p in zip(size, window, padding, strict=True))
    return (MaxPool(window, padding=padding) if max(window) > 1 else None), left
