"""One report from runs and measurements: ``python -m tidepool.analysis.report <runs or results>… --out report/``.

Writes ``report.html`` (one file, works offline), ``tables/*.csv`` and ``.md``, ``figures/*.svg``. The same records
give the same bytes: the only dates are those the runs recorded.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tidepool.analysis import page
from tidepool.analysis.bench import (
    BENCH_TITLE,
    BenchRecords,
    bench_answers,
    bench_sections,
    bench_tables,
    bench_text,
    draw_bench,
    read_bench_records,
    write_bench_tables,
)
from tidepool.analysis.claims.frame import CLAIMS_TITLE, claims_screen, claims_section, claims_under
from tidepool.analysis.drawing import write_figures
from tidepool.analysis.page import Section
from tidepool.analysis.runs import (
    NoRunsError,
    Records,
    all_tables,
    draw,
    findings,
    first_screen,
    read_records,
    run_sections,
    write_tables,
)
from tidepool.analysis.sweeps import sweep_report, write_sweep_tables
from tidepool.program import run_process
from tidepool.records import OneLineParser, RecordError, shown_path

EXIT_BAD_INPUT = 2
_FOLDED = frozenset({"agreement", "environment", "rebuild"})
"""Sections whose content shows on a click."""


def write_report(paths: Sequence[Path | str], out: Path | str) -> Path:
    """Read the runs and measurements under ``paths`` and write the report into the folder ``out``; returns the path of
    report.html.

    Tables and figures that an earlier report left in ``out`` are replaced. Raises RecordError, in one line, where
    there is no readable record or ``out`` cannot be written.
    """
    report, _, _ = _write(paths, Path(out))
    return report


def comparison_text(paths: Sequence[Path | str], *, training: bool = True) -> str:
    """The comparison for a terminal: what ran, accuracy and speed beside the reference, what is not measured.

    ``training`` says whether training runs are compared too, or bench.py's measurements alone; empty where there is
    nothing to compare. Raises RecordError, in one line, where ``paths`` hold no readable record.
    """
    records, bench = _read(paths)
    parts = [findings.terminal_text(records, all_tables(records))] if training and records is not None else []
    parts += [] if bench.empty else [bench_text(bench)]
    return "\n\n".join(parts)


def main(arguments: Sequence[str], *, prog: str = "tidepool report") -> int:
    """The command: 0, or 2 with one line on stderr where input or arguments are bad."""
    parser = OneLineParser(
        prog=prog,
        description="Tables, figures and one HTML page from runs and measurements.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="run folders, or folders that hold runs")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder to write into (default: report)")
    options = parser.parse_args(arguments)
    try:
        report, warnings, found = _write(options.paths, options.out)
    except RecordError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{found} -> {report}")
    return 0


def _write(paths: Sequence[Path | str], out: Path) -> tuple[Path, tuple[str, ...], str]:
    """Write the report; returns where it is, warnings, and what was found, in words."""
    # A report written into the folder it reads must not read itself back; a report over the runs' own root may.
    inside = not any(Path(os.path.realpath(path)).is_relative_to(os.path.realpath(out)) for path in paths)
    skip = out if inside else None
    claims = claims_under(paths)
    records, bench = _read(paths, skip=skip, alone=not claims)
    warnings = (*(records.warnings if records is not None else ()), *bench.warnings)
    try:
        out.mkdir(parents=True, exist_ok=True)
        measured = bench_tables(bench)
        drawn = draw_bench(bench, measured["kernel_speed"]) if "kernel_speed" in measured else []
        found_sweeps = None if records is None else sweep_report(records)
        compared = None if found_sweeps is None else found_sweeps.compared
        tables = {} if records is None else all_tables(records if compared is None else compared)
        figures = [] if compared is None else draw(compared, tables)
        _remove_former(out)
        if found_sweeps is not None:
            figures += found_sweeps.figures
            write_sweep_tables(found_sweeps.sweeps, out / "tables")
            left_out = found_sweeps.left_out()
            write_tables({name: table for name, table in tables.items() if name not in left_out}, out / "tables")
        write_bench_tables(measured, out / "tables")
        write_figures([*figures, *drawn, *(claim.figure for claim in claims)], out / "figures")
        report = out / "report.html"
        command = _command(paths, out)
        sections = bench_sections(bench, measured, drawn)
        if records is None and bench.empty:
            title, first = CLAIMS_TITLE, claims_screen(claims)
        elif records is None or found_sweeps is None:
            title = BENCH_TITLE
            first = page.answers((name, page.paragraphs(lines)) for name, lines in bench_answers(bench, measured))
        else:
            title = found_sweeps.title() or findings.title(records)
            first = found_sweeps.first_screen(records) or first_screen(compared or records, tables, records)
            sections = found_sweeps.sections(run_sections(compared or records, tables, figures, sections, out))
        sections = [*claims_section(claims), *sections] if records is None else [*sections, *claims_section(claims)]
        report.write_text(_page(title, first, sections, warnings, command), encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{out}: cannot write the report there ({error.strerror or error})") from error
    found = [_counted(len(records.runs), "run")] if records is not None else []
    found += [f"{_counted(len(bench.folders), 'folder')} of measurements"] if not bench.empty else []
    found += [_counted(len(claims), "claim")] if claims else []
    return report, warnings, " and ".join(found)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _read(
    paths: Sequence[Path | str], *, skip: Path | None = None, alone: bool = True
) -> tuple[Records | None, BenchRecords]:
    """The runs, None where there are none, and the measurements; ``skip`` is a folder left unread.

    Raises RecordError, in one line, where there is neither and nothing else to show (``alone``), and where something
    cannot be read.
    """
    try:
        records = read_records(paths, skip=skip)
    except NoRunsError:
        bench = read_bench_records(paths, skip=skip)
        if bench.empty and alone:
            raise
        return None, bench
    return records, read_bench_records(paths, skip=skip)


def _remove_former(out: Path) -> None:
    """Take away the tables and figures of a report that stands in ``out``; other people's files are left alone."""
    report = out / "report.html"
    if not report.is_file() or page.GENERATOR not in report.read_text(encoding="utf-8", errors="replace")[:2000]:
        return
    for pattern in ("tables/*.csv", "tables/*.md", "tables/*.tex", "figures/*.svg", "figures/*.png"):
        for path in out.glob(pattern):
            path.unlink()


