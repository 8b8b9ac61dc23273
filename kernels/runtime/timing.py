"""How a call is timed on a GPU, for the tuner and the benchmark alike.

A `Timer` returns one time per sample, in milliseconds per call; medians, percentiles and intervals are the caller's.
Tests put a timer of their own in its place: nothing but `CudaTimer` touches a device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, Protocol

import torch

Arguments = tuple[Any, ...]


class Timer(Protocol):
    """Anything that can time a function."""

    def measure(self, function: Callable[..., object], *, rotate: Sequence[Arguments] = ((),)) -> list[float]:
        """Milliseconds per call of `function(*arguments)`, one number per sample, in the order they were taken.

        Calls go round the argument tuples in `rotate`, so that a call does not find its inputs in cache; see
        `sets_beyond_cache`.
        """
        ...


@dataclass(frozen=True)
class CudaTimer:
    """Times with CUDA events on the current stream.

    Warms up for `warmup_ms`, then takes samples for about `budget_ms`, at least `min_samples` and at most
    `max_samples`. A sample is as many calls back to back as last `sample_ms`, and at least one, between two events.
    With `graph` the calls of a sample are captured in a CUDA graph and replayed, which takes the host's time out;
    without it, what the host takes longer than the device shows, as it does in a training loop.
    """

    warmup_ms: float = 25.0
    budget_ms: float = 150.0
    sample_ms: float = 0.5
    min_samples: int = 10
    max_samples: int = 200
    graph: bool = False

    def measure(self, function: Callable[..., object], *, rotate: Sequence[Arguments] = ((),)) -> list[float]:
        """See `Timer.measure`. Raises RuntimeError without a GPU."""
        if not torch.cuda.is_available():
            raise RuntimeError("CudaTimer needs an NVIDIA GPU, and none was found")
        turn = 0

        def call(count: int) -> None:
            nonlocal turn
            for _ in range(count):
                function(*rotate[turn % len(rotate)])
                turn += 1

        call(len(rotate))  # compiles, allocates, lets cuDNN choose
        torch.cuda.synchronize()
        estimate = max(_elapsed_ms(call, 5) / 5, 1e-3)
        calls = max(round(self.sample_ms / estimate), 1)
        if self.graph:
            calls = ceil(calls / len(rotate)) * len(rotate)  # a replay goes round whole
        run = _captured(call, calls) if self.graph else partial(call, calls)
        for _ in range(max(ceil(self.warmup_ms / (estimate * calls)), 1)):
            run()
        samples = round(self.budget_ms / (estimate * calls))
        samples = min(max(samples, self.min_samples), self.max_samples)
        events = []
        for _ in range(samples):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            events.append((start, end))
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / calls for start, end in events]


def _captured(call: Callable[[int], None], calls: int) -> Callable[[], object]:
    """A CUDA graph of that many calls, to replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call(calls)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call(calls)
    return graph.replay


def _elapsed_ms(call: Callable[[int], None], count: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call(count)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def sets_beyond_cache(bytes_per_set: int, cache_bytes: int, most: int = 16) -> int:
    """How many sets of buffers to rotate so that a set has left a cache of that size before its turn comes again."""
    return min(max(ceil(2 * cache_bytes / max(bytes_per_set, 1)), 1), most)


def cache_bytes(device: torch.device) -> int:
    """Size of the device's L2 cache; 0 without a GPU."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample below which `share` (0 to 1) of them lie, linearly between neighbours. Raises ValueError on none."""
    if not samples:
        raise ValueError("expected at least one sample, but got none")
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the middle two. Raises ValueError on none."""
    return percentile(samples, 0.5)
