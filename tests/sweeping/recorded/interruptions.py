"""Sweeps that are killed, and whose PostgreSQL is restarted: how often each point was started and finished.

Kill moments come from a seed. A point counts as lost where it has no finished run at the end. `last_row_twice` counts
points that logged their last row twice: their first run was ended after that row and before its summary, which is to be
run again, or had finished, which is not.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.sweeping.postgres_server import Server, server

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "tests" / "sweeping" / "fake_train.py"
COLUMNS = ("schema_version", "what", "storage", "controllers", "seed", "moment_s", "points", "finished", "lost",
           "last_row_twice", "exit_codes", "seconds")  # fmt: skip
_FIRST_S, _LAST_S = 1.2, 4.0  # from before the first run has begun to the last runs


def kills(folder: Path, count: int, *, postgres: bool) -> Iterator[dict[str, Any]]:
    """`count` sweeps of 24 points, one of the controllers killed (SIGKILL) at a moment of its own, then resumed."""
    if not postgres:
        for seed in range(count):
            yield _killed(folder / f"kill-{seed}", seed, [], "sqlite", 1)
        return
    with server() as database:
        for seed in range(count):
            yield _killed(folder / f"kill-{seed}", seed, ["--storage", database.url], "postgresql", 2)


def restarts(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """One sweep by two controllers during which PostgreSQL crashes and comes back `count` times."""
    with server() as database:
        began = time.monotonic()
        file = _sweep_file(folder / "restarts", "restarts", points=60)
        running = [_start(file, ["--storage", database.url]) for _ in range(2)]
        time.sleep(3)
        for _ in range(count):
            _restart(database)
        codes = [sweep.wait(timeout=300) for sweep in running]
        yield _row(file, "restarts", "postgresql", 2, 0, 0.0, 60, codes, time.monotonic() - began)


def _restart(database: Server) -> None:
    database.stop()
    time.sleep(1)
    database.start()
    time.sleep(1)


def _killed(folder: Path, seed: int, storage: list[str], name: str, controllers: int) -> dict[str, Any]:
    began = time.monotonic()
    file = _sweep_file(folder, f"kill-{seed}-{name}", points=24)
    moment = random.Random(seed).uniform(_FIRST_S, _LAST_S)
    running = [_start(file, storage) for _ in range(controllers)]
    time.sleep(moment)
    running[0].kill()
    running[0].wait()
    codes = [sweep.wait(timeout=300) for sweep in running[1:]]
    codes += [_start(file, storage).wait(timeout=300)]
    return _row(file, "kill", name, controllers, seed, moment, 24, codes, time.monotonic() - began)


def _sweep_file(folder: Path, name: str, points: int) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(PROGRAM, folder)
    content = {"program": "fake_train.py", "name": name, "method": "grid",
               "metric": {"name": "test/accuracy", "goal": "maximize"},
               "parameters": {"backend": {"value": "cudnn"}, "sleep": {"value": 0.2},
                              "seed": {"min": 0, "max": points - 1}}}  # fmt: skip
    (folder / "sweep.yaml").write_text(json.dumps(content))
    return folder / "sweep.yaml"


def _start(file: Path, storage: list[str]) -> subprocess.Popen[bytes]:
    with (file.parent / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "sweep.py"), file.name, "--workers", "2", *storage],
            cwd=file.parent, stdout=log, stderr=log,
        )  # fmt: skip


def _row(
    file: Path, what: str, storage: str, controllers: int, seed: int, moment: float, points: int, codes: list[int],
    seconds: float,
) -> dict[str, Any]:  # fmt: skip
    name = json.loads(file.read_text())["name"]
    runs = [folder.parent for folder in (file.parent / "runs" / name).glob("*/summary.json")]
    finished = sum(json.loads((run / "summary.json").read_text())["status"] == "finished" for run in runs)
    twice = sum((run / "metrics.jsonl").read_text().count('"step": 4') > 1 for run in runs)
    values = (1, what, storage, controllers, seed, round(moment, 2), points, finished, points - finished, twice,
              " ".join(map(str, codes)), round(seconds, 1))  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
