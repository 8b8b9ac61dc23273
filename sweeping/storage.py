"""Where a sweep's state lies: SQLite beside the runs, or a PostgreSQL that several machines reach."""

from __future__ import annotations

import importlib.util
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage

from tidepool.sweeping.errors import SweepError

DATABASE = "sweep.db"
STORAGE_ERRORS = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)

_OPEN_ATTEMPTS = 5
_BUSY_TIMEOUT_S = 60
_CONNECT_TIMEOUT_S = 10

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


def lock_file(url: sqlalchemy.URL) -> Path | None:
    """The file that processes sharing an SQLite storage lock; None for PostgreSQL, which locks rows itself."""
    return Path(f"{url.database}.lock") if url.get_backend_name() == "sqlite" else None


def open_study(url: sqlalchemy.URL, name: str, *, maximize: bool) -> tuple[BaseStorage, optuna.Study]:
    """The study `name` at `url`, made where it is new.

    Raises:
        SweepError: the storage does not open; one line without the password.
    """
    shown = url.render_as_string(hide_password=True)
    timeout = {"timeout": _BUSY_TIMEOUT_S} if lock_file(url) else {"connect_timeout": _CONNECT_TIMEOUT_S}
    for attempt in range(_OPEN_ATTEMPTS):
        try:
            storage = optuna.storages.get_storage(
                RDBStorage(url.render_as_string(hide_password=False), engine_kwargs={"connect_args": timeout})
            )
            direction = optuna.study.StudyDirection.MAXIMIZE if maximize else optuna.study.StudyDirection.MINIMIZE
            study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
            return storage, study
        except (sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError) as error:
            # Two machines made the tables at the same moment; the slower one finds them made.
            if attempt == _OPEN_ATTEMPTS - 1:
                raise SweepError(f"--storage: {shown} does not open ({storage_reason(error)})") from None
            time.sleep(0.2 * 2**attempt)
        except (*STORAGE_ERRORS, ImportError, RuntimeError, ValueError) as error:
            raise SweepError(f"--storage: {shown} does not open ({storage_reason(error)})") from None
    raise AssertionError("unreachable: the last attempt returns or raises")


def storage_reason(error: Any) -> str:
    """What the database itself said, on one line, without the SQL around it."""
    cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    return " ".join(str(cause).split())[:300]
