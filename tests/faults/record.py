"""The record of a run: mutations.csv, the table made from it, and the environment it ran in."""

import csv
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.faults.harness import COPIED, ROOT, Outcome

SCHEMA_VERSION = 1
COLUMNS = (
    "schema_version", "mutation", "file", "kind", "old", "new", "caught", "caught_by", "failure", "seconds"
)  # fmt: skip


def environment(command: str) -> dict[str, Any]:
    """environment.json: the code that was mutated and what ran it. `dirty` looks at the copied files alone."""
    changes = _git("status", "--porcelain", "--", *COPIED)
    return {
        "schema_version": SCHEMA_VERSION,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
        "command": command,
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "triton": metadata.version("triton"),
        "kernel_mode": "interpreted",
        "cpu_count": os.cpu_count(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    """One mutation a row; `caught` is 1 or 0, `seconds` the time until its outcome was known."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for outcome in outcomes:
            m = outcome.mutation
            writer.writerow([
                SCHEMA_VERSION, m.name, m.path, m.kind, m.old, m.new,
                int(outcome.caught), outcome.caught_by, outcome.failure, f"{outcome.seconds:.1f}",
            ])  # fmt: skip


def write_table(csv_path: Path, path: Path) -> None:
    """The CSV's rows as Markdown, file by file."""
    with csv_path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    caught = sum(row["caught"] == "1" for row in rows)
    lines = [
        "# Planted faults",
        "",
        f"{caught} of {len(rows)} one-line mutations of the kernels were caught, each by the test named: the first to",
        "fail, with the exception it saw. Made from `mutations.csv`; `environment.json` says where it ran, and",
        "`python -m tests.faults --out results/planted_faults` runs it again. Faults added or changed since that",
        "commit are not in it (`python -m tests.faults --list`).",
    ]
    for name in dict.fromkeys(row["file"] for row in rows):
        lines += ["", f"## {name}", "", "| mutation | kind | line | became | caught by |", "|---|---|---|---|---|"]
        for row in rows:
            if row["file"] == name:
                by = f"`{row['caught_by']}` ({row['failure']})" if row["caught"] == "1" else "**survived**"
                lines.append(
                    f"| {row['mutation']} | {row['kind']} | {_code(row['old'])} | {_code(row['new'])} | {by} |"
                )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _code(text: str) -> str:
    """Inline code of a table cell, where a bar would end the cell."""
    return "`" + text.replace("|", "\\|") + "`"
