"""The README's numbers, from records: ``python -m tidepool.analysis.readme --check | --write | --record <sweep>``.

A block of README.md or of results/README.md is generated from one table under ``results/``::

    <!-- results: quickstart/accuracy columns=backend,mean_percent -->
    …
    <!-- end results -->

Here the table is ``accuracy`` (or speed, agreement, runs, networks) of the sweep recorded in ``results/quickstart``,
recomputed from its rows; ``planted_faults/mutations.csv`` is a file. ``columns=`` is optional. Below the table stands
one line from the ``environment.json`` beside it: commit, date, machine, versions and the command that rebuilds it.
A folder of bench.py's measurements stands for their summary, with "not measured" where a row is missing.
``--record`` writes the record of one sweep. ``--check`` also holds every file below ``results/`` to its manifest
(`analysis.evidence`), each recorded sweep to its own, tables beside rows to those rows, and the numbers in prose to
their ledger (`analysis.prose`). ``--write`` takes new files, appended rows and new prose in.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tidepool.analysis.bench import measurement_block
from tidepool.analysis.columns import chosen, in_recorded_sweep, read_columns, read_text, row_cells, table_lines
from tidepool.analysis.evidence import MANIFEST, evidence_block, evidence_problems, seal
from tidepool.analysis.prose import LEDGER, Line, prose_lines, prose_problems, regenerated, write_ledger
from tidepool.analysis.runs import RESULTS, record
from tidepool.analysis.runs.older_records import differing_tables, is_older_record
from tidepool.program import run_process
from tidepool.records import (
    OneLineParser,
    RecordError,
    check_schema_version,
    find_folders,
    read_json,
    shown_path,
)
from tidepool.records.recorded_sweep import is_recorded_sweep, problems

EXIT_DIFFERS = 1
EXIT_BAD_INPUT = 2
_CLOSE = "<!-- end results -->"
_OPEN = re.compile(r"<!-- results:\s+(?P<path>\S+)(?:\s+columns=(?P<columns>\S+))?\s+-->")
_FENCES = ("```", "~~~")


@dataclass(frozen=True)
class Block:
    """One generated block: the line its opening marker stands on (from 0), that of its closing one, what it shows."""

    first: int
    last: int
    table: str
    columns: tuple[str, ...]


def check(readme: Path) -> list[str]:
    """One line for each block of ``readme`` that differs from its record: file, line, table and the first difference.

    Raises RecordError, in one line, for a README or record that cannot be read, an unclosed or malformed block, and
    an unknown column.
    """
    return list(_differing(readme))


def differences(readmes: Sequence[Path]) -> Iterator[str]:
    """A line for each thing that ``--check`` finds, what is found soonest first. Raises RecordError as `check`."""
    results = results_of(readmes[0])
    yield from evidence_problems(results)
    for readme in readmes:
        lines = _readme_lines(readme)
        yield from prose_problems(_document(readme), _prose(readme), results)
        for index, line in enumerate(lines):
            if "<!-- number:" in line and (new := _regenerated(line, readme, index)) != line:
                yield f"{shown_path(readme)}:{index + 1}: the line has {line}, the records give {new}"
    yield from check_records(results)
    for readme in readmes:
        yield from _differing(readme)


def _differing(readme: Path) -> Iterator[str]:
    lines = _readme_lines(readme)
    for block in find_blocks(lines, shown_path(readme)):
        difference = _difference(lines[block.first + 1 : block.last], generate(block, readme))
        if difference:
            yield f"{_place(readme, block)}: {difference}"


def _prose(readme: Path) -> list[tuple[int, Line]]:
    lines = _readme_lines(readme)
    blocks = find_blocks(lines, shown_path(readme))
    return list(prose_lines(lines, [(block.first, block.last) for block in blocks]))


def _document(readme: Path) -> str:
    """The document's name in the ledger: its path from the folder that holds results/."""
    return Path(os.path.relpath(readme, results_of(readme).parent)).as_posix()


def _regenerated(line: str, readme: Path, index: int) -> str:
    try:
        return regenerated(line, results_of(readme))
    except RecordError as error:
        raise RecordError(f"{shown_path(readme)}:{index + 1}: {error}") from None


def check_records(results: Path) -> list[str]:
    """One line for each thing wrong with the sweeps recorded under ``results``."""
    folders = find_folders([results]) if results.is_dir() else []
    lines: list[str] = []
    for folder, files in folders:
        lines += problems(folder) if is_recorded_sweep(files) else []
        lines += differing_tables(folder) if is_older_record(files) else []
    return lines


