"""The result of a sweep in sentences: for a terminal, and for the first screen of a report."""

from __future__ import annotations

import math
from collections import Counter

import pandas as pd

from tidepool.analysis.sweeps.leaderboard import best_point, leaderboard
from tidepool.analysis.sweeps.pareto import hypervolume
from tidepool.analysis.sweeps.points import Objective, SweepPoints, value_text
from tidepool.analysis.text import MISSING, number, plain

SHOWN = 10
"""Lines of a leaderboard on a terminal."""


def metric_text(name: str, value: float) -> str:
    """A value of a metric: an accuracy, which is recorded as a fraction, in percent."""
    value = float(value)
    if math.isnan(value):
        return MISSING
    if name.endswith("accuracy"):
        return f"{number(100 * value, 2)} %"
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e12 else f"{value:.5g}"


def spread_text(name: str, value: float) -> str:
    """A standard deviation of a metric; of an accuracy in percentage points."""
    if math.isnan(value):
        return MISSING
    return f"{number(100 * value, 2)}" if name.endswith("accuracy") else f"{value:.3g}"


def leaderboard_view(sweep: SweepPoints, board: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard as its reader sees it."""
    view = pd.DataFrame({"Rank": board["rank"].map(str)}, dtype="object")
    for name in sweep.varied:
        view[name] = board[f"param/{name}"].map(value_text)
    for objective in sweep.objectives:
        view[f"{objective.name} mean"] = [metric_text(objective.name, v) for v in board[f"{objective.name}_mean"]]
        if (board[f"{objective.name}_std"] > 0).any():
            view[f"{objective.name} sd"] = [spread_text(objective.name, v) for v in board[f"{objective.name}_std"]]
    view["n"] = [
        str(n) if not other else f"{n} of {n + other}"
        for n, other in zip(board["n_finished"], board["n_other"], strict=True)
    ]
    if "on_front" in board:
        view["Front"] = ["yes" if each else "" for each in board["on_front"]]
    view["Run"] = [str(run).rpartition("/")[2] for run in board["run"]]
    return view


def best_lines(sweep: SweepPoints) -> list[str]:
    """The best run: where it lies, what it reached, its varied parameters; and the command that repeats it."""
    best = best_point(sweep)
    if best is None:
        what = "no objective was named" if not sweep.objectives else "no run finished with a number for it"
        return [f"No best run: {what}."]
    reached = ", ".join(f"{o.name} {metric_text(o.name, best[o.column])}" for o in sweep.objectives)
    names = [*sweep.varied, *(["seed"] if sweep.seeds > 1 else [])]
    settings = ", ".join(f"{name}={value_text(best[f'param/{name}'])}" for name in names)
    goal = "highest" if sweep.objectives[0].maximize else "lowest"
    what = f"{best['run']}, {reached}{f' ({settings})' if settings else ''}"
    return [f"Best run, {goal} {sweep.objectives[0].name}: {what}.", f"It is repeated by: {best['command']}"]


def caution(sweep: SweepPoints) -> list[str]:
    """What a best run does not show; nothing of a sweep that compares backends, which chooses none."""
    lines: list[str] = []
    if sweep.varied == ("backend",):
        return lines
    count = len(leaderboard(sweep))
    if count > 1:
        lines.append(f"The best of {count} configurations is flattered by having been chosen: measure it again with "
                     "fresh seeds before quoting it.")  # fmt: skip
    if any(objective.name.startswith("test/") for objective in sweep.objectives) and count > 1:
        lines.append("It was chosen by the test split, which therefore says nothing of data the choice has not seen.")
    return lines


def front_lines(sweep: SweepPoints) -> list[str]:
    """The front and its hypervolume, where there are several objectives."""
    board = leaderboard(sweep)
    if len(sweep.objectives) < 2 or board.empty:
        return []
    costs = [[float(o.cost(pd.Series([row[f"{o.name}_mean"]])).iloc[0]) for o in sweep.objectives]
             for _, row in board.iterrows()]  # fmt: skip
    worst = [max(column) for column in zip(*costs, strict=True)]
    least = [min(column) for column in zip(*costs, strict=True)]
    box = math.prod(high - low for high, low in zip(worst, least, strict=True))
    share = f"{100 * hypervolume(costs, worst) / box:.1f} % of" if box > 0 else "no volume in"
    edge = ", ".join(f"{o.name} {_signed(o, value)}" for o, value in zip(sweep.objectives, worst, strict=True))
    return [
        f"Pareto front: {int(board['on_front'].sum())} of {len(board)} configurations. Each of the others is better in "
        "no objective than one of these, and worse in one or more.",
        f"Hypervolume: the front dominates {share} the box between the best and the worst value of each objective "
        f"(reference point: {edge}).",
    ]


def _signed(objective: Objective, cost: float) -> str:
    return metric_text(objective.name, -cost if objective.maximize else cost)


def outcome_text(sweep: SweepPoints) -> str:
    """``24 points: 20 finished, 3 refused, 1 diverged``."""
    counts = Counter(sweep.points["outcome"])
    order = sorted(counts, key=lambda kind: (kind != "finished", kind))
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in order)
    return f"{len(sweep.points)} point{'s' if len(sweep.points) != 1 else ''}: {kinds}"


def sweep_text(sweep: SweepPoints) -> str:
    """The result for a terminal."""
    lines = [f"Sweep {sweep.name}, {outcome_text(sweep)}"]
    board = leaderboard(sweep)
    if not board.empty and sweep.objectives:
        view = leaderboard_view(sweep, board)
        lines += ["", "Leaderboard", plain(view.head(SHOWN), indent="  ")]
        if len(view) > SHOWN:
            lines.append(f"  {len(view) - SHOWN} more in the report's table leaderboard.csv")
    if front := front_lines(sweep):
        lines += ["", *front]
    lines += ["", *best_lines(sweep), *caution(sweep)]
    return "\n".join(lines) + "\n"
