"""The manifest of results/: the SHA-256 of every file below it, so that a digit changed anywhere is noticed.

``results/manifest.json`` names each file with its SHA-256, its bytes and, for a table, its rows; the SHA-256 of the
manifest itself stands in results/README.md, in a generated block. A row changed together with its hash then still
differs from what that page says. Tables of measurements are only ever appended to: `seal` takes new files and rows at
the end of a table, and anything else only with a reason, which the manifest keeps.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidepool.records import RecordError, check_schema_version, read_json, shown_path, write_json

MANIFEST = "manifest.json"
_APPENDED = (".csv", ".jsonl")
_UNSEALED = frozenset({"README.md", MANIFEST})
"""Files at the top that have no entry: the page that names the manifest, and the manifest."""


def sealed_files(results: Path) -> list[str]:
    """The files below ``results`` that its manifest is of, as paths relative to it, in order."""
    found = (path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in _UNSEALED and not _is_hidden(name))


def evidence_problems(results: Path) -> Iterator[str]:
    """A line for each file that is not as its manifest says, is missing, or has no entry. None without a manifest.

    Raises RecordError where the manifest cannot be read.
    """
    if not (results / MANIFEST).is_file():
        return
    entries, _ = _read(results)
    here = sealed_files(results)
    for name in sorted({*entries, *here}):
        shown = shown_path(results / name)
        if name not in entries:
            yield f"{shown}: not in {MANIFEST}; `tidepool readme --write` takes it in"
        elif name not in here:
            yield f"{shown}: missing, though {MANIFEST} names it"
        elif entries[name] != _entry((results / name).read_bytes(), name):
            yield f"{shown}: not as it was recorded, its SHA-256 differs from that in {MANIFEST}"


def seal(results: Path, reason: str | None = None, *, free: tuple[str, ...] = ()) -> int:
    """Bring the manifest up to date with new files and appended rows; returns how many entries changed.

    ``free`` names files that may change as they like. With a ``reason``, it takes files that changed otherwise or are
    gone as well, and the manifest keeps the reason with their names.
    Raises RecordError, in one line, where a recorded file changed and no reason is given.
    """
    entries, rewritten = _read(results) if (results / MANIFEST).is_file() else ({}, [])
    fresh = {name: _entry((results / name).read_bytes(), name) for name in sealed_files(results)}
    changed = [name for name in entries if entries[name] != fresh.get(name)]
    other = [name for name in changed if name not in free and not _is_appended(results / name, entries[name])]
    if other and not reason:
        raise RecordError(
            f"{shown_path(results / other[0])}: recorded rows changed or are gone, which only --rewritten REASON takes"
            + (f" ({len(other)} files)" if len(other) > 1 else "")
        )
    if entries == fresh:
        return 0
    if other:
        rewritten = [*rewritten, {"date": time.strftime("%Y-%m-%d", time.gmtime()), "files": other, "reason": reason}]
    write_json(results / MANIFEST, {"files": fresh, "rewritten": rewritten})
    return len(changed) + len(fresh.keys() - entries.keys())


def evidence_block(results: Path) -> list[str]:
    """The line of results/README.md that names the manifest. Raises RecordError where there is none."""
    entries, _ = _read(results)
    digest = hashlib.sha256((results / MANIFEST).read_bytes()).hexdigest()
    rows = sum(entry.get("rows", 0) for entry in entries.values())
    return [f"{len(entries)} files with {rows:,} rows of CSV; SHA-256 of [{MANIFEST}]({MANIFEST}): `{digest}`."]


def _read(results: Path) -> tuple[dict[str, Any], list[Any]]:
    path = results / MANIFEST
    record = read_json(path)
    if record is None:
        raise RecordError(f"{shown_path(path)}: no such file")
    check_schema_version(record.get("schema_version"), shown_path(path))
    entries, rewritten = record.get("files"), record.get("rewritten", [])
    if not isinstance(entries, dict) or not isinstance(rewritten, list):
        raise RecordError(f"{shown_path(path)}: expected files with their SHA-256")
    return entries, rewritten


def _entry(content: bytes, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return entry | {"rows": max(0, content.count(b"\n") - 1)} if name.endswith(".csv") else entry


def _is_appended(path: Path, entry: Any) -> bool:
    """Whether a table begins with what was recorded and goes on behind it."""
    if path.suffix not in _APPENDED or not path.is_file() or not isinstance(entry, dict):
        return False
    size = entry.get("bytes")
    if not isinstance(size, int):
        return False
    return hashlib.sha256(path.read_bytes()[:size]).hexdigest() == entry.get("sha256")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))
