"""Runs as child processes: started from a list of words, in a group of their own, never outliving the sweep."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tidepool.sweeping.machine import ProcessId

LOG = "output.log"
_PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """A running program. `stop_at` is when it is killed if it has not ended after being asked to."""

    process: subprocess.Popen[bytes]
    identity: ProcessId
    started_at: float
    stop_at: float | None = None

    def poll(self) -> int | None:
        """The exit code once it has ended (128 + signal where one ended it), else None."""
        if self.process.returncode is None:
            if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self._signal(signal.SIGKILL)  # what it may have left in its group, while the number is still its own
        code = self.process.wait()
        return code if code >= 0 else 128 - code

    def stop(self, grace_s: float) -> None:
        """Ask the whole group to end; `enforce` kills it after `grace_s`."""
        if self.stop_at is None:
            self.stop_at = time.monotonic() + grace_s
            self._signal(signal.SIGTERM)

    def enforce(self) -> None:
        """Kill the group if it was asked to end and its time is up."""
        if self.stop_at is not None and time.monotonic() > self.stop_at:
            self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """Kill the group at once."""
        self.stop_at = time.monotonic()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.process.returncode is not None:
            return  # waited for: its number may be someone else's by now
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def start(argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> Child:
    """Start `argv` with its output appended to `log`.

    Call it from the main thread: the child is told to end when the thread that started it does.

    Raises:
        OSError: the program cannot be started.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=_end_with_parent(os.getpid()),
        )
    return Child(process, ProcessId.of(process.pid), time.monotonic())


def _end_with_parent(parent: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork: afterwards little is safe

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGTERM)

    return arrange
