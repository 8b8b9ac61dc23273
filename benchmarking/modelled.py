"""The cycle model's figures for the layers of a suite, a row a kernel that is launched: `results/modelled`.

    python -m tidepool.benchmarking.modelled --when before|after [--cases NAME ...] [--out results/modelled]

Compiles forward in training, dgrad, wgrad and its reduction in bf16 for sm_90, splits as on the whole GPU, and appends
tensor-core use, cycles of the launch and what binds it (simulator/sass). Modelled, uncalibrated, not measured. Rows
that the table holds under this `when` and version of the model are not made again. Kernels without products take their
loops to run 16 times, but for the reduction, whose loop adds up the splits: `loops` says which.
"""

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tidepool import simulator
from tidepool.benchmarking.cases import LayerCase
from tidepool.benchmarking.counting.launches import Size, at_size
from tidepool.benchmarking.machine import commit_and_dirty
from tidepool.benchmarking.suites import chosen, suite
from tidepool.installation import AS_MODULE, child_environment
from tidepool.kernels.compile_check.compile import Launch, compile_for, compiled_row, gpu_of
from tidepool.kernels.compile_check.machine_code import tool
from tidepool.kernels.runtime.mode import Mode, force
from tidepool.kernels.runtime.targets import SM_90
from tidepool.records import OneLineParser, Table
from tidepool.simulator import sass
from tidepool.simulator.sass.path import loops_of

DTYPE = "bf16"
REDUCE = "conv_act_pool_wgrad_reduce_kernel"
COLUMNS = (
    "schema_version", "case", "pass", "dtype", "kernel", "tensor_use", "cycles", "bound", "model_version", "when",
    "tile", "registers", "spills", "shared_bytes", "programs", "program_cycles", "loops", "commit", "dirty",
)  # fmt: skip


def model_version() -> str:
    """Eight digits of a digest of the model's files: its rules and every constant."""
    folder = Path(simulator.__file__).parent / "sass"
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:8]


def record(table: Table, cases: Sequence[LayerCase], when: str) -> Iterator[dict[str, Any]]:
    """Append the rows of every case that `table` does not hold, a case at a time; yields them as they come."""
    version = model_version()
    known = {(row["case"], row["when"], row["model_version"]) for row in table.read()[0]}
    compile_for(gpu_of(SM_90), SM_90)
    force(Mode(SM_90, interpreted=False, simulated=True))  # splits for the multiprocessors of the whole GPU
    commit, dirty = commit_and_dirty()
    about = {"dtype": DTYPE, "model_version": version, "when": when, "commit": commit, "dirty": dirty}
    for case in cases:
        if (case.name, when, version) not in known:
            rows = [{"case": case.name, **row, **about} for row in _rows(case)]
            table.append(rows)
            yield from rows


def _rows(case: LayerCase) -> list[dict[str, Any]]:
    sized = at_size(case, Size(batch=case.x[0], spatial=case.x[2:]), DTYPE)
    return [{"pass": name, **_row(case.name, launch)} for name, launch in sized.launches.items()]


def _row(case: str, asked: Launch) -> dict[str, Any]:
    compiled = compiled_row(SM_90, case, DTYPE, asked, ordered=True)
    row = compiled.row
    found: dict[str, Any] = {name: getattr(row, name) for name in ("kernel", "tile", "registers", "spills")}
    found["shared_bytes"] = row.shared_bytes
    if compiled.cubin is None or compiled.launch is None:
        return {**found, "bound": row.problem}
    (code,) = sass.disassemble([compiled.cubin], SM_90.name, tool("nvdisasm"))
    launch = replace(compiled.launch, trips=_trips(code, asked))
    try:
        modelled = sass.model(code, launch, sass.machine_named(SM_90.name))
    except sass.UnknownOpcode as error:
        return {**found, "bound": str(error)}
    assert modelled.waves is not None
    return {
        **found,
        "tensor_use": round(modelled.waves.tensor_share, 3),
        "cycles": round(modelled.waves.cycles),
        "bound": modelled.waves.binds,
        "programs": launch.programs,
        "program_cycles": round(modelled.cycles),
        "loops": "layer" if launch.products or asked.name == REDUCE else str(sass.ASSUMED_TRIPS),
    }


def _trips(code: Sequence[sass.Instruction], asked: Launch) -> int | Mapping[int, int]:
    """Of the reduction's loops: one with n loads adds n splits a trip, what is left of them takes one trip. Of other
    kernels what the model takes where nobody says."""
    if asked.name != REDUCE:
        return sass.ASSUMED_TRIPS
    loads = {
        code[loop.first].address: sum(one.name == "LDG" for one in code[loop.first : loop.last + 1])
        for loop in loops_of(code)
    }
    most = max(loads.values(), default=1)
    return {start: -(-int(asked.named["splits"]) // most) if n == most else 1 for start, n in loads.items()}


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m tidepool.benchmarking.modelled", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--when", choices=("before", "after"), required=True, help="which code these rows are of")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only these layers of the suite (default: all)")
    parser.add_argument("--out", type=Path, default=Path("results/modelled"), metavar="FOLDER")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    parser = _parser()
    options: argparse.Namespace = parser.parse_args(arguments)
    try:
        cases = [case for case in chosen(suite("blocks"), options.cases) if isinstance(case, LayerCase)]
    except ValueError as error:
        parser.error(str(error))
    if os.environ.get("TRITON_INTERPRET") != "0":
        # Interpreting is settled when a kernel module is read: compile in a child that reads them with it off.
        command = [sys.executable, *AS_MODULE, "tidepool.benchmarking.modelled", *arguments]
        return subprocess.run(command, env={**child_environment(), "TRITON_INTERPRET": "0"}, check=False).returncode
    for row in record(Table(options.out / "modelled.csv", COLUMNS), cases, options.when):
        words = ("case", "pass", "tile", "registers", "spills", "tensor_use", "cycles", "bound")
        print(" ".join(str(row.get(word, "")) for word in words), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
