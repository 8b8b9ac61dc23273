"""One report from recorded runs and measurements: ``python -m analysis.report <runs or results>… --out report/``.

Writes ``report.html`` (one file, works offline), ``tables/*.csv`` and ``.md``, ``figures/*.svg``. The same records
give the same bytes: the only dates are those the runs recorded.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pandas as pd

from analysis import findings, page
from analysis.bench_figures import draw_bench
from analysis.bench_records import BenchRecords
from analysis.bench_report import TITLE, Section, bench_answers, bench_sections, bench_tables, write_bench_tables
from analysis.conditions import condition_title, conditions
from analysis.drawing import Figure, write_figures
from analysis.everything import read_everything
from analysis.figures import MOST_CONDITIONS, draw, example_runs
from analysis.formatting import joined, shown
from analysis.records import RecordError, Records, shown_path
from analysis.speed import INTERPRETED, MEASURED
from analysis.tables import all_tables, write_tables

EXIT_BAD_INPUT = 2
_LARGEST_PICTURE = 2 * 2**20  # bytes; a larger one is named, not embedded
_MOST_PICTURES = 6  # of one run
_PICTURE_NAMES = {"filters": "first-layer filters", "feature_maps": "feature maps of the first layer"}


def write_report(paths: Sequence[Path | str], out: Path | str) -> Path:
    """Read the runs and measurements under ``paths`` and write the report into the folder ``out``; returns the path of
    report.html.

    Tables and figures that an earlier report left in ``out`` are replaced. Raises RecordError, in one line, where
    there is no readable record or ``out`` cannot be written.
    """
    report, _, _ = _write(paths, Path(out))
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0, or 2 with one line on stderr where input or arguments are bad."""
    parser = _Parser(
        prog="python -m analysis.report", description="Tables, figures and one HTML page from runs and measurements."
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="run folders, or folders that hold runs")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder to write into (default: report)")
    options = parser.parse_args(arguments)
    try:
        report, warnings, found = _write(options.paths, options.out)
    except RecordError as error:
        print(f"analysis.report: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{found} -> {report}")
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"analysis.report: {message} (see --help)", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)


def _write(paths: Sequence[Path | str], out: Path) -> tuple[Path, tuple[str, ...], str]:
    """Write the report; returns where it is, warnings, and what was found, in words."""
    # A report written into the folder it reads must not read itself back; a report over the runs' own root may.
    inside = not any(Path(os.path.realpath(path)).is_relative_to(os.path.realpath(out)) for path in paths)
    skip = out if inside else None
    records, bench = read_everything(paths, skip=skip)
    try:
        out.mkdir(parents=True, exist_ok=True)
        measured = bench_tables(bench)
        drawn = draw_bench(bench, measured["kernel_speed"]) if "kernel_speed" in measured else []
        tables = {} if records is None else all_tables(records)
        figures = [] if records is None else draw(records, tables)
        _remove_former(out)
        write_tables(tables, out / "tables")
        write_bench_tables(measured, out / "tables")
        write_figures([*figures, *drawn], out / "figures")
        report = out / "report.html"
        command = _command(paths, out)
        sections = bench_sections(bench, measured, drawn)
        if records is None:
            text = _bench_html(bench, bench_answers(bench, measured), sections, command)
        else:
            text = _html(records, tables, figures, sections, command)
        report.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{out}: cannot write the report there ({error.strerror or error})") from error
    found = [f"{len(records.runs)} runs"] if records is not None else []
    found += [f"{len(bench.folders)} folders of measurements"] if not bench.empty else []
    warnings = (*(records.warnings if records is not None else ()), *bench.warnings)
    return report, warnings, " and ".join(found)


def _bench_html(
    bench: BenchRecords, answers: list[tuple[str, list[str]]], sections: list[Section], command: str
) -> str:
    """A page about measurements alone."""
    sections = [*sections, ("rebuild", "How to rebuild this report", _rebuild_parts(bench.warnings, command))]
    links = " ".join(f'<a href="#{key}" title="{page.text(heading)}">{key}</a>' for key, heading, _ in sections)
    rows = "\n".join(f"<dt>{page.text(name)}</dt><dd>{page.paragraphs(lines)}</dd>" for name, lines in answers)
    first = (
        f'<p class="eyebrow">Tidepool report</p>\n<h1>{page.text(TITLE)}</h1>\n'
        f'<section class="first"><dl>\n{rows}\n</dl></section>\n<nav>{links}</nav>'
    )
    body = [first, *(page.section(key, heading, *parts) for key, heading, parts in sections)]
    return page.document(f"{TITLE} · Tidepool report", body)


def _remove_former(out: Path) -> None:
    """Take away the tables and figures of a report that stands in ``out``; other people's files are left alone."""
    report = out / "report.html"
    if not report.is_file() or page.GENERATOR not in report.read_text(encoding="utf-8", errors="replace")[:2000]:
        return
    for pattern in ("tables/*.csv", "tables/*.md", "figures/*.svg"):
        for path in out.glob(pattern):
            path.unlink()


