"""The version of everything written to disk, and the error for what is not of it."""

from typing import Any

SCHEMA_VERSION = 1


class RecordError(ValueError):
    """A record that cannot be read or written. The message is one line: which file, and what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def check_schema_version(found: Any, where: str) -> None:
    """Raise RecordError unless ``found`` is the version this code reads."""
    if found != SCHEMA_VERSION or isinstance(found, bool):
        raise RecordError(f"{where}: schema_version {found!r}, expected {SCHEMA_VERSION}")
