"""The records of a run on disk: JSON files replaced whole, and metrics.jsonl, which survives kill -9.

JSON has no NaN or infinity, and null would say "not measured", so non-finite numbers are written as the strings
`"NaN"`, `"Infinity"` and `"-Infinity"`, which `float()` reads back.
"""

import contextlib
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.config import SCHEMA_VERSION

SYNC_SECONDS = 0.5  # rows reach the operating system at once, and the disk at most this much later

Row = dict[str, Any]


def encode(value: Any) -> Any:
    """`value` with every non-finite float in it replaced by its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write `record` with its `schema_version` first, through a temporary file: readers see the old file or the new."""
    text = json.dumps(encode({"schema_version": SCHEMA_VERSION, **record}), indent=2, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content`, on disk before this returns."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, and move the file to `path` once it is whole and on disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no file.

    Raises:
        ValueError: the file holds something else than one JSON object.
    """
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected one JSON object")
    return record


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl, none where there is no file. A last line that a kill cut short is left out.

    Raises:
        ValueError: a line before the last is damaged; names it.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number == len(lines):  # no newline after it
                break
            raise ValueError(f"{path}, line {number}: not JSON") from None
    return rows


def keep_rows(path: Path, rows: list[Row]) -> None:
    """Make `rows` the content of a metrics.jsonl."""
    write_atomically(path, b"".join(_line(row) for row in rows))


class MetricsWriter:
    """Appends rows to metrics.jsonl. Each is handed to the operating system at once, so kill -9 loses none that was
    written; a thread syncs the file to disk every half second, so a power cut costs less than a second too.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._unsynced = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._sync_now_and_then, name="metrics-sync", daemon=True)
        self._thread.start()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. Raises OSError when the disk does not take it."""
        line = _line({"schema_version": SCHEMA_VERSION, **row})
        written = self._file.write(line)
        if written != len(line):
            raise OSError(f"{self._file.name}: only {written} of {len(line)} bytes were written; is the disk full?")
        self._unsynced.set()

    def close(self) -> None:
        """Sync what is left and close the file."""
        self._closing.set()
        self._thread.join()
        with self._file:
            os.fsync(self._file.fileno())

    def _sync_now_and_then(self) -> None:
        while not self._closing.wait(SYNC_SECONDS):
            if self._unsynced.is_set():
                self._unsynced.clear()
                os.fsync(self._file.fileno())


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(encode(row), allow_nan=False, separators=(",", ":")).encode() + b"\n"