def results_of(readme: Path) -> Path:
    """The folder that a README's blocks name their tables in: results/ beside it, or that it lies in."""
    return readme.parent if readme.absolute().parent.name == RESULTS else readme.parent / RESULTS


def write(readme: Path) -> int:
    """Regenerate every block of ``readme`` from its record; returns how many changed. Raises RecordError as `check`,
    and then leaves the file as it was."""
    lines = [_regenerated(line, readme, index) for index, line in enumerate(_readme_lines(readme))]
    changed = sum(new != old for new, old in zip(lines, _readme_lines(readme), strict=True))
    for block in reversed(find_blocks(lines, shown_path(readme))):
        generated = generate(block, readme)
        changed += lines[block.first + 1 : block.last] != generated
        lines[block.first + 1 : block.last] = generated
    if changed:
        readme.write_text("\n".join(lines), encoding="utf-8")
    return changed


def find_blocks(lines: Sequence[str], where: str) -> list[Block]:
    """The blocks among the lines of a Markdown file, in order; markers inside code fences are only examples.

    Raises RecordError, in one line beginning with ``where``, for a malformed marker and one without its partner.
    """
    blocks: list[Block] = []
    opened: tuple[int, re.Match[str]] | None = None
    fence = ""
    for index, line in enumerate(lines):
        text = line.strip()
        if opened is None and text.startswith(fence or _FENCES):
            fence = "" if fence else text[:3]
        if fence:
            continue
        if text.startswith("<!-- results"):
            match = _OPEN.fullmatch(text)
            if match is None:
                expected = "<!-- results: <table under results/> [columns=a,b,c] -->"
                raise RecordError(f"{where}:{index + 1}: {text}: expected {expected}")
            if opened is not None:
                break
            opened = (index, match)
        elif text == _CLOSE:
            if opened is None:
                raise RecordError(f"{where}:{index + 1}: {_CLOSE} without a block to end")
            columns = opened[1]["columns"]
            blocks.append(Block(opened[0], index, opened[1]["path"], tuple(columns.split(",")) if columns else ()))
            opened = None
    if opened is not None:
        raise RecordError(f"{where}:{opened[0] + 1}: results: {opened[1]['path']}: not closed, expected {_CLOSE}")
    return blocks


def generate(block: Block, readme: Path) -> list[str]:
    """The lines between the markers of ``block``: the table, an empty line, where it comes from.

    Raises RecordError, in one line that names the place in ``readme``, as `check` does.
    """
    results = results_of(readme)
    path = results / block.table
    try:
        if not path.resolve().is_relative_to(results.resolve()):
            raise RecordError(f"expected a path below {RESULTS}/")
        if path == results / MANIFEST and not block.columns:
            return evidence_block(results)
        link = Path(os.path.relpath(path, readme.parent)).as_posix()
        if path.is_dir():
            return measurement_block(link, path, block.columns)
        known, default = read_columns(path)
        columns = chosen(known, block.columns) if block.columns else default
        if in_recorded_sweep(path):
            link = link.rpartition("/")[0]
        return [*table_lines(columns), "", _provenance(link, path.parent / "environment.json")]
    except RecordError as error:
        raise RecordError(f"{_place(readme, block)}: {error}") from None


