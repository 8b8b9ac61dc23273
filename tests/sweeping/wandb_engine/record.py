"""Record the answers: ``pip install --no-deps --target ASIDE sweeps==0.3.0 jsonref``, then
``PYTHONPATH=ASIDE:src python -m tests.sweeping.wandb_engine.record``.
"""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

from sweeps.grid_search import grid_search_next_runs  # type: ignore[import-not-found]
from sweeps.hyperband_stopping import hyperband_stop_runs  # type: ignore[import-not-found]
from sweeps.params import HyperParameter  # type: ignore[import-not-found]
from sweeps.run import RunState, SweepRun  # type: ignore[import-not-found]

from tests.sweeping.wandb_engine import ANSWERS
from tests.sweeping.wandb_engine.questions import DISTRIBUTIONS, GRIDS, QUANTILES, hyperbands


def _grid(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    found = grid_search_next_runs([], {"method": "grid", "parameters": parameters}, n=1000)
    return [{name: each["value"] for name, each in run.config.items()} for run in found if run is not None]


def _quantiles(settings: dict[str, Any]) -> list[Any]:
    parameter = HyperParameter("x", settings)
    return [getattr(value, "tolist", lambda value=value: value)() for value in map(parameter.ppf, QUANTILES)]


def _stops(asked: dict[str, Any]) -> list[str]:
    runs = [SweepRun(name=name, state=RunState.running if name in asked["running"] else RunState.finished,
                     history=[{"m": value} for value in history])
            for name, history in asked["runs"].items()]  # fmt: skip
    config = {"method": "grid", "metric": {"name": "m", "goal": asked["goal"]}, "early_terminate": asked["rule"],
              "parameters": {"a": {"value": 1}}}  # fmt: skip
    return sorted(run.name for run in hyperband_stop_runs(runs, config))


if __name__ == "__main__":
    answers = {
        "sweeps": metadata.version("sweeps"),
        "grids": {name: _grid(parameters) for name, parameters in GRIDS.items()},
        "quantiles": {name: _quantiles(settings) for name, settings in DISTRIBUTIONS.items()},
        "stops": {name: _stops(asked) for name, asked in hyperbands().items()},
    }
    ANSWERS.write_text(json.dumps(answers, indent=1) + "\n")
