"""Which runs are repeats of one another."""

from __future__ import annotations

from pathlib import Path

from tests.analysis.runs.run_writer import write_run
from tidepool.analysis.conditions import backends, condition_title, conditions
from tidepool.analysis.runs.records import read_records


def test_runs_of_other_settings_are_not_pooled(runs: Path) -> None:
    for index, lr in enumerate((0.05, 0.1)):
        for seed in (0, 1):
            write_run(runs / f"{index}{seed}", seed=seed, config={"lr": lr})
    found = [(condition_title(c), len(group)) for c, group in conditions(read_records([runs]).runs)]
    assert found == [("lenet5 on digits, fp32; lr=0.05", 2), ("lenet5 on digits, fp32; lr=0.1", 2)]


def test_the_same_data_in_another_place_is_compared_and_its_place_not_named(runs: Path) -> None:
    write_run(runs / "a", backend="triton", config={"data_dir": "/disks/one"})
    write_run(runs / "b", backend="cudnn", config={"data_dir": "/home/someone/data"})
    ((condition, group),) = conditions(read_records([runs]).runs)
    assert condition["settings"] == ""
    assert group["backend"].tolist() == ["triton", "cudnn"]


def test_a_seed_too_large_for_a_float_has_its_place(runs: Path) -> None:
    for seed in (10**400, 5):
        write_run(runs / f"{seed % 7}", seed=0, config={"seed": seed})
    ((_, group),) = conditions(read_records([runs]).runs)
    assert group["seed"].tolist() == [5, 10**400]


def test_names_folders_and_logging_do_not_divide_runs(runs: Path) -> None:
    write_run(runs / "a", config={"name": "a", "group": "x", "log_every": 1, "device": "cpu"})
    write_run(runs / "b", config={"name": "b", "group": "y", "log_every": 9, "device": "auto", "track": "off"})
    ((condition, group),) = conditions(read_records([runs]).runs)
    assert condition["settings"] == ""
    assert len(group) == 2


def test_a_field_that_one_run_lacks_divides(runs: Path) -> None:
    write_run(runs / "a")
    write_run(runs / "b", config={"lookahead": True})
    titles = [condition["settings"] for condition, _ in conditions(read_records([runs]).runs)]
    assert titles == ["lookahead=none", "lookahead=true"]


def test_a_record_older_than_a_field_is_with_those_that_had_it_at_its_default(runs: Path) -> None:
    write_run(runs / "older", seed=0)
    write_run(runs / "newer", seed=1, config={"shuffle_frames": False, "held_out_speaker": None})
    write_run(runs / "other", seed=2, config={"shuffle_frames": True, "held_out_speaker": None})
    found = [(condition["settings"], list(group["seed"])) for condition, group in conditions(read_records([runs]).runs)]
    assert found == [("shuffle_frames=false", [0, 1]), ("shuffle_frames=true", [2])]


def test_reference_comes_last_and_seeds_in_numeric_order(runs: Path) -> None:
    for seed in (10, 9):
        for backend in ("cudnn", "triton", "compile"):
            write_run(runs / f"{backend}{seed}", backend=backend, seed=seed)
    ((_, group),) = conditions(read_records([runs]).runs)
    assert [(name, list(mine["seed"])) for name, mine in backends(group)] == [
        ("compile", [9, 10]), ("triton", [9, 10]), ("cudnn", [9, 10])
    ]  # fmt: skip
