from __future__ import annotations

import json
import math

from tidepool.sweeping import records

GRID = {"backend": {"value": "cudnn"}, "seed": {"values": [0, 1]}}


def test_sweep_json_is_the_file_with_its_name_and_margin(read, tmp_path):
    sweep = read(description="margin=0.3 points; q", parameters=GRID)
    records.write_sweep_file(sweep, tmp_path)
    content = records.read_sweep_file(tmp_path)
    assert content == {**sweep.content, "schema_version": 1, "name": "try", "margin_points": 0.3}
    assert records.read_sweep_file(tmp_path / "elsewhere") is None


def test_a_metric_is_read_from_the_summary_else_from_the_last_row(tmp_path):
    rows = [{"train/loss": 2.0}, {"test/accuracy": 0.5}, {"test/accuracy": 0.75}, {"train/loss": "NaN"}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"test/accuracy": 0.')
    assert records.metric_history(tmp_path, "test/accuracy") == [0.5, 0.75]
    assert math.isnan(records.metric_history(tmp_path, "train/loss")[1])
    assert records.metric_value(tmp_path, "test/accuracy") == 0.75
    assert records.metric_value(tmp_path, "train/loss") is None
    (tmp_path / "summary.json").write_text(json.dumps({"test_accuracy": 0.9}))
    assert records.metric_value(tmp_path, "test/accuracy") == 0.9


def test_a_run_that_left_nothing_gets_a_record_that_it_failed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text(
        json.dumps({"schema_version": 1, "lr": 0.1, "backend": "cudnn", "seed": 0})
    )
    records.write_failure(tmp_path / "b", {"backend": "triton", "seed": 1}, "exit code 1: no memory")
    assert json.loads((tmp_path / "b" / "config.json").read_text()) == {
        "schema_version": 1,
        "lr": 0.1,
        "backend": "triton",
        "seed": 1,
    }
    summary = records.read_summary(tmp_path / "b")
    assert (summary["status"], summary["exit_reason"], summary["seed"]) == ("failed", "exit code 1: no memory", 1)


def test_a_record_a_run_left_is_not_touched(tmp_path):
    (tmp_path / "summary.json").write_text('{"status": "interrupted"}')
    records.write_failure(tmp_path, {"seed": 1}, "killed")
    assert records.read_summary(tmp_path) == {"status": "interrupted"}
    assert not (tmp_path / "config.json").exists()


def test_the_last_line_of_a_log_is_the_last_with_words_on_it(tmp_path):
    log = tmp_path / "output.log"
    assert records.last_line(log) == ""
    log.write_bytes(b"first\n 10%\r 20%\r 30% \xff\n\n")
    assert records.last_line(log) == "30% \ufffd"


def test_numbers_too_large_for_a_float_are_infinite_and_no_value(tmp_path):
    (tmp_path / "summary.json").write_text(f'{{"test_accuracy": {10**400}}}')
    assert records.metric_value(tmp_path, "test/accuracy") is None
    (tmp_path / "metrics.jsonl").write_text(f'{{"test/loss": -{10**400}}}\n{{"test/loss": {"9" * 5000}}}\n')
    assert records.metric_history(tmp_path, "test/loss")[0] == -math.inf
    assert records.metric_value(tmp_path, "test/loss") is None
