"""Cross-compile every kernel at every tile it ships, for every target the tile declares, without a GPU.

    python -m kernels.compile_check [--targets cuda:80 cuda:86 cuda:90 cuda:100 hip:gfx942] [--cases NAME ...]

Prints one row per compiled kernel: registers a thread, spill instructions, shared memory, tensor-core instructions and
the occupancy those allow. Exit 1 on a spill, on shared memory over the target's limit, or where tensor-core
instructions are expected and none is there, or the other way round.

What is compiled is what would be launched: the real launchers run on CPU tensors, with Triton's driver replaced by one
that only names the target, and every launch turned into a compilation.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields

from kernels.command_line import OneLineParser
from kernels.compile_cases import CASE_NAMES as CONV_CASE_NAMES
from kernels.norm_compile_cases import NORM_CASE_NAMES
from kernels.tiles import TARGETS

CASE_NAMES = (*CONV_CASE_NAMES, *NORM_CASE_NAMES)


@dataclass(frozen=True)
class Row:
    """One compiled kernel. `tensor` counts tensor-core instructions, `problem` is empty when all is well."""

    target: str
    case: str
    dtype: str
    kernel: str
    tile: str
    registers: int
    spills: int
    shared_bytes: int
    tensor: int
    shuffles: int
    occupancy_percent: int
    problem: str


def _interpreting_off() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "0"


def _compile_target(target: str, cases: tuple[str, ...]) -> list[Row]:
    from kernels import cross_compile

    return [Row(*astuple(row)) for row in cross_compile.compile_cases(target, cases)]


def compile_rows(targets: tuple[str, ...], cases: tuple[str, ...] = (), workers: int | None = None) -> Iterator[Row]:
    """Rows of every case (all without names) on every target, target by target. Needs TRITON_INTERPRET=0."""
    # A process for each target: Triton keeps a kernel's first target for as long as the process lives.
    context = multiprocessing.get_context("spawn")
    count = workers or min(len(targets), os.cpu_count() or 1)
    with ProcessPoolExecutor(count, mp_context=context, max_tasks_per_child=1) as pool:
        for rows in pool.map(_compile_target, targets, [cases] * len(targets)):
            yield from rows


_HEADINGS = {"shared_bytes": "shared B", "occupancy_percent": "occupancy %"}
_WIDTHS = (11, 18, 9, 34, 30, 9, 6, 9, 6, 8, 11, 0)


def _line(cells: tuple[object, ...]) -> str:
    return " ".join(str(cell).ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = OneLineParser(prog="python -m kernels.compile_check", description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS, metavar="TARGET")
    parser.add_argument("--cases", nargs="+", default=[], metavar="NAME", help="only these layers (default: all)")
    options = parser.parse_args(arguments)
    unknown = set(options.cases) - set(CASE_NAMES)
    if unknown:
        parser.error(f"unknown case {min(unknown)!r}: expected one of {', '.join(CASE_NAMES)}")
    if not _interpreting_off():
        # Interpreting is settled when a kernel module is read: compile in a child that reads them with it off.
        command = [
            sys.executable,
            "-m",
            "kernels.compile_check",
            *(arguments if arguments is not None else sys.argv[1:]),
        ]
        return subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "0"}, check=False).returncode
    print(_line(tuple(_HEADINGS.get(f.name, f.name) for f in fields(Row))))
    count = problems = 0
    for row in compile_rows(tuple(options.targets), tuple(options.cases)):
        print(_line(astuple(row)), flush=True)
        count += 1
        problems += bool(row.problem)
    print(f"{count} kernels compiled for {', '.join(options.targets)}: {problems} with problems")
    return 1 if problems or not count else 0


if __name__ == "__main__":
    sys.exit(main())
