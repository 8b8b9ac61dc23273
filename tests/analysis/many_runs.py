"""What a report on ten thousand runs costs: ``python -m tests.analysis.many_runs --out results/report_cost``.

Writes synthetic run folders (a random search over lr and width, thirty rows of metrics each) into a temporary folder,
then reads, tables and reports them in processes of their own. Appends one row a step: CPU seconds, most memory, size
of the page.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tidepool.records import SOURCE, cpu_name, git_state, package_version
from tidepool.records.table import Table

STEPS = {
    "start": "import tidepool.analysis.report",
    "read": "from tidepool.analysis.runs import read_records; read_records(['runs'])",
    "tables": "from tidepool.analysis.runs import read_records, all_tables; all_tables(read_records(['runs']))",
    "report": "from tidepool.analysis.report import write_report; write_report(['runs'], 'report')",
}
COLUMNS = ("schema_version", "measured_at", "kind", "runs", "rows_a_run", "step", "cpu_s", "wall_s", "peak_memory_MiB",
           "page_bytes", "cpu", "python", "pandas", "commit", "dirty", "command")  # fmt: skip


def write_runs(folder: Path, count: int, *, rows: int = 30, search: bool = True) -> None:
    """Write ``count`` run folders below ``folder``: a random search, or two backends over seeds."""
    rng = np.random.default_rng(0)
    for number in range(count):
        backend = "auto" if search else ("triton", "cudnn")[number % 2]
        lr, width = float(10 ** rng.uniform(-4, -1)), int(rng.integers(4, 64))
        accuracy = float(0.98 - 0.03 * (np.log10(lr) + 2) ** 2 + 0.005 * rng.standard_normal())
        config = {"data": "digits", "model": "convnet", "backend": backend, "dtype": "fp32", "epochs": 3,
                  "batch_size": 64, "seed": 0 if search else number // 2, "project": "tidepool", "momentum": 0.9,
                  "weight_decay": 5e-4, "schedule": "onecycle", "max_steps": None, "track": "off"}  # fmt: skip
        config |= {"lr": lr, "width": width} if search else {"lr": 0.03}
        summary = {"status": "finished", "data": "digits", "model": "convnet", "backend": backend, "seed": 0,
                   "conv_library": "onednn", "kernel_mode": "compiled", "dtype": "fp32", "parameters": 500 * width,
                   "epochs": 3, "steps": rows, "test_accuracy": accuracy, "val_accuracy": accuracy, "test_loss": 0.1,
                   "train_seconds": 10.0 + width, "step_ms_p50": 1.0 + width / 10, "samples_per_second": 6400.0,
                   "peak_memory_bytes": 2**28}  # fmt: skip
        environment = {"commit": "0" * 40, "dirty": False, "command": f"python train.py --lr={lr}", "cpu": "CPU",
                       "gpu": None, "torch": "2.13.0", "date": "2026-01-01T00:00:00+00:00"}  # fmt: skip
        run = folder / f"lr-{lr:.6g}_width-{width}_{number:05d}"
        run.mkdir(parents=True)
        for name, record in (("config", config), ("summary", summary), ("environment", environment)):
            (run / f"{name}.json").write_text(json.dumps({"schema_version": 1, **record}))
        (run / "metrics.jsonl").write_text("".join(_line(step, rows, accuracy) for step in range(1, rows + 1)))


def _line(step: int, rows: int, accuracy: float) -> str:
    row = {"schema_version": 1, "step": step, "epoch": 3 * step / rows, "time_s": 0.1 * step}
    row |= {"train/loss": 2.3 - 2 * step / rows, "train/accuracy": accuracy * step / rows, "train/lr": 0.03}
    if step % 10 == 0:
        row |= {"val/loss": 2.3 - 2 * step / rows, "val/accuracy": accuracy * step / rows}
    return json.dumps(row) + "\n"


def measure(folder: Path, step: str) -> dict[str, float]:
    """CPU and wall seconds, and the most memory, of one step in a process of its own in ``folder``."""
    code = f"{STEPS[step]}; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": cpu, "wall_s": wall, "peak_memory_MiB": int(done.stdout.split()[-1]) / 1024}


def main(arguments: Sequence[str]) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.analysis.many_runs")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--kind", choices=("search", "backends"), default="search")
    parser.add_argument("--steps", nargs="+", choices=tuple(STEPS), default=list(STEPS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    commit, dirty = git_state(SOURCE)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_runs(folder / "runs", options.runs, search=options.kind == "search")
        for step in options.steps:
            found = measure(folder, step)
            page = folder / "report" / "report.html"
            size = page.stat().st_size if page.is_file() else None
            print(f"{step:7} {found['cpu_s']:6.1f} s CPU {found['peak_memory_MiB']:6.0f} MiB  page {size or 0:,} bytes")
            row = {"measured_at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()), "kind": options.kind,
                   "runs": options.runs, "rows_a_run": 30, "step": step, "page_bytes": size, "cpu": cpu_name(),
                   "python": sys.version.split()[0], "pandas": package_version("pandas"), "commit": commit,
                   "dirty": dirty, "command": "python -m tests.analysis.many_runs " + " ".join(arguments)}  # fmt: skip
            if options.out is not None:
                Table(options.out / "report_cost.csv", COLUMNS).append([row | found])


if __name__ == "__main__":
    main(sys.argv[1:])
