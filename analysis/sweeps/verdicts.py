"""The verdicts at the top of a report on searches: each one's best run, how its points ended, what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tidepool.analysis.page import Badge
from tidepool.analysis.runs import Records
from tidepool.analysis.runs.verdicts import left_out_badge
from tidepool.analysis.sweeps.leaderboard import best_point
from tidepool.analysis.sweeps.points import SweepPoints, value_text
from tidepool.analysis.sweeps.words import metric_text

_MOST_SETTINGS = 6


def sweep_verdicts(sweeps: Sequence[SweepPoints], records: Records) -> list[Badge]:
    """Two badges a sweep, and one on records that could not be read."""
    found = [badge for sweep in sweeps for badge in (_best(sweep), _ended(sweep))]
    return [*found, *left_out_badge(records)]


def _best(sweep: SweepPoints) -> Badge:
    best = best_point(sweep)
    if best is None:
        return Badge(f"Best of {sweep.name}", "none", "no run finished with a number for its objective", "bad")
    first, *others = sweep.objectives
    names = [*sweep.varied[:_MOST_SETTINGS], *(["seed"] if sweep.seeds > 1 else [])]
    settings = [f"{name} {_short(best[f'param/{name}'])}" for name in names]
    also = [f"{o.name} {metric_text(o.name, best[o.column])}" for o in others]
    goal = "highest" if first.maximize else "lowest"
    name = f"Best of {sweep.name}, {goal} {first.name}"
    return Badge(name, metric_text(first.name, best[first.column]), ", ".join([*also, *settings]))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value_text(value)


def _ended(sweep: SweepPoints) -> Badge:
    counts = Counter(sweep.points["outcome"])
    rest = ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts) if kind != "finished")
    tone = "bad" if counts["diverged"] or counts["failed"] else "warn" if rest else "good"
    verdict = f"{counts['finished']} of {len(sweep.points)} finished"
    return Badge(f"Points of {sweep.name}", verdict, rest or "none failed, none diverged", tone)
