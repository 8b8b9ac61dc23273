"""The README's numbers, from committed records: ``python -m analysis.readme --check | --write | --record <sweep>``.

A block of the README is generated from one table under ``results/``::

    <!-- results: quickstart/accuracy.csv columns=backend,mean_percent -->
    …
    <!-- end results -->

The path is relative to ``results/`` beside the README; ``columns=`` is optional. Below the table stands one line from
the ``environment.json`` beside it: commit, date, machine, versions and the command that rebuilds the table. Where the
path is a folder of bench.py's measurements, the block is their summary, "not measured" where a row is missing.
``--record`` copies the small evidence of one sweep into ``results/``.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from analysis.bench_readme import measurement_block
from analysis.formatting import MISSING, TEXT_HEADINGS, number, shown, significant
from analysis.recording import RESULTS, record
from analysis.records import RecordError, check_schema_version, shown_path

EXIT_DIFFERS = 1
EXIT_BAD_INPUT = 2
_CLOSE = "<!-- end results -->"
_OPEN = re.compile(r"<!-- results:\s+(?P<path>\S+)(?:\s+columns=(?P<columns>\S+))?\s+-->")
_FENCES = ("```", "~~~")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf|nan")
_WHOLE = re.compile(r"[+-]?\d+(?:\.0)?")
# Columns of words even where every word in them could be read as a number, or where none is filled in.
_WORDS = frozenset(
    {"data", "model", "dtype", "settings", "backend", "reference", "difference_method", "equivalence", "device",
     "conv_library", "kernel_mode", "measurement", "agreement", "run", "seed", "status", "reason", "sweep", "commit",
     "date", "gpu", "cpu", "driver", "cuda", "cudnn", "torch", "triton", "python"}
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One generated block: the line its opening marker stands on (from 0), that of its closing one, what it shows."""

    first: int
    last: int
    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class _Column:
    """A column as shown: heading and cells are Markdown; words are flush left, numbers right."""

    heading: str
    words: bool
    cells: list[str]


def check(readme: Path) -> list[str]:
    """One line for each block of ``readme`` that differs from its record: file, line, table and the first difference.

    Raises RecordError, in one line, for a README or record that cannot be read, an unclosed or malformed block, and
    an unknown column.
    """
    lines = _readme_lines(readme)
    differing = []
    for block in find_blocks(lines, shown_path(readme)):
        difference = _difference(lines[block.first + 1 : block.last], generate(block, readme))
        if difference:
            differing.append(f"{_place(readme, block)}: {difference}")
    return differing


def write(readme: Path) -> int:
    """Regenerate every block of ``readme`` from its record; returns how many changed. Raises RecordError as `check`,
    and then leaves the file as it was."""
    lines = _readme_lines(readme)
    changed = 0
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
    results = readme.parent / RESULTS
    path = results / block.table
    try:
        if not path.resolve().is_relative_to(results.resolve()):
            raise RecordError(f"expected a path below {RESULTS}/")
        if path.is_dir():
            return measurement_block(f"{RESULTS}/{block.table}", path, block.columns)
        known, default = (_read_markdown if path.suffix == ".md" else _read_csv)(path)
        columns = _chosen(known, block.columns) if block.columns else default
        return [*_table_lines(columns), "", _provenance(f"{RESULTS}/{block.table}", path.parent / "environment.json")]
    except RecordError as error:
        raise RecordError(f"{_place(readme, block)}: {error}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0, 1 where a block differs, 2 with one line on stderr where input or arguments are bad."""
    parser = _Parser(prog="python -m analysis.readme", description="Keep the README's tables equal to results/.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="exit 1 with a line for each block that differs")
    action.add_argument("--write", action="store_true", help="regenerate every block from its record")
    action.add_argument("--record", type=Path, metavar="SWEEP", help="copy a sweep's tables and environment to --out")
    parser.add_argument("--out", type=Path, help="with --record: the folder to write, below results/")
    parser.add_argument("--readme", type=Path, help="with --check and --write: the file (default: README.md)")
    options = parser.parse_args(arguments)
    if (options.record is None) != (options.out is None):
        parser.error("--record and --out go together")
    if options.record is not None and options.readme is not None:
        parser.error("--readme goes with --check and --write")
    readme = options.readme or Path("README.md")
    try:
        if options.record is not None:
            return _record_command(options.record, options.out)
        if options.write:
            changed = write(readme)
            print(f"{shown_path(readme)}: {changed} {'block' if changed == 1 else 'blocks'} changed")
            return 0
        differing = check(readme)
    except RecordError as error:
        print(f"analysis.readme: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    for line in differing:
        print(line)
    return EXIT_DIFFERS if differing else 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"analysis.readme: {message} (see --help)", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)


def _record_command(folder: Path, out: Path) -> int:
    records, environment = record(folder, out)
    for warning in records.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if environment["dirty"]:
        print("warning: the runs were made with uncommitted changes, and the record says so", file=sys.stderr)
    print(f"{len(records.runs)} runs -> {out}")
    return 0


def _readme_lines(readme: Path) -> list[str]:
    return _text(readme).split("\n")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecordError(f"{shown_path(path)}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{shown_path(path)}: cannot be read ({' '.join(str(error).split())})") from None


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
    old_cells, new_cells = _cells(old), _cells(new)
    headings = _cells(expected[0])
    if index > 2 and found[:2] == expected[:2] and old_cells and len(old_cells) == len(new_cells):
        column = next(i for i, (a, b) in enumerate(zip(old_cells, new_cells, strict=True)) if a != b)
        place, old, new = f"row {index - 2}, {headings[column]}", old_cells[column], new_cells[column]
    else:
        place = f"line {index}"
        same = next(i for i, (a, b) in enumerate(zip_longest(old, new)) if a != b)
        start = max(0, same - 12)
        old, new = (f"{'…' if start else ''}{text[start : start + 60]}" if text else "nothing" for text in (old, new))
    return f"{place}: the block has {old or 'nothing'}, the record gives {new or 'nothing'}{more}"


def _read_csv(path: Path) -> tuple[dict[str, _Column], list[_Column]]:
    """The columns a block may name, and those it shows when it names none.

    The tables of a report are shown as the report shows them, and can be named by its headings (``Mean %`` as
    ``mean_percent``); any column of the file can be named as the file names it.
    """
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(_text(path), newline="")) if row] or [[]]
    except csv.Error as error:
        raise RecordError(f"{shown_path(path)}: not readable as CSV ({error})") from None
    if not header:
        raise RecordError(f"{shown_path(path)}: empty, expected a table")
    if any(len(row) != len(header) for row in rows):
        raise RecordError(f"{shown_path(path)}: rows of different lengths, expected {len(header)} cells in each")
    raw = {name: [row[index] for row in rows] for index, name in enumerate(header)}
    plain = {name: _plain_column(name, cells) for name, cells in raw.items()}
    typed = pd.DataFrame({name: pd.Series(_values(name, cells), dtype="object") for name, cells in raw.items()})
    try:
        view = shown(path.stem, typed)
    except KeyError:  # a table of another kind
        return plain, list(plain.values())
    except (TypeError, ValueError) as error:
        raise RecordError(f"{shown_path(path)}: not the {path.stem} table of a report ({error})") from None
    columns = [_Column(name, name in TEXT_HEADINGS, list(map(_escaped, view[name]))) for name in view.columns]
    return plain | {_key(column.heading): column for column in columns}, columns


