"""SHA-256 beside a file, as `sha256sum` writes it and `sha256sum -c` reads it: NAME.sha256."""

import hashlib
from pathlib import Path
from typing import Literal

from tidepool.records.json_files import write_atomically

SUFFIX = ".sha256"
State = Literal["whole", "damaged", "unknown"]


def checksum_path(path: Path) -> Path:
    """Where the checksum of a file lies."""
    return path.with_name(path.name + SUFFIX)


def write_checksum(path: Path, content: bytes) -> None:
    """Write the checksum of a file that holds, or is about to hold, `content`."""
    line = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    write_atomically(checksum_path(path), line.encode())


def checksum_state(path: Path) -> State:
    """Whether a file is what its checksum says; "unknown" where it has none. Raises OSError where it cannot be read."""
    try:
        words = checksum_path(path).read_bytes().split()
    except FileNotFoundError:
        return "unknown"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return "whole" if words[:1] == [found.encode()] else "damaged"
