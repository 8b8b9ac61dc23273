"""Downsampling that shifts of the input change little, or not at all: BlurPool and adaptive polyphase sampling.

R. Zhang, "Making Convolutional Networks Shift-Invariant Again" (2019); A. Chaman, I. Dokmanić, "Truly shift-invariant
convolutional neural networks" (2021, arXiv 2011.14214).
"""

import torch
from einops import rearrange, repeat
from torch import nn

from tidepool.kernels import conv_act_pool

BINOMIAL = (1.0, 2.0, 1.0)


class BlurPool(nn.Module):
    """A low-pass filter and every second pixel: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)).

    The filter is [1 2 1] in both dimensions, divided by its sum; opposite edges are joined (`circular`) or repeated.
    After a max pool of stride 1 it is Zhang's MaxBlurPool.
    """

    filter: torch.Tensor

    def __init__(self, *, circular: bool = False, backend: str = "auto") -> None:
        super().__init__()
        self.mode, self.backend = "circular" if circular else "replicate", backend
        line = torch.tensor(BINOMIAL) / sum(BINOMIAL)
        self.register_buffer("filter", torch.outer(line, line), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))."""
        channels = x.shape[1]
        weight = repeat(self.filter.to(x), "h w -> c 1 h w", c=channels)
        padded = nn.functional.pad(x, (1, 1, 1, 1), mode=self.mode)
        return conv_act_pool(
            padded, weight, stride=2, groups=channels, activation=None, pool=None, backend=self.backend
        )

    def extra_repr(self) -> str:
        return f"{self.mode}, backend={self.backend}"


class AdaptivePolyphase(nn.Module):
    """Of the four grids of every second pixel, each image's own of the greatest norm: (N, C, H, W) -> (N, C, H / 2,
    W / 2).

    A circular shift of x by any number of pixels gives the same grid, shifted: with circular convolutions and a mean
    over pixels the network's output stays the same. Of grids of equal norm the first is taken.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H / 2, W / 2). ValueError where H or W is odd: there are no four grids then."""
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"x is {x.shape[2]}x{x.shape[3]}; expected even sizes, of which half are kept")
        grids = rearrange(x, "n c (h i) (w j) -> n (i j) c h w", i=2, j=2)
        chosen = grids.detach().double().square().sum(dim=(2, 3, 4)).argmax(1)
        return grids[torch.arange(len(x), device=x.device), chosen]
