"""Folders of measurements as bench.py writes them, with made-up numbers, for the tests of analysis."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidepool.analysis.bench.records import COLUMNS

CARD = {
    "dtype": "bf16", "cuda_graph": "False", "kernel_mode": "compiled", "gpu": "Test GPU 80GB", "driver": "590",
    "cuda": "13.0", "conv_library": "cudnn 9.10.2", "torch": "2.11.0", "triton": "3.6.0", "python": "3.12.3",
    "commit": "0123456789abcdef", "dirty": "False", "source": "feedfeedfeed", "command": "python bench.py --visit",
    "copy_bytes_per_s": 4.0e12, "matmul_tflops": 700.0, "measured_at": "2026-01-02T03:04:05+00:00",
}  # fmt: skip
CASES = (("blocks", "first_b64", "one"), ("blocks", "second_b64", "one"), ("blocks", "third_b8", "two"))
SPEED = {"auto": 1.0, "triton": 1.1, "cudnn": 3.0, "cudnn_channels_last": 2.0, "compile": 1.6,
         "compile_max_autotune": 1.25}  # fmt: skip


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows below the header of the file's columns; what a row lacks is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["schema_version", *COLUMNS[path.name]], lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows({"schema_version": 1, **row} for row in rows)


def write_cases(folder: Path, cases: Sequence[tuple[str, str, str]] = CASES) -> None:
    rows = [{"suite": suite, "case": case, "family": family, "batch": 64} for suite, case, family in cases]
    write_csv(folder / "cases.csv", rows)


def timing(case: str, pass_: str, backend: str, ms: float | None, process: int = 0, **changed: Any) -> dict[str, Any]:
    """A row of timings.csv; without a time it is not `timed`."""
    suite, _, family = next(known for known in CASES if known[1] == case)
    memory = 1.0e9 if backend in ("auto", "triton") else 3.0e9
    row = {**CARD, "suite": suite, "case": case, "family": family, "pass": pass_, "backend": backend,
           "process": f"p{process}", "replicate": process, "status": "timed" if ms is not None else "unsupported",
           "time_ms_p50": "" if ms is None else ms, "inputs_bytes": 1e9, "peak_above_inputs_bytes": memory,
           "flops": 4e11, "fused_bytes": 1e9, "eager_bytes": 4e9, "roofline_ms": 0.6,
           "roofline_share": "" if ms is None else 0.6 / ms}  # fmt: skip
    return row | changed


def write_timings(folder: Path, *, processes: int = 3, cases: Sequence[tuple[str, str, str]] = CASES) -> Path:
    """Every case and pass on six backends; the third case is one that `auto` loses to max-autotune."""
    rows = []
    for process in range(processes):
        for index, (_, case, _) in enumerate(cases):
            for pass_ in ("forward", "forward_training", "backward", "train"):
                for backend, factor in SPEED.items():
                    lost = 1.5 if index == 2 and backend in ("auto", "triton") else 1.0
                    rows.append(timing(case, pass_, backend, factor * lost * (1 + 0.01 * process * index), process))
            rows.append(timing(case, "forward", "cudnn_conv_relu", None if index == 1 else 1.8, process))
    write_csv(folder / "timings.csv", rows)
    return folder


def write_host_cost(folder: Path) -> None:
    rows = [
        {"measured_at": CARD["measured_at"], "process": f"p{process}", "side": side, "what": "one step",
         "host_us_p50": us + process, "host_us_p20": us - 1, "host_us_p80": us + 3, "blocks": 100,
         "calls_per_block": 100, "device": "cpu", "kernel_mode": "interpreted", "cpu": "Test CPU 3000",
         "torch": "2.13.0", "triton": "3.7.1", "python": "3.12.3", "commit": "0123456789abcdef", "dirty": "False",
         "source": "feedfeedfeed", "command": "python -m tidepool.benchmarking.host_cost"}
        for process in range(2)
        for side, us in (("eager", 85.0), ("triton", 77.0))
    ]  # fmt: skip
    write_csv(folder / "host_cost.csv", rows)


def write_predictions(folder: Path) -> None:
    rows = [
        {"suite": "blocks", "case": case, "family": family, "pass": "train", "dtype": "bf16", "device": "H200",
         "device_source": "data sheet, dense", "matrix_tflops": 989, "copy_bytes_per_s": 4.8e12, "flops": 7e11,
         "fused_bytes": 1.7e9, "eager_bytes": 7.6e9, "bytes_ratio": 0.225, "workspace_bytes": 8e6,
         "fused_saved_bytes": 5e7, "eager_saved_bytes": 8e8, "fused_roofline_ms": 0.72, "eager_roofline_ms": 1.79,
         "bound_ratio": 2.48, "commit": "0123456789abcdef", "source": "feedfeedfeed"}
        for _, case, family in CASES
    ]  # fmt: skip
    write_csv(folder / "predictions.csv", rows)
