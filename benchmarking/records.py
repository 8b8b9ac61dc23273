"""The tables of bench.py: their files, and their columns with units in the names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidepool.benchmarking.cases import Case
from tidepool.records import RecordError, Table

TIMING_COLUMNS = (
    "schema_version", "measured_at", "process", "replicate", "suite", "case", "family", "pass", "backend", "dtype",
    "status", "reason", "time_ms_p50", "time_ms_p20", "time_ms_p80", "samples", "rounds", "cuda_graph",
    "inputs_bytes", "peak_above_inputs_bytes", "flops", "fused_bytes", "eager_bytes", "roofline_ms", "roofline_share",
    "copy_bytes_per_s", "matmul_tflops", "bf16_matmul_tflops",
    "conv_fp32_precision", "matmul_fp32_precision", "cudnn_benchmark", "kernel_mode", "plan",
    "sm_clock_MHz", "memory_clock_MHz", "power_W", "temperature_C",
    "gpu", "gpu_capability", "gpu_memory_bytes", "driver", "cuda", "conv_library", "cpu", "torch", "triton", "python",
    "commit", "dirty", "source", "command",
)  # fmt: skip
CHECK_COLUMNS = (
    "schema_version", "measured_at", "suite", "case", "backend", "dtype", "status", "reason", "draw",
    "undecided_share", "samples_judged", "gpu", "torch", "triton", "commit", "source",
)  # fmt: skip
CEILING_COLUMNS = (
    "schema_version", "measured_at", "dtype", "copy_bytes_per_s", "matmul_tflops", "bf16_matmul_tflops",
    "sm_clock_MHz", "memory_clock_MHz", "power_W", "temperature_C", "gpu", "driver", "torch", "cuda", "commit",
)  # fmt: skip
CASE_COLUMNS = (
    "schema_version", "suite", "case", "family", "description", "source", "note", "batch", "input_gradient",
)  # fmt: skip


def timings(folder: Path) -> Table:
    """`timings.csv`: one row a case, pass, backend and process."""
    return Table(folder / "timings.csv", TIMING_COLUMNS)


def checks(folder: Path) -> Table:
    """`correctness.csv`: one row a case, dtype and backend that was held to the error rule."""
    return Table(folder / "correctness.csv", CHECK_COLUMNS)


def ceilings_table(folder: Path) -> Table:
    """`ceilings.csv`: copy bandwidth and matrix rates, one row a visit, besides those in timings.csv."""
    return Table(folder / "ceilings.csv", CEILING_COLUMNS)


def cases_table(folder: Path) -> Table:
    """`cases.csv`: what there is to measure."""
    return Table(folder / "cases.csv", CASE_COLUMNS)


def write_cases(folder: Path, suite: str, cases: Sequence[Case]) -> None:
    """Add to `cases.csv` in `folder` what it does not hold yet of a suite. Raises RecordError.

    A case that changed its sizes would leave the list fixed beforehand in doubt: it has to get another name.
    """
    table = cases_table(folder)
    there = {(row["suite"], row["case"]): row for row in table.read()[0]}
    fresh = []
    for case in cases:
        row: dict[str, Any] = {
            "suite": suite,
            "case": case.name,
            "family": case.family,
            "description": case.describe(),
            "source": case.source,
            "note": case.note,
            "batch": case.batch,
            "input_gradient": getattr(case, "input_gradient", True),
        }
        known = there.get((suite, case.name))
        if known is None:
            fresh.append(row)
        elif known["description"] != row["description"]:
            raise RecordError(
                f"{table.path}: {case.name} is {known['description']} there and {row['description']} in this code; "
                "write into another folder"
            )
    if fresh:
        table.append(fresh)
