"""Tables of measurements are appended to, never rewritten."""

from pathlib import Path

import pytest

from tidepool.records import RecordError, Table


def test_rows_are_appended_on_one_line_each(tmp_path: Path) -> None:
    table = Table(tmp_path / "a" / "t.csv", ("schema_version", "reason", "ms", "ok"))
    table.append([{"schema_version": 1, "reason": 'two\nlines, "quoted"', "ms": 0.123456789, "ok": True}])
    first = table.path.read_text()
    table.append([{"reason": None}])
    assert table.path.read_text() == first + "1,,,\n"
    rows, damaged = table.read()
    assert rows[0] == {"schema_version": "1", "reason": 'two lines, "quoted"', "ms": "0.1234568", "ok": "True"}
    assert damaged == 0
    with pytest.raises(ValueError, match="lap"):
        table.append([{"lap": 1}])


def test_another_header_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("schema_version,other\n1,2\n")
    with pytest.raises(RecordError, match="another header"):
        Table(path, ("schema_version", "ms")).append([{"schema_version": 1, "ms": 2.0}])
    assert path.read_text() == "schema_version,other\n1,2\n"


def test_a_row_cut_short_is_counted_and_kept_apart_from_the_next(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", ("schema_version", "ms"))
    table.append([{"ms": 1.0}])
    with table.path.open("a") as file:
        file.write("1,2")
    assert table.read() == ([{"schema_version": "1", "ms": "1"}], 1)
    table.append([{"ms": 3.0}])
    assert table.read() == ([{"schema_version": "1", "ms": "1"}, {"schema_version": "1", "ms": "3"}], 1)
