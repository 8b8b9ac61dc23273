"""The checkpoint files of a run, each with its SHA-256 beside it, and which of them is to be believed.

step-00000089.pt    a checkpoint after so many optimizer steps; the newest few are kept
last.pt             the newest of them, the same file (a copy where the file system has no hard links)
best.pt             a copy of the one with the best accuracy
*.pt.sha256         as sha256sum writes it: `sha256sum -c *.sha256` checks them all

A file is in place before its checksum is, and last.pt after the file it is: a kill at any moment leaves the checkpoint
before it whole, and at most the one being written unbelieved.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path

from tidepool.records import checksum_path, checksum_state, replacing, write_atomically, write_checksum

LAST, BEST = "last.pt", "best.pt"
_STEP = re.compile(r"step-(\d{8,})\.pt")


def store(folder: Path, step: int, content: bytes, *, names: Collection[str], keep: int) -> None:
    """Write a checkpoint as that of `step` and under `names` (LAST, BEST); keep the newest `keep` by step.

    Raises OSError, with the file's name, where the disk does not take it; what was there before is whole then.
    """
    path = folder / f"step-{step:08d}.pt"
    if LAST in names:
        _write(path, content)
    if BEST in names:
        _write(folder / BEST, content)
    if LAST not in names:
        return
    with replacing(folder / LAST) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            temporary.write_bytes(content)
    write_checksum(folder / LAST, content)
    for old in by_step(folder)[keep:]:
        checksum_path(old).unlink(missing_ok=True)
        old.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, content)
    write_checksum(path, content)


def by_step(folder: Path) -> list[Path]:
    """The checkpoints that are kept by their step, newest first."""
    found = [(int(match[1]), path) for path in folder.glob("step-*.pt") if (match := _STEP.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def candidates(folder: Path) -> tuple[list[Path], list[Path]]:
    """(those to resume from, the first to be preferred; those that are damaged) of a run's checkpoints.

    Whole ones come first: last.pt, then the others from the newest step on, then best.pt; then those without a
    checksum, which an earlier version or a kill leaves. Raises OSError where one cannot be read.
    """
    ordered = [path for path in (folder / LAST, *by_step(folder), folder / BEST) if path.is_file()]
    states = {path: checksum_state(path) for path in ordered}
    believed = [path for wanted in ("whole", "unknown") for path, state in states.items() if state == wanted]
    return believed, [path for path, state in states.items() if state == "damaged"]
