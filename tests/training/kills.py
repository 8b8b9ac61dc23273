"""Runs killed by SIGKILL at a random moment and started again, against runs that were left alone; results recorded.

`python -m tests.training.kills --count 25 --out results/kills` writes kills.csv, a row a kill, and environment.json; it
goes on where it was stopped. A row says at which checkpoint the run resumed and whether weights, optimizer and rows
are those of the run that was left alone, to the bit.
"""

import argparse
import csv
import io
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tidepool.records import cpu_name, git_state, package_version, read_json, read_rows, write_atomically, write_json
from tidepool.training.checkpoint import read_checkpoint
from tidepool.training.checkpoint_files import by_step

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = {
    "the default run": ["--epochs=3"],
    "within epochs, W&B off": ["--model=mlp", "--track=off", "--epochs=20", "--checkpoint_every_steps=7"],
    "average, Muon, mixing": ["--epochs=3", "--track=off", "--ema=True", "--optimizer=muon", "--mixup=0.4"],
}
COLUMNS = ("kill", "settings", "after_s", "checkpoint_at_kill", "steps", "exit_code", "equal")
CLOCK = ("time_s", "speed/step_ms", "speed/samples_per_second")


def command(settings: str, run_dir: Path) -> list[str]:
    """One run's command line."""
    return [sys.executable, str(REPOSITORY / "train.py"), f"--run_dir={run_dir}", *SETTINGS[settings]]


def state(run_dir: Path) -> dict[str, Any]:
    """All that a run leaves but for what the clock decides."""
    content = read_checkpoint(run_dir / "checkpoints" / "last.pt")
    rows = [{k: v for k, v in row.items() if k not in CLOCK} for row in read_rows(run_dir / "metrics.jsonl")]
    return {name: content[name] for name in ("model", "trained", "optimizer", "schedule", "rng_cpu")} | {"rows": rows}


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def killed(number: int, settings: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Kill one run, between the start of its training and its end, and start it again."""
    run_dir, draw = folder / "run", random.Random(number)
    shutil.rmtree(run_dir, ignore_errors=True)
    process = subprocess.Popen(command(settings, run_dir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (run_dir / "summary.json").exists():
        time.sleep(0.005)
    after = draw.uniform(0, seconds)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    was_killed = process.wait() == -signal.SIGKILL
    there = by_step(run_dir / "checkpoints")
    again = subprocess.run(command(settings, run_dir), capture_output=True, check=False)
    summary = read_json(run_dir / "summary.json") or {}
    return {
        "kill": number,
        "settings": settings,
        "after_s": f"{after:.3f}" if was_killed else "had ended",
        "checkpoint_at_kill": int(there[0].stem.removeprefix("step-")) if there else 0,
        "steps": summary.get("steps"),
        "exit_code": again.returncode,
        "equal": same(state(run_dir), state(folder / settings)),
    }


def left_alone(settings: str, folder: Path) -> float:
    """The run that others are compared with; returns the seconds that it trained."""
    subprocess.run(command(settings, folder / settings), capture_output=True, check=True)
    return float((read_json(folder / settings / "summary.json") or {})["train_seconds"])


def write(table: Path, rows: list[dict[str, str]]) -> None:
    """Write kills.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(table, text.getvalue().encode())


def main() -> int:
    """Kill, compare and record; the exit code is 1 where a run was not the same."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    table = given.out / "kills.csv"
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds: dict[str, float] = {}
        for number in range(len(rows) + 1, given.count + 1):
            settings = list(SETTINGS)[number % len(SETTINGS)]
            if settings not in seconds:
                seconds[settings] = left_alone(settings, folder)
            row = killed(number, settings, seconds[settings], folder)
            rows.append({key: str(value) for key, value in row.items()})
            write(table, rows)
            print(rows[-1], flush=True)
    commit, dirty = git_state(REPOSITORY)
    versions = {name: package_version(name) for name in ("torch", "triton", "wandb")}
    write_json(given.out / "environment.json", {"commit": commit, "dirty": dirty, "cpu": cpu_name(), **versions})
    return 0 if all(row["equal"] == "True" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
