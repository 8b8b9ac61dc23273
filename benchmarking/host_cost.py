"""`python -m tidepool.benchmarking.host_cost --out results/host_cost`: the host time of a step.

On our side launches are stubbed (`runtime.launch`), so that what is left is this project's Python; on
PyTorch's side convolution, ReLU and pool run eagerly on tensors of one element, where the arithmetic is nothing. Both
sides take turns in one process, A B B A, many blocks of calls each; a block's mean is one sample. Rows are appended to
`<out>/host_cost.csv`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tidepool.benchmarking import machine
from tidepool.kernels import MaxPool, conv_relu_pool, kernel_mode
from tidepool.kernels.runtime.launch import replace_launcher
from tidepool.kernels.runtime.timing import percentile
from tidepool.program import run_process
from tidepool.records import OneLineParser, RecordError, Table

HOST_COST_COLUMNS = (
    "schema_version", "measured_at", "process", "side", "what", "host_us_p50", "host_us_p20", "host_us_p80", "blocks",
    "calls_per_block", "device", "kernel_mode", "gpu", "cpu", "cpu_threads", "torch", "triton", "python", "commit",
    "dirty", "source", "command",
)  # fmt: skip
WHAT = "forward and backward of 1x1 convolution, bias, ReLU, max pool of 1"
Step = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class HostCost:
    """Microseconds a step of one side took on the host, one number a block of calls."""

    side: str
    samples: tuple[float, ...]


def host_cost(
    device: torch.device, *, blocks: int, calls: int, clock: Clock = time.perf_counter
) -> tuple[HostCost, HostCost]:
    """Time both sides in turns; returns eager PyTorch's and this project's."""
    sides = {"eager": _eager(device), "triton": _ours(device)}
    samples: dict[str, list[float]] = {side: [] for side in sides}
    replace_launcher(lambda *_, **__: None)
    try:
        for step in sides.values():
            for _ in range(calls):
                step()
        for _ in range(blocks):
            for side in ("eager", "triton", "triton", "eager"):
                samples[side].append(_block(sides[side], calls, clock))
    finally:
        replace_launcher(None)
    return HostCost("eager", tuple(samples["eager"])), HostCost("triton", tuple(samples["triton"]))


def record(folder: Path, device: torch.device, costs: Sequence[HostCost], calls: int) -> None:
    """Append one row a side. Raises RecordError."""
    environment = machine.machine_record(device, ("kernels",))
    common: dict[str, Any] = {
        "measured_at": machine.now(),
        "process": f"{time.time_ns():x}",
        "what": WHAT,
        "calls_per_block": calls,
        "device": device.type,
        "kernel_mode": kernel_mode("triton", device),
        "cpu_threads": torch.get_num_threads(),
        **{name: environment[name] for name in HOST_COST_COLUMNS if name in environment},
    }
    rows = [
        {
            **common,
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
    about = "Host time of the op compared with eager PyTorch's."
    parser = OneLineParser(prog=prog, description=about)
    parser.add_argument(
        "--out", type=Path, help="folder to append host_cost.csv in; without it the figures are printed"
    )
    parser.add_argument("--blocks", type=_positive, default=50, help="rounds of four blocks, two a side (default: 50)")
    parser.add_argument("--calls", type=_positive, default=100, help="calls in a block (default: 100)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() and kernel_mode("triton") == "compiled" else "cpu")
    costs = host_cost(device, blocks=options.blocks, calls=options.calls)
    for cost in costs:
        middle, low, high = (percentile(cost.samples, share) for share in (0.5, 0.2, 0.8))
        print(f"{cost.side:8} {middle:7.1f} us a step (p20 {low:.1f}, p80 {high:.1f}, {len(cost.samples)} blocks)")
    eager, ours = (percentile(cost.samples, 0.5) for cost in costs)
    print(f"triton / eager: {ours / eager:.3f}")
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


def _leaves(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, bias = (torch.randn(size, device=device) for size in ((1, 1, 1, 1), (1, 1, 1, 1), (1,)))
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def _eager(device: torch.device) -> Step:
    x, weight, bias = _leaves(device)
    grad = torch.ones(1, 1, 1, 1, device=device)

    def step() -> object:
        return F.max_pool2d(F.relu(F.conv2d(x, weight, bias)), 1).backward(grad)

    return step


def _ours(device: torch.device) -> Step:
    x, weight, bias = _leaves(device)
    grad, pool = torch.ones(1, 1, 1, 1, device=device), MaxPool(1)

    def step() -> object:
        return conv_relu_pool(x, weight, bias, pool=pool, backend="triton").backward(grad)

    return step


if __name__ == "__main__":
    run_process(main, sys.argv[1:], prog="python -m tidepool.benchmarking.host_cost")
