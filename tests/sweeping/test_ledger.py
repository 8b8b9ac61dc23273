from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tidepool.sweeping import ledger as ledger_module
from tidepool.sweeping.ledger import Ledger
from tidepool.sweeping.machine import ProcessId
from tidepool.sweeping.storage import default_url


@pytest.fixture
def sweep(read):
    return read()


@pytest.fixture
def open_ledger(sweep, workplace):
    """Opens the same sweep's storage again, as another process would."""
    directory = workplace / "runs" / "try"
    directory.mkdir(parents=True)
    opened = []

    def open_it(pid: ProcessId | None = None) -> Ledger:
        ledger = Ledger(default_url(directory), sweep, directory)
        if pid is not None:
            ledger._me = pid
        opened.append(ledger)
        return ledger

    yield open_it
    for ledger in opened:
        ledger.close()


GONE = ProcessId("gone", 1, 1)


def dead_process() -> ProcessId:
    """A process of this machine that has ended."""
    me = ProcessId.of(os.getpid())
    return replace(me, started=me.started - 1)


def outcomes(ledger, sweep):
    return [result.outcome for result in ledger.results(sweep.points())]


def keys(sweep):
    return {point.key for point in sweep.points()}


def test_points_are_taken_in_order_and_once(open_ledger, sweep):
    one, two = open_ledger(), open_ledger()
    one.plan(sweep.points())
    two.plan(sweep.points())
    taken = [ledger.claim(keys(sweep)) for ledger in (one, two, one)]
    assert [claim.point.params["seed"] for claim in taken] == [0, 1, 2]
    assert one.claim(keys(sweep)) is None
    assert two.claim(keys(sweep)) is None
    assert outcomes(one, sweep) == ["running"] * 3


def test_a_finished_point_is_not_planned_again(open_ledger, sweep, workplace):
    one = open_ledger()
    one.plan(sweep.points())
    for outcome in ("finished", "diverged", "failed"):
        claim = one.claim(keys(sweep))
        (workplace / "runs" / "try" / claim.point.folder).mkdir()
        one.finish(claim, outcome, value=0.5 if outcome == "finished" else None, reason="why")
    two = open_ledger()
    two.plan(sweep.points())
    assert two.claim(keys(sweep)) is None
    assert outcomes(two, sweep) == ["finished", "diverged", "failed"]
    assert [result.value for result in two.results(sweep.points())] == [0.5, None, None]


def test_a_point_whose_folder_was_removed_is_run_again(open_ledger, sweep, workplace):
    one = open_ledger()
    one.plan(sweep.points())
    claim = one.claim(keys(sweep))
    run_dir = workplace / "runs" / "try" / claim.point.folder
    run_dir.mkdir()
    one.finish(claim, "failed", reason="no memory")
    shutil.rmtree(run_dir)
    two = open_ledger()
    two.plan(sweep.points())
    assert outcomes(two, sweep) == ["waiting"] * 3
    again = [two.claim(keys(sweep)) for _ in range(3)]
    assert sorted(claim.point.params["seed"] for claim in again) == [0, 1, 2]
    assert two.claim(keys(sweep)) is None


def test_a_point_put_back_waits_with_its_attempt_and_folder(open_ledger, sweep):
    ledger = open_ledger()
    ledger.plan(sweep.points())
    first = ledger.claim(keys(sweep))
    ledger.put_back(first, "retried", attempt=2)
    assert outcomes(ledger, sweep) == ["waiting"] * 3
    rest = [ledger.claim(keys(sweep)) for _ in range(3)]
    assert rest[2].point == first.point
    assert [claim.attempt for claim in rest] == [1, 1, 2]


def test_points_of_a_killed_process_are_put_back_at_once(open_ledger, sweep):
    killed = open_ledger(dead_process())
    killed.plan(sweep.points())
    lost = killed.claim(keys(sweep))
    ledger = open_ledger()
    ledger.recover()
    ledger.recover()
    taken = [ledger.claim(keys(sweep)) for _ in range(3)]
    assert ledger.claim(keys(sweep)) is None
    assert taken[2].point == lost.point


