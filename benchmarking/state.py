"""`state.json` in a folder of measurements: what is being measured now, so that a crash can be put down to it.

Times themselves are in the CSV files: what they hold is done, whatever the state file says.
"""

from pathlib import Path
from typing import Any

from tidepool.records import SCHEMA_VERSION, RecordError, read_json, write_json

STATE_FILE = "state.json"


class State:
    """The state file of a folder; a file that cannot be used is refused, never overwritten."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STATE_FILE
        self._read()

    def get(self, key: str) -> Any:
        """What was last put there, or None."""
        return self._read().get(key)

    def put(self, key: str, value: Any) -> None:
        """Set one entry, on disk before this returns."""
        content = {**self._read(), key: value}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, content)
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be written ({error.strerror or error})") from None

    def _read(self) -> dict[str, Any]:
        content = read_json(self.path)
        if content is None:
            return {}
        if content.get("schema_version") != SCHEMA_VERSION:
            raise RecordError(f"{self.path}: not a state file of this version; move it away to start over")
        return content
