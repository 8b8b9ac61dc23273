"""``python -m tests.sweeping.recorded --out results/sweeps``: costs of a large ledger, kills, restarts of PostgreSQL.

Writes ledger.csv, interruptions.csv, environment.json and manifest.json. PostgreSQL's rows need Debian's postgresql.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.sweeping.postgres_server import binaries
from tests.sweeping.recorded import interruptions, ledger_costs
from tidepool.records import cpu_name, git_state, package_version, write_json


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sweeping.recorded")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--kills", type=int, default=20, help="of one controller on SQLite, and of one of two on PostgreSQL"
    )
    parser.add_argument("--restarts", type=int, default=10)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _write(options.out / "ledger.csv", ledger_costs.COLUMNS, ledger_costs.costs(folder / "large"))
        rows = list(_shown(interruptions.kills(folder, options.kills, postgres=False)))
        if binaries() is not None:
            rows += _shown(interruptions.kills(folder, options.kills, postgres=True))
            rows += _shown(interruptions.restarts(folder, options.restarts))
        _write(options.out / "interruptions.csv", interruptions.COLUMNS, rows)
    write_json(options.out / "environment.json", _environment())
    files = ("ledger.csv", "interruptions.csv", "environment.json")
    hashes = {name: {"sha256": hashlib.sha256((options.out / name).read_bytes()).hexdigest()} for name in files}
    write_json(options.out / "manifest.json", {"files": hashes})
    return 0


def _shown(rows: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for row in rows:
        print(*row.values(), flush=True)
        yield row


def _write(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_shown(rows))


def _environment() -> dict[str, Any]:
    commit, dirty = git_state(interruptions.ROOT)
    return {
        "commit": commit,
        "dirty": dirty,
        "command": "python -m tests.sweeping.recorded --out results/sweeps",
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "machine": "shared with other work during the run",
        "python": platform.python_version(),
        "optuna": package_version("optuna"),
        "sqlalchemy": package_version("sqlalchemy"),
        "psycopg": package_version("psycopg"),
        "postgresql": str(binaries()).split("/")[4] if binaries() else None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    sys.exit(main())
