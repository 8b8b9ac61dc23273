"""The sweep's memory: which point is waiting, running or done, in an Optuna study that many processes share.

Every point is a trial. A process takes a waiting trial, and only one process gets it. What happened to it is the
trial's ``outcome``; a point whose trial ended without a lasting outcome is put back as a new trial. Two machines may
put the same point back at the same moment: whoever takes the later trial finds the earlier one and gives way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.machine import ProcessId, is_locked
from tidepool.sweeping.points import Point, draw, point_sampler
from tidepool.sweeping.spec import Sweep
from tidepool.sweeping.storage import check_url, lock_file, open_study

LASTING = ("finished", "diverged", "failed", "stopped")  # a point with one of these is not run again
HEARTBEAT_S = 10.0
SILENT_S = 120.0  # a process elsewhere whose heartbeat has stood still for this long is gone
ORPHAN_GRACE_S = 30.0  # a run whose sweep was killed has this long to save and end


@dataclass(frozen=True)
class Claim:
    """A point this process has taken: its trial, and whether it is the first or the second attempt."""

    trial_id: int
    point: Point
    attempt: int


@dataclass(frozen=True)
class Result:
    """What is recorded of a point: its outcome, its value of the sweep's metric, where its record lies and why."""

    key: str
    outcome: str  # finished | diverged | failed | stopped | waiting | running
    folder: str | None
    value: float | None = None
    reason: str | None = None


