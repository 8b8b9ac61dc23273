"""The sections of a report on runs: first screen, accuracy, curves, agreement, speed, pictures, environment, runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tidepool.analysis import page
from tidepool.analysis.conditions import CONDITION, condition_title
from tidepool.analysis.data_table import data_table
from tidepool.analysis.drawing import Figure
from tidepool.analysis.page import Section
from tidepool.analysis.runs import findings
from tidepool.analysis.runs.figures import MOST_CONDITIONS, drawn_groups, example_runs
from tidepool.analysis.runs.records import Records
from tidepool.analysis.runs.run_table import run_table
from tidepool.analysis.runs.speed import MEASURED
from tidepool.analysis.runs.verdicts import verdicts
from tidepool.analysis.runs.views import shown
from tidepool.analysis.text import INTERPRETED, SIMULATED, joined
from tidepool.records import shown_path

_LARGEST_PICTURE = 2 * 2**20  # bytes; a larger one is named, not embedded
_MOST_ROWS = 100  # of one table on the page
_MOST_PICTURES = 6  # of one run
_PICTURE_NAMES = {"filters": "first-layer filters", "feature_maps": "feature maps of the first layer"}


def run_sections(
    records: Records,
    tables: dict[str, pd.DataFrame],
    figures: Sequence[Figure],
    measured: Sequence[Section],
    out: Path | None = None,
) -> list[Section]:
    """(key, heading, parts) of every section, ``measured``, those on bench.py's measurements, behind speed. ``out`` is
    the folder of the page, which links to runs."""
    of = {name: [figure for figure in figures if figure.section == name] for name in
          ("overview", "accuracy", "curves", "agreement", "speed", "pictures")}  # fmt: skip
    overview = [("overview", "At a glance", [page.figure_grid(of["overview"])])] if of["overview"] else []
    comparison = bool(records.compared)
    agreement = ("agreement", "Agreement of the first losses", _agreement_parts(tables["agreement"], of["agreement"]))
    return [
        ("runs", "All runs", [_runs_intro(records), data_table(run_table(records, out))]),
        *overview,
        ("accuracy", "Test accuracy", _accuracy_parts(records, tables, of["accuracy"])),
        ("curves", "Learning curves", [page.figure_grid(of["curves"]) or page.paragraphs(["No curve was recorded."])]),
        *([agreement] if comparison else []),
        ("speed", "Speed in training", _speed_parts(tables["speed"], of["speed"])),
        *measured,
        ("pictures", "What the networks saw", _seen_parts(records, of["pictures"])),
        ("environment", "Environment", [_environment_part(records)]),
    ]


def first_screen(records: Records, tables: dict[str, pd.DataFrame], whole: Records) -> str:
    """What was compared of the ``whole``, on what, with what result, and what was not measured."""
    first_losses = findings.agreement(tables["agreement"])
    result = page.paragraphs(findings.results(tables["accuracy"]), "result")
    questions = page.paragraphs(findings.questions(records), "question")
    answers = [
        *([("Question", questions)] if questions else []),
        ("Compared", page.paragraphs(findings.compared(records))),
        ("On", page.paragraphs(findings.machines(records))),
        ("Result", result + page.paragraphs([first_losses] if first_losses else [])),
        ("Not measured", page.paragraphs(findings.not_measured(records, tables) or ["Nothing left out."])),
    ]
    return page.badges(verdicts(records, tables, whole)) + "\n" + page.answers(answers)


def _accuracy_parts(records: Records, tables: dict[str, pd.DataFrame], figures: list[Figure]) -> list[str]:
    count = len(records.compared)
    notes = [
        "Only finished runs make a mean; the others are counted beside it. A seed run more than once counts once. "
        "Differences are in percentage points; intervals are Student's where seeds are paired, Welch's otherwise. "
        "Equivalence is two one-sided tests (TOST) at 5 % against the margin declared before the runs.",
    ]
    if count > MOST_CONDITIONS:
        notes.append(f"Figures show the first {MOST_CONDITIONS} of {count} comparisons; tables show all.")
    several = tables["accuracy"][tables["accuracy"].duplicated(CONDITION, keep=False)]
    if several.empty:  # nothing to compare: means are in the table of all runs, with seeds folded
        return [
            page.paragraphs(["Nothing is compared: no network ran on more than one backend."]),
            page.figure_grid(figures),
        ]
    view = shown("accuracy", several.reset_index(drop=True))
    difference = next(name for name in view.columns if name.startswith("Difference"))
    table = page.table(joined(view, difference, "Method"), long=("Equivalence",), most=_MOST_ROWS)
    return [table, page.paragraphs(notes), page.figure_grid(figures)]


def _agreement_parts(table: pd.DataFrame, figures: list[Figure]) -> list[str]:
    if table.empty:
        return [page.paragraphs(["Not compared: no seed was run on both sides with its first losses recorded."])]
    intro = (
        "Same seed, same initial weights, same batches: before accuracies are compared, the losses of the first ten "
        "steps must agree within rounding."
    )
    return [page.paragraphs([intro]), page.table(shown("agreement", table), most=_MOST_ROWS), page.figure_grid(figures)]


def _speed_parts(table: pd.DataFrame, figures: list[Figure]) -> list[str]:
    if table.empty:
        return [page.paragraphs(["No run finished, so there is no step time."])]
    notes = [
        "One run is one process and one value, its own median step. The speed-up is the ratio of medians with a "
        "bootstrap interval over runs; above 1 is faster. These are times of training runs, not of a controlled "
        "benchmark."
    ]
    if (table["measurement"] == INTERPRETED).any():
        notes.append(f"{INTERPRETED[0].upper()}{INTERPRETED[1:]}: without a GPU the Triton kernels run in Triton's "
                     "interpreter, which is right and slow. Such runs are in no ratio and no bar.")  # fmt: skip
    if (table["measurement"] == SIMULATED).any():
        notes.append(f"{SIMULATED[0].upper()}{SIMULATED[1:]}: compiled kernels ran on a simulated GPU. Such runs are "
                     "in no ratio and no bar.")  # fmt: skip
    if not (table["measurement"] == MEASURED).any():
        notes.append("No figure: no run used compiled kernels.")
    several = table[table.duplicated(CONDITION, keep=False)]
    view = shown("speed", (table if several.empty else several).head(_MOST_ROWS).reset_index(drop=True))
    if len(view) < len(table):
        words = "" if several.empty else " and where more than one backend or machine was timed"
        notes.append(f"{len(view)} of {len(table)} rows are shown, the first{words}; tables/speed.csv has all.")
    view["Compared"] += ", on " + view["Machine"]
    view = joined(view.drop(columns="Machine"), "Step ms", "p20–p80 ms", heading="Step ms, p20–p80")
    return [
        page.table(joined(view, "Library", "Kernels"), long=("Measurement",)),
        page.paragraphs(notes),
        page.figure_grid(figures),
    ]


def _seen_parts(records: Records, confusions: list[Figure]) -> list[str]:
    parts = [page.figure_grid(confusions)]
    left_out: list[str] = []
    for condition, group in drawn_groups(records):
        for backend, run in example_runs(group):
            pictures = []
            folder = records.folders.get(run["run"])
            media = [] if folder is None else sorted((folder / "media").glob("*.png"))
            for path in media[:_MOST_PICTURES]:
                try:
                    if path.stat().st_size > _LARGEST_PICTURE:
                        raise ValueError("over 2 MiB")
                    pictures.append(page.picture(path, _PICTURE_NAMES.get(path.stem, path.stem.replace("_", " "))))
                except (OSError, ValueError) as error:
                    left_out.append(f"{shown_path(path)}: not shown ({error})")
            left_out += [f"{shown_path(path)}: not shown" for path in media[_MOST_PICTURES:]]
            if pictures:
                seed = "" if run["seed"] is None else f", seed {run['seed']}"
                heading = f"{condition_title(condition)}, {backend}{seed}"
                parts.append(f'<h3>{page.text(heading)}</h3><div class="pictures">{"".join(pictures)}</div>')
    if left_out:
        parts.append(page.bullets(left_out))
    return parts if any(parts) else [page.paragraphs(["No pictures were recorded."])]


def _environment_part(records: Records) -> str:
    rows = []
    for column in (name for name in records.runs.columns if name.startswith("environment/")):
        name = column.removeprefix("environment/")
        values = sorted({"none" if value is None else str(value) for value in records.runs[column]})
        if name == "date":
            cell = values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
        elif name == "command":
            cell = values[0] if len(values) == 1 else f"{len(values)} commands, first: {values[0]}"
        else:
            cell = "; ".join(values[:4]) + (f"; and {len(values) - 4} more" if len(values) > 4 else "")
        rows.append((name.replace("/", " ").replace("_", " "), cell))
    if not rows:
        return page.paragraphs(["No run recorded its environment."])
    cells = "".join(
        f'<tr><td class="text">{page.text(field)}</td><td class="text long">{page.text(recorded)}</td></tr>'
        for field, recorded in rows
    )
    return f'<div class="scroll"><table><tbody>{cells}</tbody></table></div>'


def _runs_intro(records: Records) -> str:
    damaged = records.runs[records.runs["damaged_lines"] > 0]
    lines = [f"{len(records.runs)} runs found; each is listed, however it ended."]
    if len(damaged):
        lines.append(
            f"{len(damaged)} of them had unreadable lines in metrics.jsonl (a last line is cut short by a kill); "
            "all other lines were read."
        )
    return page.paragraphs(lines)
