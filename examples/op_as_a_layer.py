"""The op as a layer of one's own network: `python examples/op_as_a_layer.py`. A few seconds, no GPU needed."""

import torch
from torch import Tensor, nn

from tidepool import MaxPool, conv_relu_pool


class ConvReluPool(nn.Module):
    """Convolution, bias, ReLU and 2x2 max pool in one kernel: (N, C, H, W) -> (N, K, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int, backend: str) -> None:
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, 3)  # for PyTorch's initial values
        self.weight, self.bias, self.backend = plain.weight, plain.bias, backend

    def forward(self, x: Tensor) -> Tensor:
        return conv_relu_pool(x, self.weight, self.bias, padding=1, pool=MaxPool(2), backend=self.backend)


def train(backend: str, steps: int = 8) -> list[float]:
    """Losses of a few steps on random images that two classes of brightness tell apart."""
    torch.manual_seed(0)
    network = nn.Sequential(ConvReluPool(1, 8, backend), ConvReluPool(8, 8, backend), nn.Flatten(), nn.Linear(32, 2))
    labels = torch.randint(2, (32,))
    images = torch.randn(32, 1, 8, 8) + labels[:, None, None, None]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    for backend in ("triton", "cudnn"):
        print(backend, " ".join(f"{loss:.4f}" for loss in train(backend)))