def _command(paths: Sequence[Path | str], out: Path) -> str:
    return shlex.join(
        ["python", "-m", "analysis.report", *(shown_path(Path(p)) for p in paths), "--out", shown_path(out)]
    )


def _html(
    records: Records,
    tables: dict[str, pd.DataFrame],
    figures: list[Figure],
    measured: list[Section],
    command: str,
) -> str:
    of = {name: [figure for figure in figures if figure.section == name] for name in
          ("accuracy", "curves", "agreement", "speed", "pictures")}  # fmt: skip
    sections = [
        ("accuracy", "Test accuracy", _accuracy_parts(records, tables, of["accuracy"])),
        ("curves", "Learning curves", [page.figure_grid(of["curves"]) or page.paragraphs(["No curve was recorded."])]),
        ("agreement", "Agreement of the first losses", _agreement_parts(tables["agreement"], of["agreement"])),
        ("speed", "Speed in training", _speed_parts(tables["speed"], of["speed"])),
        *measured,
        ("pictures", "What the networks saw", _seen_parts(records, of["pictures"])),
        ("environment", "Environment", [_environment_part(records)]),
        ("runs", "All runs", [_runs_intro(records), page.table(shown("runs", tables["runs"]), long=("Run", "Reason"))]),
        ("rebuild", "How to rebuild this report", _rebuild_parts(records.warnings, command)),
    ]
    title = findings.title(records)
    body = [_first_screen(title, records, tables, [(key, heading) for key, heading, _ in sections])]
    body += [page.section(key, heading, *parts) for key, heading, parts in sections]
    return page.document(f"{title} · Tidepool report", body)


def _first_screen(title: str, records: Records, tables: dict[str, pd.DataFrame], links: list[tuple[str, str]]) -> str:
    first_losses = findings.agreement(tables["agreement"])
    answers = [
        ("Compared", page.paragraphs(findings.compared(records))),
        ("On", page.paragraphs(findings.machines(records))),
        ("Result", page.paragraphs(findings.results(tables["accuracy"]), "result")
         + page.paragraphs([first_losses] if first_losses else [])),
        ("Not measured", page.paragraphs(findings.not_measured(records, tables) or ["Nothing left out."])),
    ]  # fmt: skip
    questions = page.paragraphs(findings.questions(records), "question")
    rows = "\n".join(f"<dt>{page.text(name)}</dt><dd>{answer}</dd>" for name, answer in answers)
    shortcuts = " ".join(f'<a href="#{key}" title="{page.text(heading)}">{key}</a>' for key, heading in links)
    return (
        f'<p class="eyebrow">Tidepool report</p>\n<h1>{page.text(title)}</h1>\n{questions}\n'
        f'<section class="first"><dl>\n{rows}\n</dl></section>\n<nav>{shortcuts}</nav>'
    )


def _accuracy_parts(records: Records, tables: dict[str, pd.DataFrame], figures: list[Figure]) -> list[str]:
    count = sum(1 for _ in conditions(records.runs))
    notes = [
        "Only finished runs make a mean; the others are counted beside it. A seed run more than once counts once. "
        "Differences are in percentage points; intervals are Student's where seeds are paired, Welch's otherwise. "
        "Equivalence is two one-sided tests (TOST) at 5 % against the margin declared before the runs.",
    ]
    if count > MOST_CONDITIONS:
        notes.append(f"Figures show the first {MOST_CONDITIONS} of {count} comparisons; tables show all.")
    view = shown("accuracy", tables["accuracy"])
    difference = next(name for name in view.columns if name.startswith("Difference"))
    table = page.table(joined(view, difference, "Method"), long=("Equivalence",))
    return [table, page.paragraphs(notes), page.figure_grid(figures)]


def _agreement_parts(table: pd.DataFrame, figures: list[Figure]) -> list[str]:
    if table.empty:
        return [page.paragraphs(["Not compared: no seed was run on both sides with its first losses recorded."])]
    intro = (
        "Same seed, same initial weights, same batches: before accuracies are compared, the losses of the first ten "
        "steps must agree within rounding."
    )
    return [page.paragraphs([intro]), page.table(shown("agreement", table)), page.figure_grid(figures)]


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
    if not (table["measurement"] == MEASURED).any():
        notes.append("No figure: no run used compiled kernels.")
    view = shown("speed", table)
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
    for index, (condition, group) in enumerate(conditions(records.runs)):
        if index == MOST_CONDITIONS:
            break
        for backend, run in example_runs(group):
            pictures = []
            media = sorted((records.folders[run["run"]] / "media").glob("*.png"))
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


def _rebuild_parts(warnings: Sequence[str], command: str) -> list[str]:
    parts = [
        page.paragraphs(["From the folder the runs were read in:"]),
        f"<pre>{page.text(command)}</pre>",
        page.paragraphs(["The same numbers, one measurement a row, stand beside this page in tables/ (CSV, Markdown); "
                         "the drawings in figures/ (SVG)."]),
    ]  # fmt: skip
    if warnings:
        parts += ["<h3>Skipped while reading</h3>", page.bullets(warnings)]
    return parts


if __name__ == "__main__":
    raise SystemExit(main())
