"""What is known of code and machine without torch."""

import subprocess

from tidepool.records import driver_version, git_state, package_version


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


def test_what_is_not_there_is_none(tmp_path, monkeypatch):
    assert git_state(tmp_path) == (None, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_version() is None
    assert package_version("no-such-package") is None
