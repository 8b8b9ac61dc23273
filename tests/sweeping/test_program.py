"""sweep.py from its arguments to its exit code, with a program that takes milliseconds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sweeping.conftest import starts

REPOSITORY = Path(__file__).resolve().parents[2]
SWEEP = [sys.executable, str(REPOSITORY / "sweep.py")]
RUNS = Path("runs/try")


def parameters(**changes: object) -> dict[str, object]:
    given = {"backend": "cudnn", "seed": [0, 1, 2], **changes}
    return {name: {"values": value} if isinstance(value, list) else {"value": value} for name, value in given.items()}


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def finished_folders() -> list[Path]:
    return sorted(path.parent for path in RUNS.glob("*/summary.json"))


def test_a_sweep_runs_compares_and_reports(write_sweep, run_sweep, capsys):
    path = write_sweep(description="margin=1 points; q", metric={"name": "test/accuracy", "goal": "maximize"})
    assert run_sweep(path, "--workers", 2) == 0
    out = capsys.readouterr().out
    assert "3 runs, 2 at a time" in out
    assert "[3/3] seed-" in out
    assert "test accuracy 92.00 %" in out
    assert "comparison of 3 runs" in out
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


def test_another_sweep_under_the_same_name_is_refused(write_sweep, run_sweep, capsys):
    assert run_sweep(write_sweep()) == 0
    before = (RUNS / "sweep.json").read_bytes()
    assert run_sweep(write_sweep(parameters=parameters(seed=[0]))) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "parameters.seed: differs from runs/try/sweep.json; give the sweep another name or remove" in error
    assert (RUNS / "sweep.json").read_bytes() == before


def test_failed_and_diverged_runs_are_counted_reported_and_not_run_for_ever(write_sweep, run_sweep, capsys):
    path = write_sweep(parameters=parameters(seed=0, how=["finished", "crash", "diverged", "silent"]))
    assert run_sweep(path, "--workers", 2) == 1
    streams = capsys.readouterr()
    assert streams.err == "tidepool sweep: 2 failed, 1 diverged of 4 runs; to run one again, remove its folder\n"
    assert "comparison of 4 runs" in streams.out
    assert "(exit code 1: the disk is on fire)" in streams.out
    assert "(exit code 0 but no record of a finished run)" in streams.out
    count = {folder.split("_")[0]: number for folder, number in starts(RUNS).items()}
    assert count == {"how-finished": 1, "how-crash": 2, "how-diverged": 1, "how-silent": 2}
    assert run_sweep(path) == 1
    assert sum(starts(RUNS).values()) == 6
    crashed = next(folder for folder in finished_folders() if "crash" in folder.name)
    assert json.loads((crashed / "summary.json").read_text())["status"] == "failed"


def test_a_run_that_fails_once_gets_a_second_chance(write_sweep, run_sweep, capsys):
    assert run_sweep(write_sweep(parameters=parameters(seed=0, how="crash_once"))) == 0
    assert "exit code 1; trying once more (the disk is on fire)" in capsys.readouterr().out


def test_a_run_that_refuses_its_arguments_stops_the_sweep_with_its_own_words(write_sweep, run_sweep, capsys):
    path = write_sweep(parameters=parameters(backend="tritn", how="refused"))
    assert run_sweep(path, "--workers", 1) == 2
    error = capsys.readouterr().err
    assert error.endswith("a run refused its arguments: fake_train.py: backend='tritn'; expected triton or cudnn\n")
    assert error.count("\n") == 1
    assert sum(starts(RUNS).values()) == 1


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


def test_a_dry_run_of_a_search_says_what_is_known(write_sweep, run_sweep, capsys):
    search = {"run_cap": 2, "parameters": {"lr": {"min": 0.0, "max": 1.0}}, "metric": {"name": "test/loss"}}
    assert run_sweep(write_sweep(method="random", **search), "--dry_run") == 0
    random = capsys.readouterr().out
    assert random.count("--lr=0.") == 2
    assert run_sweep(write_sweep(method="bayes", **search), "--dry_run") == 0
    assert "'--lr=<uniform: min 0.0, max 1.0>'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["absent.yaml"], "absent.yaml: no such sweep file"),
        ([], "the following arguments are required: file"),
        (["try.yaml", "--worker", "2"], "unrecognized arguments: --worker 2"),
        (["try.yaml", "--workers", "0"], "argument --workers: '0' is not a whole number of 1 or more"),
        (["try.yaml", "--storage", "redis://x"], "--storage: redis"),
        (["try.yaml", "--storage", "sqlite:///absent/x.db"], "--storage: absent/x.db.lock cannot be written"),
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


def test_ctrl_c_leaves_finished_runs_and_the_same_command_goes_on(write_sweep, run_sweep, workplace):
    path = write_sweep(parameters=parameters(sleep=[0, 30], seed=[0, 1]))
    sweep = subprocess.Popen(
        [*SWEEP, path, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(starts(RUNS)) == 4)
    sweep.send_signal(signal.SIGINT)
    _, error = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert error == "sweep.py: stopped with 2 of 4 runs done; the same command resumes\n"
    finished = {folder.name: (folder / "summary.json").read_bytes() for folder in finished_folders()}
    assert len(finished) == 2
    _hurry(workplace)
    assert run_sweep(path, "--workers", 2) == 0
    assert len(finished_folders()) == 4
    for name, summary in finished.items():
        assert starts(RUNS)[name] == 1
        assert (RUNS / name / "summary.json").read_bytes() == summary


def test_a_second_ctrl_c_kills_runs_that_do_not_end(write_sweep):
    path = write_sweep(parameters=parameters(seed=0, sleep=60, how="stubborn"))
    sweep = subprocess.Popen([*SWEEP, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(RUNS.glob("*/metrics.jsonl")))
    sweep.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert sweep.poll() is None
    sweep.send_signal(signal.SIGINT)
    sweep.communicate(timeout=20)
    assert sweep.returncode == 130


def test_after_a_kill_no_point_is_lost_and_no_finished_one_run_again(write_sweep, run_sweep, workplace):
    path = write_sweep(parameters=parameters(sleep=[0, 30], seed=[0, 1]))
    sweep = subprocess.Popen([*SWEEP, path, "--workers", "2"], stdout=subprocess.DEVNULL)
    wait_for(lambda: len(starts(RUNS)) == 4)
    sweep.kill()
    sweep.wait()
    finished = [folder.name for folder in finished_folders()]
    _hurry(workplace)
    assert run_sweep(path, "--workers", 2) == 0
    assert len(finished_folders()) == 4
    assert [starts(RUNS)[name] for name in finished] == [1, 1]


def test_two_sweeps_at_once_share_the_points(write_sweep, workplace):
    path = write_sweep(parameters=parameters(seed=list(range(12)), sleep=0.2))
    code = (
        "import sys; from tidepool.sweeping import program; program._report = lambda directory, folders, complain: "
        "len(folders) == 12; sys.exit(program.main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, str(path), "--workers", "2"]
    sweeps = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [sweep.communicate(timeout=100)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0]
    assert sorted(starts(RUNS).values()) == [1] * 12
    assert len(finished_folders()) == 12
    assert sum(output.count(": finished") for output in outputs) == 12


def test_the_sweeps_own_process_imports_no_torch(write_sweep):
    code = (
        "import sys; from tidepool.sweeping import program; "
        "import tidepool.analysis.report, tidepool.analysis.runs.tables; "
        "program._report = lambda directory, folders, complain: True; program.main(sys.argv[1:]); "
        "sys.exit(sorted({'torch', 'triton', 'tidepool.kernels', 'wandb'} & set(sys.modules)))"
    )
    search = {"method": "bayes", "run_cap": 1, "metric": {"name": "test/accuracy"}}
    path = write_sweep(**search, parameters={"lr": {"min": 0.0, "max": 1.0}, "how": {"value": "diverged"}})
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "[]"


def _hurry(workplace: Path) -> None:
    """Make runs started from now on end at once."""
    program = workplace / "fake_train.py"
    program.write_text(program.read_text().replace('float(flags.get("sleep", "0"))', "0.0"))
