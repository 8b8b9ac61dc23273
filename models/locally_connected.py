"""A convolution untied: the same windows, with weights of their own at every place."""

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import nn


class LocallyConnected(nn.Module):
    """(N, C, H, W) -> (N, K, H', W'), where place (i, j) has its own filter and bias: H' W' times the weights.

    `weight` is (H' W', K, C kernel²), `bias` (H' W', K); drawn as He et al. (2015) draw a convolution's that a
    rectifier follows. With all places' weights equal it is that convolution.

    Raises:
        ValueError: an image smaller than the kernel.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, image_size: tuple[int, int], *, padding: int = 0
    ) -> None:
        super().__init__()
        self.kernel_size, self.padding = kernel_size, padding
        self.output_size = tuple(size + 2 * padding - kernel_size + 1 for size in image_size)
        if min(self.output_size) < 1:
            raise ValueError(f"image_size={image_size}; expected at least kernel_size={kernel_size} with its padding")
        places, fan_in = math.prod(self.output_size), in_channels * kernel_size**2
        self.weight = nn.Parameter(torch.randn(places, out_channels, fan_in) * math.sqrt(2 / fan_in))
        self.bias = nn.Parameter(torch.zeros(places, out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, K, H', W'). ValueError for images of another size."""
        windows = F.unfold(x, self.kernel_size, padding=self.padding)
        if windows.shape[2] != len(self.weight):
            raise ValueError(f"x is {x.shape[2]}x{x.shape[3]}; expected images of the size that the layer was made for")
        y = einsum(windows, self.weight, "n f p, p k f -> n p k") + self.bias
        return rearrange(y, "n (h w) k -> n k h w", h=self.output_size[0])

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, kernel_size={self.kernel_size}, padding={self.padding}"
