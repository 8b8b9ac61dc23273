"""Step times, throughput and peak memory of a run."""

import contextlib
import resource
import statistics
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

WARMUP_STEPS = 10  # the first steps of a process compile kernels and fill caches: no part of the throughput
KEPT_STEPS = 10_000  # the median is over the latest steps, so a long run does not carry all its times about


class StepTimes:
    """Durations of training steps: by the host's clock on a CPU, by CUDA events on a GPU, which is not made to wait."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._in_flight: list[tuple[Any, Any, int]] = []
        self._seen = 0
        self._milliseconds: deque[float] = deque(maxlen=KEPT_STEPS)
        self._steady_samples = 0
        self._steady_seconds = 0.0
        self._latest: list[tuple[float, int]] = []
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(device)

    @contextlib.contextmanager
    def step(self, samples: int) -> Iterator[None]:
        """Time the block as one step over `samples` samples."""
        begin = self._now()
        yield
        self._in_flight.append((begin, self._now(), samples))

    def collect(self) -> None:
        """Take in the steps since the last call; on a GPU after the host has waited for the latest of them."""
        for begin, end, samples in self._in_flight:
            milliseconds = begin.elapsed_time(end) if self._on_gpu else (end - begin) * 1e3
            self._seen += 1
            self._milliseconds.append(milliseconds)
            self._latest.append((milliseconds, samples))
            if self._seen > WARMUP_STEPS:
                self._steady_samples += samples
                self._steady_seconds += milliseconds / 1e3
        self._in_flight.clear()

    def since_last(self) -> dict[str, float]:
        """Metrics of the steps collected since the last call: mean milliseconds a step, samples a second of step time;
        none where there was no step."""
        steps, self._latest = self._latest, []
        milliseconds = sum(duration for duration, _ in steps)
        if milliseconds <= 0:
            return {}
        speed = 1e3 * sum(samples for _, samples in steps) / milliseconds
        return {"speed/step_ms": milliseconds / len(steps), "speed/samples_per_second": speed}

    def median_ms(self) -> float | None:
        """Median milliseconds a step, or None before the first."""
        return statistics.median(self._milliseconds) if self._milliseconds else None

    def samples_per_second(self) -> float | None:
        """Samples a second of step time, without each process's first ten steps; None before the eleventh."""
        return self._steady_samples / self._steady_seconds if self._steady_seconds > 0 else None

    def as_record(self) -> dict[str, Any]:
        """Plain types for a checkpoint."""
        return {
            "milliseconds": list(self._milliseconds),
            "steady_samples": self._steady_samples,
            "steady_seconds": self._steady_seconds,
        }

    def restore(self, record: dict[str, Any]) -> None:
        """Resume from `as_record`'s result; the steps of this process warm up again."""
        self._milliseconds.extend(record["milliseconds"])
        self._steady_samples = record["steady_samples"]
        self._steady_seconds = record["steady_seconds"]

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def synchronise(device: torch.device) -> None:
    """Wait until the GPU has done what it was given; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int:
    """On a GPU the most that PyTorch had allocated at once; on a CPU the most memory the process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
