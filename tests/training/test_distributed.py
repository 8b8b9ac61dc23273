"""Several processes by torchrun, over gloo: the curves of one process, one folder, and one death survived."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_run import metrics
from tests.training.test_train import environment
from tidepool.records import read_json
from tidepool.training.checkpoint import read_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def flags(**fields: Any) -> list[str]:
    settings = {"backend": "cudnn", "track": "off", "batch_size": 322, "epochs": 2, "progress": False} | fields
    return [str(REPOSITORY / "train.py"), *(f"--{name}={value}" for name, value in settings.items())]


def torchrun(folder: Path, *options: str, **fields: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, *options, *flags(**fields)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def assert_equal_curves(one: Path, two: Path, rel: float) -> None:
    first, second = metrics(one), metrics(two)
    assert [row.keys() for row in first] == [row.keys() for row in second]
    for mine, theirs in zip(first, second, strict=True):
        for name in mine:
            tolerance = 1 / 143 + 1e-9 if name.endswith("/accuracy") else 0.0
            assert mine[name] == pytest.approx(theirs[name], rel=rel, abs=tolerance), (mine["step"], name)


@pytest.mark.full
@pytest.mark.parametrize(
    ("fields", "rel"),
    [
        ({"model": "lenet5", "augment": True, "mixup": 0.3, "clip_norm": 1.0, "batch_size": 321}, 1e-4),
        ({"model": "searchable", "width": 2, "depth": 1, "accumulate": 1, "ema": True}, 1e-3),
    ],
    ids=["lenet5", "batch norm"],
)
def test_two_processes_have_the_curves_of_one(fields: dict[str, Any], rel: float, small, quietly, tmp_path) -> None:
    done = torchrun(tmp_path, run_dir=tmp_path / "two", **fields)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training searchable on ") + done.stdout.count("training lenet5 on ") == 1
    assert "on 2 processes" in done.stdout
    assert "status         finished" in done.stdout
    quietly(small(**{"batch_size": 322, "run_dir": tmp_path / "one", **fields}))
    assert_equal_curves(tmp_path / "one", tmp_path / "two", rel)
    one, two = (read_checkpoint(tmp_path / name / "checkpoints/last.pt")["model"] for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=5e-3, atol=5e-4)


def children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.full
def test_a_run_of_which_one_process_is_killed_goes_on_in_its_folder(tmp_path: Path, small, quietly) -> None:
    fields: dict[str, Any] = {"model": "mlp", "epochs": 60, "batch_size": 64, "checkpoint_every_steps": 20}
    with subprocess.Popen(
        [*TORCHRUN, "--max-restarts=1", *flags(**fields)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/checkpoints/step-00000[1-9]*.pt")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    (folder,) = tmp_path.glob("runs/*")
    assert "from step" in output
    summary = read_json(folder / "summary.json")
    assert summary is not None
    assert (summary["status"], summary["steps"]) == ("finished", 1200)
    rows = metrics(folder)
    steps = [row["step"] for row in rows if "train/loss" in row]
    assert steps == sorted(set(steps))
