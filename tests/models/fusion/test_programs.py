"""Networks that do more than call layers train and evaluate fused as they do plain."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.models.fusion.programs import PROGRAMS, Program
from tidepool.models import FuseReport, fuse


def trained(network: nn.Module, program: Program, steps: int = 3) -> list[Tensor]:
    """Outputs of some training steps and of evaluation, then parameters and buffers."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    dtype = parameters[0].dtype
    found = []
    for step in range(steps):
        torch.manual_seed(step)
        x = torch.randn(3, 3, 8, 8).to(dtype)
        network.train()
        y = program.run(network, x)
        optimizer.zero_grad()
        program.loss(network, y).backward()
        optimizer.step()
        found.append(y.detach())
    network.eval()
    with torch.no_grad():
        found.append(program.run(network, x))
    return [*found, *(t.detach().clone() for t in (*network.parameters(), *network.buffers()))]


def both(name: str, backend: str) -> tuple[list[Tensor], list[Tensor], FuseReport]:
    program = PROGRAMS[name]
    torch.manual_seed(0)
    plain = program.build()
    with program.context():
        fused, report = fuse(copy.deepcopy(plain), backend)
    for network in (plain, fused):
        program.after(network)
    return trained(plain, program), trained(fused, program), report


@pytest.mark.filterwarnings("ignore:fuse. this call runs unfused")
@pytest.mark.parametrize("backend", ["cudnn", "triton"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_trains_and_evaluates_as_the_network_does(name: str, backend: str) -> None:
    plain, fused, report = both(name, backend)
    close = {"rtol": 0.0, "atol": 0.0} if backend == "cudnn" else {"rtol": 1e-4, "atol": 1e-4}
    if name == "autocast_off_within" and backend == "triton":
        close = {"rtol": 5e-2, "atol": 5e-2}  # bf16 within
    for expected, found in zip(plain, fused, strict=True):
        torch.testing.assert_close(found, expected, **close)
    assert len(report.fused) >= PROGRAMS[name].fused, str(report)
