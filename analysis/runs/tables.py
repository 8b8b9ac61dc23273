"""The tables of a report, as frames, CSV and Markdown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tidepool.analysis.conditions import conditions
from tidepool.analysis.runs.accuracy import accuracy_table, agreement_table
from tidepool.analysis.runs.networks import networks_table
from tidepool.analysis.runs.records import Records, read_records
from tidepool.analysis.runs.speed import speed_table
from tidepool.analysis.runs.views import shown
from tidepool.analysis.text import markdown


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
        table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        (folder / f"{name}.md").write_text(markdown(shown(name, table)), encoding="utf-8")


def recorded_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of the record of one sweep, by name: those of a report, and networks. Raises RecordError."""
    records = read_records([folder])
    return all_tables(records) | {"networks": networks_table(records)}


def runs_table(records: Records) -> pd.DataFrame:
    """Every run, whatever became of it: what it was, how it ended and why, its own numbers."""
    frames = []
    for condition, group in conditions(records.runs):
        frame = pd.DataFrame({"run": group["run"], **condition, "backend": group["backend"], "seed": group["seed"]})
        frame["status"] = group["status"]
        frame["reason"] = [_reason(run) for _, run in group.iterrows()]
        frame["test_accuracy_percent"] = 100 * group["test_accuracy"]
        frame["train_seconds"] = group["train_seconds"]
        frame["steps"] = group["steps"]
        frame["conv_library"], frame["kernel_mode"] = group["conv_library"], group["kernel_mode"]
        frame["sweep"], frame["damaged_metric_lines"] = group["sweep"], group["damaged_lines"]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _reason(run: pd.Series) -> str:
    if run["exit_reason"]:
        return str(run["exit_reason"])
    if run["status"] == "unfinished":
        return "no summary: still running, or killed"
    return "" if run["status"] == "finished" else "no reason recorded"
