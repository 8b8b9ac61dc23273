"""JSON files are replaced whole, carry their version, and hold what JSON has no number for."""

import json
import math

import pytest

from tidepool.records import RecordError, decode, encode, number, read_json, write_json


def test_non_finite_numbers_are_written_as_strings_that_float_reads():
    encoded = encode({"a": math.nan, "b": [math.inf, -math.inf, 1.5], "c": None})
    assert encoded == {"a": "NaN", "b": ["Infinity", "-Infinity", 1.5], "c": None}
    assert math.isnan(float(encoded["a"]))
    assert [float(x) for x in encoded["b"]] == [math.inf, -math.inf, 1.5]
    assert decode(encoded)["b"] == [math.inf, -math.inf, 1.5]


def test_a_number_is_a_float_however_large_and_nothing_else_is():
    assert [number(value) for value in (3, 10**400, -(10**400), "Infinity")] == [3.0, math.inf, -math.inf, math.inf]
    assert all(math.isnan(number(value)) for value in (None, True, "3", [3], "NaN"))


def test_text_that_utf8_cannot_hold_is_written_as_json_escapes_it(tmp_path):
    record = {"run_dir": "gr\u00fcn \udc80"}
    write_json(tmp_path / "config.json", record)
    assert json.loads((tmp_path / "config.json").read_bytes()) == {"schema_version": 1, **record}
    assert "gr\u00fcn" in (tmp_path / "config.json").read_text(encoding="utf-8")


def test_write_json_replaces_the_file_and_carries_the_schema_version(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"loss": math.nan})
    write_json(path, {"loss": 1.0})
    assert read_json(path) == {"schema_version": 1, "loss": 1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(TypeError):
        write_json(path, {"loss": object()})
    assert read_json(path) == {"schema_version": 1, "loss": 1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_read_json_tells_absent_from_damaged(tmp_path):
    assert read_json(tmp_path / "absent.json") is None
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(RecordError, match=r"list\.json: expected one JSON object, found a list$"):
        read_json(tmp_path / "list.json")
    (tmp_path / "half.json").write_text('{"loss": 1')
    with pytest.raises(RecordError, match=r"half\.json: cannot be read as JSON \(.*\)$"):
        read_json(tmp_path / "half.json")
