"""Fused, random networks are what they are plain: outputs, gradients, buffers, versions, attributes and randomness.

TIDEPOOL_PROGRAMS=10000 pytest -m full tests/models/fusion/test_random_programs.py    # a long run, other seeds
"""

import copy
import os
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.fusion.random_programs import CHANNELS, SIZE, RandomProgram
from tidepool.models import fuse

DEFAULT, FULL, EACH = 60, 300, 10
"""Programs of the default tier, of both, and of one test: starting a test costs as much as a program."""
SEEDS = [
    pytest.param(seed, marks=() if seed < DEFAULT else pytest.mark.full)
    for seed in range(0, int(os.environ.get("TIDEPOOL_PROGRAMS", FULL)), EACH)
]


def outcome(network: RandomProgram, seed: int) -> dict[str, Any]:
    """What two training steps and an evaluation leave behind."""
    found: dict[str, Any] = {}
    for step in range(3):
        network.train(step < 2)
        network.zero_grad()
        torch.manual_seed(seed + step)
        x = torch.randn(3, CHANNELS, SIZE, SIZE, requires_grad=True)
        y = network(x)
        (y.square().mean() + (network.aux if isinstance(network.aux, Tensor) else 0.0)).backward()
        found |= {f"y {step}": y.detach(), f"dx {step}": x.grad, f"version of x {step}": torch.tensor(x._version)}
        found |= {f"{name}'s gradient {step}": p.grad for name, p in network.named_parameters() if p.grad is not None}
        found[f"aux {step}"] = network.aux.detach() if isinstance(network.aux, Tensor) else torch.tensor(0)
        found[f"random state {step}"] = torch.get_rng_state()
        found |= {f"{name} {step}": buffer.clone() for name, buffer in network.named_buffers()}
        found |= {f"version of {name} {step}": torch.tensor(b._version) for name, b in network.named_buffers()}
    return found


def compare(seed: int, backend: str) -> str:
    """What happened: "fused", "plain" where nothing was, "refused" where the network itself is wrong."""
    torch._dynamo.reset()
    torch.manual_seed(seed)
    drawn = RandomProgram(seed)
    plain, (fused, report) = copy.deepcopy(drawn), fuse(copy.deepcopy(drawn), backend)
    try:
        expected = outcome(plain, seed)
    except RuntimeError as error:  # what backward needs, or a leaf, is written into: the draw's fault
        if not any(word in str(error) for word in ("inplace operation", "leaf", "view")):
            raise
        return "refused"
    found = outcome(fused, seed)
    assert found.keys() == expected.keys(), f"seed {seed}"
    close = {"rtol": 0.0, "atol": 0.0} if backend == "cudnn" else {"rtol": 2e-3, "atol": 2e-4}
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **close, msg=lambda text, name=name: f"{seed}: {name}: {text}")
    assert not report.plain_calls, f"seed {seed}: {report}"
    return "fused" if report.fused else "plain"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.default
def test_fused_is_plain(seed: int) -> None:
    happened = [compare(one, "triton" if one % EACH == 9 else "cudnn") for one in range(seed, seed + EACH)]
    assert happened.count("fused") >= 3, happened
