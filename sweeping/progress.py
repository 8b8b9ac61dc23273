"""What a sweep says while it runs: a line for every point that ends, with the total and the time left."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from tidepool.sweeping.ledger import LASTING, Result
from tidepool.sweeping.points import Point

tqdm.monitor_interval = 0  # no thread: the runs are children of the main one


class Progress:
    """Prints to standard output; on a terminal a bar with the total stands below the lines."""

    def __init__(self, *, total: int, workers: int, metric: str | None) -> None:
        self._total, self._workers, self._metric = total, workers, metric
        self._ended: set[str] = set()
        self._seconds: list[float] = []
        self._waiting_told = False
        self._bar: tqdm[Any] | None = None

    def begin(self, results: Sequence[Result]) -> None:
        """Say what is there already."""
        self._ended = {result.key for result in results if result.outcome in LASTING}
        before = f"; {len(self._ended)} already done" if self._ended else ""
        self._say(f"{_runs(self._total)}, {self._workers} at a time{before}")
        self._bar = tqdm(total=self._total, initial=len(self._ended), disable=None, unit="run", leave=False)

    def started(self, point: Point, running: int) -> None:
        """A run has started; `running` are under way."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{running} running, latest {point.folder}")

    def retried(self, point: Point, how: str, last_line: str) -> None:
        """A run has failed for the first time."""
        self._say(f"  {point.folder}: {how}; trying once more" + (f" ({last_line})" if last_line else ""))

    def ended(
        self,
        point: Point,
        outcome: str,
        summary: Mapping[str, Any],
        value: float | None,
        reason: str | None,
        seconds: float | None,
    ) -> None:
        """A point has got its lasting outcome, `seconds` after its run started (None: it was found ended)."""
        self._ended.add(point.key)
        if seconds is not None and outcome == "finished":
            self._seconds.append(seconds)
        parts = [f"[{len(self._ended):{len(str(self._total))}}/{self._total}]", f"{point.folder}:", outcome]
        accuracy = summary.get("test_accuracy")
        if outcome == "finished" and isinstance(accuracy, int | float):
            parts.append(f"test accuracy {100 * accuracy:.2f} %")
        if value is not None and self._metric not in (None, "test/accuracy"):
            parts.append(f"{self._metric} {value:g}")
        if reason:
            parts.append(f"({reason})")
        if seconds is not None:
            parts.append(f"in {_duration(seconds)}")
        left = self._time_left()
        if left:
            parts.append(f"— {left}")
        self._say(" ".join(parts))

    def seen(self, results: Sequence[Result], *, running_here: int) -> None:
        """Count what other processes have ended, and say once that only they are still at work."""
        self._ended |= {result.key for result in results if result.outcome in LASTING}
        outcomes = Counter(result.outcome for result in results)
        if self._bar is not None:
            self._bar.n = len(self._ended)
            self._bar.refresh()
        elsewhere = outcomes["running"] - running_here
        if elsewhere > 0 and not running_here and not outcomes["waiting"] and not self._waiting_told:
            self._waiting_told = True
            self._say(f"waiting for {_runs(elsewhere)} of another process")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def _time_left(self) -> str:
        left = self._total - len(self._ended)
        if not left or not self._seconds:
            return ""
        rounds = -(-left // self._workers)
        return f"{left} left, about {_duration(rounds * sum(self._seconds) / len(self._seconds))}"

    def _say(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
