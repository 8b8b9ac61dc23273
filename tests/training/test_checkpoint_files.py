"""Checkpoint files: checked before they are believed, and one is left whole whatever happens to another."""

import io
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_run import assert_same_weights, metrics, stop_after
from tidepool.records import checksum_path, checksum_state, json_files
from tidepool.training.checkpoint import read_checkpoint
from tidepool.training.checkpoint_files import BEST, LAST, by_step, candidates, store
from tidepool.training.run import train
from tidepool.training.run_folder import RunFolderError

FLIPS = 200


def flip_bit(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


@pytest.fixture
def stopped(small, quietly, tmp_path, monkeypatch) -> Path:
    """The checkpoints of a run that was stopped at step 6, in its second epoch of four steps."""
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        quietly(small())
    return tmp_path / "run" / "checkpoints"


def test_every_flipped_bit_is_noticed(stopped: Path) -> None:
    draw, path = random.Random(0), stopped / LAST
    content = path.read_bytes()
    for _ in range(FLIPS):
        flip_bit(path, draw.randrange(8 * len(content)))
        with pytest.raises(
            RunFolderError, match=r"last\.pt is damaged: it is not what last\.pt\.sha256 beside it says"
        ):
            read_checkpoint(path)
        path.write_bytes(content)
    read_checkpoint(path)


@pytest.mark.parametrize("damaged", [(LAST,), (f"{LAST}.sha256",), (LAST, "step-00000006.pt.sha256")], ids=str)
def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_one_named(
    stopped: Path, damaged: tuple[str, ...], small, tmp_path
) -> None:
    for name in damaged:
        flip_bit(stopped / name, 100)
    lines: list[str] = []
    train(small(run_dir=tmp_path / "whole"), lines.append)
    assert train(small(), lines.append).exit_code == 0
    # last.pt and step-00000006.pt are one file, of which each name has a checksum.
    taken = "step-00000006.pt" if damaged == (f"{LAST}.sha256",) else "step-00000004.pt"
    says = f"is damaged: it is not what {LAST}.sha256 beside it says; the run resumes from {taken}"
    assert f"{stopped / LAST} {says}" in lines
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_with_nothing_whole_left_each_is_named_in_one_line(stopped: Path, small, quietly) -> None:
    for path in stopped.glob("*.pt"):
        path.write_bytes(b"not a checkpoint")
    with pytest.raises(RunFolderError, match="expected a whole checkpoint, or a new run_dir") as refused:
        quietly(small())
    assert all(str(path) in str(refused.value) for path in stopped.glob("*.pt"))
    assert "weights_only" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_without_checksums_is_resumed_past_what_cannot_be_read(
    stopped: Path, small, quietly, tmp_path
) -> None:
    """As an earlier version left it."""
    for path in {*stopped.glob("*.sha256"), *stopped.glob("step-*")}:
        path.unlink()
    (stopped / LAST).write_bytes(b"PK\x03\x04 cut short")
    quietly(small(run_dir=tmp_path / "whole"))
    assert quietly(small()).exit_code == 0
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_sha256sum_checks_them(stopped: Path) -> None:
    names = sorted(path.name for path in stopped.glob("*.sha256"))
    done = subprocess.run(["sha256sum", "-c", *names], cwd=stopped, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(names) == len(list(stopped.glob("*.pt")))
    assert torch.load(stopped / LAST, weights_only=True)["model"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_the_newest_are_kept_by_their_step(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError()))
    for step in (3, 20, 100):
        store(tmp_path, step, b"%d" % step, names=[LAST] if step != 20 else [LAST, BEST], keep=2)
    assert [path.name for path in by_step(tmp_path)] == ["step-00000100.pt", "step-00000020.pt"]
    assert ((tmp_path / LAST).read_bytes(), (tmp_path / BEST).read_bytes()) == (b"100", b"20")
    files = {path for path in tmp_path.iterdir() if path.suffix == ".pt"}
    assert {checksum_state(path) for path in files} == {"whole"}
    assert {*tmp_path.iterdir()} == files | {checksum_path(path) for path in files}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it but its `finally`s, which change no file here."""


def test_a_kill_between_any_two_writes_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, left = os.replace, [0]

    def kill_at(number: int) -> None:
        left[0] = number

    def counted(*names: Path) -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        replace(*names)

    monkeypatch.setattr(json_files.os, "replace", counted)
    for number in range(6):
        folder = tmp_path / str(number)
        folder.mkdir()
        kill_at(100)
        store(folder, 1, b"first", names=[LAST, BEST], keep=2)
        kill_at(number)
        with pytest.raises(Killed):
            store(folder, 2, b"second", names=[LAST, BEST], keep=2)
        believed, _ = candidates(folder)
        assert checksum_state(believed[0]) == "whole", number
        assert believed[0].read_bytes() in (b"first", b"second")


def test_checkpoints_come_by_steps_and_by_minutes(small, quietly, tmp_path, monkeypatch) -> None:
    saved: list[int] = []

    def storing(folder: Path, step: int, *given: Any, **named: Any) -> None:
        saved.append(step)
        store(folder, step, *given, **named)

    monkeypatch.setattr("tidepool.training.checkpoint.store", storing)
    quietly(small(epochs=2, checkpoint_every=9, checkpoint_every_steps=3, eval_every=9))
    assert saved == [3, 6, 8]
    saved.clear()
    quietly(small(epochs=2, checkpoint_every=9, checkpoint_every_minutes=1e-9, eval_every=9, run_dir=tmp_path / "b"))
    assert saved == list(range(1, 9))


@pytest.mark.full
def test_time_of_saving_is_not_time_of_training(small, quietly, monkeypatch) -> None:
    held: list[float] = []

    def slow(folder: Path, step: int, content: bytes, **named: Any) -> None:
        held.append(torch.load(io.BytesIO(content), weights_only=True)["progress"]["train_seconds"])
        store(folder, step, content, **named)
        time.sleep(0.5)

    monkeypatch.setattr("tidepool.training.checkpoint.store", slow)
    summary = quietly(small(checkpoint_every_steps=1)).summary
    assert len(held) == 8
    assert held == sorted(held)
    assert 0 < held[0] < held[-1] <= summary["train_seconds"] < 3.0


def test_how_often_is_saved_changes_no_number(small, quietly, tmp_path) -> None:
    quietly(small())
    quietly(small(run_dir=tmp_path / "often", checkpoint_every_steps=1, keep_checkpoints=1))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "often")
    assert_same_weights(tmp_path / "run", tmp_path / "often")
    assert len(by_step(tmp_path / "often" / "checkpoints")) == 1
