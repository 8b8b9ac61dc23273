"""Training runs and bench.py's measurements under the same paths: either or both, but something."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.bench_records import BenchRecords, read_bench_records
from analysis.records import NoRunsError, Records, read_records


def read_everything(paths: Sequence[Path | str], *, skip: Path | None = None) -> tuple[Records | None, BenchRecords]:
    """The runs, None where there are none, and the measurements; ``skip`` is a folder left unread.

    Raises RecordError, in one line, where there is neither and where something cannot be read.
    """
    try:
        records = read_records(paths, skip=skip)
    except NoRunsError:
        bench = read_bench_records(paths, skip=skip)
        if bench.empty:
            raise
        return None, bench
    return records, read_bench_records(paths, skip=skip)
