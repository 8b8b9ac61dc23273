"""What W&B's engine and ours are both asked: grids, distributions by quantile, hyperband's stops."""

from __future__ import annotations

import random
from typing import Any

GRIDS: dict[str, dict[str, Any]] = {
    "q_uniform_quarters": {"x": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}},
    "q_uniform_from_3": {"x": {"distribution": "q_uniform", "min": 3, "max": 17, "q": 5}},
    "q_uniform_noise": {"x": {"distribution": "q_uniform", "min": 1, "max": 1.3, "q": 0.1}},
    "q_uniform_default_q": {"x": {"distribution": "q_uniform", "min": 0.5, "max": 4}},
    "int_uniform": {"x": {"min": -1, "max": 3}, "y": {"values": ["a", True, None, 1.5]}},
    "lists_and_mappings": {"x": {"values": [[1, 2], {"a": 1}, "s"]}, "c": {"value": [3]}},
    "nested": {"opt": {"parameters": {"lr": {"values": [0.1, 0.2]}, "in": {"parameters": {"b": {"value": 1}}}}}},
}
DISTRIBUTIONS: dict[str, dict[str, Any]] = {
    "uniform": {"min": 0.0, "max": 4.0},
    "int_uniform": {"min": -2, "max": 5},
    "categorical": {"values": ["a", "b", 3, True, None]},
    "categorical_w_probabilities": {"values": ["a", "b", "c"], "probabilities": [0.2, 0.5, 0.3]},
    "q_uniform": {"distribution": "q_uniform", "min": 3, "max": 17, "q": 5},
    "q_uniform_fraction": {"distribution": "q_uniform", "min": 0.1, "max": 2, "q": 0.25},
    "log_uniform": {"distribution": "log_uniform", "min": -3, "max": 1},
    "log_uniform_values": {"distribution": "log_uniform_values", "min": 1e-6, "max": 0.1},
    "inv_log_uniform": {"distribution": "inv_log_uniform", "min": 0, "max": 4},
    "inv_log_uniform_values": {"distribution": "inv_log_uniform_values", "min": 0.01, "max": 2},
    "q_log_uniform": {"distribution": "q_log_uniform", "min": 0, "max": 4, "q": 3},
    "q_log_uniform_values": {"distribution": "q_log_uniform_values", "min": 1, "max": 100, "q": 0.5},
    "normal": {"distribution": "normal", "mu": 3, "sigma": 0.5},
    "normal_default": {"distribution": "normal"},
    "q_normal": {"distribution": "q_normal", "mu": 10, "sigma": 4, "q": 2},
    "log_normal": {"distribution": "log_normal", "mu": 1, "sigma": 0.5},
    "q_log_normal": {"distribution": "q_log_normal", "mu": 2, "sigma": 1, "q": 0.5},
    "beta": {"distribution": "beta", "a": 2, "b": 5},
    "beta_default": {"distribution": "beta"},
    "q_beta": {"distribution": "q_beta", "a": 2, "b": 2, "q": 0.25},
}
QUANTILES = [0.001, 0.03, 0.11, 0.27, 0.33, 0.49, 0.52, 0.68, 0.74, 0.86, 0.97, 0.999]


def hyperbands() -> dict[str, dict[str, Any]]:
    """Rules, goals and the histories of runs, a third of them running."""
    rules: list[dict[str, Any]] = [
        {"min_iter": 2},
        {"min_iter": 1, "eta": 2, "strict": False},
        {"min_iter": 3, "eta": 2.5},
        {"max_iter": 27, "s": 2},
        {"max_iter": 20, "s": 3, "eta": 2, "strict": False},
    ]
    asked = {}
    for index, rule in enumerate(rules):
        for goal in ("minimize", "maximize"):
            draw = random.Random(f"{index}{goal}")
            runs = {f"run{n}": [round(draw.uniform(0, 1), 2) for _ in range(draw.randint(0, 24))] for n in range(18)}
            running = [name for name in runs if draw.random() < 0.34]
            whole = {"type": "hyperband", **rule}
            asked[f"{index} {goal}"] = {"rule": whole, "goal": goal, "runs": runs, "running": running}
    return asked