def _plain_column(name: str, cells: list[str]) -> _Column:
    heading = re.sub(r" percent$", " %", name.replace("_", " "))
    heading = _escaped(heading[:1].upper() + heading[1:])
    values = _values(name, cells)
    if name in _WORDS or any(isinstance(value, str) for value in values):
        return _Column(heading, True, [_escaped(cell) for cell in cells])
    if name.endswith(("_percent", "_points")):
        return _Column(heading, False, [number(v, 2, signed=name.startswith("difference")) for v in values])
    if all(_WHOLE.fullmatch(cell) or not cell for cell in cells):
        return _Column(heading, False, [cell.removesuffix(".0").replace("-", "−") or MISSING for cell in cells])
    return _Column(heading, False, [significant(value).replace("-", "−") for value in values])


def _values(name: str, cells: list[str]) -> list[Any]:
    """The cells of a CSV column as analysis wrote them: words, whole numbers, or floats with NaN for an empty cell."""
    if name == "seed":
        return [cell or None for cell in cells]
    if name in _WORDS or any(cell and not _NUMBER.fullmatch(cell) for cell in cells):
        return cells
    if all(re.fullmatch(r"[+-]?\d+", cell) for cell in cells):
        return [int(cell) for cell in cells]
    return [float(cell) if cell else math.nan for cell in cells]


def _read_markdown(path: Path) -> tuple[dict[str, _Column], list[_Column]]:
    """The columns of the one table in a Markdown file, by key and in order; text around it is left out."""
    lines = [line.strip() for line in _text(path).splitlines()]
    rows = [_cells(line) for line in lines if line.startswith("|")]
    rules = [index for index, row in enumerate(rows) if all(re.fullmatch(r":?-+:?", cell) for cell in row)]
    if rules != [1] or any(len(row) != len(rows[0]) for row in rows):
        raise RecordError(f"{shown_path(path)}: expected one Markdown table with as many cells in each row")
    columns = [
        _Column(heading, not rule.endswith(":"), [row[index] for row in rows[2:]])
        for index, (heading, rule) in enumerate(zip(rows[0], rows[1], strict=True))
    ]
    return {_key(column.heading): column for column in columns}, columns


def _cells(line: str) -> list[str]:
    """The cells of a row of a Markdown table, escapes left as they stand; empty for any other line."""
    if not line.startswith("|"):
        return []
    return [cell.strip() for cell in re.findall(r"((?:\\.|[^|\\])*)\|", line[1:])]


def _key(heading: str) -> str:
    """``Difference to cudnn, points [95 %]`` as a block's columns= names it: ``difference_to_cudnn_points``."""
    words = re.sub(r"\[.*?\]", "", heading).lower().replace("%", "percent")
    return re.sub(r"\W+", "_", words).strip("_")


def _chosen(known: dict[str, _Column], names: Sequence[str]) -> list[_Column]:
    for name in names:
        if name not in known:
            raise RecordError(f"unknown column {name!r}, expected any of {', '.join(known)}")
    return [known[name] for name in names]


def _table_lines(columns: list[_Column]) -> list[str]:
    rows = [
        [column.heading for column in columns],
        ["---" if column.words else "---:" for column in columns],
        *map(list, zip(*(column.cells for column in columns), strict=True)),
    ]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _escaped(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def _provenance(shown_table: str, path: Path) -> str:
    """One line: the record, its commit, date, machine and versions, and the command that rebuilds it."""
    try:
        environment = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise RecordError(f"{shown_path(path)}: not readable as JSON ({error})") from None
    if not isinstance(environment, dict):
        raise RecordError(f"{shown_path(path)}: expected an object with commit, date, command")
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
    raise SystemExit(main())
