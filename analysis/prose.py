"""Numbers in the prose of README.md and results/README.md: some worked out from rows, all of them held to a ledger.

A number that rows give is written between markers, and generated::

    <!-- number: compiled/tests.csv.passed.sum -->3,137<!-- end -->

as ``table[column=value,column>value].column.function`` with the functions value, sum, min, max and count (of distinct
values). ``results/numbers.json`` holds, for every line with a digit outside generated blocks, its text with ``#`` for
each number, and the numbers: one that is changed differs from it, and so does a line nobody has taken in.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tidepool.records import RecordError, check_schema_version, read_json, shown_path, write_json

LEDGER = "numbers.json"
_NUMBER = re.compile(r"\d[\d,.]*\d|\d")
_GENERATED = re.compile(r"(<!-- number: (?P<source>.+?) -->)(?P<text>.*?)(<!-- end -->)")
_SOURCE = re.compile(r"(?P<table>[\w/.-]+?\.csv)(?:\[(?P<where>[^\]]*)\])?\.(?P<column>\w+)\.(?P<function>\w+)")
_FILTER = re.compile(r"(?P<column>\w+)(?P<how><=|>=|=|<|>)(?P<value>.*)")
_HOW = {"=": operator.eq, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}

Line = tuple[str, tuple[str, ...]]
"""A line's text with # for each number, and its numbers."""


def prose_lines(lines: Sequence[str], blocks: Sequence[tuple[int, int]]) -> Iterator[tuple[int, Line]]:
    """(index from 0, text and numbers) of the lines with a digit that are in no generated block."""
    inside = {index for first, last in blocks for index in range(first + 1, last)}
    for index, line in enumerate(lines):
        numbers = tuple(_NUMBER.findall(line))
        if numbers and index not in inside:
            yield index, (_NUMBER.sub("#", line), numbers)


def prose_problems(document: str, found: Sequence[tuple[int, Line]], results: Path) -> Iterator[str]:
    """A line for each number in ``document`` that the ledger does not have so, and for each that is gone.

    Raises RecordError for a ledger that cannot be read.
    """
    known = _read(results).get(document) if (results / LEDGER).is_file() else None
    if known is None:
        return
    left = Counter((str(text), tuple(map(str, numbers))) for text, numbers in known)
    unknown = []
    for index, line in found:
        if left[line]:
            left[line] -= 1
        else:
            unknown.append((index, line))
    gone = list(left.elements())
    for index, (text, numbers) in unknown:
        where = f"{document}:{index + 1}"
        before = next((line for line in gone if line[0] == text), None)
        if before is None:
            yield f"{where}: numbers not in {LEDGER}; `tidepool readme --write` takes them in"
            continue
        gone.remove(before)
        old, new = next((a, b) for a, b in zip(before[1], numbers, strict=True) if a != b)
        yield f"{where}: {new}, where {LEDGER} has {old}"
    for text, _ in gone:
        yield f"{document}: a line with numbers is gone that {LEDGER} has: {text[:60]}"


def write_ledger(results: Path, documents: dict[str, Sequence[tuple[int, Line]]]) -> int:
    """Take the numbers of each document into the ledger; returns how many lines it did not have."""
    before = _read(results) if (results / LEDGER).is_file() else {}
    after = dict(before)
    fresh = 0
    for document, found in documents.items():
        after[document] = [[text, list(numbers)] for _, (text, numbers) in found]
        fresh += len(list(prose_problems(document, found, results)) if document in before else found)
    if after != before:
        write_json(results / LEDGER, {"documents": after})
    return fresh


def regenerated(line: str, results: Path) -> str:
    """The line with every generated number in it worked out anew. Raises RecordError for a source that is none."""
    return _GENERATED.sub(lambda match: f"{match[1]}{evaluate(match['source'], results)}{match[4]}", line)


def evaluate(source: str, results: Path) -> str:
    """The number that ``source`` names, as it is written. Raises RecordError, in one line."""
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise RecordError(f"{source}: expected table.csv[column=value].column.function")
    path = results / match["table"]
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        for text in filter(None, (match["where"] or "").split(",")):
            rows = rows[_matching(rows, text)]
        return _written(_FUNCTIONS[match["function"]](rows[match["column"]]))
    except OSError as error:
        raise RecordError(f"{shown_path(path)}: cannot be read ({error.strerror or error})") from None
    except (KeyError, ValueError) as error:
        raise RecordError(f"{source}: {' '.join(str(error).split())} in {shown_path(path)}") from None


def _matching(rows: pd.DataFrame, text: str) -> pd.Series:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r}, expected column=value,")
    column: Any = rows[match["column"]]
    value: Any = match["value"]
    if match["how"] != "=":
        column, value = pd.to_numeric(column), float(value)
    matching: pd.Series = _HOW[match["how"]](column, value)
    return matching


def _only(values: pd.Series) -> float:
    numbers = pd.to_numeric(values).unique()
    if len(numbers) != 1:
        raise ValueError(f"{len(numbers)} values, expected one,")
    return float(numbers[0])


def _numbers(values: pd.Series) -> np.ndarray:
    return np.asarray(pd.to_numeric(values), dtype=np.float64)


_FUNCTIONS: dict[str, Any] = {
    "value": _only,
    "sum": lambda values: _numbers(values).sum(),
    "min": lambda values: _numbers(values).min(),
    "max": lambda values: _numbers(values).max(),
    "count": lambda values: values.nunique(),
}


def _written(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.3g}"


def _read(results: Path) -> dict[str, Any]:
    path = results / LEDGER
    record = read_json(path) or {}
    check_schema_version(record.get("schema_version"), shown_path(path))
    documents = record.get("documents")
    if not isinstance(documents, dict):
        raise RecordError(f"{shown_path(path)}: expected the numbers of documents")
    return documents
