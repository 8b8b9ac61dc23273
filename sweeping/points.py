"""The runs of a sweep before they are run: their keys, parameters and folders.

A grid's points are all known at once, and a random search's too: they follow from the sweep's name. A bayes search has
numbered places whose parameters are drawn when a worker takes them; its first ones are those of a random search.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidepool.sweeping import sequence
from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameters import Native, Parameter, Value

MOST_POINTS = 100_000
_MOST_STARTUP_RUNS = 10


@dataclass(frozen=True)
class Point:
    """One place in a sweep. `key` names it in every process; `params` and `folder` are None until they are drawn.
    `natives`: the drawn parameters in the search's own terms."""

    key: str
    params: Mapping[str, Value] | None
    folder: str | None
    natives: Mapping[str, Native] | None = None


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
    total = math.prod(len(axis) for axis in axes)
    if min(total, run_cap or total) > MOST_POINTS:
        raise SweepError(f"parameters: the grid has {total:,} points; narrow it, or set run_cap")
    names = [parameter.name for parameter in parameters]
    varied = [name for name, axis in zip(names, axes, strict=True) if len(axis) > 1]
    points = []
    for values in itertools.islice(itertools.product(*axes), run_cap):
        params = dict(zip(names, values, strict=True))
        points.append(Point(parameters_key(params), params, point_folder(params, varied)))
    return points


def random_points(parameters: Sequence[Parameter], run_cap: int, seed: int) -> list[Point]:
    """The points of a random search: `run_cap` of them, or every combination where there are fewer."""
    drawn = itertools.islice(sequence.draws(parameters, seed), run_cap)
    return [drawn_point(place_key(index), draw.params, draw.natives) for index, draw in enumerate(drawn)]


def bayes_points(parameters: Sequence[Parameter], run_cap: int, seed: int) -> list[Point]:
    """`run_cap` places of a bayes search, their parameters still open but for the first, `startup_runs` of them."""
    first = random_points(parameters, startup_runs(run_cap), seed)
    return first + [Point(place_key(index), None, None) for index in range(len(first), run_cap)]


def startup_runs(run_cap: int) -> int:
    """How many runs of a bayes search are drawn at random, for it to have something to go on: a quarter, 1 to 10."""
    return min(_MOST_STARTUP_RUNS, 1 + run_cap // 4, run_cap)


def place_key(index: int) -> str:
    """The key of the place `index` of a random or bayes search."""
    return f"run-{index:04d}"


def drawn_point(key: str, params: Mapping[str, Value], natives: Mapping[str, Native] | None = None) -> Point:
    """The place `key` of a search with the parameters drawn for it."""
    return Point(key, params, point_folder(params, (), prefix=key), natives)
