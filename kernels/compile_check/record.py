"""The tables of what was compiled, a line for each time that a target was, and of what ran, a line a run: CSV files."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import triton

from tidepool.kernels.compile_check.rows import Ran, Row
from tidepool.kernels.runtime.targets import Target
from tidepool.records import Table

COLUMNS = (
    "schema_version", "triton", "torch", "python", "target", "selection", "kernels", "problems", "spilling",
    "max_registers", "seconds", "date",
)  # fmt: skip

RUN_COLUMNS = (
    "schema_version", "triton", "torch", "target", "schedule", "case", "dtype", "tile", "programs", "warp_instructions",
    "problem", "date",
)  # fmt: skip


def append_record(
    file: Path, targets: Sequence[Target], rows: Sequence[Row], seconds: Mapping[str, float], selection: str
) -> None:
    """Append a line for each target: `seconds` of processor time by its name, `selection` what was compiled."""
    lines = [_line(target, [row for row in rows if row.target == target.name], seconds) for target in targets]
    Table(file, COLUMNS).append([{**line, "selection": selection} for line in lines])


def append_runs(file: Path, rows: Sequence[Ran]) -> None:
    """Append a line for each run, in the order of their names: rows come as the processes end them."""
    versions = {"triton": triton.__version__, "torch": importlib.metadata.version("torch")}
    today = datetime.now(UTC).date().isoformat()
    ordered = sorted(rows, key=lambda row: (row.target, row.schedule, row.case, row.dtype, row.tile))
    Table(file, RUN_COLUMNS).append([{**versions, **asdict(row), "date": today} for row in ordered])


def _line(target: Target, rows: Sequence[Row], seconds: Mapping[str, float]) -> dict[str, object]:
    return {
        "triton": triton.__version__,
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
        "target": target.name,
        "kernels": len(rows),
        "problems": sum(bool(row.problem) for row in rows),
        "spilling": sum(row.spills > 0 for row in rows),
        "max_registers": max((row.registers for row in rows), default=0),
        "seconds": round(seconds.get(target.name, 0.0), 1),
        "date": datetime.now(UTC).date().isoformat(),
    }
