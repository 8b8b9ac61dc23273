"""The record of a long run over random geometries, from what pytest printed of it.

    TIDEPOOL_GEOMETRIES=20000 pytest -m full -n 2 --timeout 0 -v --hypothesis-show-statistics \\
        tests/kernels/ops/test_random_geometry.py | python -m tests.kernels.ops.geometry_record --out OUT

writes geometries.csv, one test a row, and environment.json. Exit status 2 where the output tells of no such run.
"""

import csv
import json
import re
import sys
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from tests.faults.record import environment
from tidepool.records import OneLineParser

COMMAND = (
    "TIDEPOOL_GEOMETRIES={examples} pytest -m full -n 2 --timeout 0 -v --hypothesis-show-statistics "
    "tests/kernels/ops/test_random_geometry.py"
)
_TEST = re.compile(r"^tests/kernels/ops/test_random_geometry\.py::(test_\w+):$", re.MULTILINE)
_PHASE = re.compile(r"during generate phase \(([\d.]+) seconds\)")
_COUNTS = re.compile(r"(\d+) passing, (\d+) failing, and (\d+) invalid test cases")
_REFUSALS = "test_what_pytorch_refuses_is_refused"


@dataclass(frozen=True)
class Row:
    """One test of a run: layers tried, what became of them, and its wall time in seconds."""

    schema_version: int
    test: str
    passed: int
    failed: int
    invalid: int
    seconds: float


def rows(output: str) -> list[Row]:
    """Hypothesis's statistics, one row a test. Raises ValueError where the output has none."""
    starts = list(_TEST.finditer(output))
    if not starts:
        raise ValueError("expected the output of pytest --hypothesis-show-statistics on stdin, found no statistics")
    ends = [*(match.start() for match in starts[1:]), len(output)]
    found = []
    for match, end in zip(starts, ends, strict=True):
        part = output[match.end() : end]
        phase, counts = _PHASE.search(part), _COUNTS.search(part)
        if phase is None or counts is None:
            raise ValueError(f"{match[1]}: expected its time and counts in Hypothesis's statistics, found none")
        passed, failed, invalid = (int(n) for n in counts.groups())
        found.append(Row(1, match[1], passed, failed, invalid, float(phase[1])))
    return sorted(found, key=lambda row: row.test)


def main(arguments: list[str] | None = None) -> int:
    """Read pytest's output from stdin, write the record; returns the exit status."""
    parser = OneLineParser(prog="python -m tests.kernels.ops.geometry_record", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for geometries.csv and environment.json")
    options = parser.parse_args(arguments)
    try:
        recorded = rows(sys.stdin.read())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "geometries.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(astuple(row) for row in recorded)
    fitting = sum(row.passed + row.failed for row in recorded if row.test != _REFUSALS)
    described = environment(COMMAND.format(examples=fitting))
    (options.out / "environment.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    print(f"{sum(r.passed for r in recorded)} passed, {sum(r.failed for r in recorded)} failed: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
