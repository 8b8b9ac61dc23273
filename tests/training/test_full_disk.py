"""A disk that is full: one line that names the file, a summary that is true, and the last good checkpoint kept."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidepool.records import json_files, metrics, read_json
from tidepool.records.metrics import MetricsWriter
from tidepool.training import program
from tidepool.training.checkpoint import read_checkpoint
from tidepool.training.run_folder import RESERVE, RESERVED_BYTES

REPOSITORY = Path(__file__).resolve().parents[2]
FULL = "No space left on device"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Make a disk of so many KiB. Skipped where this user may not mount one."""
    mounted: list[Path] = []

    def make(kibibytes: int) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk needs root")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def train(run_dir: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    settings = ["--model=mlp", "--backend=cudnn", "--track=off", "--batch_size=16", f"--run_dir={run_dir}", *flags]
    command = [sys.executable, str(REPOSITORY / "train.py"), *settings]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.parametrize(
    ("kibibytes", "flags", "file"),
    [
        (300, ("--epochs=3",), "checkpoints/step-00000080.pt"),
        pytest.param(1400, ("--epochs=40",), "checkpoints/", marks=pytest.mark.full),
        pytest.param(48, ("--epochs=1000",), "metrics.jsonl", marks=pytest.mark.full),
    ],
    ids=["at the first checkpoint", "at a later one", "at the rows"],
)
def test_a_full_disk_ends_a_run_in_one_line(
    kibibytes: int, flags: tuple[str, ...], file: str, small_disk: Callable[[int], Path]
) -> None:
    run_dir = small_disk(kibibytes) / "run"
    extra = ("--log_every=1", "--eval_every=1000", "--checkpoint_every=1000") if file == "metrics.jsonl" else ()
    done = train(run_dir, *flags, *extra)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if FULL in line]
    assert len(told) == 1
    assert told[0].startswith(f"train.py: {run_dir / file}")
    summary = read_json(run_dir / "summary.json")
    assert summary is not None
    assert summary["status"] == "failed"
    assert summary["exit_reason"] == told[0].removeprefix("train.py: ")
    assert summary["steps"] > 0
    assert not (run_dir / RESERVE).exists()
    if summary["checkpoint"]:
        read_checkpoint(run_dir / summary["checkpoint"])
    assert (summary["checkpoint"] is None) == ("00000080" in file or file == "metrics.jsonl")


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["last.pt", "best.pt", "step-00000004.pt", "summary.json", "metrics.jsonl"])
def test_whichever_file_meets_it(name: str, small, tmp_path, monkeypatch, capsys) -> None:
    """On any machine: the file's own write fails, from the first epoch's end on."""
    replace, write = os.replace, MetricsWriter.write

    def replacing(source: Path, target: Path) -> None:
        if Path(target).name == name and (tmp_path / "run" / "summary.json").exists():
            full()
        replace(source, target)

    def writing(self: MetricsWriter, row: Any) -> None:
        if name == "metrics.jsonl" and row["step"] == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "run" / name))
        write(self, row)

    monkeypatch.setattr(json_files.os, "replace", replacing)
    monkeypatch.setattr(MetricsWriter, "write", writing)
    settings = ["--model=mlp", "--backend=cudnn", "--track=off", "--batch_size=320", "--epochs=2"]
    code = program.main([*settings, f"--run_dir={tmp_path / 'run'}"], prog="train.py")
    assert code == 1
    error = capsys.readouterr().err
    where = tmp_path / "run" / ("" if name in ("summary.json", "metrics.jsonl") else "checkpoints") / name
    assert f"train.py: {where}: {FULL}\n" in error
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary is not None
    assert (summary["status"] == "failed") == (name != "summary.json")


def test_rows_that_the_disk_refuses_while_syncing_are_told_by_the_next_write(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(metrics, "SYNC_SECONDS", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(metrics.os, "fsync", full)
        writer = MetricsWriter(tmp_path / "metrics.jsonl")
        writer.write({"step": 1})
        while writer._problem is None:
            writer._closing.wait(0.01)
    with pytest.raises(OSError, match=FULL) as told:
        writer.write({"step": 2})
    assert told.value.filename == str(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match=FULL):
        writer.close()


def test_room_for_the_summary_is_kept_while_a_run_lasts(small, quietly, tmp_path, monkeypatch) -> None:
    from tidepool.training import loop

    sizes: list[int] = []
    step = loop.train_step

    def looking(*given: Any) -> Any:
        sizes.append((tmp_path / "run" / RESERVE).stat().st_size)
        return step(*given)

    monkeypatch.setattr(loop, "train_step", looking)
    quietly(small())
    assert set(sizes) == {RESERVED_BYTES}
    assert not (tmp_path / "run" / RESERVE).exists()
