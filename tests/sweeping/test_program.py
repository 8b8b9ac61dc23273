"""sweep.py from its arguments to its exit code, with a program that takes milliseconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeping.conftest import starts
from tests.sweeping.small_sweep import RUNS, finished_folders, parameters
from tidepool.sweeping import argument_check, runner


def test_a_sweep_runs_compares_and_reports(write_sweep, run_sweep, capsys):
    path = write_sweep(description="margin=1 points; q", metric={"name": "test/accuracy", "goal": "maximize"})
    assert run_sweep(path, "--workers", 2) == 0
    out = capsys.readouterr().out
    assert "3 runs, 2 at a time" in out
    assert "[3/3] seed-" in out
    assert "test accuracy 92.00 %" in out
    assert "comparison of" not in out  # one backend
    assert "Best run, highest test/accuracy: runs/try/seed-2_" in out
    assert "It is repeated by: python fake_train.py --backend=cudnn --seed=2" in out
    assert "report: runs/try/report/report.html" in out
    folders = finished_folders()
    assert len(folders) == 3
    assert (RUNS / "report" / "report.html").read_text().split() == [folder.name for folder in folders]
    assert all((folder / "output.log").exists() for folder in folders)
    assert json.loads((RUNS / "sweep.json").read_text())["margin_points"] == 1.0


def test_a_metric_of_the_test_split_is_one_warning(write_sweep, run_sweep, capsys):
    assert run_sweep(write_sweep(metric={"name": "test/accuracy", "goal": "maximize"})) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "metric.name: test/accuracy chooses by the test split" in warning
    assert "val/accuracy is for choosing" in warning
    assert run_sweep(write_sweep(name="other", metric={"name": "val/accuracy", "goal": "maximize"})) == 0
    assert "warning" not in capsys.readouterr().err


def test_the_same_command_again_runs_nothing_and_reports_again(write_sweep, run_sweep, capsys):
    path = write_sweep()
    assert run_sweep(path) == 0
    first = starts(RUNS)
    (RUNS / "report" / "report.html").unlink()
    assert run_sweep(path) == 0
    assert "3 already done" in capsys.readouterr().out
    assert starts(RUNS) == first
    assert (RUNS / "report" / "report.html").exists()


def test_values_added_to_a_grid_are_the_only_ones_run(write_sweep, run_sweep):
    assert run_sweep(write_sweep(parameters=parameters(seed=[0, 1]))) == 0
    assert run_sweep(write_sweep(parameters=parameters(seed=[2, 0, 1]))) == 0
    assert sorted(starts(RUNS).values()) == [1, 1, 1]


def test_another_sweep_under_the_same_name_is_refused_until_it_is_reset(write_sweep, run_sweep, capsys):
    assert run_sweep(write_sweep()) == 0
    before = (RUNS / "sweep.json").read_bytes()
    path = write_sweep(parameters=parameters(seed=[7]))
    for storage in ([], ["--storage", "sqlite:///runs/try/sweep.db"]):
        capsys.readouterr()
        assert run_sweep(path, *storage) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "parameters.seed: has no place for seed=0, which has been run (3 runs would have no place)" in error
        assert "give the sweep another name, or begin it anew with --reset, which sets its runs aside" in error
    assert (RUNS / "sweep.json").read_bytes() == before
    assert run_sweep(path, "--reset") == 0
    assert len(list(Path("runs/try.before-1").glob("*/summary.json"))) == 3
    (folder,) = finished_folders()
    assert json.loads((RUNS / "points" / f"{folder.name}.json").read_text())["params"]["seed"] == 7
    assert run_sweep(path, "--reset") == 0
    assert Path("runs/try.before-2").is_dir()


def test_a_sweep_of_which_nothing_is_done_may_be_edited_at_will(write_sweep, run_sweep):
    assert run_sweep(write_sweep(parameters=parameters(how="refused"))) == 1
    metric = {"name": "test/accuracy", "goal": "maximize"}
    assert run_sweep(write_sweep(method="random", run_cap=2, metric=metric)) == 0
    assert len([folder for folder in finished_folders() if folder.name.startswith("run-")]) == 2


def test_failed_and_diverged_runs_are_counted_reported_and_not_run_for_ever(write_sweep, run_sweep, capsys):
    path = write_sweep(parameters=parameters(seed=0, how=["finished", "crash", "diverged", "silent"]))
    assert run_sweep(path, "--workers", 2) == 0
    out = capsys.readouterr().out
    assert "2 failed, 1 diverged of 4 runs; to run one again, remove its folder\n" in out
    assert "(exit code 1: the disk is on fire)" in out
    assert "(exit code 0 but no record of a finished run)" in out
    count = {folder.split("_")[0]: number for folder, number in starts(RUNS).items()}
    assert count == {"how-finished": 1, "how-crash": 2, "how-diverged": 1, "how-silent": 2}
    assert run_sweep(path) == 0
    assert sum(starts(RUNS).values()) == 6
    crashed = next(folder for folder in finished_folders() if "crash" in folder.name)
    assert json.loads((crashed / "summary.json").read_text())["status"] == "failed"


def test_a_sweep_of_which_nothing_finished_ends_with_1(write_sweep, run_sweep, capsys):
    assert run_sweep(write_sweep(parameters=parameters(seed=0, how=["crash", "diverged"])), "--retries", 0) == 1
    assert capsys.readouterr().err == "tidepool sweep: no run finished; to run one again, remove its folder\n"
    assert sorted(starts(RUNS).values()) == [1, 1]


def test_max_failures_and_limits_of_time_stop_a_sweep(write_sweep, run_sweep, capsys):
    path = write_sweep(parameters=parameters(how="diverged", seed=[0, 1, 2, 3]))
    assert run_sweep(path, "--workers", 1, "--max_failures", 2) == 1
    assert "2 points failed, diverged or were refused, and --max_failures is reached" in capsys.readouterr().err
    assert sum(starts(RUNS).values()) == 2
    slow = write_sweep("slow", parameters=parameters(seed=[0, 1], sleep=60))
    assert run_sweep(slow, "--workers", 1, "--budget_s", 0.5) == 143
    assert "the time is up: stopped with 0 of 2 runs done; the same command resumes" in capsys.readouterr().err
    assert run_sweep(slow, "--workers", 2, "--run_limit_s", 0.5) == 1
    assert capsys.readouterr().out.count("(took longer than --run_limit_s, 0.5 s)") == 4


def test_a_run_that_fails_once_gets_a_second_chance(write_sweep, run_sweep, capsys):
    assert run_sweep(write_sweep(parameters=parameters(seed=0, how="crash_once"))) == 0
    assert "exit code 1; trying again (the disk is on fire)" in capsys.readouterr().out


def test_a_refused_point_fails_alone_with_its_reason(write_sweep, run_sweep, capsys):
    path = write_sweep(parameters=parameters(seed=0, how=["refused", "finished", "diverged"]))
    assert run_sweep(path, "--workers", 1) == 0
    out = capsys.readouterr().out
    assert "(fake_train.py: backend='cudnn'; expected triton or cudnn)" in out
    assert "1 refused, 1 diverged of 3 runs" in out
    assert run_sweep(path) == 0
    assert sorted(starts(RUNS).values()) == [1, 1, 1]


def test_a_sweep_whose_first_runs_are_all_refused_stops_and_goes_on_once_mended(
    write_sweep, run_sweep, capsys, monkeypatch, workplace
):
    monkeypatch.setattr(runner, "FIRST_REFUSED", 3)
    path = write_sweep(parameters=parameters(backend="tritn", how="refused", seed=list(range(5))))
    assert run_sweep(path, "--workers", 1) == 1
    error = capsys.readouterr().err
    assert "the first 3 runs refused their arguments: fake_train.py: backend='tritn'; expected triton or cudnn" in error
    assert error.count("\n") == 1
    assert sum(starts(RUNS).values()) == 3
    program = workplace / "fake_train.py"
    program.write_text(program.read_text().replace('how == "refused"', "False"))
    assert run_sweep(path, "--workers", 2) == 0
    assert len(finished_folders()) == 5


def test_what_the_program_does_not_take_is_refused_before_anything_is_made(write_sweep, run_sweep, capsys, monkeypatch):
    path = write_sweep(program="train.py", parameters=parameters(learnrate=0.1, width=[4, 8], model=["mlp", "convnet"]))
    assert run_sweep(path, "--dry_run") == 2
    error = capsys.readouterr().err
    assert error.endswith("parameters.learnrate: train.py has no learnrate; did you mean lr?\n")
    assert error.count("\n") == 1

    def only_convnet_has_a_width(module, argument_lists):
        has_no_width = [any("width" in word for word in words) and "--model=mlp" in words for words in argument_lists]
        return ["no width" if missing else None for missing in has_no_width]

    monkeypatch.setattr(argument_check, "_ask", lambda module, argument_lists: ["no"] * len(argument_lists))
    assert run_sweep(path) == 2
    assert not Path("runs").exists()
    monkeypatch.setattr(argument_check, "_ask", only_convnet_has_a_width)
    assert run_sweep(path, "--dry_run") == 0


def test_a_sweep_ends_when_a_run_reaches_the_target(write_sweep, run_sweep, capsys):
    metric = {"name": "test/accuracy", "goal": "maximize", "target": 0.905}
    path = write_sweep(metric=metric, parameters=parameters(seed=[0, 1, 2, 3]))
    assert run_sweep(path, "--workers", 1) == 0
    assert run_sweep(path, "--workers", 1) == 0
    assert sum(starts(RUNS).values()) == 2
    assert "test/accuracy has reached its target 0.905; no further runs were started" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_search_makes_run_cap_runs(write_sweep, run_sweep, method):
    path = write_sweep(
        method=method,
        run_cap=4,
        metric={"name": "test/accuracy", "goal": "maximize"},
        parameters={"lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 1.0}, "seed": {"value": 0}},
    )
    assert run_sweep(path, "--workers", 2) == 0
    assert run_sweep(path, "--workers", 2) == 0
    assert sorted(starts(RUNS).values()) == [1, 1, 1, 1]
    rates = {json.loads((folder / "config.json").read_text())["lr"] for folder in finished_folders()}
    assert len(rates) == 4


def test_hyperband_stops_the_run_that_lags(write_sweep, run_sweep, capsys):
    path = write_sweep(
        metric={"name": "test/accuracy", "goal": "maximize"},
        early_terminate={"type": "hyperband", "min_iter": 1, "eta": 2},
        parameters={"lr": {"values": [0.1, 0.2, 0.5]}, "seed": {"value": 0}, "sleep": {"value": 4}},
    )
    assert run_sweep(path, "--workers", 3) == 0
    out = capsys.readouterr().out
    assert out.count("finished test accuracy") == 2
    assert "lr-0.5" in out.partition("stopped (stopped early by hyperband)")[0].splitlines()[-1]
    assert run_sweep(path) == 0
    assert sum(starts(RUNS).values()) == 3


def test_a_dry_run_prints_every_command_and_touches_nothing(write_sweep, run_sweep, capsys, workplace):
    path = write_sweep()
    before = sorted(workplace.rglob("*"))
    assert run_sweep(path, "--dry_run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[-1] == "3 runs"
    assert lines[1].startswith(
        f"/usr/bin/env {sys.executable} fake_train.py --backend=cudnn --seed=1 --run_dir=runs/try/"
    )
    assert sorted(workplace.rglob("*")) == before


def test_a_dry_run_online_prints_wandbs_commands_for_a_search_without_end(write_sweep, run_sweep, capsys):
    path = write_sweep(method="random", parameters={"lr": {"min": 0.0, "max": 1.0}})
    assert run_sweep(path, "--dry_run") == 2
    assert "run_cap: is missing" in capsys.readouterr().err
    assert run_sweep(path, "--online", "--dry_run") == 0
    assert "wandb sweep --project tidepool" in capsys.readouterr().out


def test_a_dry_run_of_a_search_says_what_is_known(write_sweep, run_sweep, capsys):
    search = {"run_cap": 2, "parameters": {"lr": {"min": 0.0, "max": 1.0}}, "metric": {"name": "test/loss"}}
    assert run_sweep(write_sweep(method="random", **search), "--dry_run") == 0
    random = capsys.readouterr().out
    assert random.count("--lr=0.") == 2
    assert run_sweep(write_sweep(method="bayes", **search), "--dry_run") == 0
    out = capsys.readouterr().out
    assert "'--lr=<uniform: min 0.0, max 1.0>'" in out
    assert out.count("--lr=0.") == 1
    assert out.endswith("2 runs: 1 drawn beforehand, as above, and each of the others chosen from the results of those "
                        "before it\n")  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["absent.yaml"], "absent.yaml: no such sweep file"),
        ([], "the following arguments are required: file"),
        (["try.yaml", "--worker", "2"], "unrecognized arguments: --worker 2"),
        (["try.yaml", "--workers", "0"], "argument --workers: '0' is not a whole number of 1 or more"),
        (["try.yaml", "--storage", "redis://x"], "--storage: redis"),
        (["try.yaml", "--storage", "sqlite:///absent/x.db"], "--storage: absent/x.db.lock cannot be written"),
        (["try.yaml", "--status"], "the sweep try has not been started: there is no runs/try/sweep.db"),
        (["try.yaml", "--status", "--online"], "--status: W&B shows how far an --online sweep is"),
        (["try.yaml", "--reset", "--dry_run"], "--reset: does not go with --dry_run or --status"),
        (["try.yaml", "--budget_s", "0"], "argument --budget_s: '0' is not a number of seconds above 0"),
        (
            ["try.yaml", "--storage", "sqlite:///x.db", "--online"],
            "--storage: W&B keeps the state of an --online sweep",
        ),
        (["try.yaml", "--online"], "--online: no W&B key for api.wandb.ai: run `wandb login`, or set WANDB_API_KEY"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(write_sweep, run_sweep, capsys, monkeypatch, arguments, reason):
    monkeypatch.setenv("NETRC", "/dev/null")
    write_sweep()
    assert run_sweep(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("tidepool sweep: ")
    assert reason in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


def test_the_sweeps_own_process_imports_no_torch(write_sweep):
    code = (
        "import sys; from tidepool.sweeping import conclusion, program; "
        "import tidepool.analysis.report, tidepool.analysis.runs.tables; "
        "conclusion._report = lambda sweep, folders, out, complain: None; program.main(sys.argv[1:]); "
        "sys.exit(sorted({'torch', 'triton', 'tidepool.kernels', 'wandb'} & set(sys.modules)))"
    )
    search = {"method": "bayes", "run_cap": 1, "metric": {"name": "test/accuracy"}}
    path = write_sweep(**search, parameters={"lr": {"min": 0.0, "max": 1.0}, "how": {"value": "diverged"}})
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "[]"


def test_what_names_one_run_to_wandb_does_not_reach_the_runs(write_sweep, run_sweep, monkeypatch, workplace):
    names = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RESUME", "WANDB_NAME", "WORLD_SIZE")
    for name in names:
        monkeypatch.setenv(name, "left")
    program = workplace / "fake_train.py"
    program.write_text(program.read_text().replace("def main():\n", "def main():\n    print(sorted(os.environ))\n", 1))
    assert run_sweep(write_sweep(parameters=parameters(seed=0))) == 0
    (log,) = RUNS.glob("*/output.log")
    assert not [name for name in names if f"'{name}'" in log.read_text()]


def test_values_reach_the_program_as_they_are_and_run_nothing(write_sweep, run_sweep, workplace):
    values = [
        "1;touch X",
        "$(touch X)",
        "`touch X`",
        "a b",
        'it\'s "quoted"',
        "two\nlines",
        "ü漢",
        "--x=1",
        "$HOME",
        "*",
    ]
    assert run_sweep(write_sweep(parameters=parameters(seed=0, data=values))) == 0
    assert sorted(json.loads((f / "config.json").read_text())["data"] for f in finished_folders()) == sorted(values)
    assert not list(workplace.rglob("X"))


def test_a_program_that_logs_a_number_beyond_floats_is_no_ones_end(write_sweep, run_sweep, workplace):
    program = workplace / "fake_train.py"
    program.write_text(program.read_text().replace("else accuracy,", "else 10**400,"))
    assert run_sweep(write_sweep(metric={"name": "test/accuracy", "goal": "maximize"})) == 0


def test_status_says_how_far_a_sweep_is(write_sweep, run_sweep, capsys):
    metric = {"name": "test/accuracy", "goal": "maximize"}
    path = write_sweep(metric=metric, parameters=parameters(how=["finished", "diverged"], seed=[0, 1]))
    assert run_sweep(path) == 0
    capsys.readouterr()
    before = sorted(Path().rglob("*"))
    assert run_sweep(path, "--status") == 0
    out = capsys.readouterr().out
    assert out.startswith("try: 4 points, 2 finished, 2 diverged\n")
    assert "Best run, highest test/accuracy: runs/try/seed-1_how-finished_" in out
    assert sorted(Path().rglob("*")) == before
