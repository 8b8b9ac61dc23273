"""The runs of a sweep before they are run: their keys, parameters and folders.

A grid's points are all known at once. A random or bayes search has numbered places instead, whose parameters are drawn
when a worker takes them: random ones from the place's number alone, so every machine draws the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameters import Parameter, Value

MOST_POINTS = 100_000
_STARTUP_RUNS = 10  # drawn at random before the bayes search has anything to go on


@dataclass(frozen=True)
class Point:
    """One place in a sweep. `key` names it in every process; `params` and `folder` are None until they are drawn."""

    key: str
    params: Mapping[str, Value] | None
    folder: str | None


def parameters_key(params: Mapping[str, Value]) -> str:
    """A text equal for equal parameters, whatever their order in the file."""
    return json.dumps(dict(params), sort_keys=True)


def point_folder(params: Mapping[str, Value], varied: Sequence[str], prefix: str = "") -> str:
    """A folder name a reader can tell points apart by: the varied values, then six digits of a hash of them all."""
    digest = hashlib.sha256(parameters_key(params).encode()).hexdigest()[:6]
    words = "_".join(f"{name.rpartition('.')[2]}-{params[name]}" for name in varied)
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "-", prefix or words).strip("-.")[:80]
    return f"{readable}_{digest}" if readable else digest


def grid_points(parameters: Sequence[Parameter], run_cap: int | None) -> list[Point]:
    """Every combination in file order, the last parameter changing fastest; at most `run_cap` of them.

    Raises:
        SweepError: more points than `MOST_POINTS` and no run_cap.
    """
    axes = [parameter.grid_values() for parameter in parameters]
    total = 1
    for axis in axes:
        total *= len(axis)
    if min(total, run_cap or total) > MOST_POINTS:
        raise SweepError(f"parameters: the grid has {total:,} points; narrow it, or set run_cap")
    names = [parameter.name for parameter in parameters]
    varied = [name for name, axis in zip(names, axes, strict=True) if len(axis) > 1]
    points = []
    for values in itertools.islice(itertools.product(*axes), run_cap):
        params = dict(zip(names, values, strict=True))
        points.append(Point(parameters_key(params), params, point_folder(params, varied)))
    return points


def search_points(run_cap: int) -> list[Point]:
    """`run_cap` places of a random or bayes search, their parameters still open."""
    return [Point(f"run-{index:04d}", None, None) for index in range(run_cap)]


def point_sampler(method: str, key: str) -> optuna.samplers.BaseSampler:
    """The sampler that draws the place `key` of a random or bayes search, seeded by the place's number."""
    seed = int(key.rpartition("-")[2])
    if method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP_RUNS, constant_liar=True, multivariate=True)


def draw(point: Point, parameters: Sequence[Parameter], trial: optuna.Trial) -> Point:
    """`point` with parameters and folder, drawn through `trial` if they were still open."""
    if point.params is not None:
        return point
    params = {parameter.name: parameter.suggest(trial) for parameter in parameters}
    return Point(point.key, params, point_folder(params, (), prefix=point.key))


def random_points(parameters: Sequence[Parameter], run_cap: int) -> list[Point]:
    """The points a random search will run, without keeping a record of having drawn them."""
    drawn = []
    for point in search_points(run_cap):
        study = optuna.create_study(sampler=point_sampler("random", point.key))
        drawn.append(draw(point, parameters, study.ask()))
    return drawn
