"""Reading run folders: what is found, what is tolerated, what is refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.analysis.runs.run_writer import write_json, write_run, write_sweep
from tidepool.analysis.runs.recording import record
from tidepool.analysis.runs.records import read_records
from tidepool.analysis.runs.tables import all_tables
from tidepool.records import RecordError

ROOT = Path(__file__).resolve().parents[3]


def test_runs_are_found_at_any_depth_and_once(runs: Path) -> None:
    write_run(runs / "single")
    write_sweep(runs / "deep" / "sweep", seeds=2)
    records = read_records([runs, runs / "single", runs / "deep" / "sweep" / "t000"])
    assert sorted(records.runs["run"]) == [
        "runs/deep/sweep/c000", "runs/deep/sweep/c001", "runs/deep/sweep/t000", "runs/deep/sweep/t001", "runs/single"
    ]  # fmt: skip


def test_one_run_folder_given_by_itself(runs: Path) -> None:
    write_run(runs / "only", seed=7, accuracy=0.9)
    (row,) = read_records([runs / "only"]).runs.to_dict("records")
    assert (row["seed"], row["test_accuracy"], row["status"]) == (7, 0.9, "finished")


def test_symlink_loop_ends(runs: Path) -> None:
    write_run(runs / "a")
    (runs / "loop").symlink_to(runs, target_is_directory=True)
    assert len(read_records([runs]).runs) == 1


def test_run_without_summary_is_unfinished_and_keeps_its_metrics(runs: Path) -> None:
    write_run(runs / "a", status=None, steps=12)
    records = read_records([runs])
    assert records.runs["status"].tolist() == ["unfinished"]
    assert records.runs["backend"].tolist() == ["triton"]
    assert (records.metrics["metric"] == "train/loss").sum() == 12


def test_last_line_cut_short_is_counted_without_a_warning(runs: Path) -> None:
    folder = write_run(runs / "a", status=None, steps=12)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"schema_version":1,"step":13,"train/lo')
    records = read_records([runs])
    assert records.runs["damaged_lines"].tolist() == [1]
    assert records.metrics["step"].max() == 12
    assert records.warnings == ()


def test_damaged_line_in_the_middle_is_named(runs: Path) -> None:
    folder = write_run(runs / "a", steps=12)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[2] = "\x00\x00garbage"
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    records = read_records([runs])
    assert records.runs["damaged_lines"].tolist() == [1]
    assert records.warnings == ("runs/a/metrics.jsonl: 1 unreadable lines skipped, first at line 3",)
    assert 3 not in records.metrics["step"].tolist()


def test_step_written_twice_by_a_resumed_run_counts_once_with_its_later_value(runs: Path) -> None:
    folder = write_run(runs / "a", steps=12)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"schema_version": 1, "step": 5, "epoch": 1.0, "time_s": 9.0, "train/loss": 123.0}) + "\n"
        )
    metrics = read_records([runs]).metrics
    loss = metrics[(metrics["metric"] == "train/loss") & (metrics["step"] == 5)]
    assert loss["value"].tolist() == [123.0]
    assert metrics["step"].is_monotonic_increasing


def test_non_finite_strings_become_floats(runs: Path) -> None:
    folder = write_run(runs / "a", status="diverged", accuracy=math.nan, summary={"test_loss": math.inf}, steps=3)
    with (folder / "metrics.jsonl").open("a") as file:
        for step, text in ((4, "NaN"), (5, "Infinity"), (6, "-Infinity")):
            file.write(json.dumps({"schema_version": 1, "step": step, "train/loss": text}) + "\n")
    records = read_records([runs])
    assert math.isnan(records.runs["test_accuracy"].iloc[0])
    assert records.runs["test_loss"].iloc[0] == math.inf
    loss = records.metrics[records.metrics["metric"] == "train/loss"].set_index("step")["value"]
    assert math.isnan(loss[4])
    assert (loss[5], loss[6]) == (math.inf, -math.inf)


@pytest.mark.parametrize("content", ['{"hello": 1}', "[1, 2]", "not json", '{"schema_version": "2.0", "other": 1}', ""])
def test_foreign_json_is_skipped_with_a_line_naming_it(runs: Path, content: str) -> None:
    write_run(runs / "a")
    (runs / "foreign").mkdir()
    (runs / "foreign" / "config.json").write_text(content)
    records = read_records([runs])
    assert len(records.runs) == 1
    (warning,) = records.warnings
    assert warning.startswith("runs/foreign/config.json: ")
    assert warning.endswith(", skipped")
    assert "\n" not in warning


def test_damaged_config_beside_a_good_summary_is_still_a_run(runs: Path) -> None:
    folder = write_run(runs / "a", backend="cudnn", seed=3)
    (folder / "config.json").write_text('{"schema_ver')
    records = read_records([runs])
    assert records.runs[["backend", "seed", "model"]].to_numpy().tolist() == [["cudnn", 3, "lenet5"]]
    assert records.warnings[0].startswith("runs/a/config.json: cannot be read as JSON (")


@pytest.mark.parametrize("name", ["config.json", "summary.json", "environment.json", "metrics.jsonl", "sweep.json"])
@pytest.mark.parametrize("version", [2, 0, "1", True, None])
def test_a_record_of_another_schema_version_is_named_left_out_and_counted(
    runs: Path, name: str, version: object
) -> None:
    folder = write_run(runs / "s" / "other", steps=2)
    write_json(runs / "s" / "sweep.json", {"name": "s"})
    write_run(runs / "good")
    path = runs / "s" / name if name == "sweep.json" else folder / name
    lines = path.read_text().splitlines()
    path.write_text(json.dumps(json.loads(lines[-1]) | {"schema_version": version}) + "\n")
    records = read_records([runs])
    assert records.runs["run"].tolist() == ["runs/good"]
    assert records.left_out == ("runs/s/other",)
    where = f"runs/s/{name}" if name == "sweep.json" else f"runs/s/other/{name}"
    (warning,) = records.warnings
    assert re.fullmatch(rf"{where}( line 1)?: schema_version {version!r}, expected 1; left out", warning)
    assert set(records.metrics["run"]) == {"runs/good"}


def test_a_record_of_a_sweep_that_is_not_whole_is_left_out_and_the_rest_reported(runs: Path) -> None:
    write_run(runs / "good")
    (runs / "damaged").mkdir()
    (runs / "damaged" / "runs.parquet").write_bytes(b"PAR1")
    records = read_records([runs])
    assert records.left_out == ("runs/damaged",)
    assert records.warnings[0].startswith("runs/damaged/manifest.json: missing")


@pytest.mark.parametrize(
    ("name", "value"),
    [("backend", 3), ("model", 1.5), ("data", True), ("status", 7), ("exit_reason", 0.5), ("seed", "x")],
)
def test_values_of_another_type_are_read_as_text_and_named(runs: Path, name: str, value: object) -> None:
    for backend in ("triton", "cudnn"):
        folder = write_run(runs / backend, backend=backend)
        for file in ("config", "summary"):
            record = json.loads((folder / f"{file}.json").read_text())
            (folder / f"{file}.json").write_text(json.dumps(record | {name: value}))
    records = read_records([runs])
    assert len(records.runs) == 2
    assert f"runs/cudnn/config.json: {name} is {value!r}, expected" in "\n".join(records.warnings) or name == "seed"
    assert {"accuracy", "speed", "runs"} <= all_tables(records).keys()


@pytest.mark.parametrize(
    ("name", "value"), [("shuffle_frames", False), ("momentum", 0.9), ("lr", 0.03), ("new_flag", False), ("new", None),
                        ("new_count", 0), ("warmup", 0.25)]
)  # fmt: skip
def test_a_field_that_older_runs_lack_does_not_set_them_apart(runs: Path, name: str, value: object) -> None:
    for seed in range(5):
        older = write_run(runs / f"c{seed}", backend="cudnn", seed=seed, accuracy=0.95 + 0.001 * seed)
        newer = write_run(runs / f"t{seed}", seed=seed, accuracy=0.9501 + 0.0011 * seed)
        for folder in (older, newer):
            record = json.loads((folder / "config.json").read_text())
            record.pop(name, None)
            (folder / "config.json").write_text(json.dumps(record | ({name: value} if folder == newer else {})))
    write_json(runs / "sweep.json", {"name": "s", "margin_points": 1.0})
    accuracy = all_tables(read_records([runs]))["accuracy"]
    assert accuracy[["settings", "equivalence"]].to_numpy().tolist() == [["", "equivalent"], ["", "reference"]]


def test_a_sweep_recorded_as_tables_is_read_from_its_rows() -> None:
    records = read_records([ROOT / "results"])
    expected = ROOT / "results" / "senses_digits" / "accuracy.csv"
    mine = read_records([expected.parent])
    assert all_tables(mine)["accuracy"].to_csv(index=False) == expected.read_text()
    assert set(mine.runs.groupby("model")["parameters"].first()) == {1147722, 50826}
    assert len(records.sweeps) == 7
    assert records.left_out == ()


def test_curves_of_a_recorded_sweep_are_those_of_its_run_folders(runs: Path) -> None:
    folder = write_sweep(runs / "s", seeds=2, steps=7)
    with (folder / "t000" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"schema_version": 1, "step": 5, "train/loss": "NaN"}) + "\n")
    Path("sweeps").mkdir()
    Path("sweeps/s.yaml").write_text("program: train.py\n")
    read, _ = record(folder, Path("results/s"))
    again = read_records(["results"])
    keys = ["run", "step", "metric"]
    frames = [frame.astype({"run": "object", "metric": "object"}).sort_values(keys, ignore_index=True)
              for frame in (read.metrics, again.metrics)]  # fmt: skip
    pd.testing.assert_frame_equal(frames[0][[*keys, "value"]], frames[1][[*keys, "value"]])
    assert frames[1]["value"].isna().sum() == 1


def test_paths_with_nothing_are_one_line(runs: Path) -> None:
    with pytest.raises(RecordError, match=r"^no run records found under .*runs \(expected folders with config.json\)$"):
        read_records([runs])


def test_missing_path_and_file_are_one_line(runs: Path) -> None:
    with pytest.raises(RecordError, match="nowhere: no such folder"):
        read_records([runs / "nowhere"])
    (runs / "file").write_text("x")
    with pytest.raises(RecordError, match="file: a file, where a run folder"):
        read_records([runs / "file"])


def test_margin_is_read_from_the_sweep_beside_the_runs(runs: Path) -> None:
    write_sweep(runs / "s", seeds=1, margin=0.3)
    write_run(runs / "alone")
    records = read_records([runs])
    margins = dict(zip(records.runs["run"], records.runs["margin_points"], strict=True))
    assert margins["runs/s/t000"] == 0.3
    assert math.isnan(margins["runs/alone"])
    assert records.sweeps["runs/s"]["margin_points"] == 0.3


@pytest.mark.parametrize("margin", [0, -1, "0.3 points", True, math.nan])
def test_unusable_margin_is_ignored_with_a_warning(runs: Path, margin: object) -> None:
    write_run(runs / "s" / "a")
    write_json(runs / "s" / "sweep.json", {"name": "s", "margin_points": margin})
    records = read_records([runs])
    assert math.isnan(records.runs["margin_points"].iloc[0])
    assert records.warnings[0].startswith("runs/s/sweep.json: margin_points")


def test_unknown_status_counts_as_failed(runs: Path) -> None:
    write_run(runs / "a", status="exploded")
    records = read_records([runs])
    assert records.runs["status"].tolist() == ["failed"]
    assert "unknown status 'exploded'" in records.warnings[0]


def test_seed_beyond_64_bits_survives(runs: Path) -> None:
    write_run(runs / "a", seed=0, config={"seed": 2**64 + 1})
    assert read_records([runs]).runs["seed"].tolist() == [2**64 + 1]


def test_numbers_too_large_for_a_float_are_infinite(runs: Path) -> None:
    folder = write_run(runs / "a", summary={"test_accuracy": 10**400, "test_loss": -(10**400)}, steps=3)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"schema_version": 1, "step": 4, "train/loss": 10**400}) + "\n")
        file.write(json.dumps({"schema_version": 1, "step": 10**400, "train/loss": 1.0}) + "\n")
    records = read_records([runs])
    assert records.runs[["test_accuracy", "test_loss"]].to_numpy().tolist() == [[math.inf, -math.inf]]
    assert records.metrics["value"].iloc[-1] == math.inf
    assert records.runs["damaged_lines"].tolist() == [1]


def test_numbers_too_long_to_read_are_damage(runs: Path) -> None:
    folder = write_run(runs / "a", steps=3)
    (folder / "summary.json").write_text('{"schema_version": 1, "test_accuracy": ' + "9" * 5000 + "}")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"schema_version": 1, "step": 4, "train/loss": ' + "9" * 5000 + "}\n")
    records = read_records([runs])
    assert records.runs[["status", "damaged_lines"]].to_numpy().tolist() == [["unfinished", 1]]
    assert records.warnings[0].startswith("runs/a/summary.json: cannot be read as JSON (Exceeds the limit")


@pytest.mark.parametrize(("name", "value", "kind"), [("backend", {}, "a mapping"), ("seed", [1], "a list")])
@pytest.mark.parametrize("file", ["config", "summary"])
def test_a_run_named_by_no_single_value_is_skipped(runs: Path, name: str, value: object, kind: str, file: str) -> None:
    folder = write_run(runs / "a")
    write_run(runs / "b")
    record = json.loads((folder / f"{file}.json").read_text())
    (folder / f"{file}.json").write_text(json.dumps(record | {name: value}))
    records = read_records([runs])
    assert records.runs["run"].tolist() == ["runs/b"]
    assert records.warnings == (f"runs/a/{file}.json: run skipped, {name} is {kind}, expected a single value",)


def test_checkpoints_and_wandb_inside_a_run_are_not_runs(runs: Path) -> None:
    folder = write_run(runs / "a")
    write_run(folder / "wandb" / "run-1" / "files")
    write_run(folder / "checkpoints" / "x")
    assert len(read_records([runs]).runs) == 1