def main(arguments: Sequence[str], *, prog: str = "tidepool readme") -> int:
    """The command: 0, 1 where a block differs, 2 with one line on stderr where input or arguments are bad."""
    parser = OneLineParser(prog=prog, description="Keep the README's tables equal to results/.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="exit 1 with a line for each block that differs")
    action.add_argument("--write", action="store_true", help="regenerate every block from its record")
    action.add_argument("--record", type=Path, metavar="SWEEP", help="write the record of a sweep to --out")
    parser.add_argument("--out", type=Path, help="with --record: the folder to write, below results/")
    parser.add_argument(
        "--readme", type=Path, help="with --check and --write: the file (default: README.md and results/README.md)"
    )
    parser.add_argument(
        "--rewritten", metavar="REASON", help="with --write: take recorded rows that changed, and keep this reason"
    )
    options = parser.parse_args(arguments)
    if options.rewritten is not None and not options.write:
        parser.error("--rewritten goes with --write")
    if (options.record is None) != (options.out is None):
        parser.error("--record and --out go together")
    if options.record is not None and options.readme is not None:
        parser.error("--readme goes with --check and --write")
    readmes = [options.readme or Path("README.md")]
    if options.readme is None and Path(RESULTS, "README.md").is_file():
        readmes.append(Path(RESULTS, "README.md"))
    try:
        if options.record is not None:
            return _record_command(options.record, options.out)
        if options.write:
            _write_command(readmes, options.rewritten)
            return 0
        differing = list(differences(readmes))
    except RecordError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    for line in differing:
        print(line)
    return EXIT_DIFFERS if differing else 0


def _write_command(readmes: Sequence[Path], reason: str | None) -> None:
    """Numbers of prose into the ledger, files into the manifest, then the blocks, of which one names the manifest."""
    results = results_of(readmes[0])
    for readme in readmes:
        lines = _readme_lines(readme)
        numbered = [_regenerated(line, readme, index) for index, line in enumerate(lines)]
        if numbered != lines:
            readme.write_text("\n".join(numbered), encoding="utf-8")
    if (results / MANIFEST).is_file():
        taken = write_ledger(results, {_document(readme): _prose(readme) for readme in readmes})
        sealed = seal(results, reason, free=(LEDGER,))
        print(f"{shown_path(results / MANIFEST)}: {sealed} entries changed; {taken} lines of prose with new numbers")
    for readme in readmes:
        changed = write(readme)
        print(f"{shown_path(readme)}: {changed} {'block' if changed == 1 else 'blocks'} changed")


def _record_command(folder: Path, out: Path) -> int:
    records, environment = record(folder, out)
    for warning in records.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if environment["dirty"]:
        print("warning: the runs were made with uncommitted changes, and the record says so", file=sys.stderr)
    print(f"{len(records.runs)} runs -> {out}")
    return 0


def _readme_lines(readme: Path) -> list[str]:
    return read_text(readme).split("\n")


def _place(readme: Path, block: Block) -> str:
    return f"{shown_path(readme)}:{block.first + 1}: results: {block.table}"


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """The first difference in words and how many lines differ; empty where there is none."""
    pairs = list(enumerate(zip_longest(found, expected, fillvalue=""), start=1))
    differing = [(index, old, new) for index, (old, new) in pairs if old != new]
    if not differing:
        return ""
    index, old, new = differing[0]
    more = f" ({len(differing)} lines differ)" if len(differing) > 1 else ""
    oldrow_cells, newrow_cells = row_cells(old), row_cells(new)
    headings = row_cells(expected[0])
    if index > 2 and found[:2] == expected[:2] and oldrow_cells and len(oldrow_cells) == len(newrow_cells):
        column = next(i for i, (a, b) in enumerate(zip(oldrow_cells, newrow_cells, strict=True)) if a != b)
        place, old, new = f"row {index - 2}, {headings[column]}", oldrow_cells[column], newrow_cells[column]
    else:
        place = f"line {index}"
        same = next(i for i, (a, b) in enumerate(zip_longest(old, new)) if a != b)
        start = max(0, same - 12)
        old, new = (f"{'…' if start else ''}{text[start : start + 60]}" if text else "nothing" for text in (old, new))
    return f"{place}: the block has {old or 'nothing'}, the record gives {new or 'nothing'}{more}"


def _provenance(shown_table: str, path: Path) -> str:
    """One line: the record, its commit, date, machine and versions, and the command that rebuilds it."""
    environment = read_json(path)
    if environment is None:
        raise RecordError(f"{shown_path(path)}: no such file")
    check_schema_version(environment.get("schema_version"), shown_path(path))
    command = environment.get("command")
    if not isinstance(command, str) or not command:
        raise RecordError(f"{shown_path(path)}: no command, expected the one that rebuilds the table")
    commit = environment.get("commit")
    dirty = " with uncommitted changes" if environment.get("dirty") else ""
    parts = [
        f"commit {commit[:12]}{dirty}" if isinstance(commit, str) else "commit not recorded",
        str(environment.get("date") or "date not recorded")[:10],
        _machine(environment),
        *(f"{label} {_some(environment.get(name))}" for name, label in
          (("torch", "PyTorch"), ("triton", "Triton"), ("python", "Python"))),
    ]  # fmt: skip
    return f"[{shown_table}]({shown_table}): {', '.join(parts)}. Rebuilt by `{' '.join(command.split())}`."


def _machine(environment: dict[str, Any]) -> str:
    gpu, cpu = environment.get("gpu"), _some(environment.get("cpu"))
    if not gpu:
        return f"{cpu} without a GPU"
    return f"{_some(gpu)} (some runs on {cpu} without it)" if isinstance(gpu, list) and None in gpu else _some(gpu)


def _some(value: Any) -> str:
    values = [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]
    return " and ".join(values) or "not recorded"


if __name__ == "__main__":
    run_process(main, sys.argv[1:], prog="python -m tidepool.analysis.readme")
