"""The folder of one run: who may use it, and whether there is something in it to resume.

.lock           held (flock) by the process that works here
.reserve        room for the summary on a full disk, while the run lasts
config.json     the settings the run was started with
environment.json
metrics.jsonl   one row a step or evaluation
summary.json    from the first step on; status "interrupted" until the run ends in another way
checkpoints/    what `checkpoint_files` says
media/          images and tables
wandb/          Weights & Biases' own files
"""

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from tidepool.records import RecordError, is_temporary, read_json
from tidepool.training.checkpoint_files import LAST
from tidepool.training.config import Config

CHECKPOINTS, RESERVE = "checkpoints", ".reserve"
OWN_NAMES = frozenset(
    {
        ".lock",
        RESERVE,
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "summary.json",
        CHECKPOINTS,
        "media",
        "wandb",
    }
)
LAST_CHECKPOINT = Path(CHECKPOINTS) / LAST
RESERVED_BYTES = 2**14
"""Room on the disk that is given back when a run ends, so that its summary can be written where the disk is full."""
RESUME_EXPECTED = "expected auto, never, a run or a checkpoint"


class RunFolderError(ValueError):
    """The run folder cannot be used as asked. The message is one line with the path."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class RunFolder:
    """One run's folder, locked while the `with` block lasts so that no other process writes into it.

    Leaving the block without `create` having been called removes nothing and leaves nothing behind.

    Raises (on entering):
        RunFolderError: another process holds the lock, the folder holds something else than a run, or it cannot be
            read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> "RunFolder":
        try:
            if self.path.exists():
                self._refuse_foreign()
                if any(self.path.iterdir()):
                    self._take_lock()
        except OSError as error:
            raise RunFolderError(f"run_dir {self.path}: {error.strerror or error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):
                give_back_reserve(self.path)
            os.close(self._lock)
            self._lock = None

    def create(self) -> None:
        """Make the folder and what is under it, and lock it if that was not done on entering.

        Raises:
            RunFolderError: it cannot be made, or another process has taken it since.
        """
        locked_before = self._lock is not None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            if not locked_before and (self.path / "config.json").exists():
                raise RunFolderError(f"run_dir {self.path} has been taken by another process meanwhile; give another")
            for sub in (".", "checkpoints", "media"):
                (self.path / sub).mkdir(exist_ok=True)
                for left in filter(is_temporary, (self.path / sub).iterdir()):  # by a kill while it was written
                    left.unlink()
            (self.path / RESERVE).write_bytes(bytes(RESERVED_BYTES))
        except OSError as error:
            raise RunFolderError(f"run_dir {self.path}: {error.strerror or error}") from error

    def recorded_config(self) -> dict[str, Any] | None:
        """config.json, or None in a folder where no run has started."""
        return self._read("config.json")

    def recorded_summary(self) -> dict[str, Any] | None:
        """summary.json, or None where there is none."""
        return self._read("summary.json")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return read_json(self.path / name)
        except RecordError as error:
            raise RunFolderError(str(error)) from error

    def _refuse_foreign(self) -> None:
        if not self.path.is_dir():
            raise RunFolderError(f"run_dir {self.path} is a file; expected a new folder or that of a run")
        # A log beside the records is what a shell redirection or a scheduler leaves.
        foreign = sorted(
            entry.name
            for entry in self.path.iterdir()
            if entry.name not in OWN_NAMES and entry.suffix != ".log" and not is_temporary(entry)
        )
        if foreign:
            raise RunFolderError(
                f"run_dir {self.path} holds something that is not a run's ({foreign[0]}); "
                "expected a new or empty folder, or that of a run"
            )

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise RunFolderError(
                f"run_dir {self.path} is in use by another process; expected one run a folder"
            ) from None
        self._lock = lock


def give_back_reserve(run_dir: Path) -> None:
    """Free the room that `RunFolder.create` took."""
    (run_dir / RESERVE).unlink(missing_ok=True)


def run_id_given() -> str:
    """The id that an agent or a person gives the run, or nothing."""
    return os.environ.get("WANDB_RUN_ID", "").strip()


def run_dir_of(config: Config) -> Path:
    """The folder `config` asks for: `run_dir`, else the one that `resume` points into, else that of WANDB_RUN_ID, which
    an agent gives again to a run that was preempted, else a new name under runs/, one for each launch."""
    if config.run_dir is not None:
        return config.run_dir
    if config.resume not in ("auto", "never"):
        run = run_of_checkpoint(checkpoint_asked_for(config.resume))
        if run is not None:
            return run
    if run_id := run_id_given():
        return Path("runs") / re.sub(r"[^\w.-]", "_", run_id)
    data = Path(config.data).name or "data"
    when, token = launch()
    return Path("runs") / f"{when}-{data}-{config.model}-{config.backend}-seed{config.seed}-{token}"


def launch() -> tuple[str, str]:
    """When this run was launched, and what tells it from others launched in the same second. Under torchrun both are
    torchrun's own, so that processes that it starts again after one was killed find the folder of those before them."""
    elastic = os.environ.get("TORCHELASTIC_RUN_ID")
    if elastic is None:
        return datetime.now().strftime("%Y%m%d-%H%M%S"), secrets.token_hex(2)
    agent = os.getppid()
    ticks = int(Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[19])
    booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    began = int(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    told = f"{elastic} {agent} {ticks}".encode()
    return datetime.fromtimestamp(began).strftime("%Y%m%d-%H%M%S"), hashlib.sha256(told).hexdigest()[:4]


def checkpoint_asked_for(resume: str) -> Path:
    """The checkpoint file that `--resume <path>` means: the file itself, or a run folder's last one.

    Raises:
        RunFolderError: there is no such file, or it cannot be looked for.
    """
    path = Path(resume)
    try:
        if path.is_dir():
            path = path / LAST_CHECKPOINT
        found = path.is_file()
    except OSError as error:  # a name longer than the disk allows, a folder on the way without permission
        raise RunFolderError(f"resume={resume!r}: {error.strerror or error}; {RESUME_EXPECTED}") from error
    if not found:
        raise RunFolderError(f"resume={resume!r}: no checkpoint at {path}; {RESUME_EXPECTED}")
    return path


def run_of_checkpoint(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint file lies in, or None when it was copied elsewhere."""
    folder = checkpoint.absolute().parent
    return folder.parent if folder.name == LAST_CHECKPOINT.parent.name else None
