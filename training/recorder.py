"""metrics.jsonl: the rows of a run as they come, and which of them a checkpoint stands behind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidepool.records import MetricsWriter, Row
from tidepool.training.checkpoint import Progress
from tidepool.training.observer import Observer


class Recorder(Observer):
    """Appends every row to the file at `path`."""

    def __init__(self, path: Path) -> None:
        self._writer = MetricsWriter(path)

    def row(self, row: Mapping[str, Any]) -> None:
        """Hand a row to the file."""
        self._writer.write(dict(row))

    def closing(self) -> None:
        """Bring all rows to the disk."""
        self._writer.close()


def rows_until(rows: list[Row], progress: Progress) -> list[Row]:
    """Those of a run's rows that a checkpoint with `progress` stands behind; what came after it will come again, and so
    will what the test split gives, at the end."""
    return [
        row
        for row in rows
        if "test/loss" not in row and row["step"] <= (progress.evaluated_step if "val/loss" in row else progress.step)
    ]
