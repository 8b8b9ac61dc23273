"""metrics.jsonl comes back as it was written, and survives kill -9."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tidepool.records import MetricsWriter, keep_rows, read_rows

REPOSITORY = Path(__file__).resolve().parents[2]


def test_rows_come_back_as_written_and_each_carries_the_schema_version(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer.write({"step": 1, "train/loss": math.nan})
    assert read_rows(path) == [{"schema_version": 1, "step": 1, "train/loss": "NaN"}]
    writer.write({"step": 2, "train/loss": 0.5})
    writer.close()
    assert [row["step"] for row in read_rows(path)] == [1, 2]
    keep_rows(path, read_rows(path)[:1])
    assert [row["step"] for row in read_rows(path)] == [1]


def test_a_line_cut_short_is_left_out_at_the_end_and_refused_elsewhere(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step":1}\n{"step":2')
    assert read_rows(path) == [{"step": 1}]
    path.write_text('{"step":1}\n{"step":2\n{"step":3}\n')
    with pytest.raises(ValueError, match="line 2: not JSON"):
        read_rows(path)
    assert read_rows(tmp_path / "absent.jsonl") == []


def test_every_row_that_was_written_is_there_after_kill_9(tmp_path):
    program = (
        "import itertools, pathlib, sys\n"
        "from tidepool.records import MetricsWriter\n"
        "writer = MetricsWriter(pathlib.Path(sys.argv[1]))\n"
        "for step in itertools.count(1):\n"
        "    writer.write({'step': step})\n"
        "    print(step, flush=True)\n"
    )
    path = tmp_path / "metrics.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = 0
        while said < 300:
            said = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        said = max([said, *(int(line) for line in process.stdout.read().split("\n")[:-1] if line)])
    assert process.returncode == -signal.SIGKILL
    steps = [row["step"] for row in read_rows(path)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= said
    assert all(json.loads(line) for line in path.read_bytes().split(b"\n")[: len(steps)])


def test_rows_reach_the_disk_without_waiting_for_the_end(tmp_path, monkeypatch):
    import threading

    from tidepool.records import metrics

    synced = threading.Event()
    monkeypatch.setattr(metrics, "SYNC_SECONDS", 0.01)
    monkeypatch.setattr(metrics.os, "fsync", lambda descriptor: synced.set())
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write({"step": 1})
    assert synced.wait(timeout=30)
    writer.close()
