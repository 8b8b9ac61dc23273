"""Real processes: their exit codes, and their end when the budget is over."""

import time
from pathlib import Path

import pytest

from benchmarking import supervisor
from benchmarking.budget import Budget
from benchmarking.jobs import Job
from benchmarking.session import Comparison
from benchmarking.supervisor import STOPPED, WorkerError, run_once, spawn_worker

COMPARISON = Comparison(Path("out"), "smoke", (), (), "bf16", ("train",))


def _does(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(supervisor, "WORKER", ("-c", code))


@pytest.mark.parametrize(
    ("code", "expected"), [("", 0), ("import sys; sys.exit(70)", 70), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_exit_codes_are_a_shells(monkeypatch: pytest.MonkeyPatch, code: str, expected: int) -> None:
    _does(monkeypatch, code)
    assert spawn_worker(Job("check", COMPARISON, 30.0)) == expected


def test_a_process_gets_its_job_and_the_users_command(monkeypatch: pytest.MonkeyPatch) -> None:
    given = "(json.loads(sys.argv[1])['kind'], sys.argv[2], bool(os.environ['TIDEPOOL_BENCH_COMMAND']))"
    _does(monkeypatch, f"import json, os, sys; sys.exit({given} != ('tune', '--quiet', True))")
    assert spawn_worker(Job("tune", COMPARISON, None), quiet=True) == 0


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_process_that_outlives_its_budget_is_ended(monkeypatch: pytest.MonkeyPatch, stubborn: bool) -> None:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " if stubborn else ""
    _does(monkeypatch, f"{ignore}import time; time.sleep(60)")
    monkeypatch.setattr(supervisor, "GRACE_S", 0.2)
    begun = time.monotonic()
    assert spawn_worker(Job("time", COMPARISON, 0.5)) == STOPPED
    assert time.monotonic() - begun < 30


def test_too_little_time_starts_nothing_and_a_failure_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _does(monkeypatch, "import sys; sys.exit(1)")
    assert not run_once("check", COMPARISON, Budget(1.0), spawn_worker)
    with pytest.raises(WorkerError, match="the process for 'check' ended with exit code 1"):
        run_once("check", COMPARISON, Budget(60.0), spawn_worker)
