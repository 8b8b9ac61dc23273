"""A sweep's points in Optuna's terms: what its study records of a trial, and how a bayes search draws from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from tidepool.sweeping.parameters import Native, Parameter, Value, natives_of
from tidepool.sweeping.points import Point
from tidepool.sweeping.sequence import sweep_seed
from tidepool.sweeping.spec import Sweep


@dataclass(frozen=True)
class Terms:
    """The parameters of a trial as Optuna records them, each with where it lies; constants are none."""

    params: Mapping[str, Native]
    distributions: Mapping[str, BaseDistribution]


def terms(sweep: Sweep, point: Point, drawn: FrozenTrial | None) -> Terms:
    """Those of `point`; of the trial `drawn`, an earlier attempt at it, where they do not follow from the point."""
    if point.params is None:
        return Terms({}, {})
    if sweep.method == "grid":
        return _grid_terms(sweep, point.params)
    if point.natives is None and drawn is not None and drawn.params:
        return Terms(drawn.params, drawn.distributions)
    natives = natives_of(sweep.parameters, point.params) if point.natives is None else point.natives
    known = {parameter.name: parameter for parameter in sweep.parameters}
    return Terms(dict(natives), {name: known[name].optuna_distribution for name in natives})


def _grid_terms(sweep: Sweep, params: Mapping[str, Value]) -> Terms:
    natives: dict[str, Native] = {}
    distributions: dict[str, BaseDistribution] = {}
    for parameter in sweep.parameters:
        values = parameter.grid_values()
        if len(values) > 1:
            natives[parameter.name], distributions[parameter.name] = _grid_term(parameter, values, params)
    return Terms(natives, distributions)


def _grid_term(
    parameter: Parameter, values: tuple[Value, ...], params: Mapping[str, Value]
) -> tuple[Native, BaseDistribution]:
    value = params[parameter.name]
    kinds = {type(each) for each in values}
    if kinds == {int}:
        return value, IntDistribution(min(values), max(values))
    if kinds <= {int, float}:
        return value, FloatDistribution(min(values), max(values))
    return parameter.label(value), CategoricalDistribution(parameter.labels)


def begin_trial(storage: BaseStorage, study_id: int, terms: Terms, attributes: Mapping[str, Any]) -> int:
    """A new running trial, written at once with all it holds; its id."""

    def begin(recorded: Terms) -> int:
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(recorded.params),
            distributions=dict(recorded.distributions),
            user_attrs=dict(attributes),
        )
        return storage.create_new_trial(study_id, template)

    try:
        return begin(terms)
    except ValueError:  # the file has gained choices, which Optuna cannot record beside trials without them
        return begin(Terms({}, {}))


def draw(study: optuna.Study, trial_id: int, sweep: Sweep, key: str) -> dict[str, Value]:
    """The parameters of the place `key` of a bayes search, chosen from the results of the trials before it."""
    study.sampler = optuna.samplers.TPESampler(
        seed=sweep_seed(f"{sweep.seed} {key}", None) % 2**32,
        n_startup_trials=1,  # the first places are drawn beforehand
        constant_liar=True,
        multivariate=True,
    )
    trial = optuna.Trial(study, trial_id)
    return {parameter.name: parameter.suggest(trial) for parameter in sweep.parameters}
