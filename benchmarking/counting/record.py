"""The record: `counts.csv`, a row a kernel of a layer, and `sizes.csv`, what was simulated for it.

Rows are appended as they come; what the record holds of this code is not counted again. The prediction of every row of
`counts.csv` follows from the rows of `sizes.csv` by `rule.extrapolated`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tidepool.benchmarking import machine
from tidepool.benchmarking.counting.compare import Compared
from tidepool.benchmarking.counting.count import COUNTS, Counted, Simulated, tile_words
from tidepool.benchmarking.counting.rule import TERMS_OF
from tidepool.records import SCHEMA_VERSION, Table, write_json

KEY = ("suite", "case", "dtype", "target", "kernel")
TERM_COLUMNS = ("programs", "trips", "products", "elements")
COUNT_COLUMNS = (*COUNTS, "warp_instructions")
_ABOUT = ("name", "tile")
COUNTS_COLUMNS = (
    "schema_version", *KEY, *_ABOUT, "how", *TERM_COLUMNS, *COUNT_COLUMNS, "flops",
    "footprint_read_bytes", "footprint_written_bytes", "roofline_read_bytes", "roofline_written_bytes",
    "difference_percent", "reason", "check_size", "check_error_percent", "check_error_of",
    "refit_change_percent",
    "commit", "dirty", "source", "triton",
)  # fmt: skip
SIZES_COLUMNS = (
    "schema_version", *KEY, "role", "size", *TERM_COLUMNS, *COUNT_COLUMNS, "footprint_read_bytes",
    "footprint_written_bytes", "seconds", "source",
)  # fmt: skip
PACKAGES = ("kernels", "simulator")
"""Whose code the counts depend on."""
assert set(TERMS_OF) == set(COUNT_COLUMNS)


def counts_table(folder: Path) -> Table:
    """`counts.csv`."""
    return Table(folder / "counts.csv", COUNTS_COLUMNS)


def sizes_table(folder: Path) -> Table:
    """`sizes.csv`."""
    return Table(folder / "sizes.csv", SIZES_COLUMNS)


def there(folder: Path) -> set[tuple[str, ...]]:
    """The keys of what the record holds of this code."""
    source = machine.source_digest(PACKAGES)
    rows, _ = counts_table(folder).read()
    return {tuple(row[name] for name in KEY) for row in rows if row["source"] == source}


def write_environment(folder: Path) -> None:
    """`environment.json`: the commits of all rows, and the machine and versions of the latest."""
    rows, _ = counts_table(folder).read()
    record = machine.machine_record(torch.device("cpu"), PACKAGES)
    commits = dict.fromkeys([*(row["commit"] for row in rows), str(record["commit"])])
    about = {"kernel_mode": "simulated", "commits": list(commits), "date": machine.now()}
    write_json(folder / "environment.json", {"schema_version": SCHEMA_VERSION, **record, **about})


def write(folder: Path, key: dict[str, str], counted: Counted, compared: Compared, flops: int) -> None:
    """Append a kernel's rows: its sizes, then its counts, whose row says that all is there."""
    source = {"source": machine.source_digest(PACKAGES)}
    sizes_table(folder).append(key | row | source for row in _size_rows(counted))
    record = machine.machine_record(torch.device("cpu"), PACKAGES)
    columns = {name: record[name] for name in ("commit", "dirty", "triton")} | source
    counts_table(folder).append([key | _counts_row(counted, compared, flops) | columns])


def _size_rows(counted: Counted) -> Iterator[dict[str, Any]]:
    roles = ["whole" if counted.whole else "fit"] * len(counted.fits)
    sized = list(counted.fits)
    if counted.check is not None:
        roles, sized = [*roles, "check"], [*sized, counted.check]
    for role, one in zip(roles, sized, strict=True):
        yield {"role": role, "size": str(one.sized.size), **_terms(one.terms), **one.counts, **_footprint(one)}


def _footprint(one: Simulated) -> dict[str, Any]:
    return {
        "footprint_read_bytes": sum(touched.read for touched in one.touched.values()),
        "footprint_written_bytes": sum(touched.written for touched in one.touched.values()),
        "seconds": round(one.seconds, 2),
    }


def _terms(terms: Any) -> dict[str, int]:
    return {name: getattr(terms, name) for name in TERM_COLUMNS}


def _counts_row(counted: Counted, compared: Compared, flops: int) -> dict[str, Any]:
    errors = counted.errors_percent
    worst = max(errors, key=lambda name: abs(errors[name])) if errors else ""
    return {
        "name": counted.launch.name,
        "tile": tile_words(counted.launch),
        "how": "whole" if counted.whole else "extrapolated",
        **_terms(counted.terms),
        **{name: round(counted.counts[name]) for name in COUNT_COLUMNS},
        "flops": flops,
        "footprint_read_bytes": compared.read,
        "footprint_written_bytes": compared.written,
        "roofline_read_bytes": compared.roofline_read,
        "roofline_written_bytes": compared.roofline_written,
        "difference_percent": round(compared.difference_percent, 2),
        "reason": compared.reason,
        "check_size": "" if counted.check is None else str(counted.check.sized.size),
        "check_error_percent": round(errors[worst], 3) if worst else None,
        "check_error_of": worst,
        "refit_change_percent": round(max(map(abs, counted.changes_percent.values())), 3) if worst else None,
    }
