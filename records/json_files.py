"""JSON files replaced whole: a reader, or a kill, meets the old file or the new one, never half of it."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tidepool.records.folders import shown_path
from tidepool.records.schema import SCHEMA_VERSION, RecordError
from tidepool.records.values import encode


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write `record` with its `schema_version` first."""
    text = json.dumps(
        encode({"schema_version": SCHEMA_VERSION, **record}), indent=2, ensure_ascii=False, allow_nan=False
    )
    # Half a surrogate pair, which a file name may hold, becomes the escape that JSON has for it.
    write_atomically(path, (text + "\n").encode("utf-8", errors="backslashreplace"))


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content`, on disk before this returns."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder to write to, and move it to `path` once it is whole and on disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # not of the name that is gone with this
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk: without it a power cut may take a file's new name back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system whose folders cannot be synced
            raise
    finally:
        os.close(descriptor)


def is_temporary(path: Path) -> bool:
    """Whether `replacing` named the file: a kill left it behind, or it is being written."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no file.

    Raises:
        RecordError: the file cannot be read, or holds something else than one JSON object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: bad UTF-8, bad JSON, 5,000 digits
        reason = getattr(error, "strerror", None) or error
        raise RecordError(f"{shown_path(path)}: cannot be read as JSON ({reason})") from None
    if not isinstance(record, dict):
        raise RecordError(f"{shown_path(path)}: expected one JSON object, found a {type(record).__name__}")
    return record
