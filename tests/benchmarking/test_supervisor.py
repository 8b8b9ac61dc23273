"""Real processes: their exit codes, and their end when the budget is over."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarking.fake_device import CPU, InProcess
from tidepool.benchmarking import supervisor
from tidepool.benchmarking.budget import Budget
from tidepool.benchmarking.comparison import Comparison
from tidepool.benchmarking.jobs import Job
from tidepool.benchmarking.opponents import backends
from tidepool.benchmarking.records import checks
from tidepool.benchmarking.suites import SMOKE
from tidepool.benchmarking.supervisor import STOPPED, WorkerError, run_checks, run_once, spawn_worker

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


def test_a_share_that_crashes_is_checked_case_by_case(tmp_path: Path) -> None:
    both = (SMOKE[3], SMOKE[4])
    comparison = replace(COMPARISON, out=tmp_path, cases=both, backends=backends(["cudnn"]), dtype="fp32")
    here, started = InProcess(), []

    def spawn(job: Job) -> int:
        names = [case.name for case in job.comparison.cases]
        started.append(names)
        return 139 if "smoke_1d" in names else here(job)

    assert run_checks(comparison, CPU, Budget(None), spawn, here.said.append, at_once=1)
    assert started == [["smoke_depthwise", "smoke_1d"], ["smoke_depthwise"], ["smoke_1d"]]
    found, _ = checks(tmp_path).read()
    assert [(row["case"], row["status"]) for row in found] == [("smoke_depthwise", "right"), ("smoke_1d", "crashed")]


def test_shares_are_checked_side_by_side(tmp_path: Path) -> None:
    comparison = replace(COMPARISON, out=tmp_path, cases=SMOKE, backends=backends(["cudnn"]))
    shares = []
    meet = threading.Barrier(2, timeout=30)

    def spawn(job: Job) -> int:
        meet.wait()
        shares.append([case.name for case in job.comparison.cases])
        return 0

    assert not run_checks(comparison, CPU, Budget(None), spawn, lambda line: None, at_once=2)
    names = [case.name for case in SMOKE]
    assert sorted(shares) == sorted([names[0::2], names[1::2]])


def test_a_signal_ends_checks_that_run_side_by_side(tmp_path: Path) -> None:
    """SIGTERM reaches a process that waits for four others of a minute each; all of them end, at once."""
    (tmp_path / "started").mkdir()
    code = (
        "import signal, sys\n"
        "import tidepool.kernels\n"
        "from pathlib import Path\n"
        "from tidepool.benchmarking import supervisor\n"
        "from tidepool.benchmarking.comparison import Comparison\n"
        "from tidepool.benchmarking.jobs import Job\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))\n"
        "sleep = 'import os, pathlib, time; pathlib.Path(\"started\", str(os.getpid())).touch(); time.sleep(60)'\n"
        "supervisor.WORKER = ('-c', sleep)\n"
        "job = Job('check', Comparison(Path('out'), 'smoke', (), (), 'bf16', ('train',)), 60.0)\n"
        "supervisor._side_by_side(supervisor.spawn_worker, [job] * 4)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    deadline = time.monotonic() + 90
    while len(children := list((tmp_path / "started").iterdir())) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(children) == 4
    parent.terminate()
    assert parent.wait(30) == 143
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(int(child.name), 0)


def test_too_little_time_starts_nothing_and_a_failure_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _does(monkeypatch, "import sys; sys.exit(1)")
    assert not run_once("check", COMPARISON, Budget(1.0), spawn_worker)
    with pytest.raises(WorkerError, match="the process for 'check' ended with exit code 1"):
        run_once("check", COMPARISON, Budget(60.0), spawn_worker)
