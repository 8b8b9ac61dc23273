"""A program that takes train.py's flags and leaves its records, in milliseconds. Its own flags say how it should end.

`--sleep`: seconds before it ends; `--how`: finished, diverged, refused, crash, crash_once, silent, stubborn.
Every start adds a line to ``starts.txt`` in the sweep's folder, so that tests can count.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path


def write(path, content):
    path.write_text(json.dumps({"schema_version": 1, **content}))


def main():
    flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
    run_dir = Path(flags.get("run_dir", f"runs/{os.environ.get('WANDB_RUN_ID')}"))
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir.parent / "starts.txt").open("a") as starts:
        starts.write(f"{run_dir.name}\n")
    lock = (run_dir / ".lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    own = ("config.json", "environment.json", "metrics.jsonl", "summary.json", ".lock")
    foreign = [file.name for file in run_dir.iterdir() if file.name not in own and file.suffix != ".log"]
    if foreign:  # as train.py
        print(f"fake_train.py: {run_dir} holds something that is not a run's ({foreign[0]})", file=sys.stderr)
        return 2
    how = flags.get("how", "finished")
    if how == "refused":
        print(f"fake_train.py: backend={flags['backend']!r}; expected triton or cudnn", file=sys.stderr)
        return 2
    if how == "crash" or (how == "crash_once" and not (run_dir / "crashed.log").exists()):
        (run_dir / "crashed.log").touch()
        print("the disk is on fire")
        return 1
    config = {"data": "digits", "model": "lenet5", "backend": "cudnn", "dtype": "fp32", "epochs": 1, **flags}
    config["seed"] = int(config.get("seed", 0))
    write(run_dir / "config.json", config)
    write(run_dir / "environment.json", {"cpu": "a test", "omp": os.environ["OMP_NUM_THREADS"]})
    signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "stubborn" else lambda number, frame: sys.exit(143))
    accuracy = 0.9 + 0.01 * config["seed"] - abs(float(flags.get("lr", "0.1")) - 0.1)
    with (run_dir / "metrics.jsonl").open("a") as metrics:
        ends = time.monotonic() + float(flags.get("sleep", "0"))
        for step in range(1, 5):
            row = {"schema_version": 1, "step": step, "epoch": step / 4, "time_s": step, "train/loss": 1 / step}
            row["val/accuracy"] = row["test/accuracy"] = accuracy * step / 4
            metrics.write(json.dumps(row) + "\n")
            metrics.flush()
            time.sleep(max(0, ends - time.monotonic()) / (5 - step))
    if how == "silent":
        return 0
    diverged = how == "diverged"
    summary = {
        "status": "diverged" if diverged else "finished",
        "exit_reason": "loss is NaN" if diverged else None,
        **{name: config[name] for name in ("data", "model", "backend", "dtype", "seed", "epochs")},
        "test_accuracy": "NaN" if diverged else accuracy,
        "test_loss": 0.3,
        "kernel_mode": "compiled",
        "conv_library": "onednn",
        "steps": 4,
        "train_seconds": 1.0,
    }
    write(run_dir / "summary.json", summary)
    return 3 if diverged else 0


if __name__ == "__main__":
    sys.exit(main())
