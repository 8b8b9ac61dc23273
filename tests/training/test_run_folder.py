"""Who may use a run folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from tidepool.training.config import Config
from tidepool.training.run_folder import RunFolder, RunFolderError, checkpoint_asked_for, run_dir_of, run_of_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_new_folder_appears_only_when_it_is_created(tmp_path):
    path = tmp_path / "runs" / "a"
    with RunFolder(path) as folder:
        assert folder.recorded_config() is None
        assert not path.exists()
        folder.create()
    assert {entry.name for entry in path.iterdir()} == {".lock", "checkpoints", "media"}


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match=r"thesis\.tex.*expected a new or empty folder"), RunFolder(tmp_path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_log_beside_the_records_is_no_stranger(tmp_path):
    (tmp_path / "output.log").write_text("x")
    with RunFolder(tmp_path) as folder:
        folder.create()


def test_what_a_kill_left_half_written_is_no_stranger_and_goes(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    left = [tmp_path / ".summary.json.0a1b2c3d.tmp", tmp_path / "checkpoints" / ".last.pt.0a1b2c3d.tmp"]
    for path in left:
        path.write_text("{")
    with RunFolder(tmp_path) as folder:
        folder.create()
    assert not any(path.exists() for path in left)


def test_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(RunFolderError, match="is a file"), RunFolder(path):
        pass


def test_a_place_that_cannot_be_made_is_refused(tmp_path):
    with RunFolder(Path("/proc/nowhere/run")) as folder, pytest.raises(RunFolderError, match="/proc/nowhere/run"):
        folder.create()


def test_another_process_is_kept_out_until_the_first_has_left(tmp_path):
    program = (
        "import sys, pathlib\n"
        "from tidepool.training.run_folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    folder.create(); print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match="in use by another process"), RunFolder(tmp_path):
            pass
        process.kill()
        process.wait()
        with RunFolder(tmp_path):
            pass


def test_a_folder_taken_between_looking_and_creating_is_refused(tmp_path):
    path = tmp_path / "run"
    with RunFolder(path) as late:
        with RunFolder(path) as early:
            early.create()
            (path / "config.json").write_text("{}")
        with pytest.raises(RunFolderError, match="taken by another process meanwhile"):
            late.create()


def test_a_damaged_record_is_one_line(tmp_path):
    with RunFolder(tmp_path) as folder:
        folder.create()
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(RunFolderError, match=r"config\.json: cannot be read as JSON"):
            folder.recorded_config()


def test_run_dir_is_the_one_given_or_the_one_resumed_or_new(tmp_path):
    assert run_dir_of(Config(run_dir=tmp_path)) == tmp_path
    checkpoint = tmp_path / "run" / "checkpoints" / "last.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert run_dir_of(Config(resume=str(tmp_path / "run"))) == tmp_path / "run"
    assert run_dir_of(Config(resume=str(checkpoint))) == tmp_path / "run"
    first, second = run_dir_of(Config(data="/somewhere/cifar10/")), run_dir_of(Config(data="/somewhere/cifar10/"))
    assert first.parent == Path("runs")
    assert "-cifar10-lenet5-auto-seed0-" in first.name
    assert first != second


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no checkpoint at"):
        checkpoint_asked_for(str(tmp_path))
    with pytest.raises(RunFolderError, match=r"^resume='a{300}': File name too long; expected auto, never, a run"):
        checkpoint_asked_for("a" * 300)


def test_a_checkpoint_belongs_to_the_run_whose_checkpoints_folder_holds_it(tmp_path, monkeypatch):
    checkpoint = tmp_path / "run" / "checkpoints" / "last.pt"
    checkpoint.parent.mkdir(parents=True)
    monkeypatch.chdir(checkpoint.parent)
    assert run_of_checkpoint(checkpoint) == run_of_checkpoint(Path("last.pt")) == tmp_path / "run"
    assert run_of_checkpoint(tmp_path / "run" / "copies" / "last.pt") is None
