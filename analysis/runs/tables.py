"""The tables of a report, as frames, CSV and Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tidepool.analysis.conditions import CONDITION
from tidepool.analysis.runs.accuracy import accuracy_table, agreement_table
from tidepool.analysis.runs.networks import networks_table
from tidepool.analysis.runs.records import Records, read_records
from tidepool.analysis.runs.speed import speed_table
from tidepool.analysis.runs.views import shown
from tidepool.analysis.text import markdown, write_csv


def all_tables(records: Records) -> dict[str, pd.DataFrame]:
    """The tables a report writes, by file name: accuracy, speed, agreement, runs."""
    return {
        "accuracy": accuracy_table(records),
        "speed": speed_table(records),
        "agreement": agreement_table(records),
        "runs": runs_table(records),
    }


def write_tables(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write each table as ``<name>.csv`` (all columns, full precision, empty where NaN) and ``<name>.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_csv(table, folder / f"{name}.csv")
        (folder / f"{name}.md").write_text(markdown(shown(name, table)), encoding="utf-8")


def recorded_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of the record of one sweep, by name: those of a report, and networks. Raises RecordError."""
    records = read_records([folder])
    return all_tables(records) | {"networks": networks_table(records)}


def runs_table(records: Records) -> pd.DataFrame:
    """Every run, whatever became of it: what it was, how it ended and why, its own numbers."""
    runs = pd.concat([group for _, group in records.groups], ignore_index=True)
    return pd.DataFrame(
        {
            **{name: runs[name] for name in ("run", *CONDITION, "backend", "seed", "status")},
            "reason": [_reason(*row) for row in zip(runs["exit_reason"], runs["status"], strict=True)],
            "test_accuracy_percent": 100 * runs["test_accuracy"],
            **{name: runs[name] for name in ("train_seconds", "steps", "conv_library", "kernel_mode", "sweep")},
            "damaged_metric_lines": runs["damaged_lines"],
        }
    )


def _reason(recorded: Any, status: str) -> str:
    if recorded:
        return str(recorded)
    if status == "unfinished":
        return "no summary: still running, or killed"
    return "" if status == "finished" else "no reason recorded"
