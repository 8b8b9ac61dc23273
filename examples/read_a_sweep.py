"""A sweep read back with pandas: `python examples/read_a_sweep.py runs/quickstart`."""

import json
import sys
from pathlib import Path

import pandas as pd


def runs(sweep: Path) -> pd.DataFrame:
    """A row a run: its settings and what came of it. The folders of a sweep's runs lie side by side in its own."""
    rows = []
    for file in sorted(sweep.glob("*/summary.json")):
        config = json.loads((file.parent / "config.json").read_text(encoding="utf-8"))
        rows.append({"run": file.parent.name, **config, **json.loads(file.read_text(encoding="utf-8"))})
    if not rows:
        raise SystemExit(f"{sweep}: no runs in this folder; python sweep.py sweeps/quickstart.yaml makes some")
    return pd.DataFrame(rows)


def curves(sweep: Path) -> pd.DataFrame:
    """A row a run and step: metrics.jsonl of every run under one another."""
    files = sorted(sweep.glob("*/metrics.jsonl"))
    return pd.concat([pd.read_json(file, lines=True).assign(run=file.parent.name) for file in files])


def main(sweep: Path) -> pd.DataFrame:
    """Print test accuracy by backend, and the mean training loss early and late; returns the first table."""
    finished = runs(sweep).query("status == 'finished'")
    table = finished.groupby("backend")["test_accuracy"].agg(["count", "mean", "std"])
    print(table.to_string(float_format="{:.4f}".format))
    losses = curves(sweep).merge(finished[["run", "backend"]], on="run").dropna(subset=["train/loss"])
    first_last = losses.sort_values("step").groupby(["backend", "run"])["train/loss"].agg(["first", "last"])
    print(first_last.groupby("backend").mean().to_string(float_format="{:.4f}".format))
    return table


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart"))
