from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tidepool.sweeping import children

# Starts a child that would outlive it, says its number, and is then killed by the test.
_PARENT = """
import sys, time
from pathlib import Path
from tidepool.sweeping import children
child = children.start(["sleep", "60"], Path(sys.argv[1]), {"PATH": "/usr/bin:/bin"})
print(child.process.pid, flush=True)
time.sleep(60)
"""


def ended(child: children.Child) -> int:
    code = None
    while code is None:
        child.enforce()
        code = child.poll()
        time.sleep(0.01)
    return code


def start(tmp_path: Path, *argv: str) -> children.Child:
    return children.start(argv, tmp_path / "output.log", os.environ)


def test_words_reach_the_program_as_they_are_and_its_output_the_log(tmp_path):
    child = start(tmp_path, sys.executable, "-c", "import sys; print(sys.argv[1]); sys.exit(3)", "1;touch X $HOME")
    assert ended(child) == 3
    assert (tmp_path / "output.log").read_text() == "1;touch X $HOME\n"
    start(tmp_path, "echo", "again").process.wait()
    assert (tmp_path / "output.log").read_text() == "1;touch X $HOME\nagain\n"


def test_an_end_by_signal_is_128_and_its_number(tmp_path):
    child = start(tmp_path, "sleep", "60")
    child.stop(grace_s=60)
    assert ended(child) == 128 + signal.SIGTERM


def test_a_program_that_does_not_end_when_asked_is_killed_with_its_children(tmp_path):
    script = "trap '' TERM; sleep 60 & echo $!; wait; wait"
    child = start(tmp_path, "sh", "-c", script)
    while not (text := (tmp_path / "output.log").read_text()).endswith("\n"):
        time.sleep(0.01)
    child.stop(grace_s=0.1)
    assert ended(child) == 128 + signal.SIGKILL
    assert not is_running(int(text))


def test_children_end_when_their_sweep_is_killed(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path / "output.log")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
