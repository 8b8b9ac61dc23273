"""The trials of a sweep's study as they stand in the database, read anew only as far as they may have changed.

Optuna reads all trials with everything they hold; with 100,000 of them that is most of a minute. Here two or three
selects bring what is new and what was running. Optuna's table definitions are private to it and have stood for years;
this module is the only one that names them.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState

from tidepool.sweeping.machine import ProcessId
from tidepool.sweeping.parameters import Value

LASTING = ("finished", "diverged", "failed", "refused", "stopped")
"""What may become of a point; one with one of these is not run again."""

_FEW = 500  # trials that a query names one by one
_TRIALS: Any = models.TrialModel.__table__
_ATTRIBUTES: Any = models.TrialUserAttributeModel.__table__
_VALUES: Any = models.TrialValueModel.__table__
_REPORTS: Any = models.TrialIntermediateValueModel.__table__


@dataclass(frozen=True)
class Entry:
    """One attempt at a point, by a process `owner` and its `ledger`.

    `outcome` is lasting, or what ended the attempt without one (interrupted,
    retried, lost). `reports`: the metric at the steps where early stopping judges."""

    trial_id: int
    number: int
    state: TrialState
    key: str
    params: Mapping[str, Value] | None
    folder: str | None
    attempt: int
    owner: ProcessId | None = None
    ledger: str | None = None
    child: ProcessId | None = None
    beat: float = 0.0
    run_dir: str | None = None
    outcome: str | None = None
    reason: str | None = None
    next_attempt: int = 1
    values: tuple[float, ...] = ()
    reports: Mapping[int, float] = field(default_factory=dict)

    @functools.cached_property
    def is_settled(self) -> bool:
        """Whether the point has its lasting outcome by this attempt."""
        return self.state.is_finished() and self.outcome in LASTING

    @functools.cached_property
    def is_live(self) -> bool:
        """Whether the attempt speaks for its point: running, or ended for good."""
        return self.state == TrialState.RUNNING or self.is_settled


class Trials:
    """Follows the trials of one study."""

    def __init__(self, database: RDBStorage, study_id: int, *, with_reports: bool) -> None:
        self._engine, self._study_id, self._with_reports = database.engine, study_id, with_reports
        self._last = -1
        self.running: dict[int, Entry] = {}
        """Those that have not ended, by trial."""

    def changed(self) -> list[Entry]:
        """What is new since the last call, and what was running then, in the order they were begun."""
        query = sqlalchemy.select(_TRIALS.c.trial_id, _TRIALS.c.number, _TRIALS.c.state)
        with self._engine.connect() as connection:
            states = connection.execute(query.where(self._may_have_changed())).all()
            if not states:
                return []
            chosen = self._chosen([trial_id for trial_id, _, _ in states])
            wanted = chosen(_ATTRIBUTES)
            if len(states) > _FEW:  # what runs of them is read once more at the next look, with its signs of life
                wanted &= _ATTRIBUTES.c.key.in_(("point", "end"))
            attributes = _by_trial(connection, wanted, _ATTRIBUTES, "key", "value_json")
            values = _by_trial(connection, chosen(_VALUES), _VALUES, "objective", "value")
            reports = {}
            if self._with_reports:
                reports = _by_trial(connection, chosen(_REPORTS), _REPORTS, "step", "intermediate_value")
        found = []
        for trial_id, number, state in sorted(states):
            self._last = max(self._last, trial_id)
            self.running.pop(trial_id, None)
            held = {name: json.loads(text) for name, text in attributes.get(trial_id, {}).items()}
            if "point" not in held or state == TrialState.WAITING:
                continue  # not of this kind of ledger
            measured = tuple(value for _, value in sorted(values.get(trial_id, {}).items()))
            entry = _entry(trial_id, number, state, held, measured, reports.get(trial_id, {}))
            if state == TrialState.RUNNING:
                self.running[trial_id] = entry
            found.append(entry)
        return found

    def _may_have_changed(self) -> Any:
        """Which trials to look at. After the first look by their numbers alone: the study's index would lead through
        all of its trials."""
        if self._last < 0:
            return _TRIALS.c.study_id == self._study_id
        newer = sqlalchemy.select(_TRIALS.c.trial_id).where(_TRIALS.c.trial_id > self._last)
        named = sqlalchemy.select(_TRIALS.c.trial_id).where(_TRIALS.c.trial_id.in_(list(self.running)))
        in_study = sqlalchemy.func.abs(_TRIALS.c.study_id) == self._study_id  # no index is of this
        return _TRIALS.c.trial_id.in_(sqlalchemy.union_all(newer, named)) & in_study

    def _chosen(self, trial_ids: list[int]) -> Callable[[Any], Any]:
        """What picks the rows of these trials from a table."""
        if len(trial_ids) <= _FEW:
            return lambda table: table.c.trial_id.in_(trial_ids)
        return lambda table: table.c.trial_id.in_(_of_study(self._study_id))


def _of_study(study_id: int) -> Any:
    return sqlalchemy.select(_TRIALS.c.trial_id).where(_TRIALS.c.study_id == study_id)


def _by_trial(connection: Any, chosen: Any, table: Any, name: str, value: str) -> dict[int, dict[Any, Any]]:
    query = sqlalchemy.select(table.c.trial_id, table.c[name], table.c[value])
    found: dict[int, dict[Any, Any]] = defaultdict(dict)
    for trial_id, key, content in connection.execute(query.where(chosen)):
        found[trial_id][key] = content
    return found


def _entry(
    trial_id: int,
    number: int,
    state: TrialState,
    held: Mapping[str, Any],
    values: tuple[float, ...],
    reports: Mapping[int, float | None],
) -> Entry:
    point, end = held["point"], held.get("end", {})
    return Entry(
        trial_id=trial_id,
        number=number,
        state=state,
        key=point["key"],
        params=point["params"],
        folder=point["folder"],
        attempt=point["attempt"],
        owner=ProcessId.from_json(point["owner"]) if "owner" in point else None,
        ledger=point.get("ledger"),
        child=ProcessId.from_json(held["child"]) if "child" in held else None,
        beat=held.get("beat", 0.0),
        run_dir=point.get("run_dir"),
        outcome=end.get("outcome"),
        reason=end.get("reason"),
        next_attempt=end.get("next_attempt", point["attempt"]),
        values=values,
        reports={step: float("nan") if value is None else value for step, value in reports.items()},
    )
