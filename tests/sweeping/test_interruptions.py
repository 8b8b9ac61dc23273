"""sweep.py stopped, killed, twice at once, its storage damaged or away: no point is lost, and none is run twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from tests.sweeping.conftest import starts
from tests.sweeping.small_sweep import RUNS, SWEEP, finished_folders, parameters, wait_for
from tidepool.sweeping import patience, runner, search
from tidepool.sweeping.children import Child
from tidepool.sweeping.ledger import Ledger


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


@pytest.mark.default
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
        "import sys; from tidepool.sweeping import conclusion, program; "
        "conclusion._report = conclusion._print_result = lambda *_: None; sys.exit(program.main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, str(path), "--workers", "2"]
    sweeps = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [sweep.communicate(timeout=100)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0]
    assert sorted(starts(RUNS).values()) == [1] * 12
    assert len(finished_folders()) == 12
    assert sum(output.count(": finished") for output in outputs) == 12


def test_a_damaged_ledger_may_be_deleted_and_nothing_is_run_again(write_sweep, run_sweep, capsys):
    path = write_sweep(method="random", run_cap=3, parameters=parameters(lr=[0.1, 0.2, 0.3, 0.4], seed=0))
    assert run_sweep(path) == 0
    ledger = RUNS / "sweep.db"
    ledger.write_bytes(b"damage" * 2000)
    assert run_sweep(path) == 2
    assert "deleting runs/try/sweep.db is safe: the same command makes it again" in capsys.readouterr().err
    ledger.unlink()
    assert run_sweep(path) == 0
    assert sorted(starts(RUNS).values()) == [1, 1, 1]


def test_a_storage_that_goes_away_for_a_moment_is_waited_for(write_sweep, run_sweep, monkeypatch, capsys):
    failures = iter([True, True, False, True])
    begin = search.begin_trial

    def flaky(*arguments):
        if next(failures, False):
            raise StorageInternalError("away") from OperationalError("select", {}, Exception("server closed"))
        return begin(*arguments)

    monkeypatch.setattr(search, "begin_trial", flaky)
    assert run_sweep(write_sweep(), "--workers", 1) == 0
    assert capsys.readouterr().out.count("the storage does not answer (server closed); trying again in 0.5 s") == 2
    assert sorted(starts(RUNS).values()) == [1, 1, 1]


def test_where_the_storage_stays_away_runs_are_asked_to_end_and_not_killed(write_sweep, run_sweep, monkeypatch, capsys):
    monkeypatch.setattr(patience, "WAITS_S", (0.1, 0.1))
    monkeypatch.setattr(runner, "HEARTBEAT_S", 0.3)

    def away(self, claims):
        if (RUNS / "starts.txt").exists() and list(RUNS.glob("*/metrics.jsonl")):
            raise OperationalError("select", {}, Exception("no route"))

    monkeypatch.setattr(Ledger, "beat", patience.patient(away))
    killed = []
    monkeypatch.setattr(Child, "kill", lambda self: killed.append(self))
    assert run_sweep(write_sweep(parameters=parameters(seed=0, sleep=60))) == 1
    assert (
        capsys.readouterr().err == "tidepool sweep: the sweep's storage failed (no route); the same command resumes\n"
    )
    assert not killed
    assert not (next(iter(RUNS.glob("*/metrics.jsonl"))).parent / "summary.json").exists()


def _hurry(workplace: Path) -> None:
    """Make runs started from now on end at once."""
    program = workplace / "fake_train.py"
    program.write_text(program.read_text().replace('float(flags.get("sleep", "0"))', "0.0"))
