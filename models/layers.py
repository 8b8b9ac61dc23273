"""The layers that networks are made of: the fused op as a module, and a fully connected layer started as He et al. do.

K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers" (2015), equations 10 and 12: weights are drawn from
N(0, 2 / fan_in) where a rectifier follows, so that the variance of activations neither grows nor shrinks with depth,
and from N(0, 1 / fan_in) where none does; biases start at zero.
"""

import contextlib
import math

import torch
from einops import einsum
from torch import nn

from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.activations import NamedActivation
from tidepool.kernels.layer.pooling import Size
from tidepool.models.fused import conv_norm_act, conv_relu_pool

_CONVOLUTION: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]] = {
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


class ConvActPool(nn.Module):
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
        activation: NamedActivation = "relu",
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
        return conv_relu_pool(x, self, activation=self.activation, pool=self.pool, backend=self.backend)

    def extra_repr(self) -> str:
        return (
            f"{tuple(self.weight.shape)}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}, activation={self.activation}, pool={self.pool}, "
            f"backend={self.backend}"
        )


class ConvNormAct(nn.Module):
    """Convolution, batch normalisation, residual, activation and pooling: (N, C, *spatial) -> (N, K, *output).

    The parameters are `conv`'s and `norm`'s, modules of the `rank` given that are not called themselves. With
    `pool_first` the pool comes between convolution and norm, otherwise last. The convolution has no bias: the norm
    would take it away again.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        rank: int = 2,
        stride: int = 1,
        padding: int = 0,
        activation: NamedActivation = "relu",
        pool: MaxPool | AvgPool | None = None,
        pool_first: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.conv = _CONVOLUTION[rank](
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False
        )
        self.norm = _NORM[rank](out_channels)
        self.activation, self.pool, self.pool_first, self.backend = activation, pool, pool_first, backend
        start_weight(self.conv.weight, rectified=activation is not None)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """(N, C, *spatial) -> (N, K, *output); `residual`, of the size of what is normalised, is added after that."""
        return conv_norm_act(
            x,
            self.conv,
            self.norm,
            residual=residual,
            activation=self.activation,
            pool=self.pool,
            pool_first=self.pool_first,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"activation={self.activation}, pool={self.pool}, pool_first={self.pool_first}, backend={self.backend}"


class AdaptiveAvgPool(nn.Module):
    """(N, C, H, W) -> (N, C, *output): output (i, j) is the mean of rows floor(i H / H') to ceil((i + 1) H / H') and
    the like columns, as `nn.AdaptiveAvgPool2d` has it; where nothing changes, x itself.

    A product with one averaging matrix for each dimension, summed in float32 at least, since windows differ in size.
    """

    def __init__(self, output: tuple[int, int]) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, *output)."""
        height, width = x.shape[2:]
        if (height, width) == self.output:
            return x
        with _without_autocast(x.device.type):
            wide = x if x.dtype == torch.float64 else x.float()
            rows = averaging_matrix(height, self.output[0]).to(wide)
            columns = averaging_matrix(width, self.output[1]).to(wide)
            return einsum(wide, rows, columns, "n c h w, i h, j w -> n c i j").to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.output}"


def _without_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    """Autocast off, where the device has it (meta, on which networks are only measured, has none)."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()


def averaging_matrix(size: int, output: int) -> torch.Tensor:
    """(output, size) in float64: row i averages positions floor(i size / output) to ceil((i + 1) size / output)."""
    index = torch.arange(output)[:, None]
    position = torch.arange(size)[None]
    inside = (position * output >= index * size - (index * size) % output) & (position * output < (index + 1) * size)
    return inside.double() / inside.sum(1, keepdim=True)


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
    """A max-pool for images of `size` that leaves alone each dimension smaller than its window, and the size left.

    None for the pool when it would leave every dimension alone.
    """
    fits = [whole >= side for whole, side in zip(size, window, strict=True)]
    window = tuple(side if fit else 1 for side, fit in zip(window, fits, strict=True))
    padding = tuple(pad if fit else 0 for pad, fit in zip(padding or (0,) * len(size), fits, strict=True))
    left = tuple((s + 2 * p - w) // w + 1 for s, w, p in zip(size, window, padding, strict=True))
    return (MaxPool(window, padding=padding) if max(window) > 1 else None), left
