from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tidepool.sweeping.command import build_argv
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.spec import Hyperband, Metric, parse_margin, read_sweep

SEARCH = {"lr": {"min": 0.0, "max": 1.0}}


def test_a_sweep_is_read_whole(read):
    sweep = read(
        name="my sweep",
        description="margin=0.3 points; does it matter?",
        metric={"name": "test/accuracy", "goal": "maximize", "target": 0.99},
        early_terminate={"type": "hyperband", "min_iter": 2},
        project="p",
        entity="e",
        run_cap=2,
    )
    assert (sweep.name, sweep.program, sweep.project, sweep.entity) == ("my sweep", ("fake_train.py",), "p", "e")
    assert sweep.metric == Metric("test/accuracy", True, 0.99)
    assert sweep.early_terminate.bands[:3] == (2, 6, 18)
    assert sweep.margin_points == 0.3
    assert len(sweep.points()) == 2


def test_the_file_names_a_sweep_that_does_not_name_itself(read):
    assert read().name == "try"


def test_every_run_gets_its_folder_names_and_resume(read, tmp_path):
    added = read(project="p").run_params({"seed": 0}, tmp_path / "runs" / "x")
    assert added == {
        "seed": 0, "run_dir": str(tmp_path / "runs" / "x"), "resume": "auto", "group": "try", "name": "x",
        "project": "p", "progress": False,
    }  # fmt: skip
    assert read().run_params({"progress": True, "project": "q"}, tmp_path)["progress"] is True


def test_a_program_is_also_looked_for_beside_sweep_py(write_sweep, workplace, tmp_path_factory, monkeypatch):
    path = write_sweep()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert read_sweep(path, home=workplace).program == (str(workplace / "fake_train.py"),)


def test_a_strangers_train_py_is_not_run_for_a_file_of_the_clone(write_sweep, workplace, tmp_path_factory, monkeypatch):
    path = write_sweep()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "fake_train.py").touch()
    monkeypatch.chdir(elsewhere)
    assert read_sweep(path, home=workplace).program == (str(workplace / "fake_train.py"),)
    own = elsewhere / "own.yaml"
    own.write_text(path.read_text())
    assert read_sweep(own, home=workplace).program == ("fake_train.py",)


@pytest.mark.parametrize("name", ["train", "bench"])
def test_an_installed_copy_runs_its_own_commands(write_sweep, name):
    sweep = read_sweep(write_sweep(program=f"{name}.py"), home=None)
    argv = build_argv(sweep.command, program=sweep.program, params={"seed": 1}, run_dir=Path("runs/x"))
    assert argv == ["/usr/bin/env", sys.executable, "-P", "-m", "tidepool", name, "--seed=1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"program": "trian.py"}, "program: trian.py is not a file in "),
        ({"name": "../up"}, "name: '../up' cannot name a folder"),
        ({"name": "n" * 300}, "name: has 300 letters; it names a folder, so use at most 100"),
        ({"parameters": {"run_dir": {"value": "x"}}}, "parameters.run_dir: the sweep sets run_dir itself"),
        ({"parameters": {"a b": {"value": 1}}}, "parameters.a b: a parameter's name is letters, digits"),
        ({"parameters": SEARCH}, "parameters.lr: a grid cannot go over uniform"),
        ({"parameters": SEARCH, "method": "random"}, "run_cap: is missing; method: random never ends by itself"),
        ({"parameters": SEARCH, "method": "bayes", "run_cap": 3}, "metric: is missing; method: bayes needs a metric"),
        ({"command": ["${program}"]}, "command: has no ${args}"),
        ({"metric": {"name": "x", "impute": "worst"}}, "metric.impute: only W&B's own search reads it"),
        ({"controller": {"type": "cloud"}}, "controller: says where W&B searches"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1}}, "early_terminate: needs a metric to judge runs by"),
        (
            {"early_terminate": {"type": "hyperband"}, "metric": {"name": "x"}},
            "early_terminate: hyperband needs min_iter, or max_iter and s",
        ),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 1, "s": 2}, "metric": {"name": "x"}},
            "early_terminate.s: give either min_iter, or max_iter and s",
        ),
        ({"description": "margin=tiny"}, "description: cannot read 'margin=tiny'; write it as margin=0.3 points"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_in_one_line(read, workplace, changes, message):
    with pytest.raises(SweepError) as caught:
        read(**changes)
    assert str(caught.value).startswith(f"{workplace / 'try.yaml'}: {message}")
    assert "\n" not in str(caught.value)


def test_keys_of_wandbs_own_search_are_let_through_online_only(write_sweep, workplace):
    path = write_sweep(
        metric={"name": "x", "impute": "worst"}, controller={"type": "cloud"}, parameters=SEARCH, method="random"
    )
    assert read_sweep(path, home=workplace, online=True).run_cap is None
    local = write_sweep(controller={"type": "local"})
    with pytest.raises(SweepError, match=r"controller.type: local needs `wandb controller`"):
        read_sweep(local, home=workplace, online=True)


def test_the_largest_hyperband_allowed_can_be_computed(read):
    metric, iterations = {"name": "x"}, 100_000_000
    sweep = read(metric=metric, early_terminate={"type": "hyperband", "min_iter": iterations, "eta": 1000})
    assert sweep.early_terminate == Hyperband((iterations,), 1000.0, True)
    sweep = read(metric=metric, early_terminate={"type": "hyperband", "max_iter": iterations, "s": 100, "eta": 1000})
    assert sweep.early_terminate == Hyperband((100, 100_000), 1000.0, True)


def test_hyperbands_bands_count_back_from_max_iter(read):
    sweep = read(metric={"name": "x"}, early_terminate={"type": "hyperband", "max_iter": 27, "s": 2, "strict": False})
    assert sweep.early_terminate == Hyperband((3, 9), 3.0, False)


@pytest.mark.parametrize(
    ("description", "margin"),
    [
        ("margin=0.3 points; question", 0.3),
        ("Question? Margin = 2 points.", 2.0),
        ("margin=1.5 percentage points", 1.5),
        ("margin=.5%", 0.5),
        ("the margin is not declared", None),
        ("", None),
    ],
)
def test_margins(description, margin):
    assert parse_margin(description) == margin


@pytest.mark.parametrize(
    "description", ["margin=0 points", "margin=0.3", "margin=1 point; margin=2 points", "margin=-1 points"]
)
def test_margins_that_say_nothing_are_refused(description):
    with pytest.raises(SweepError, match=r"^description: "):
        parse_margin(description)
