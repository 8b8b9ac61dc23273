"""The part of a report that says what a sweep found, and the first screen of one that compared no backends."""

from __future__ import annotations

from collections.abc import Sequence

from tidepool.analysis import page
from tidepool.analysis.drawing import Figure
from tidepool.analysis.page import Section
from tidepool.analysis.runs import Records, findings
from tidepool.analysis.sweeps.importance import FEWEST
from tidepool.analysis.sweeps.leaderboard import leaderboard
from tidepool.analysis.sweeps.points import SweepPoints
from tidepool.analysis.sweeps.verdicts import sweep_verdicts
from tidepool.analysis.sweeps.words import best_lines, caution, front_lines, leaderboard_view, outcome_text

MOST_ROWS = 50
"""Configurations shown on the page; leaderboard.csv has all."""


def sweep_sections(sweeps: Sequence[SweepPoints], figures: Sequence[Figure]) -> list[Section]:
    """One section a sweep: best run, leaderboard, front, figures."""
    return [
        (
            "sweep" if len(sweeps) == 1 else f"sweep-{index}",
            f"Result of the sweep {sweep.name}",
            _parts(sweep, [f for f in figures if f.caption.startswith(f"{sweep.name}: ")]),
        )
        for index, sweep in enumerate(sweeps, start=1)
    ]


def _parts(sweep: SweepPoints, figures: Sequence[Figure]) -> list[str]:
    parts = [page.paragraphs([outcome_text(sweep) + "."]), best_part(sweep), page.paragraphs(front_lines(sweep))]
    board = leaderboard(sweep)
    if not board.empty and sweep.objectives:
        parts.append(page.table(leaderboard_view(sweep, board.head(MOST_ROWS)), long=("Run",)))
        if len(board) > MOST_ROWS:
            parts.append(page.paragraphs([f"{len(board) - MOST_ROWS} more in tables/leaderboard.csv."]))
    notes = caution(sweep)
    if 0 < len(sweep.finished) < FEWEST and sweep.varied:
        notes = [*notes, f"Importance of parameters: not computed, fewer than {FEWEST} finished runs."]
    return [*parts, page.paragraphs(notes), page.figure_grid(figures)]


def best_part(sweep: SweepPoints) -> str:
    """The best run, and the command that repeats it as something to copy."""
    first, *rest = best_lines(sweep)
    commands = [line.partition(": ")[2] for line in rest]
    return page.paragraphs([first], "result") + "".join(f"<pre>{page.text(command)}</pre>" for command in commands)


def search_screen(sweeps: Sequence[SweepPoints], records: Records) -> str:
    """The first screen where backends were not varied: what was searched, on what, and the best run."""
    answers = [
        ("Searched", page.paragraphs([f"{sweep.name}: {_searched(sweep)}" for sweep in sweeps])),
        ("On", page.paragraphs(findings.machines(records))),
        ("Result", "".join(best_part(sweep) for sweep in sweeps)),
        ("Caution", page.paragraphs([line for sweep in sweeps for line in caution(sweep)] or ["None."])),
    ]
    verdicts = page.badges(sweep_verdicts(sweeps, records))
    questions = page.paragraphs(findings.questions(records), "question")
    return f"{verdicts}\n{questions}\n{page.answers(answers)}"


def _searched(sweep: SweepPoints) -> str:
    seeds = f", {sweep.seeds} seeds" if sweep.seeds > 1 else ""
    return f"{outcome_text(sweep)}; {sweep.method} over {', '.join(sweep.varied) or 'the seed alone'}{seeds}."
