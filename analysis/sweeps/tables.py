"""The tables of sweeps that a report writes: leaderboard, importance, points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tidepool.analysis.sweeps.importance import importance_table
from tidepool.analysis.sweeps.leaderboard import leaderboard
from tidepool.analysis.sweeps.points import SweepPoints
from tidepool.analysis.sweeps.words import leaderboard_view
from tidepool.analysis.text import markdown


def sweep_tables(sweeps: Sequence[SweepPoints]) -> dict[str, pd.DataFrame]:
    """Full-precision tables by name; with several sweeps each row begins with its sweep."""
    return {
        "leaderboard": _joined(sweeps, [leaderboard(sweep) for sweep in sweeps]),
        "importance": _joined(sweeps, [importance_table(sweep) for sweep in sweeps]),
        "points": _joined(sweeps, [sweep.points for sweep in sweeps]),
    }


def _joined(sweeps: Sequence[SweepPoints], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    named = [
        table.assign(sweep=sweep.name)[["sweep", *table.columns]]
        for sweep, table in zip(sweeps, tables, strict=True)
        if not table.empty
    ]
    return pd.concat(named, ignore_index=True) if named else pd.DataFrame()


def write_sweep_tables(sweeps: Sequence[SweepPoints], folder: Path) -> None:
    """Write each table as CSV, and each sweep's leaderboard as Markdown as its reader sees it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in sweep_tables(sweeps).items():
        if not table.empty:
            table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    parts = []
    for sweep in sweeps:
        board = leaderboard(sweep)
        if not board.empty and sweep.objectives:
            parts.append(f"{sweep.name}\n\n{markdown(leaderboard_view(sweep, board))}")
    if parts:
        (folder / "leaderboard.md").write_text("\n".join(parts), encoding="utf-8")
