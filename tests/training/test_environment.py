"""The environment's record."""

import json
import subprocess

import torch

from training import environment
from training.config import Config
from training.environment import environment_record, git_state


def test_it_names_code_machine_and_versions():
    record = environment_record(Config(), torch.device("cpu"))
    assert json.loads(json.dumps(record)) == record
    wanted = "commit dirty command cpu gpu driver cuda cudnn torch triton python precision date"
    assert set(wanted.split()) <= set(record)
    assert record["torch"] == torch.__version__
    assert record["gpu"] is None
    assert record["cpu"]
    assert record["date"].endswith("+00:00")


def test_commit_and_dirtiness_are_the_checkouts(tmp_path):
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "first")
    assert git_state(tmp_path) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path)[1] is True
    (tmp_path / "installed").mkdir()
    assert git_state(tmp_path / "installed") == (None, None)  # somebody else's checkout


def test_it_works_outside_a_checkout_and_without_git(tmp_path, monkeypatch):
    assert git_state(tmp_path) == (None, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    record = environment_record(Config(), torch.device("cpu"))
    assert (record["commit"], record["dirty"]) == (None, None)
    assert environment.driver_version() is None
