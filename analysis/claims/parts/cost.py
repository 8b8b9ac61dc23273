"""What one training step of a layer costs on this CPU: parameters, time, and memory, counted tensor by tensor."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from tidepool.analysis.claims.parts.learning import parameters

REPEATS = 3


@dataclass(frozen=True)
class StepCost:
    """`held_bytes` is what must be held at once in the middle of the step: parameters and their gradients, what the
    forward pass saved for backward, the output and its gradient. `step_ms` is the median of three steps after one."""

    parameters: int
    step_ms: float
    held_bytes: int


def step_cost(layer: nn.Module, x: torch.Tensor) -> StepCost:
    """Forward, backward and an SGD update of the mean square of the outputs."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-6)
    held = _held_bytes(layer, x)
    _step(layer, optimizer, x)
    times = [_step(layer, optimizer, x) for _ in range(REPEATS)]
    return StepCost(parameters(layer), 1000 * statistics.median(times), held)


def _held_bytes(layer: nn.Module, x: torch.Tensor) -> int:
    storages: dict[int, int] = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in layer.parameters()
    }
    gradients = sum(storages.values())

    def see(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        output = layer(x)
    see(output)
    return sum(storages.values()) + gradients + output.untyped_storage().nbytes()


def _step(layer: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> float:
    start = time.perf_counter()
    layer(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - start
