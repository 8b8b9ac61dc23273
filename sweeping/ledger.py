"""The sweep's memory: which point is waiting, running or done, in an Optuna study that many processes share.

A trial is one attempt at a point, begun when a process takes the point: under a lock, so that only one gets it. A point
without a trial that runs or has a lasting outcome is waiting. What became of an attempt is the trial's ``end``.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from tidepool.sweeping import records, search
from tidepool.sweeping.machine import ProcessId, is_locked
from tidepool.sweeping.parameters import Value
from tidepool.sweeping.patience import patient
from tidepool.sweeping.points import Point, drawn_point
from tidepool.sweeping.spec import Sweep
from tidepool.sweeping.storage import check_url, held_file, held_server, lock_file, open_study
from tidepool.sweeping.trials import LASTING, Entry, Trials

HEARTBEAT_S = 10.0
SILENT_S = 120.0  # a process elsewhere whose heartbeat has stood still for this long is gone
ORPHAN_GRACE_S = 30.0  # a run whose sweep was killed has this long to save and end


@dataclass(frozen=True)
class Claim:
    """A point this process has taken: its trial, and which attempt at it this is, from 1."""

    trial_id: int
    point: Point
    attempt: int


@dataclass(frozen=True)
class Result:
    """What is recorded of a point: its outcome, its values of the sweep's metrics, where its record lies, why, and its
    parameters, None where they have not been drawn."""

    key: str
    outcome: str  # one of LASTING, waiting or running
    folder: str | None
    values: tuple[float, ...] = ()
    reason: str | None = None
    params: Mapping[str, Value] | None = None


class Ledger:
    """The shared record of one sweep. Every method may be called while other processes do the same."""

    def __init__(self, url: str, sweep: Sweep, directory: Path, *, create: bool = True) -> None:
        """Open the study `sweep.name` at `url`, making it where it is new if asked to `create` it; runs lie in folders
        of `directory`.

        Raises:
            SweepError: the storage does not open, or has no such study; one line without the password.
        """
        self._url = check_url(url)
        self._directory = directory
        self._sweep = sweep
        self._lock_file = lock_file(self._url)
        self._me = ProcessId.of(os.getpid())
        self._token = secrets.token_hex(8)  # of this ledger, be there several in one process
        self._mine: set[int] = set()
        self._seen_beats: dict[int, tuple[float, float]] = {}  # trial -> (its heartbeat, when it was first seen so)
        self._seen_orphans: dict[int, float] = {}  # trial -> when its run was first seen without its sweep
        self.on_trouble: Callable[[Exception, float], None] = _sleep
        """Called with (error, seconds) while the storage does not answer: waits so long, or raises the error."""
        with held_file(self._lock_file) if self._lock_file and create else contextlib.nullcontext():
            self._open(create)

    def _open(self, create: bool) -> None:
        maximize = tuple(metric.maximize for metric in self._sweep.metrics)
        self._database, self._storage, self._study = open_study(
            self._url, self._sweep.name, maximize=maximize, create=create
        )
        self._study_id = self._storage.get_study_id_from_name(self._sweep.name)
        self._trials = Trials(self._database, self._study_id, with_reports=self._sweep.early_terminate is not None)
        self._points: list[Point] = []
        self._places: dict[str, Point] = {}
        self._next = 0  # points before this one have been tried
        self._live: dict[str, Entry] = {}  # the attempt that speaks for a point
        self._again: dict[str, Entry] = {}  # the last attempt at a point that waits for another
        self._news: list[Result] = []

    def _lock(self) -> AbstractContextManager[None]:
        if self._lock_file is not None:
            return held_file(self._lock_file)  # SQLite has no row locks
        return held_server(self._database.engine, f"tidepool sweep {self._sweep.name}")

    @patient
    def stored_sweep(self) -> dict[str, Any] | None:
        """The sweep file the study was begun with, or None for a new study."""
        return self._storage.get_study_user_attrs(self._study_id).get("sweep")

    @patient
    def store_sweep(self) -> None:
        """Keep the sweep file's content in the study, for machines that share no disk with this one."""
        self._storage.set_study_user_attr(self._study_id, "sweep", dict(self._sweep.content))

    @patient
    def entries(self) -> list[Entry]:
        """The attempts that speak for points, of this sweep file or of an earlier one; none twice for a point."""
        self._refresh()
        return list(self._live.values())

    def begin_anew(self) -> None:
        """Forget the study: nothing has been run. Whoever still runs points of it loses them."""
        with self._lock():
            self._storage.delete_study(self._study_id)
            self._storage.remove_session()
            self._open(create=True)

    @patient
    def plan(self, points: Sequence[Point]) -> None:
        """What there is to do: every point that is neither running nor done.

        A point that was run on this machine and whose folder has been removed since counts as not done, and so do
        refused ones where all that ended were refused: something has been mended.
        """
        self._refresh()
        self._points, self._next = list(points), 0
        self._places = {point.key: point for point in points}
        settled = [entry for key, entry in self._live.items() if key in self._places and entry.is_settled]
        only_refused = all(entry.outcome == "refused" for entry in settled)
        for entry in settled:
            if only_refused or _folder_was_removed(entry):
                del self._live[entry.key]
                self._again[entry.key] = replace(entry, next_attempt=1)
        self._news = [_result(entry) for entry in self._live.values() if entry.is_settled]

    def _refresh(self) -> None:
        for entry in self._trials.changed():
            current = self._live.get(entry.key)
            if entry.is_live and (current is None or entry.number >= current.number):
                self._live[entry.key] = entry
                self._again.pop(entry.key, None)
                if entry.is_settled:
                    self._news.append(_result(entry))
            elif current is None or current.trial_id == entry.trial_id:
                self._live.pop(entry.key, None)
                self._again[entry.key] = entry

    @patient
    def claim(self) -> Claim | None:
        """Take the first waiting point, those never tried first; None where none is waiting."""
        with self._lock():
            self._refresh()
            point = self._waiting_point()
            if point is None:
                return None
            former = self._again.get(point.key)
            attempt = former.next_attempt if former else 1
            trial_id = self._begin(point, attempt, former)
        if point.params is None:  # the point is taken; drawing it may take a while
            params = search.draw(self._study, trial_id, self._sweep, point.key)
            point = drawn_point(point.key, params)
            self._set(trial_id, point=self._attributes(point, attempt))
        return Claim(trial_id, point, attempt)

    def _waiting_point(self) -> Point | None:
        while self._next < len(self._points):
            point = self._points[self._next]
            if point.key not in self._live and point.key not in self._again:
                return self._as_recorded(point)
            self._next += 1
        waiting = [entry for key, entry in self._again.items() if key in self._places and key not in self._live]
        if not waiting:
            return None
        entry = min(waiting, key=lambda entry: entry.number)
        point = self._places[entry.key]
        if point.params is not None or entry.params is None:
            return point
        return Point(entry.key, entry.params, entry.folder)

    def _as_recorded(self, point: Point) -> Point:
        """A place that is still open as a run of it left it, where the ledger that knew it has been deleted."""
        params = None if point.params is not None else records.recorded_params(self._directory, point.key)
        return point if params is None else drawn_point(point.key, params)

    def _begin(self, point: Point, attempt: int, former: Entry | None) -> int:
        drawn = None if former is None else self._storage.get_trial(former.trial_id)
        terms = search.terms(self._sweep, point, drawn)
        attributes = {"point": self._attributes(point, attempt), "beat": time.time()}
        trial_id = search.begin_trial(self._storage, self._study_id, terms, attributes)
        self._mine.add(trial_id)
        return trial_id

    def _attributes(self, point: Point, attempt: int) -> dict[str, Any]:
        params = None if point.params is None else dict(point.params)
        run_dir = None if point.folder is None else str((self._directory / point.folder).resolve())
        return {
            "key": point.key,
            "params": params,
            "folder": point.folder,
            "attempt": attempt,
            "run_dir": run_dir,
            "owner": self._me.to_json(),
            "ledger": self._token,
        }

    @patient
    def record_child(self, claim: Claim, child: ProcessId) -> None:
        """Note which process runs the point, for whoever comes after a kill."""
        self._set(claim.trial_id, child=child.to_json())

    @patient
    def beat(self, claims: Sequence[Claim]) -> None:
        """Say that this process is still running `claims`; every `HEARTBEAT_S`."""
        for claim in claims:
            with contextlib.suppress(UpdateFinishedTrialError):  # given up for lost elsewhere; its end is noted there
                self._set(claim.trial_id, beat=time.time())

    @patient
    def report(self, claim: Claim, step: int, value: float) -> None:
        """Note the metric at a step where early stopping judges, for other machines' runs to be judged by."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_intermediate_value(claim.trial_id, step, value)

    @patient
    def finish(self, claim: Claim, outcome: str, *, values: tuple[float, ...] = (), reason: str | None = None) -> None:
        """Record a lasting outcome of a point."""
        # Optuna's "complete" needs a number; "pruned" is its word for an end without one.
        state = TrialState.COMPLETE if outcome == "finished" and values else _end_state(outcome)
        with contextlib.suppress(UpdateFinishedTrialError):
            self._end(claim.trial_id, state, values, outcome=outcome, reason=reason)

    @patient
    def put_back(self, claim: Claim, outcome: str, *, attempt: int) -> None:
        """End the trial without a lasting outcome; the point waits for the next free worker as its `attempt`-th."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._end(claim.trial_id, TrialState.FAIL, outcome=outcome, next_attempt=attempt)

    @patient
    def recover(self) -> None:
        """Put back every point whose process is gone: killed, crashed, or on a machine not heard of any more."""
        self._refresh()
        for entry in list(self._trials.running.values()):
            if not self._is_lost(entry):
                continue
            with contextlib.suppress(UpdateFinishedTrialError):  # another process was quicker
                if entry.outcome in LASTING:  # killed between noting the outcome and ending the trial
                    self._storage.set_trial_state_values(entry.trial_id, _end_state(entry.outcome))
                else:
                    self._end(entry.trial_id, TrialState.FAIL, outcome="lost", next_attempt=entry.attempt)
        self._refresh()

    def _is_lost(self, entry: Entry) -> bool:
        if entry.owner is None or not entry.owner.is_here():
            # Clocks of two machines need not agree, so the heartbeat is watched, not compared with the time.
            now = time.monotonic()
            if self._seen_beats.setdefault(entry.number, (entry.beat, now))[0] != entry.beat:
                self._seen_beats[entry.number] = (entry.beat, now)
            return now - self._seen_beats[entry.number][1] > SILENT_S
        if entry.ledger == self._token:
            return entry.trial_id not in self._mine  # begun as the storage went away
        return not entry.owner.is_alive() and not self._orphan_lives(entry)

    def _orphan_lives(self, entry: Entry) -> bool:
        """Whether a run outlives the sweep that started it; it is killed after `ORPHAN_GRACE_S`."""
        if entry.child is None or not entry.child.is_alive():
            return entry.run_dir is not None and is_locked(Path(entry.run_dir))
        first_seen = self._seen_orphans.setdefault(entry.number, time.monotonic())
        if time.monotonic() - first_seen > ORPHAN_GRACE_S:
            entry.child.kill_group()
        return True

    def _set(self, trial_id: int, **attributes: Any) -> None:
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(trial_id, name, value)

    def _end(self, trial_id: int, state: TrialState, values: tuple[float, ...] = (), **end: Any) -> None:
        self._set(trial_id, end={name: content for name, content in end.items() if content is not None})
        self._storage.set_trial_state_values(trial_id, state, list(values) or None)
        self._mine.discard(trial_id)

    @property
    def total(self) -> int:
        """How many points there are."""
        return len(self._points)

    def news(self) -> list[Result]:
        """Points found ended since the last call, by this process or another; what `recover` and `claim` saw."""
        news, self._news = [each for each in self._news if each.key in self._places], []
        return news

    @patient
    def running_now(self) -> list[Entry]:
        """The attempts under way here and elsewhere."""
        self._refresh()
        return self.running()

    def running(self) -> list[Entry]:
        """The attempts under way here and elsewhere, as last seen."""
        return list(self._trials.running.values())

    def results(self) -> list[Result]:
        """What is known of every planned point as last seen, in the points' order."""
        return [
            _result(self._live[point.key])
            if point.key in self._live
            else Result(point.key, "waiting", point.folder, params=point.params)
            for point in self._points
        ]

    def judged(self) -> Iterator[Entry]:
        """The attempts that early stopping judges by, as last seen: running, or ended for good."""
        return (entry for entry in self._live.values() if entry.reports)

    def close(self) -> None:
        """Let go of the database's connections."""
        self._storage.remove_session()
        self._database.engine.dispose()


def _sleep(error: Exception, seconds: float) -> None:
    time.sleep(seconds)


def _result(entry: Entry) -> Result:
    outcome = entry.outcome if entry.is_settled and entry.outcome else "running"
    return Result(entry.key, outcome, entry.folder, entry.values, entry.reason, entry.params)


def _end_state(outcome: str) -> TrialState:
    return TrialState.PRUNED if outcome in ("finished", "stopped") else TrialState.FAIL


def _folder_was_removed(entry: Entry) -> bool:
    if entry.run_dir is None or entry.owner is None:
        return False
    ran_here = entry.owner.machine.split(" ")[0] == platform.node()
    return ran_here and not Path(entry.run_dir).is_dir()