class Ledger:
    """The shared record of one sweep. Every method may be called while other processes do the same."""

    def __init__(self, url: str, sweep: Sweep, directory: Path) -> None:
        """Open the study `sweep.name` at `url`, making it where it is new; runs lie in folders of `directory`.

        Raises:
            SweepError: the storage does not open; one line without the password.
        """
        parsed = check_url(url)
        self._directory = directory
        self._sweep = sweep
        self._lock_file = lock_file(parsed)
        self._me = ProcessId.of(os.getpid())
        self._seen_beats: dict[int, tuple[float, float]] = {}  # trial -> (its heartbeat, when it was first seen so)
        self._seen_orphans: dict[int, float] = {}  # trial -> when its run was first seen without its sweep
        with self._lock():
            maximize = sweep.metric is not None and sweep.metric.maximize
            self._storage, self._study = open_study(parsed, sweep.name, maximize=maximize)
        self._study_id = self._storage.get_study_id_from_name(sweep.name)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time on SQLite, which has no row locks; PostgreSQL needs none."""
        if self._lock_file is None:
            yield
            return
        try:
            file = self._lock_file.open("a")
        except OSError as error:
            raise SweepError(f"--storage: {self._lock_file} cannot be written ({error.strerror})") from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def stored_sweep(self) -> dict[str, Any] | None:
        """The sweep file the study was begun with, or None for a new study."""
        return self._storage.get_study_user_attrs(self._study_id).get("sweep")

    def store_sweep(self) -> None:
        """Keep the sweep file's content in the study, for machines that share no disk with this one."""
        self._storage.set_study_user_attr(self._study_id, "sweep", dict(self._sweep.content))

    def _trials(self, states: tuple[TrialState, ...] | None = None) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._study_id, deepcopy=False, states=states)

    def plan(self, points: Sequence[Point]) -> None:
        """Queue every point that is neither waiting, running nor done.

        A point that was run on this machine and whose folder has been removed since counts as not done.
        """
        with self._lock():
            self._fail_lost_trials()
            taken: set[str] = set()
            gone: dict[str, list[int]] = {}
            for trial in self._trials():
                key = trial.user_attrs["key"]
                if not _is_live(trial):
                    continue
                if _folder_was_removed(trial):
                    gone.setdefault(key, []).append(trial.number)
                else:
                    taken.add(key)
            for point in points:
                if point.key not in taken:
                    self._enqueue(point, attempt=1, replaces=gone.get(point.key, []))

    def _enqueue(self, point: Point, *, attempt: int, replaces: Sequence[int] = (), fixed: Any = None) -> None:
        attributes = {
            "key": point.key,
            "params": None if point.params is None else dict(point.params),
            "folder": point.folder,
            "attempt": attempt,
            "replaces": list(replaces),
        }
        self._study.enqueue_trial(fixed or {}, user_attrs=attributes)

    def claim(self, allowed: set[str]) -> Claim | None:
        """Take the first waiting point among the keys `allowed`, or None where none is waiting."""
        with self._lock():
            for trial in self._trials((TrialState.WAITING,)):
                key = trial.user_attrs["key"]
                if key not in allowed or not self._take(trial._trial_id):
                    continue
                self._set(trial._trial_id, owner=self._me.to_json(), beat=time.time())
                if self._has_earlier_twin(trial):
                    self._end(trial._trial_id, TrialState.FAIL, outcome="duplicate")
                    continue
                return self._drawn_claim(trial)
        return None

    def _take(self, trial_id: int) -> bool:
        try:
            return self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _has_earlier_twin(self, trial: FrozenTrial) -> bool:
        key, replaced = trial.user_attrs["key"], trial.user_attrs["replaces"]
        return any(
            other.number < trial.number
            and other.number not in replaced
            and other.user_attrs.get("key") == key
            and _is_live(other)
            for other in self._trials()
        )

    def _drawn_claim(self, trial: FrozenTrial) -> Claim:
        attributes = trial.user_attrs
        point = Point(attributes["key"], attributes["params"], attributes["folder"])
        if point.params is None:
            self._study.sampler = point_sampler(self._sweep.method, point.key)
            point = draw(point, self._sweep.parameters, optuna.Trial(self._study, trial._trial_id))
        assert point.folder is not None
        run_dir = (self._directory / point.folder).resolve()
        self._set(trial._trial_id, drawn=dict(point.params or {}), drawn_folder=point.folder, run_dir=str(run_dir))
        return Claim(trial._trial_id, point, attributes["attempt"])

    def record_child(self, claim: Claim, child: ProcessId) -> None:
        """Note which process runs the point, for whoever comes after a kill."""
        self._set(claim.trial_id, child=child.to_json())

    def beat(self, claims: Sequence[Claim]) -> None:
        """Say that this process is still running `claims`; every `HEARTBEAT_S`."""
        for claim in claims:
            with contextlib.suppress(UpdateFinishedTrialError):  # given up for lost elsewhere; its end is noted there
                self._set(claim.trial_id, beat=time.time())

    def finish(self, claim: Claim, outcome: str, *, value: float | None = None, reason: str | None = None) -> None:
        """Record a lasting outcome of a point."""
        # Optuna's "complete" needs a number; "pruned" is its word for an end without one.
        state = TrialState.COMPLETE if outcome == "finished" and value is not None else _end_state(outcome)
        with self._lock(), contextlib.suppress(UpdateFinishedTrialError):
            self._end(claim.trial_id, state, value=value, outcome=outcome, reason=reason)

    def put_back(self, claim: Claim, outcome: str, *, attempt: int) -> None:
        """End the trial without a lasting outcome; the point waits for the next free worker as its `attempt`-th."""
        with self._lock(), contextlib.suppress(UpdateFinishedTrialError):
            trial = self._storage.get_trial(claim.trial_id)
            self._end(claim.trial_id, TrialState.FAIL, outcome=outcome)
            self._requeue(trial, attempt)

    def _requeue(self, trial: FrozenTrial, attempt: int) -> None:
        attributes = trial.user_attrs
        params = attributes.get("drawn", attributes["params"])
        folder = attributes.get("drawn_folder", attributes["folder"])
        point = Point(attributes["key"], params, folder)
        self._enqueue(point, attempt=attempt, replaces=attributes["replaces"], fixed=trial.params)

    def recover(self) -> None:
        """Put back every point whose process is gone: killed, crashed, or on a machine not heard of any more."""
        with self._lock():
            self._fail_lost_trials()

    def _fail_lost_trials(self) -> None:
        for trial in self._trials((TrialState.RUNNING,)):
            if not self._is_lost(trial):
                continue
            outcome = trial.user_attrs.get("outcome")
            try:
                if outcome in LASTING:  # killed between noting the outcome and ending the trial
                    self._storage.set_trial_state_values(trial._trial_id, _end_state(outcome))
                else:
                    self._end(trial._trial_id, TrialState.FAIL, outcome="lost")
                    self._requeue(trial, trial.user_attrs["attempt"])
            except UpdateFinishedTrialError:
                continue  # another process was quicker, and has put it back

    def _is_lost(self, trial: FrozenTrial) -> bool:
        attributes = trial.user_attrs
        owner = ProcessId.from_json(attributes["owner"]) if "owner" in attributes else None
        if owner is None or not owner.is_here():
            # Clocks of two machines need not agree, so the heartbeat is watched, not compared with the time.
            beat, now = attributes.get("beat", 0.0), time.monotonic()
            if self._seen_beats.setdefault(trial.number, (beat, now))[0] != beat:
                self._seen_beats[trial.number] = (beat, now)
            return now - self._seen_beats[trial.number][1] > SILENT_S
        if owner == self._me or owner.is_alive():
            return False
        return not self._orphan_lives(trial)

    def _orphan_lives(self, trial: FrozenTrial) -> bool:
        """Whether a run outlives the sweep that started it; it is killed after `ORPHAN_GRACE_S`."""
        child = ProcessId.from_json(trial.user_attrs["child"]) if "child" in trial.user_attrs else None
        if child is None or not child.is_alive():
            run_dir = trial.user_attrs.get("run_dir")
            return run_dir is not None and is_locked(Path(run_dir))
        first_seen = self._seen_orphans.setdefault(trial.number, time.monotonic())
        if time.monotonic() - first_seen > ORPHAN_GRACE_S:
            child.kill_group()
        return True

    def _set(self, trial_id: int, **attributes: Any) -> None:
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(trial_id, name, value)

    def _end(self, trial_id: int, state: TrialState, *, value: float | None = None, **attributes: Any) -> None:
        self._set(trial_id, **{name: content for name, content in attributes.items() if content is not None})
        self._storage.set_trial_state_values(trial_id, state, None if value is None else [value])

    def results(self, points: Sequence[Point]) -> list[Result]:
        """What is known of every point now, in the points' order. A point never queued counts as waiting."""
        known: dict[str, Result] = {}
        for trial in self._trials():
            if not _is_live(trial):
                continue
            attributes = trial.user_attrs
            outcome = attributes.get("outcome")
            if outcome not in LASTING:
                outcome = "running" if trial.state == TrialState.RUNNING else "waiting"
            value = trial.value if trial.state == TrialState.COMPLETE else None
            folder = attributes.get("drawn_folder", attributes["folder"])
            earlier = known.get(attributes["key"])
            if earlier is None or earlier.outcome not in LASTING or attributes["replaces"]:
                known[attributes["key"]] = Result(attributes["key"], outcome, folder, value, attributes.get("reason"))
        return [known.get(point.key, Result(point.key, "waiting", point.folder)) for point in points]

    def close(self) -> None:
        """Let go of the database's connections."""
        self._storage.remove_session()


def _end_state(outcome: str) -> TrialState:
    return TrialState.PRUNED if outcome in ("finished", "stopped") else TrialState.FAIL


def _is_live(trial: FrozenTrial) -> bool:
    """Whether the trial speaks for its point: waiting, running, or ended for good."""
    return not trial.state.is_finished() or trial.user_attrs.get("outcome") in LASTING


def _folder_was_removed(trial: FrozenTrial) -> bool:
    attributes = trial.user_attrs
    if attributes.get("outcome") not in LASTING or "run_dir" not in attributes:
        return False
    ran_here = ProcessId.from_json(attributes["owner"]).machine.split(" ")[0] == platform.node()
    return ran_here and not Path(attributes["run_dir"]).is_dir()
