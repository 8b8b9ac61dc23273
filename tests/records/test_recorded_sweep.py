"""The record of a sweep: what was written is read back, and what is wrong with it is said in one line."""

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tidepool.records import RecordError, write_json
from tidepool.records.recorded_sweep import (
    RecordedSweep,
    is_recorded_sweep,
    problems,
    read_recorded_sweep,
    write_recorded_sweep,
)

RUNS = [
    {"run": "b", "status": "finished", "seed": 2**64, "config/lr": 1, "config/skips": True, "test_loss": 0.1},
    {"run": "a", "status": None, "seed": 0, "config/lr": 0.5, "config/skips": False, "test_loss": math.inf},
    {"run": "c", "status": "failed", "seed": None, "config/lr": "0.5", "config/skips": None, "config/sizes": [1, 2]},
]
CURVES = [
    {"run": "a", "step": 2, "epoch": 1.0, "time_s": 0.2, "train/loss": math.nan},
    {"run": "a", "step": 1, "epoch": 0.5, "time_s": 0.1, "train/loss": 0.5, "test/accuracy": 0.25},
]
RECORD = RecordedSweep(runs=RUNS, curves=CURVES, sweep={"name": "s"}, environment={"commit": "0123"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole record, named relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    write_recorded_sweep(Path("s"), RECORD)
    return Path("s")


def test_values_come_back_as_they_were_whatever_their_kinds(folder: Path) -> None:
    read = read_recorded_sweep(folder)
    assert [row["run"] for row in read.runs] == ["a", "b", "c"]
    by_run = {row["run"]: row for row in RUNS}
    for row in read.runs:
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value for name, value in by_run[row["run"]].items() if value is not None
        }
        assert type(row["config/lr"]) is type(by_run[row["run"]]["config/lr"])
    assert [(row["step"], row["test/accuracy"]) for row in read.curves] == [(1, 0.25), (2, None)]
    assert math.isnan(read.curves[1]["train/loss"])
    assert read.sweep == {"schema_version": 1, "name": "s"}
    assert read.environment == {"schema_version": 1, "commit": "0123"}


def test_a_column_of_one_kind_is_a_column_of_that_type(folder: Path) -> None:
    schema = pq.read_schema(folder / "runs.parquet")
    kinds = {name: str(schema.field(name).type) for name in ("run", "config/skips", "test_loss")}
    assert kinds == {"run": "string", "config/skips": "bool", "test_loss": "double"}
    assert schema.field("config/lr").metadata == {b"encoding": b"json"}


def test_the_same_rows_in_another_order_give_the_same_bytes(folder: Path) -> None:
    again = RecordedSweep(runs=RUNS, curves=CURVES[::-1], sweep=RECORD.sweep, environment=RECORD.environment)
    write_recorded_sweep(Path("again"), again)
    assert {path.name: path.read_bytes() for path in Path("again").iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_no_curve_is_no_row(tmp_path: Path) -> None:
    write_recorded_sweep(tmp_path, RecordedSweep(runs=RUNS, curves=[], sweep={}, environment={}))
    assert read_recorded_sweep(tmp_path).curves == []
    assert json.loads((tmp_path / "manifest.json").read_text())["files"]["curves.parquet"]["rows"] == 0


@pytest.mark.parametrize("name", ["runs.parquet", "curves.parquet", "sweep.json", "environment.json"])
def test_a_file_that_is_missing_or_changed_is_named(folder: Path, name: str) -> None:
    assert problems(folder) == []
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content + b"\n")
    changed = f"s/{name}: not as it was recorded, its SHA-256 differs from that in manifest.json"
    assert problems(folder) == [changed]
    (folder / name).unlink()
    assert problems(folder) == [f"s/{name}: missing, though manifest.json names it"]
    with pytest.raises(RecordError, match=rf"^s/{name}: missing"):
        read_recorded_sweep(folder)


def test_another_schema_version_is_named(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", manifest | {"schema_version": 2})
    assert problems(folder) == ["s/manifest.json: schema_version 2, expected 1"]
    write_recorded_sweep(folder, RecordedSweep(runs=RUNS, curves=[], sweep={"schema_version": 7}, environment={}))
    assert problems(folder) == ["s/sweep.json: schema_version 7, expected 1"]


def test_a_manifest_that_says_too_little_is_named(folder: Path) -> None:
    write_json(folder / "manifest.json", {"files": {"runs.parquet": {}}})
    names = ("runs.parquet", "curves.parquet", "sweep.json", "environment.json")
    assert problems(folder) == [f"s/manifest.json: has no SHA-256 of {name}" for name in names]
    (folder / "manifest.json").unlink()
    assert problems(folder) == ["s/manifest.json: missing, so nothing says whether the record is whole"]


def test_a_damaged_record_is_still_seen_to_be_one() -> None:
    assert is_recorded_sweep(["runs.parquet"])
    assert is_recorded_sweep(["manifest.json", "sweep.json"])
    assert not is_recorded_sweep(["manifest.json", "index.html"])
