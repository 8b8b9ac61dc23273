"""`fuse` on a network written in torchvision's style: `python examples/fuse_a_network.py`. No torchvision needed."""

import copy

import torch
from torch import Tensor, nn

from tidepool import fuse


class BasicBlock(nn.Module):
    """Two convolutions with batch norm around a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


def network() -> nn.Module:
    """A small residual network for images of three channels."""
    stem = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*stem, BasicBlock(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def main() -> float:
    """Fuse a copy, call it and print what was fused; return the largest difference of the outputs."""
    torch.manual_seed(0)
    plain = network().eval()
    fused, report = fuse(copy.deepcopy(plain), backend="triton")
    assert list(fused.state_dict()) == list(plain.state_dict())  # the same parameters under the same names
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        difference = (fused(x) - plain(x)).abs().max().item()
    print(report)
    print(f"largest difference from eager PyTorch: {difference:.2g}")
    return difference


if __name__ == "__main__":
    main()
