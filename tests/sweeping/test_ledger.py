from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from tidepool.sweeping import ledger as ledger_module
from tidepool.sweeping import records
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
    """As another process sees them now."""
    ledger.running_now()
    if not ledger.total:
        ledger.plan(sweep.points())
    return [result.outcome for result in ledger.results()]


def test_points_are_taken_in_order_and_once(open_ledger, sweep):
    one, two = open_ledger(), open_ledger()
    one.plan(sweep.points())
    two.plan(sweep.points())
    taken = [ledger.claim() for ledger in (one, two, one)]
    assert [claim.point.params["seed"] for claim in taken] == [0, 1, 2]
    assert one.claim() is None
    assert two.claim() is None
    assert outcomes(one, sweep) == ["running"] * 3


def test_a_finished_point_is_not_planned_again(open_ledger, sweep, workplace):
    one = open_ledger()
    one.plan(sweep.points())
    for outcome in ("finished", "diverged", "failed"):
        claim = one.claim()
        (workplace / "runs" / "try" / claim.point.folder).mkdir()
        one.finish(claim, outcome, values=(0.5,) if outcome == "finished" else (), reason="why")
    two = open_ledger()
    two.plan(sweep.points())
    assert two.claim() is None
    assert outcomes(two, sweep) == ["finished", "diverged", "failed"]
    assert [result.values for result in two.results()] == [(0.5,), (), ()]
    assert sorted(result.outcome for result in two.news()) == ["diverged", "failed", "finished"]
    assert two.news() == []


def test_a_point_whose_folder_was_removed_is_run_again(open_ledger, sweep, workplace):
    one = open_ledger()
    one.plan(sweep.points())
    claim = one.claim()
    run_dir = workplace / "runs" / "try" / claim.point.folder
    run_dir.mkdir()
    one.finish(claim, "failed", reason="no memory")
    shutil.rmtree(run_dir)
    two = open_ledger()
    two.plan(sweep.points())
    assert outcomes(two, sweep) == ["waiting"] * 3
    again = [two.claim() for _ in range(3)]
    assert sorted(claim.point.params["seed"] for claim in again) == [0, 1, 2]
    assert two.claim() is None


def test_a_point_put_back_waits_with_its_attempt_and_folder(open_ledger, sweep):
    ledger = open_ledger()
    ledger.plan(sweep.points())
    first = ledger.claim()
    ledger.put_back(first, "retried", attempt=2)
    assert outcomes(ledger, sweep) == ["waiting"] * 3
    rest = [ledger.claim() for _ in range(3)]
    assert rest[2].point == first.point
    assert [claim.attempt for claim in rest] == [1, 1, 2]


def test_points_of_a_killed_process_are_put_back_at_once(open_ledger, sweep):
    killed = open_ledger(dead_process())
    killed.plan(sweep.points())
    lost = killed.claim()
    ledger = open_ledger()
    ledger.plan(sweep.points())
    ledger.recover()
    ledger.recover()
    taken = [ledger.claim() for _ in range(3)]
    assert ledger.claim() is None
    assert taken[2].point == lost.point


def test_a_kill_between_noting_an_outcome_and_ending_the_trial_loses_nothing(open_ledger, sweep, workplace):
    killed = open_ledger(dead_process())
    killed.plan(sweep.points())
    claim = killed.claim()
    (workplace / "runs" / "try" / claim.point.folder).mkdir()
    killed._set(claim.trial_id, end={"outcome": "finished"})
    ledger = open_ledger()
    ledger.recover()
    assert outcomes(ledger, sweep) == ["finished", "waiting", "waiting"]


def test_a_run_that_outlives_its_sweep_is_waited_for(open_ledger, sweep, workplace):
    killed = open_ledger(dead_process())
    killed.plan(sweep.points())
    claim = killed.claim()
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
    claim = killed.claim()
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
    claim = far.claim()
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
    far.finish(claim, "finished", values=(1.0,))  # it was only slow: the point is another's now
    assert outcomes(ledger, sweep)[0] == "waiting"