def _command(paths: Sequence[Path | str], out: Path) -> str:
    return shlex.join(
        ["python", "-m", "tidepool.analysis.report", *(shown_path(Path(p)) for p in paths), "--out", shown_path(out)]
    )


def _page(title: str, first: str, sections: list[Section], warnings: Sequence[str], command: str) -> str:
    """The whole page: first screen, links, sections, and how to rebuild it."""
    sections = [*sections, ("rebuild", "How to rebuild this report", _rebuild_parts(warnings, command))]
    links = " ".join(f'<a href="#{key}" title="{page.text(heading)}">{key}</a>' for key, heading, _ in sections)
    body = [f'<p class="eyebrow">Tidepool report</p>\n<h1>{page.text(title)}</h1>\n{first}\n<nav>{links}</nav>']
    body += [page.section(key, heading, *parts, folded=key in _FOLDED) for key, heading, parts in sections]
    return page.document(f"{title} · Tidepool report", body)


def _rebuild_parts(warnings: Sequence[str], command: str) -> list[str]:
    parts = [
        page.paragraphs(["From the folder the runs were read in:"]),
        f"<pre>{page.text(command)}</pre>",
        page.paragraphs(["The same numbers, one measurement a row, stand beside this page in tables/ (CSV, Markdown); "
                         "the drawings in figures/ (SVG, PNG)."]),
    ]  # fmt: skip
    if warnings:
        parts += ["<h3>Skipped while reading</h3>", page.bullets(warnings)]
    return parts


if __name__ == "__main__":
    run_process(main, sys.argv[1:], prog="python -m tidepool.analysis.report")
