"""metrics.jsonl of a run: one row a step or evaluation, appended so that it survives kill -9."""

import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tidepool.records.json_files import write_atomically
from tidepool.records.schema import SCHEMA_VERSION
from tidepool.records.values import encode

SYNC_SECONDS = 0.5  # rows reach the operating system at once, and the disk at most this much later

Row = dict[str, Any]


def metric_lines(path: Path) -> Iterator[tuple[int, Row | None]]:
    """(line number from 1, row) of each line of a metrics.jsonl that is not empty; no row where it is damaged.

    None where there is no file. A kill may have cut the last line short. Raises OSError where the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    rows = _parsed_together(lines)
    if rows is not None:
        yield from ((number, row if isinstance(row, dict) else None) for number, row in enumerate(rows, start=1))
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield number, row if isinstance(row, dict) else None


def _parsed_together(lines: list[bytes]) -> list[Any] | None:
    """The lines' values from one call of the parser, three times as fast as one by one; None where a line is not a
    value by itself. (Two halves of an object on two lines would parse as one: there is then a value too few.)"""
    try:
        rows: list[Any] = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        return None
    return rows if len(rows) == len(lines) else None


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl, none where there is no file. A last line that a kill cut short is left out.

    Raises:
        ValueError: a line before the last is damaged; names it.
    """
    lines = list(metric_lines(path))
    if lines and lines[-1][1] is None and not path.read_bytes().endswith(b"\n"):
        lines.pop()
    for number, row in lines:
        if row is None:
            raise ValueError(f"{path}, line {number}: not JSON")
    return [row for _, row in lines if row is not None]


def keep_rows(path: Path, rows: list[Row]) -> None:
    """Make `rows` the content of a metrics.jsonl."""
    write_atomically(path, b"".join(_line(row) for row in rows))


class MetricsWriter:
    """Appends rows to metrics.jsonl. Each is handed to the operating system at once, so kill -9 loses none that was
    written; a thread syncs the file to disk every half second, so a power cut costs less than a second too.
    """

    def __init__(self, path: Path) -> None:
        self._file, self._name = path.open("ab", buffering=0), str(path)
        self._problem: OSError | None = None
        self._unsynced = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._sync_now_and_then, name="metrics-sync", daemon=True)
        self._thread.start()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. Raises OSError when the disk does not take it."""
        self._raise_what_syncing_met()
        line = _line({"schema_version": SCHEMA_VERSION, **row})
        try:
            written = self._file.write(line)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._name) from None
        if written != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._name)  # a part went in; readers leave it out
        self._unsynced.set()

    def close(self) -> None:
        """Sync what is left and close the file. Raises OSError when the disk has not taken it."""
        self._closing.set()
        self._thread.join()
        with self._file:
            self._sync()
        self._raise_what_syncing_met()

    def _sync_now_and_then(self) -> None:
        while not self._closing.wait(SYNC_SECONDS):
            if self._unsynced.is_set():
                self._unsynced.clear()
                self._sync()

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:  # in a thread: told by the next write
            self._problem = OSError(error.errno, error.strerror, self._name)

    def _raise_what_syncing_met(self) -> None:
        if self._problem is not None:
            raise self._problem


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(encode(row), allow_nan=False, separators=(",", ":")).encode() + b"\n"
