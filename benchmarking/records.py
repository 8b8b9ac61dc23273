"""Files of measurements: CSV, one measurement a row, units in column names, appended and never rewritten.

An appended row is one write that ends in a line break, so that a kill costs at most the row it cut short. Such a row,
or anything else that does not have the header's cells, is skipped when read and counted.
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarking.cases import Case

SCHEMA_VERSION = 1

TIMING_COLUMNS = (
    "schema_version", "measured_at", "process", "replicate", "suite", "case", "family", "pass", "backend", "dtype",
    "status", "reason", "time_ms_p50", "time_ms_p20", "time_ms_p80", "samples", "rounds", "cuda_graph",
    "inputs_bytes", "peak_above_inputs_bytes", "flops", "fused_bytes", "eager_bytes", "roofline_ms", "roofline_share",
    "copy_bytes_per_s", "matmul_tflops", "bf16_matmul_tflops",
    "conv_fp32_precision", "matmul_fp32_precision", "cudnn_benchmark", "kernel_mode", "plan",
    "sm_clock_MHz", "memory_clock_MHz", "power_W", "temperature_C",
    "gpu", "gpu_capability", "gpu_memory_bytes", "driver", "cuda", "conv_library", "cpu", "torch", "triton", "python",
    "commit", "dirty", "source", "command",
)  # fmt: skip
CHECK_COLUMNS = (
    "schema_version", "measured_at", "suite", "case", "backend", "dtype", "status", "reason", "draw",
    "undecided_share", "samples_judged", "gpu", "torch", "triton", "commit", "source",
)  # fmt: skip
CEILING_COLUMNS = (
    "schema_version", "measured_at", "dtype", "copy_bytes_per_s", "matmul_tflops", "bf16_matmul_tflops",
    "sm_clock_MHz", "memory_clock_MHz", "power_W", "temperature_C", "gpu", "driver", "torch", "cuda", "commit",
)  # fmt: skip
CASE_COLUMNS = (
    "schema_version", "suite", "case", "family", "description", "source", "note", "batch", "input_gradient",
)  # fmt: skip


class RecordFileError(ValueError):
    """A file of records that cannot be used. The message is one line with its path."""


@dataclass(frozen=True)
class Table:
    """A CSV file of `columns` at `path`; the file need not exist."""

    path: Path
    columns: Sequence[str]

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows at the end, on disk before this returns. A missing value is an empty cell.

        Raises RecordFileError where the file has another header or cannot be written, ValueError for a column that
        the table does not have.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            start = self._start(writer)
            for row in rows:
                writer.writerow({name: _cell(value) for name, value in row.items()})
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(start + text.getvalue())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RecordFileError(f"{self.path}: cannot be written ({error.strerror or error})") from None

    def read(self) -> tuple[list[dict[str, str]], int]:
        """The rows of the file as text, and how many of its lines were damaged. Raises RecordFileError."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise RecordFileError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        lines = text.split("\n")
        cut = 1 if lines[-1] else 0  # a last line without its line break
        header, *rest = lines[:-1] or [""]
        if header != ",".join(self.columns):
            raise RecordFileError(f"{self.path}: another header than {self.path.name} of this version has")
        rows = []
        for line in rest:
            cells = next(csv.reader([line]), [])
            if len(cells) == len(self.columns) and cells[0] == str(SCHEMA_VERSION):
                rows.append(dict(zip(self.columns, cells, strict=True)))
            else:
                cut += 1
        return rows, cut

    def _start(self, writer: "csv.DictWriter[str]") -> str:
        """What to write before new rows: the header of a new file, or what keeps a row that was cut short apart."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            writer.writeheader()
            return ""
        self.read()  # refuses a foreign file
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            # With that many cells more than there are columns, it cannot be taken for a whole row.
            return "" if file.read(1) == b"\n" else "," * len(self.columns) + "\n"


def timings(folder: Path) -> Table:
    """`timings.csv`: one row a case, pass, backend and process."""
    return Table(folder / "timings.csv", TIMING_COLUMNS)


def checks(folder: Path) -> Table:
    """`correctness.csv`: one row a case, dtype and backend that was held to the error rule."""
    return Table(folder / "correctness.csv", CHECK_COLUMNS)


def ceilings_table(folder: Path) -> Table:
    """`ceilings.csv`: copy bandwidth and matrix rates, one row a visit, besides those in timings.csv."""
    return Table(folder / "ceilings.csv", CEILING_COLUMNS)


def cases_table(folder: Path) -> Table:
    """`cases.csv`: what there is to measure."""
    return Table(folder / "cases.csv", CASE_COLUMNS)


def write_cases(folder: Path, suite: str, cases: Sequence[Case]) -> None:
    """Add to `cases.csv` in `folder` what it does not hold yet of a suite. Raises RecordFileError.

    A case that changed its sizes would leave the list fixed beforehand in doubt: it has to get another name.
    """
    table = cases_table(folder)
    there = {(row["suite"], row["case"]): row for row in table.read()[0]}
    fresh = []
    for case in cases:
        row: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "suite": suite,
            "case": case.name,
            "family": case.family,
            "description": case.describe(),
            "source": case.source,
            "note": case.note,
            "batch": case.batch,
            "input_gradient": getattr(case, "input_gradient", True),
        }
        known = there.get((suite, case.name))
        if known is None:
            fresh.append(row)
        elif known["description"] != row["description"]:
            raise RecordFileError(
                f"{table.path}: {case.name} is {known['description']} there and {row['description']} in this code; "
                "write into another folder"
            )
    if fresh:
        table.append(fresh)


def _cell(value: Any) -> Any:
    """A value as one cell on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.7g}"
    return " ".join(value.split()) if isinstance(value, str) else value