def test_a_claim_whose_answer_was_lost_is_put_back(open_ledger, sweep):
    ledger = open_ledger()
    ledger.plan(sweep.points())
    first = ledger.claim()
    ledger._mine.discard(first.trial_id)  # as where the storage went away between making the trial and saying so
    ledger.recover()
    assert outcomes(ledger, sweep) == ["waiting"] * 3
    assert [ledger.claim().point.params["seed"] for _ in range(3)] == [1, 2, 0]


def test_refused_points_are_tried_again_only_where_nothing_but_refusals_ended(open_ledger, sweep, workplace):
    one = open_ledger()
    one.plan(sweep.points())
    for _ in range(2):
        claim = one.claim()
        (workplace / "runs" / "try" / claim.point.folder).mkdir()
        one.finish(claim, "refused", reason="no such backend")
    assert outcomes(open_ledger(), sweep) == ["waiting"] * 3
    claim = one.claim()
    (workplace / "runs" / "try" / claim.point.folder).mkdir()
    one.finish(claim, "finished")
    assert outcomes(open_ledger(), sweep) == ["refused", "refused", "finished"]


def test_the_study_holds_what_a_dashboard_shows(read, workplace):
    parameters = {"lr": {"values": [0.1, 0.01]}, "model": {"values": ["a", [1]]}, "seed": {"value": 0}}
    sweep = read(parameters=parameters, metric={"name": "m", "goal": "maximize"})
    directory = Path("runs/try")
    directory.mkdir(parents=True)
    ledger = Ledger(default_url(directory), sweep, directory)
    ledger.plan(sweep.points())
    for value in (0.5, 0.7):
        ledger.finish(ledger.claim(), "finished", values=(value,))
    study = optuna.load_study(study_name="try", storage=default_url(directory))
    assert study.best_value == 0.7
    assert study.best_params == {"lr": 0.1, "model": "[1]"}
    ledger.close()


def test_a_short_bayes_search_goes_by_its_results(read, workplace):
    sweep = read(method="bayes", run_cap=4, metric={"name": "m"}, parameters={"lr": {"min": 0.0, "max": 1.0}})
    third = []
    for place, sign in (("up", 1), ("down", -1)):
        directory = Path("runs") / place
        directory.mkdir(parents=True)
        ledger = Ledger(default_url(directory), sweep, directory)
        ledger.plan(sweep.points())
        for _ in range(2):
            claim = ledger.claim()
            ledger.finish(claim, "finished", values=(sign * claim.point.params["lr"],))
        third.append(ledger.claim().point.params["lr"])
        ledger.close()
    assert third[0] != third[1]


def test_a_deleted_ledger_is_made_again_from_the_folders_of_a_bayes_search(read, workplace):
    search = {"method": "bayes", "run_cap": 4, "metric": {"name": "m"}}
    sweep = read(**search, parameters={"lr": {"min": 0.0, "max": 1.0}})
    directory = Path("runs/try")
    directory.mkdir(parents=True)
    drawn = []
    for _ in range(2):
        ledger = Ledger(default_url(directory), sweep, directory)
        ledger.plan(sweep.points())
        claims = [ledger.claim() for _ in range(4)]
        assert ledger.claim() is None
        for claim in claims:
            (directory / claim.point.folder).mkdir(exist_ok=True)
            records.write_point(directory / claim.point.folder, claim.point.params, "a command")
        drawn.append([claim.point.folder for claim in claims])
        ledger.close()
        (directory / "sweep.db").unlink()
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 4


def test_a_search_draws_a_place_once_and_keeps_what_it_drew(read, workplace):
    sweep = read(method="random", run_cap=2, parameters={"lr": {"min": 0.0, "max": 1.0}, "seed": {"value": 1}})
    directory = Path("runs/try")
    directory.mkdir(parents=True)
    ledger = Ledger(default_url(directory), sweep, directory)
    ledger.plan(sweep.points())
    first = ledger.claim()
    ledger.put_back(first, "retried", attempt=2)
    second, again = ledger.claim(), ledger.claim()
    assert again.point == first.point
    assert second.point.params["lr"] != first.point.params["lr"]
    assert first.point.folder.startswith("run-0000_")
    ledger.close()
