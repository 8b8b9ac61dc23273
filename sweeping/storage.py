"""Where a sweep's state lies: SQLite beside the runs, or a PostgreSQL that several machines reach."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage

from tidepool.sweeping.errors import SweepError

DATABASE = "sweep.db"
STORAGE_ERRORS = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)

OPEN_WAITS_S = (0.2, 0.5, 1.1, 1.3, 1.7, 2.3, 3.1)
"""Between attempts at opening a storage."""
_BUSY_TIMEOUT_S = 60
_CONNECT_TIMEOUT_S = 10
_LOCK_HELD_S = 60  # by a machine that has frozen: the server takes the lock from it then
_RESTARTING = ("starting up", "shutting down", "closed the connection", "onnection refused", "terminating connection")
_DAMAGE = ("malformed", "not a database", "no such table", "no such column", "table structure", "corrupt")

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def default_url(directory: Path) -> str:
    """The storage of a sweep that was not given one: an SQLite file in its folder."""
    return f"sqlite:///{directory / DATABASE}"


def check_url(url: str) -> sqlalchemy.URL:
    """The storage URL, with the driver that is installed.

    Raises:
        SweepError: not a URL, not SQLite or PostgreSQL, or a PostgreSQL driver is missing.
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise SweepError("--storage: not a URL; expected postgresql://user@host/database or sqlite:///file") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise SweepError("--storage: names no SQLite file; expected sqlite:///file")
        return parsed
    if backend != "postgresql":
        raise SweepError(f"--storage: {parsed.drivername}: expected postgresql:// or sqlite:///")
    if parsed.drivername == "postgresql":
        if importlib.util.find_spec("psycopg"):
            return parsed.set(drivername="postgresql+psycopg")
        if importlib.util.find_spec("psycopg2"):
            return parsed
        raise SweepError("--storage: PostgreSQL needs a driver that is not installed: pip install 'psycopg[binary]'")
    return parsed


def shown_url(url: sqlalchemy.URL) -> str:
    """The URL as people write it: without the password, and without the driver's name."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def lock_file(url: sqlalchemy.URL) -> Path | None:
    """The file that processes sharing an SQLite storage lock; None for PostgreSQL, which has locks itself."""
    return Path(f"{url.database}.lock") if url.get_backend_name() == "sqlite" else None


@contextlib.contextmanager
def held_file(file: Path) -> Iterator[None]:
    """The block is one process's at a time, of all that hold `file`.

    Raises:
        SweepError: it cannot be written.
    """
    try:
        opened = file.open("a")
    except OSError as error:
        raise SweepError(f"--storage: {file} cannot be written ({error.strerror})") from None
    with opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def held_server(engine: sqlalchemy.Engine, name: str) -> Iterator[None]:
    """The block is one process's at a time, of all on any machine that hold `name` on this PostgreSQL server."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"SET LOCAL idle_in_transaction_session_timeout = '{_LOCK_HELD_S}s'"))
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
        yield
        connection.rollback()


def open_study(
    url: sqlalchemy.URL, name: str, *, maximize: tuple[bool, ...], create: bool = True
) -> tuple[RDBStorage, BaseStorage, optuna.Study]:
    """The study `name` at `url`, made where it is new if asked to `create` it, with a direction for each of its
    objectives; and its storage, as a database and as Optuna uses it.

    Raises:
        SweepError: the storage does not open, or has no such study; one line without the password.
    """
    file = Path(str(url.database))
    if not create and lock_file(url) and not file.exists():
        raise SweepError(f"the sweep {name} has not been started: there is no {file}")
    timeout = {"timeout": _BUSY_TIMEOUT_S} if lock_file(url) else {"connect_timeout": _CONNECT_TIMEOUT_S}
    settings = {"connect_args": timeout, "pool_pre_ping": True}  # a server that was restarted is connected to anew
    to = optuna.study.StudyDirection
    directions = [to.MAXIMIZE if each else to.MINIMIZE for each in maximize] or [to.MINIMIZE]
    for wait in (*OPEN_WAITS_S, None):
        try:
            database = RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=settings)
            if lock_file(url):
                sqlalchemy.event.listen(database.engine, "connect", _write_faster)
                database.engine.dispose()
            storage = optuna.storages.get_storage(database)
            if not create:
                return database, storage, optuna.load_study(storage=storage, study_name=name)
            study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
            return database, storage, study
        except KeyError:
            raise SweepError(f"the sweep {name} has not been started at {shown_url(url)}") from None
        except (*STORAGE_ERRORS, ImportError, RuntimeError, ValueError) as error:
            if wait is None or not _may_pass(error):
                raise SweepError(does_not_open(url, error)) from None
            time.sleep(wait)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _write_faster(connection: Any, record: Any) -> None:
    """SQLite waits for the disk at the most critical moments only; a kill loses nothing, whatever it waits for."""
    connection.execute("PRAGMA synchronous = NORMAL").close()


def _may_pass(error: Exception) -> bool:
    """Whether opening again may help: the server is being restarted, or two machines made the tables at the same
    moment, of which the slower one finds them made."""
    if isinstance(error, sqlalchemy.exc.ProgrammingError | sqlalchemy.exc.IntegrityError):
        return True
    return any(word in storage_reason(error) for word in _RESTARTING)


def does_not_open(url: sqlalchemy.URL, error: Any) -> str:
    """One line saying that the storage does not open and why, and what to do about a damaged file."""
    line = f"--storage: {shown_url(url)} does not open ({storage_reason(error)})"
    return f"{line}; {safe_to_delete(Path(str(url.database)))}" if lock_file(url) and is_damage(error) else line


def safe_to_delete(file: Path) -> str:
    """What to do about a damaged ledger."""
    return f"deleting {file} is safe: the same command makes it again from the folders of the runs"


def is_damage(error: Any) -> bool:
    """Whether the database itself is broken, so that trying again is no use."""
    return any(word in storage_reason(error).lower() for word in _DAMAGE)


def storage_reason(error: Any) -> str:
    """What the database itself said, on one line, without the SQL around it."""
    cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    return " ".join(str(cause).split())[:300]
