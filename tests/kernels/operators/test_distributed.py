"""DistributedDataParallel over the operator: two processes on gloo give one process's gradients."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.kernels.exact import DEVICE
from tidepool.kernels import conv_relu_pool

WORLD = 2


class Layer(nn.Module):
    """One fused layer with known weights."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randint(-2, 3, (4, 3, 3, 3), generator=generator).float())
        self.bias = nn.Parameter(torch.randint(-2, 3, (4,), generator=generator).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return conv_relu_pool(x, self.weight, self.bias, padding=1, backend="triton")


def batch() -> torch.Tensor:
    return torch.randint(-2, 3, (2 * WORLD, 3, 8, 6), generator=torch.Generator().manual_seed(1)).float().to(DEVICE)


def run_rank(rank: int, port: int, folder: str) -> None:
    """One process: its share of the batch through the wrapped layer; its averaged gradients into a file."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    layer = DistributedDataParallel(Layer().to(DEVICE))
    layer(batch().chunk(WORLD)[rank]).sum().backward()
    torch.save([p.grad.cpu() for p in layer.parameters()], Path(folder) / f"{rank}.pt")
    dist.barrier()  # gloo aborts a process whose peer leaves while a thread of its own is still at work
    del layer
    dist.destroy_process_group()


@pytest.mark.full
def test_two_ranks_average_to_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(run_rank, args=(port, str(tmp_path)), nprocs=WORLD)
    layer = Layer().to(DEVICE)
    layer(batch()).sum().backward()
    for rank in range(WORLD):
        for got, whole in zip(torch.load(tmp_path / f"{rank}.pt"), layer.parameters(), strict=True):
            assert whole.grad is not None
            assert torch.equal(got * WORLD, whole.grad.cpu())
