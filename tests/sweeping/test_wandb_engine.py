"""Our search beside W&B's own engine: the same grids, distributions and stops, but for what is named here.

Differences: values on steps are without the noise of binary fractions; a run whose metric is not a number counts as the
worst at that iteration, where W&B leaves the iteration out.
"""

from __future__ import annotations

import json

import pytest

from tests.sweeping.wandb_engine import ANSWERS
from tests.sweeping.wandb_engine.questions import DISTRIBUTIONS, GRIDS, QUANTILES, hyperbands
from tidepool.sweeping.hyperband import judged, runs_to_stop
from tidepool.sweeping.parameter_keys import nested, read_parameter, read_parameters
from tidepool.sweeping.points import grid_points
from tidepool.sweeping.spec import _hyperband, _metrics

RECORDED = json.loads(ANSWERS.read_text())


def written(value):
    """A value as it may be compared: with its type, floats to 10 digits."""
    if isinstance(value, dict):
        return {name: written(each) for name, each in value.items()}
    return (type(value).__name__, f"{value:.10g}" if isinstance(value, float) else repr(value))


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_has_wandbs_points(name):
    parameters = read_parameters(GRIDS[name], method="grid")
    ours = [written(nested(parameters, point.params)) for point in grid_points(parameters, None)]
    theirs = [written(point) for point in RECORDED["grids"][name]]
    assert len(ours) == len(theirs)
    assert sorted(map(repr, map(sorted_keys, ours))) == sorted(map(repr, map(sorted_keys, theirs)))


def sorted_keys(point):
    return {name: sorted_keys(point[name]) if isinstance(point[name], dict) else point[name] for name in sorted(point)}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_has_wandbs_quantiles(name):
    parameter = read_parameter(("x",), DISTRIBUTIONS[name], method="random")
    ours = [parameter.value(parameter.native(quantile)) for quantile in QUANTILES]
    theirs = RECORDED["quantiles"][name]
    if any(isinstance(value, float) for value in theirs):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    else:
        assert [written(value) for value in ours] == [written(value) for value in theirs]


@pytest.mark.parametrize("name", hyperbands())
def test_hyperband_stops_what_wandb_stops(name):
    asked = hyperbands()[name]
    rule = _hyperband(asked["rule"], _metrics({"name": "m", "goal": asked["goal"]}))
    maximize = asked["goal"] == "maximize"
    runs = {run: judged(history, rule, maximize=maximize) for run, history in asked["runs"].items()}
    assert sorted(runs_to_stop(runs, asked["running"], rule, maximize=maximize)) == RECORDED["stops"][name]
