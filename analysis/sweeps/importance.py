"""How much of the spread of a sweep's results each parameter explains, by Optuna's fANOVA.

Source: Hutter, Hoos and Leyton-Brown 2014, "An Efficient Approach for Assessing Hyperparameter Importance".
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from tidepool.analysis.sweeps.points import Objective, SweepPoints, value_text

FEWEST = 8
"""Finished runs; with fewer a forest has nothing to split."""
_LOG_RATIO = 100


def importance_table(sweep: SweepPoints) -> pd.DataFrame:
    """A row an objective and varied parameter: ``importance``, of 1 in all. Empty with fewer than FEWEST finished runs,
    where nothing was varied, or where all results are equal."""
    rows = []
    for objective in sweep.objectives:
        for name, share in _importances(sweep, objective).items():
            rows.append({"metric": objective.name, "parameter": name, "importance": share})
    return pd.DataFrame(rows, columns=["metric", "parameter", "importance"])


def _importances(sweep: SweepPoints, objective: Objective) -> dict[str, float]:
    finished = sweep.finished
    if len(finished) < FEWEST or finished[objective.column].nunique() < 2:
        return {}
    columns = {name: _column(finished[f"param/{name}"]) for name in sweep.varied}
    columns = {name: column for name, column in columns.items() if column is not None}
    if not columns:
        return {}
    import optuna  # as the report of runs does without it

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would say that it makes a study
    study = optuna.create_study()
    for index, value in enumerate(finished[objective.column]):
        params = {name: column[0][index] for name, column in columns.items() if column}
        kinds = {name: column[1] for name, column in columns.items() if column}
        study.add_trial(optuna.create_trial(params=params, distributions=kinds, value=float(value)))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _column(values: pd.Series) -> tuple[list[Any], Any] | None:
    """A parameter's values and where they lie, as Optuna takes them; None where they are all one."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if values.map(value_text).nunique() < 2:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = [float(value) for value in values]
        low, high = min(numbers), max(numbers)
        return (numbers, FloatDistribution(low, high, log=low > 0 and high / low >= _LOG_RATIO)) if low < high else None
    texts = [value_text(value) for value in values]
    return texts, CategoricalDistribution(sorted(set(texts)))
