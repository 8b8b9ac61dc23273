"""A run's metric as it is logged, each line read once."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from tidepool.sweeping.records import as_number


@dataclass
class MetricFollower:
    """Follows one metric in a metrics.jsonl. Iterations count its rows that hold the metric, from 1.

    `at`: the metric at the iterations of `marks` reached so far; `lowest`, `highest` of all so far, NaN left out.
    """

    path: Path
    name: str
    marks: Collection[int]
    at: dict[int, float] = field(default_factory=dict)
    lowest: float = math.inf
    highest: float = -math.inf
    _file: tuple[int, int] = (0, 0)  # its number on the disk, and how far it has been read
    _iterations: int = 0

    def read(self) -> list[int]:
        """Read what has been added since the last call; the marks reached by it. A file that has been replaced or cut
        short, as a run does that resumes from a checkpoint, is read from its start."""
        try:
            with self.path.open("rb") as file:
                state = self.path.stat()
                if self._file[0] != state.st_ino or state.st_size < self._file[1]:
                    self._begin(state.st_ino)
                file.seek(self._file[1])
                added = file.read()
        except OSError:
            return []
        whole = added[: added.rfind(b"\n") + 1]
        self._file = (self._file[0], self._file[1] + len(whole))
        return [mark for line in whole.splitlines() if (mark := self._take(line)) is not None]

    def _begin(self, number: int) -> None:
        self._file, self._iterations = (number, 0), 0
        self.lowest, self.highest = math.inf, -math.inf
        self.at.clear()

    def _take(self, line: bytes) -> int | None:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return None
        value = as_number(row.get(self.name)) if isinstance(row, dict) else None
        if value is None:
            return None
        self._iterations += 1
        if not math.isnan(value):
            self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)
        if self._iterations not in self.marks:
            return None
        self.at[self._iterations] = value
        return self._iterations
