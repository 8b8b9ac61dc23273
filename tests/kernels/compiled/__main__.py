"""Plant every fault of `ptx_faults` in compiled kernels and record what notices it.

python -m tests.kernels.compiled --out results/compiled_faults
"""

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.faults.record import environment
from tests.kernels.compiled.equivalence import Argument, argument_for, read_arguments
from tests.kernels.compiled.ptx_faults import RULES, SUBJECTS, Subject, launched_program, notices
from tidepool.records import SCHEMA_VERSION, OneLineParser, write_json
from tidepool.simulator.ptx import Program

Row = dict[str, Any]

COLUMNS = ("schema_version", "subject", "rule", "place", "ptx_line", "ptx", "noticed_by", "argument", "seconds")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 where every fault was noticed or is argued to change no result."""
    parser = OneLineParser(prog="python -m tests.kernels.compiled", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for faults.csv and environment.json")
    out: Path = parser.parse_args(arguments).out
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    out.mkdir(parents=True, exist_ok=True)
    record = environment("python -m tests.kernels.compiled --out results/compiled_faults")
    write_json(out / "environment.json", record | {"kernel_mode": "simulated"})
    rows = []
    with (out / "faults.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for subject in SUBJECTS:
            original = launched_program(subject)
            if notices(subject, original, original.text):
                print(f"{subject.name}: wrong without a fault", file=sys.stderr)
                return 1
            for row in rows_of(subject, original, read_arguments()):
                rows.append(row)
                writer.writerow(row)
                file.flush()
                print(told(row), flush=True)
    left = [row for row in rows if bool(row["noticed_by"]) == bool(row["argument"])]
    for row in left:
        print(f"{told(row)}: {'noticed in spite of an argument' if row['argument'] else 'no argument'}")
    print(f"{len(rows)} faults: {sum(bool(row['noticed_by']) for row in rows)} noticed; {len(left)} unexplained")
    return 1 if left else 0


def rows_of(subject: Subject, original: Program, arguments: Sequence[Argument]) -> Iterator[Row]:
    """The row of each fault of a kernel as it has been tried."""
    ptx = original.text
    for rule in RULES:
        for place, (match, planted) in enumerate(zip(rule.places(ptx), rule.planted(ptx), strict=True)):
            began = time.perf_counter()
            found = notices(subject, original, planted)
            seconds = f"{time.perf_counter() - began:.1f}"
            why = argument_for(rule.name, subject.name, place, ptx, match, arguments)
            line, text = ptx[: match.start()].count("\n") + 1, " ".join(match[0].split())[:80]
            values = (SCHEMA_VERSION, subject.name, rule.name, place, line, text, found, why, seconds)
            yield dict(zip(COLUMNS, values, strict=True))


def told(row: Row) -> str:
    """A row in one line."""
    return f"{row['subject']}: {row['rule']} at {row['place']}: {row['noticed_by'] or 'not noticed'}"


if __name__ == "__main__":
    sys.exit(main())
