"""Beginning a sweep anew: what it has run is set aside in a folder of its own, and its study forgotten."""

from __future__ import annotations

import time
from pathlib import Path

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.ledger import SILENT_S, Ledger
from tidepool.sweeping.spec import Sweep
from tidepool.sweeping.trials import Entry


def set_aside(sweep: Sweep, directory: Path, storage: str | None) -> Path | None:
    """Move the sweep's folder aside and drop its study from `storage`, None for the file in the folder; returns where
    the folder is now, None where there was none.

    Raises:
        SweepError: a process is running the sweep, or the storage does not open.
    """
    if storage is not None:
        _drop_study(sweep, directory, storage)
    elif (directory / "sweep.db").exists():
        _refuse_while_running(sweep, directory, f"sqlite:///{directory / 'sweep.db'}")
    if not directory.is_dir():
        return None
    number = next(n for n in range(1, 1_000_000) if not directory.with_name(f"{directory.name}.before-{n}").exists())
    return directory.rename(directory.with_name(f"{directory.name}.before-{number}"))


def _drop_study(sweep: Sweep, directory: Path, storage: str) -> None:
    ledger = Ledger(storage, sweep, directory)
    try:
        _refuse(ledger.running_now())
        ledger.begin_anew()
    finally:
        ledger.close()


def _refuse_while_running(sweep: Sweep, directory: Path, storage: str) -> None:
    try:
        ledger = Ledger(storage, sweep, directory, create=False)
    except SweepError:
        return  # damaged, or not of this sweep: it is set aside with the rest
    try:
        _refuse(ledger.running_now())
    finally:
        ledger.close()


def _refuse(running: list[Entry]) -> None:
    for entry in running:
        owner = entry.owner
        here = owner is not None and owner.is_here() and owner.is_alive()
        if owner is not None and (here or (not owner.is_here() and time.time() - entry.beat < SILENT_S)):
            machine = owner.machine.partition(" ")[0]
            raise SweepError(f"--reset: process {owner.pid} on {machine} is running the sweep; stop it first")
