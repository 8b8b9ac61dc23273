"""train.py as a program: real processes, real signals, the real wandb."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidepool.records import read_json, read_rows
from tidepool.training.checkpoint import read_checkpoint
from tidepool.training.config import Config
from tidepool.training.run import train

REPOSITORY = Path(__file__).resolve().parents[2]
LONG = {"model": "mlp", "backend": "cudnn", "batch_size": "16", "epochs": "3000", "track": "off", "log_every": "1"}
DEADLINE_S = 120


def command(**fields: Any) -> list[str]:
    return [sys.executable, str(REPOSITORY / "train.py"), *(f"--{name}={value}" for name, value in fields.items())]


def environment(**added: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | added


@contextlib.contextmanager
def running_until(step: int, run_dir: Path, **fields: Any) -> Iterator[subprocess.Popen]:
    """A train.py at work that has recorded at least `step` steps and a checkpoint."""
    process = subprocess.Popen(
        command(run_dir=run_dir, **fields),
        cwd=run_dir.parent,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            rows = read_rows(run_dir / "metrics.jsonl")
            if rows and rows[-1]["step"] >= step and (run_dir / "checkpoints" / "last.pt").exists():
                break
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline, "the run got nowhere"
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.default
def test_kill_9_then_sigterm_are_one_run(tmp_path):
    """89 steps an epoch: killed in the second or later, resumed, and stopped."""
    folder = tmp_path / "run"
    with running_until(100, folder, **LONG) as process:
        recorded = read_rows(folder / "metrics.jsonl")[-1]["step"]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    rows = read_rows(folder / "metrics.jsonl")
    assert rows[-1]["step"] >= recorded
    assert read_json(folder / "summary.json")["status"] == "interrupted"
    assert "killed" in read_json(folder / "summary.json")["exit_reason"]
    before_kill = [row for row in rows if "train/loss" in row]

    with running_until(rows[-1]["step"] + 50, folder, **LONG) as process:
        process.send_signal(signal.SIGTERM)
        output, complaint = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 143, complaint
    assert "interrupted: stopped by SIGTERM" in output
    assert "Traceback" not in complaint
    summary = read_json(folder / "summary.json")
    assert (summary["status"], summary["checkpoint"]) == ("interrupted", "checkpoints/last.pt")
    assert read_checkpoint(folder / "checkpoints" / "last.pt")["progress"]["step"] == summary["steps"]
    rows = [row for row in read_rows(folder / "metrics.jsonl") if "train/loss" in row]
    assert [row["step"] for row in rows] == list(range(1, summary["steps"] + 1))
    again = {row["step"]: row["train/loss"] for row in rows}
    assert all(again[row["step"]] == row["train/loss"] for row in before_kill)


def test_off_works_where_wandb_is_not_installed_and_the_summary_fits_one_screen(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'wandb': raise ModuleNotFoundError('No module named wandb', name='wandb')\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    fields = {"model": "mlp", "backend": "cudnn", "epochs": 1, "run_dir": tmp_path / "run"}
    done = subprocess.run(
        command(track="off", deterministic=True, augment=False, progress=False, **fields),
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    assert "status         finished" in done.stdout
    assert len(done.stdout.splitlines()) < 24
    assert done.stderr.startswith("epoch 1: step 20/20  loss ")
    assert read_json(tmp_path / "run" / "environment.json")["precision"]["deterministic_algorithms"] is True
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": "nope"}, "expected one of: "),
        ({"backend": "nope"}, "auto"),
        ({"data": "nowhere/at/all"}, "nowhere/at/all: no such folder; expected "),
        ({"data": "cifar10", "data_dir": "~nosuchuser/x"}, "~nosuchuser/x: no such user's home"),
        ({"data": "cifar10", "data_dir": "damaged"}, "train-0.parquet"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, fields, expected):
    (tmp_path / "work").mkdir()
    for split in ("train", "test"):
        path = tmp_path / "work" / "damaged" / f"{split}-0.parquet"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"PAR1 cut short")
    done = subprocess.run(
        command(**fields),
        cwd=tmp_path / "work",
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("train.py: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert [entry.name for entry in (tmp_path / "work").iterdir()] == ["damaged"]


def test_the_offline_wandb_run_holds_config_history_and_summary(tmp_path):
    folder, home = tmp_path / "run", tmp_path / "home"
    home.mkdir()
    wandb = shutil.which("wandb", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if wandb is None:
        pytest.skip("the wandb command is not installed")
    fields = {"model": "lenet5", "backend": "cudnn", "batch_size": 320, "epochs": 2, "group": "g", "run_dir": folder}
    done = subprocess.run(
        command(**fields),
        cwd=tmp_path,
        env=environment(HOME=str(home)),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    assert "wandb" not in done.stderr  # its chatter is silenced
    assert list(home.iterdir()) == []  # its files are all in the run folder
    (log,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    inspected = subprocess.run(
        [wandb, "leet", "inspect", "--json", str(log)], capture_output=True, text=True, check=True, timeout=DEADLINE_S
    )
    records = [json.loads(line) for line in inspected.stdout.splitlines()]
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    (opening,) = (record["run"] for record in records if record["type"] == "run")
    summary: dict[str, Any] = {}
    for record in records:
        summary |= record["summary"]["update"] if record["type"] == "summary" else {}

    config = read_json(folder / "config.json")
    del config["schema_version"]
    logged = opening["config"]["update"]
    assert {name: value for name, value in logged.items() if name in config} == config
    assert (opening["run_group"], opening["project"]) == ("g", "tidepool")
    rows = read_rows(folder / "metrics.jsonl")
    for metric in ("train/loss", "val/accuracy", "test/accuracy"):
        mirrored = [(item["step"], item[metric]) for item in history if metric in item]
        assert mirrored == [(row["step"], row[metric]) for row in rows if metric in row]
    ours = read_json(folder / "summary.json")
    for name in ("status", "val_accuracy", "test_accuracy", "steps", "conv_library", "run_id"):
        assert summary[name] == ours[name]
    logged_names = {name.split(".")[0] for item in history for name in item}
    assert {"confusion", "filters", "feature_maps"} <= logged_names


def test_the_default_settings_learn_the_digits(tmp_path):
    """In this process and on PyTorch's own operators, which are fast; test_run.py shows that triton follows them."""
    config = Config(backend="cudnn", track="off", run_dir=tmp_path / "run", progress=False)
    outcome = train(config, announce=lambda line: None)
    assert outcome.summary["steps"] <= 200
    assert outcome.summary["test_accuracy"] >= 0.95


_STOPPING_THE_SERVICE = """
import os, signal, sys
from pathlib import Path
from tidepool.program import run_process
from tidepool.training import loop, program, tracking
tracking.LOG_LIMIT_S = tracking.FINISH_LIMIT_S = 3.0
step = loop.train_step
def stopping(job, indices, number):
    if number == 3:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            if "wandb" in name and int(rest.split()[1]) == os.getpid():
                print("service stopped", flush=True)
                os.kill(int(folder.name), signal.SIGSTOP)
    return step(job, indices, number)
loop.train_step = stopping
run_process(program.main, sys.argv[1:], prog="train.py")
"""


@pytest.mark.full
def test_a_wandb_service_that_is_stopped_holds_up_no_run(tmp_path):
    flags = ["--model=mlp", "--backend=cudnn", "--epochs=1", f"--run_dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-c", _STOPPING_THE_SERVICE, *flags],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    assert "service stopped" in done.stdout
    assert "status         finished" in done.stdout
    assert done.stderr.count("warning: W&B stopped (TimeoutError: no answer within 3 s)") == 1
    assert "Traceback" not in done.stderr
