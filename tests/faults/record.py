"""The record of a run: mutations.csv, the table made from it, and the environment it ran in."""

import csv
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.faults.harness import COPIED, ROOT, Outcome
from tidepool.records import SCHEMA_VERSION

COLUMNS = (
    "schema_version", "mutation", "file", "function", "kind", "old", "new", "within",
    "caught", "caught_by", "failure", "seconds", "commit",
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


def row(outcome: Outcome, commit: str | None) -> dict[str, Any]:
    """One mutation's row; `caught` is 1 or 0, `seconds` the time until its outcome was known, `commit` the code's."""
    m = outcome.mutation
    values = (
        SCHEMA_VERSION, m.name, outcome.file, m.function, m.kind, m.old, m.new, m.within,
        int(outcome.caught), outcome.caught_by, outcome.failure, f"{outcome.seconds:.1f}", commit or "",
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a mutations.csv by the mutation's name; none where there is no file."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {found["mutation"]: found for found in csv.DictReader(file)}


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One mutation a row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_table(csv_path: Path, path: Path) -> None:
    """The CSV's rows as Markdown, file by file."""
    with csv_path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    caught = sum(row["caught"] == "1" for row in rows)
    lines = [
        "# Planted faults",
        "",
        f"{caught} of {len(rows)} mutations of the kernels were caught, each by the test named: the first to",
        "fail, with the exception it saw. Made from `mutations.csv`, whose column `commit` says which code each row is",
        "of; `environment.json` is of the last run. `python -m tests.faults --out results/planted_faults` runs all of",
        "it again, with `--only NAME …` the named faults, whose rows it replaces.",
    ]
    titles = ["| mutation | function | kind | code | became | caught by |", "|---|---|---|---|---|---|"]
    for mutated in dict.fromkeys(row["file"] for row in rows):
        lines += ["", f"## {mutated}", "", *titles]
        for row in rows:
            if row["file"] == mutated:
                by = f"`{row['caught_by']}` ({row['failure']})" if row["caught"] == "1" else "**survived**"
                old = _code(row["old"]) + (f" within {_code(row['within'])}" if row["within"] else "")
                name = f"{row['mutation']} | {_code(row['function'])} | {row['kind']}"
                lines.append(f"| {name} | {old} | {_code(row['new'])} | {by} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _code(text: str) -> str:
    """Inline code of a table cell, where a bar would end the cell."""
    return "`" + text.replace("|", "\\|") + "`"