def test_a_kill_between_noting_an_outcome_and_ending_the_trial_loses_nothing(open_ledger, sweep):
    killed = open_ledger(dead_process())
    killed.plan(sweep.points())
    claim = killed.claim(keys(sweep))
    killed._set(claim.trial_id, outcome="finished")
    ledger = open_ledger()
    ledger.recover()
    assert outcomes(ledger, sweep) == ["finished", "waiting", "waiting"]


def test_a_run_that_outlives_its_sweep_is_waited_for(open_ledger, sweep, workplace):
    killed = open_ledger(dead_process())
    killed.plan(sweep.points())
    claim = killed.claim(keys(sweep))
    run_dir = workplace / "runs" / "try" / claim.point.folder
    run_dir.mkdir()
    ledger = open_ledger()
    with (run_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ledger.recover()
        assert outcomes(ledger, sweep)[0] == "running"
    ledger.recover()
    assert outcomes(ledger, sweep)[0] == "waiting"


def test_an_orphan_that_does_not_end_is_killed(open_ledger, sweep, monkeypatch):
    killed = open_ledger(dead_process())
    killed.plan(sweep.points())
    claim = killed.claim(keys(sweep))
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as orphan:
        killed.record_child(claim, ProcessId.of(orphan.pid))
        ledger = open_ledger()
        ledger.recover()
        assert outcomes(ledger, sweep)[0] == "running"
        monkeypatch.setattr(ledger_module, "ORPHAN_GRACE_S", -1.0)
        ledger.recover()
        assert orphan.wait(timeout=10) == -9
    ledger.recover()
    assert outcomes(ledger, sweep)[0] == "waiting"


def test_a_machine_is_given_up_only_once_its_heartbeat_stands_still(open_ledger, sweep, monkeypatch):
    far = open_ledger(GONE)
    far.plan(sweep.points())
    claim = far.claim(keys(sweep))
    ledger = open_ledger()
    clock = [1000.0]
    monkeypatch.setattr(ledger_module.time, "monotonic", lambda: clock[0])
    ledger.recover()
    clock[0] += ledger_module.SILENT_S - 1
    far.beat([claim])
    ledger.recover()
    clock[0] += ledger_module.SILENT_S - 1
    ledger.recover()
    assert outcomes(ledger, sweep)[0] == "running"
    clock[0] += 2
    ledger.recover()
    assert outcomes(ledger, sweep)[0] == "waiting"
    far.finish(claim, "finished", value=1.0)  # it was only slow: the point is another's now
    assert outcomes(ledger, sweep)[0] == "waiting"


def test_of_two_trials_for_one_point_the_later_gives_way(open_ledger, sweep):
    ledger = open_ledger()
    ledger.plan(sweep.points())
    ledger._enqueue(sweep.points()[0], attempt=1)  # what two machines do that plan at the same moment
    taken = [ledger.claim(keys(sweep)) for _ in range(3)]
    assert [claim.point.params["seed"] for claim in taken] == [0, 1, 2]
    assert ledger.claim(keys(sweep)) is None


def test_a_search_draws_a_place_once_and_keeps_what_it_drew(read, workplace):
    sweep = read(method="random", run_cap=2, parameters={"lr": {"min": 0.0, "max": 1.0}, "seed": {"value": 1}})
    directory = Path("runs/try")
    directory.mkdir(parents=True)
    ledger = Ledger(default_url(directory), sweep, directory)
    ledger.plan(sweep.points())
    first = ledger.claim(keys(sweep))
    ledger.put_back(first, "retried", attempt=2)
    second, again = ledger.claim(keys(sweep)), ledger.claim(keys(sweep))
    assert again.point == first.point
    assert second.point.params["lr"] != first.point.params["lr"]
    assert first.point.folder.startswith("run-0000_")
    ledger.close()
