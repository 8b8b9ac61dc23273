"""What a sweep says while it runs: a line for every point that ends, with the total and the time left."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from tidepool.sweeping.points import Point
from tidepool.sweeping.records import as_number
from tidepool.sweeping.spec import Metric
from tidepool.sweeping.words import counted, duration

tqdm.monitor_interval = 0  # no thread: the runs are children of the main one


class Progress:
    """Prints to standard output; on a terminal a bar with the total stands below the lines."""

    def __init__(self, *, total: int, workers: int, metrics: Sequence[Metric]) -> None:
        self._total, self._workers, self._metrics = total, workers, metrics
        self._ended = 0
        self._seconds: list[float] = []
        self._waiting_told = False
        self._bar: tqdm[Any] | None = None

    def begin(self, ended: int) -> None:
        """Say how many have `ended` already."""
        self._ended = ended
        before = f"; {ended:,} already done" if ended else ""
        self.say(f"{counted(self._total, 'run')}, {self._workers} at a time{before}")
        self._bar = tqdm(total=self._total, initial=ended, disable=None, unit="run", leave=False)

    def started(self, point: Point, running: int) -> None:
        """A run has started; `running` are under way."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{running} running, latest {point.folder}")

    def retried(self, point: Point, how: str, last_line: str) -> None:
        """A run has failed, and is tried again."""
        self.say(f"  {point.folder}: {how}; trying again" + (f" ({last_line})" if last_line else ""))

    def ended(
        self,
        point: Point,
        outcome: str,
        summary: Mapping[str, Any],
        values: Sequence[float],
        reason: str | None,
        seconds: float | None,
    ) -> None:
        """A point has got its lasting outcome, `seconds` after its run started (None: it was found ended)."""
        self._ended += 1
        if seconds is not None and outcome == "finished":
            self._seconds.append(seconds)
        parts = [f"[{self._ended:{len(str(self._total))}}/{self._total}]", f"{point.folder}:", outcome]
        accuracy = as_number(summary.get("test_accuracy"))
        if outcome == "finished" and accuracy is not None:
            parts.append(f"test accuracy {100 * accuracy:.2f} %")
        for metric, value in zip(self._metrics, values, strict=False):
            if metric.name != "test/accuracy":
                parts.append(f"{metric.name} {value:.6g}")
        if reason:
            parts.append(f"({reason})")
        if seconds is not None:
            parts.append(f"in {duration(seconds)}")
        if left := self._time_left():
            parts.append(f"— {left}")
        self.say(" ".join(parts))

    def seen(self, ended: int, *, waiting: int, elsewhere: int, here: int) -> None:
        """What has `ended` by all processes, what is `waiting`, and runs under way `elsewhere` and `here`; says once
        that only others are still at work."""
        self._ended = ended
        if self._bar is not None:
            self._bar.n = ended
            self._bar.refresh()
        if elsewhere > 0 and not here and not waiting and not self._waiting_told:
            self._waiting_told = True
            self.say(f"waiting for {counted(elsewhere, 'run')} of another process")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def _time_left(self) -> str:
        left = self._total - self._ended
        if not left or not self._seconds:
            return ""
        rounds = -(-left // self._workers)
        return f"{left} left, about {duration(rounds * sum(self._seconds) / len(self._seconds))}"

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
