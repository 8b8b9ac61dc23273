"""Whether a sweep file still asks for the sweep that was begun under its name, or for another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.parameter_keys import read_parameters
from tidepool.sweeping.parameters import Value
from tidepool.sweeping.spec import Sweep, parse_margin, parse_search_seed
from tidepool.sweeping.words import counted

# What decides how runs are made and judged; the rest of a sweep file may be reworded at any time.
_DECIDING_KEYS = ("program", "method", "command", "metric", "early_terminate")


def check_same_sweep(sweep: Sweep, earlier: Mapping[str, Any], done: Iterable[Mapping[str, Value]], where: str) -> None:
    """Refuse to resume `earlier`, the sweep file of a sweep in which points with the parameters `done` have an outcome
    or run, under a file that asks for something else.

    A search space may be edited as long as it contains these points, and run_cap may change. The margin may not: it was
    declared before the runs. While nothing is done, anything may change.

    Raises:
        SweepError: one line with file, key and what to do.
    """
    points = list(done)
    if not points:
        return
    for key in _DECIDING_KEYS:
        if _judging(sweep.content.get(key)) != _judging(earlier.get(key)):
            raise _refusal(sweep, key, f"differs from {where}", points)
    description = earlier.get("description", "")
    if parse_margin(description) != sweep.margin_points:
        reason = f"the margin differs from {where}, and is declared before the runs"
        raise _refusal(sweep, "description", reason, points)
    if sweep.method != "grid" and parse_search_seed(description) != sweep.search_seed:
        raise _refusal(sweep, "description", f"the search_seed differs from {where}", points)
    _check_space(sweep, earlier, points, where)


def _judging(content: Any) -> Any:
    """A deciding key's content without what only says when to end."""
    return {key: value for key, value in content.items() if key != "target"} if isinstance(content, dict) else content


def _check_space(sweep: Sweep, earlier: Mapping[str, Any], points: list[Mapping[str, Value]], where: str) -> None:
    if repr(sweep.content["parameters"]) == repr(earlier.get("parameters")):
        return
    before = {parameter.name for parameter in read_parameters(earlier.get("parameters", {}), method="")}
    new = {parameter.name: parameter for parameter in sweep.parameters}
    for name in sorted(before ^ new.keys()):
        reason = f"is not in {where}" if name in new else f"is in {where} and missing here"
        raise _refusal(sweep, f"parameters.{name}", reason, points)
    for name, parameter in new.items():
        outside = [params for params in points if not (name in params and parameter.contains(params[name]))]
        if outside:
            value = outside[0].get(name)
            reason = f"has no place for {name}={value!r}, which has been run"
            raise _refusal(sweep, f"parameters.{name}", reason, outside)
    if sweep.method == "grid":
        _check_on_the_grid(sweep, points)


def _check_on_the_grid(sweep: Sweep, points: list[Mapping[str, Value]]) -> None:
    for parameter in sweep.parameters:
        values = {repr(value) for value in parameter.grid_values()}
        outside = [params for params in points if repr(params[parameter.name]) not in values]
        if outside:
            value = outside[0][parameter.name]
            reason = f"has no place for {parameter.name}={value!r}, which has been run"
            raise _refusal(sweep, f"parameters.{parameter.name}", reason, outside)


def _refusal(sweep: Sweep, key: str, reason: str, points: list[Mapping[str, Value]]) -> SweepError:
    return SweepError(
        f"{sweep.path}: {key}: {reason} ({counted(len(points), 'run')} would have no place); "
        "give the sweep another name, or begin it anew with --reset, which sets its runs aside"
    )
