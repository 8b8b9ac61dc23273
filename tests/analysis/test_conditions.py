"""Which runs are repeats of one another."""

from __future__ import annotations

from pathlib import Path

from analysis.conditions import backends, condition_title, conditions
from analysis.records import read_records
from tests.analysis.run_writer import write_run


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
    write_run(runs / "b", config={"ema": True})
    titles = [condition["settings"] for condition, _ in conditions(read_records([runs]).runs)]
    assert titles == ["ema=none", "ema=true"]


def test_reference_comes_last_and_seeds_in_numeric_order(runs: Path) -> None:
    for seed in (10, 9):
        for backend in ("cudnn", "triton", "compile"):
            write_run(runs / f"{backend}{seed}", backend=backend, seed=seed)
    ((_, group),) = conditions(read_records([runs]).runs)
    assert [(name, list(mine["seed"])) for name, mine in backends(group)] == [
        ("compile", [9, 10]), ("triton", [9, 10]), ("cudnn", [9, 10])
    ]  # fmt: skip
