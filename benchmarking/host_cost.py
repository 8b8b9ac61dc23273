"""`python -m tidepool.benchmarking.host_cost --out results/host_cost`: the host time of a step.

Steps of tensors of a few elements, where the arithmetic is nothing, forward and backward: the op, a layer with a norm,
and a network of three layers, plain, under torch.compile's own `eager` backend, and fused. Launches of this project's
kernels are stubbed (`runtime.launch`), so that what is left of them is Python. The sides of a step take turns in one
process, A B B A, many blocks of calls each; a block's mean is one sample. Rows are appended to `<out>/host_cost.csv`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidepool.benchmarking import machine
from tidepool.kernels import MaxPool, conv_norm_act, conv_relu_pool, kernel_mode
from tidepool.kernels.runtime.launch import replace_launcher
from tidepool.kernels.runtime.timing import percentile
from tidepool.models import fuse
from tidepool.program import run_process
from tidepool.records import OneLineParser, RecordError, Table

HOST_COST_COLUMNS = (
    "schema_version", "measured_at", "process", "side", "what", "host_us_p50", "host_us_p20", "host_us_p80", "blocks",
    "calls_per_block", "device", "kernel_mode", "gpu", "cpu", "cpu_threads", "torch", "triton", "python", "commit",
    "dirty", "source", "command",
)  # fmt: skip
Step = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class HostCost:
    """Microseconds a step of one side took on the host, one number a block of calls."""

    what: str
    side: str
    samples: tuple[float, ...]


def host_costs(
    steps: Mapping[str, Mapping[str, Step]], *, blocks: int, calls: int, clock: Clock = time.perf_counter
) -> list[HostCost]:
    """Time the sides of each step in turns, launches stubbed."""
    replace_launcher(lambda *_, **__: None)
    try:
        return [cost for what, sides in steps.items() for cost in _in_turns(what, sides, blocks, calls, clock)]
    finally:
        replace_launcher(None)


def _in_turns(what: str, sides: Mapping[str, Step], blocks: int, calls: int, clock: Clock) -> list[HostCost]:
    samples: dict[str, list[float]] = {side: [] for side in sides}
    for step in sides.values():
        for _ in range(calls):
            step()
    for _ in range(blocks):
        for side in (*sides, *reversed(list(sides))):
            samples[side].append(_block(sides[side], calls, clock))
    return [HostCost(what, side, tuple(found)) for side, found in samples.items()]


def record(folder: Path, device: torch.device, costs: Sequence[HostCost], calls: int) -> None:
    """Append one row a step and side. Raises RecordError."""
    environment = machine.machine_record(device, ("kernels",))
    common: dict[str, Any] = {
        "measured_at": machine.now(),
        "process": f"{time.time_ns():x}",
        "calls_per_block": calls,
        "device": device.type,
        "kernel_mode": kernel_mode("triton", device),
        "cpu_threads": torch.get_num_threads(),
        **{name: environment[name] for name in HOST_COST_COLUMNS if name in environment},
    }
    rows = [
        {
            **common,
            "what": cost.what,
            "side": cost.side,
            "host_us_p50": percentile(cost.samples, 0.5),
            "host_us_p20": percentile(cost.samples, 0.2),
            "host_us_p80": percentile(cost.samples, 0.8),
            "blocks": len(cost.samples),
        }
        for cost in costs
    ]
    Table(folder / "host_cost.csv", HOST_COST_COLUMNS).append(rows)


def main(arguments: Sequence[str], *, prog: str = "tidepool host_cost") -> int:
    """The command: 0, or 2 with one line on stderr."""
    about = "Host time of the ops and of a fused network, compared with eager PyTorch's."
    parser = OneLineParser(prog=prog, description=about)
    parser.add_argument(
        "--out", type=Path, help="folder to append host_cost.csv in; without it the figures are printed"
    )
    parser.add_argument("--blocks", type=_positive, default=50, help="rounds of four blocks, two a side (default: 50)")
    parser.add_argument("--calls", type=_positive, default=100, help="calls in a block (default: 100)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() and kernel_mode("triton") == "compiled" else "cpu")
    costs = host_costs(steps_on(device), blocks=options.blocks, calls=options.calls)
    for what in dict.fromkeys(cost.what for cost in costs):
        print(what)
        for line in _lines([cost for cost in costs if cost.what == what]):
            print(line)
    if options.out is not None:
        try:
            record(options.out, device, costs, options.calls)
        except RecordError as error:
            print(f"{prog}: {error}", file=sys.stderr)
            return 2
    return 0


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number of at least 1")
    return int(text)


def _block(step: Step, calls: int, clock: Clock) -> float:
    begun = clock()
    for _ in range(calls):
        step()
    return (clock() - begun) / calls * 1e6


def _lines(costs: Sequence[HostCost]) -> list[str]:
    """A line a side, with its ratio to the first."""
    first = percentile(costs[0].samples, 0.5)
    lines = []
    for cost in costs:
        middle, low, high = (percentile(cost.samples, share) for share in (0.5, 0.2, 0.8))
        spread = f"p20 {low:.1f}, p80 {high:.1f}, {len(cost.samples)} blocks"
        lines.append(f"  {cost.side:12} {middle:7.1f} us a step, {middle / first:.3f} of {costs[0].side} ({spread})")
    return lines


# --- The steps, in the order their sides take turns, the reference first ---


def steps_on(device: torch.device) -> dict[str, dict[str, Step]]:
    """What is timed, by its description and side."""
    return {
        "forward and backward of 1x1 convolution, bias, ReLU, max pool of 1": _op_sides(device),
        "forward and backward of 1x1 convolution, batch norm in training, ReLU": _norm_sides(device),
        "forward and backward of three layers of 1x1 convolution, batch norm in training, ReLU": _network_sides(device),
    }


def _op_sides(device: torch.device) -> dict[str, Step]:
    x, weight, bias = (_leaf(device, *size) for size in ((1, 1, 1, 1), (1, 1, 1, 1), (1,)))
    grad, pool = torch.ones(1, 1, 1, 1, device=device), MaxPool(1)
    return {
        "eager": lambda: F.max_pool2d(F.relu(F.conv2d(x, weight, bias)), 1).backward(grad),
        "triton": lambda: conv_relu_pool(x, weight, bias, pool=pool, backend="triton").backward(grad),
    }


def _norm_sides(device: torch.device) -> dict[str, Step]:
    x, weight, scale, shift = (_leaf(device, *size) for size in ((2, 1, 1, 1), (1, 1, 1, 1), (1,), (1,)))
    mean, variance = torch.zeros(1, device=device), torch.ones(1, device=device)
    grad = torch.ones(2, 1, 1, 1, device=device)

    def step(backend: str) -> object:
        return conv_norm_act(
            x, weight, scale, shift, mean, variance, training=True, activation="relu", backend=backend
        ).backward(grad)

    def eager() -> object:
        return F.relu(F.batch_norm(F.conv2d(x, weight), mean, variance, scale, shift, True)).backward(grad)

    return {"eager": eager, "triton": lambda: step("triton")}


def _network_sides(device: torch.device) -> dict[str, Step]:
    return {
        "eager": _training_step(_network(device), device),
        "dynamo": _training_step(torch.compile(_network(device), backend="eager"), device),
        "fuse cudnn": _training_step(fuse(_network(device), backend="cudnn")[0], device),
        "fuse triton": _training_step(fuse(_network(device), backend="triton")[0], device),
    }


def _network(device: torch.device) -> nn.Module:
    layers = [layer for _ in range(3) for layer in (nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1), nn.ReLU())]
    return nn.Sequential(*layers).to(device)


def _training_step(network: Callable[[Tensor], Tensor], device: torch.device) -> Step:
    x, grad = _leaf(device, 2, 1, 1, 1), torch.ones(2, 1, 1, 1, device=device)
    return lambda: network(x).backward(grad)


def _leaf(device: torch.device, *size: int) -> Tensor:
    return torch.randn(size, device=device).requires_grad_()


if __name__ == "__main__":
    run_process(main, sys.argv[1:], prog="python -m tidepool.benchmarking.host_cost")
