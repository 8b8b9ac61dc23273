"""A PostgreSQL server of Debian's for as long as a test or a record needs one."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_USERS = ("postgres", "nobody")  # initdb and postgres refuse to run as root


def binaries() -> Path | None:
    """The folder with initdb and pg_ctl, newest version first; None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]), reverse=True)
    on_path = shutil.which("initdb")
    return found[0].parent if found else Path(on_path).parent if on_path else None


@dataclass(frozen=True)
class Server:
    """A server on 127.0.0.1; `url` names its database as --storage takes it."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://tidepool@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-k {self.folder} -p {self.port} -c listen_addresses=127.0.0.1"
        _run("pg_ctl", "-D", self.folder / "data", "-o", options, "-w", "-l", self.folder / "log", "start")

    def stop(self) -> None:
        """Stop it as a crash would: connections are cut."""
        _run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A new server, with nothing in it, that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tidepool-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, _user())
    made = Server(folder, _free_port())
    try:
        _run("initdb", "-D", folder / "data", "-A", "trust", "-U", "tidepool", "-N")
        made.start()
        yield made
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _run(program: str, *arguments: object) -> None:
    where = binaries()
    assert where is not None
    words = [str(where / program), *map(str, arguments)]
    if os.geteuid() == 0:
        words = ["setpriv", f"--reuid={_user()}", "--clear-groups", *words]
    subprocess.run(words, check=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _user() -> str:
    for name in _USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise OSError("no unprivileged user to run PostgreSQL as")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
