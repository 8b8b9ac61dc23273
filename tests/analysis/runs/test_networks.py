"""Parameters, accuracy, and the accuracy on parts of the labels, from the rows of metrics.jsonl."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.runs.run_writer import write_json, write_run
from tidepool.analysis.runs.networks import networks_table
from tidepool.analysis.runs.recording import record
from tidepool.analysis.runs.records import read_records
from tidepool.analysis.runs.tables import recorded_tables


def _with_parts(folder: Path, *evaluations: tuple[int, float, float], **options: Any) -> Path:
    """A run on moving digits that was evaluated at these steps, with these accuracies on digit and direction."""
    write_run(folder, backend="cudnn", **options)
    with (folder / "metrics.jsonl").open("a") as file:
        for step, digit, direction in evaluations:
            row = {"schema_version": 1, "step": step, "epoch": 1.0, "time_s": 1.0}
            row |= {"test/digit_accuracy": digit, "test/direction_accuracy": direction}
            file.write(json.dumps(row) + "\n")
    return folder


def test_parts_are_those_of_the_last_evaluation_and_averaged_over_seeds(runs: Path) -> None:
    for seed, (digit, direction) in enumerate([(0.9, 1.0), (0.8, 0.5)]):
        config = {"shuffle_frames": False}
        _with_parts(runs / f"a{seed}", (30, 0.1, 0.1), (60, digit, direction), seed=seed, accuracy=0.7, config=config)
    _with_parts(runs / "b", (60, 0.6, 0.25), accuracy=0.2, config={"shuffle_frames": True})
    table = networks_table(read_records([runs]))
    assert table["settings"].tolist() == ["shuffle_frames=false", "shuffle_frames=true"]
    assert table["n_finished"].tolist() == [2, 1]
    assert table["parameters"].tolist() == [61706, 61706]
    assert table["digit_accuracy_mean_percent"].tolist() == pytest.approx([85, 60])
    assert table["direction_accuracy_mean_percent"].tolist() == pytest.approx([75, 25])
    assert table["direction_accuracy_std_points"][0] == pytest.approx(50 / math.sqrt(2))
    assert math.isnan(table["direction_accuracy_std_points"][1])
    assert table["test_accuracy_mean_percent"].tolist() == pytest.approx([70, 20])


def test_runs_that_did_not_finish_are_counted_and_left_out_of_the_means(runs: Path) -> None:
    write_run(runs / "a", backend="cudnn", accuracy=0.5)
    write_run(runs / "b", backend="cudnn", seed=1, accuracy=0.1, status="diverged")
    write_run(runs / "c", backend="cudnn", seed=2, status=None)
    (row,) = networks_table(read_records([runs])).to_dict("records")
    assert (row["n_finished"], row["n_not_finished"], row["test_accuracy_mean_percent"]) == (1, 2, 50)
    assert not any("digit" in name for name in row)


def test_parameters_that_differ_are_not_given(runs: Path) -> None:
    write_run(runs / "a", backend="cudnn")
    write_run(runs / "b", backend="cudnn", seed=1, summary={"parameters": 5})
    assert math.isnan(networks_table(read_records([runs]))["parameters"][0])


def test_a_recorded_sweep_holds_the_table(runs: Path) -> None:
    Path("sweeps").mkdir()
    Path("sweeps/videos.yaml").write_text("name: videos\n")
    _with_parts(runs / "videos" / "a", (60, 0.5, 1.0))
    write_json(runs / "videos" / "sweep.json", {"name": "videos", "margin_points": None})
    record(runs / "videos", Path("results/videos"))
    header, row = recorded_tables(Path("results/videos"))["networks"].to_csv(index=False).splitlines()
    assert header.endswith("direction_accuracy_mean_percent,direction_accuracy_std_points")
    assert row.startswith("digits,lenet5,fp32,,cudnn,61706.0,1,0,97.0,")
