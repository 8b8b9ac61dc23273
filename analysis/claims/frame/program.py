"""The command `tidepool claim <name>`: measure what one claim asks, conclude, draw.

Exit: 0 concluded, 1 where data that every case needs is missing or the folder cannot be written, 2 for bad arguments.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from tidepool.analysis.claims.frame.claim import SEEDS, MissingDataError
from tidepool.analysis.claims.frame.record import append_cell, measured_cells, read_table, write_environment
from tidepool.analysis.claims.frame.registry import claim_names, load_claim
from tidepool.analysis.claims.frame.showing import write_conclusion
from tidepool.program import run_process
from tidepool.records import OneLineParser, RecordError, shown_path

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2


def main(arguments: Sequence[str], *, prog: str = "tidepool claim") -> int:
    """The command; returns the exit code."""
    parser = OneLineParser(prog=prog, description="Measure one thing that is said of CNNs, with its control.")
    parser.add_argument("name", nargs="?", help="the claim; --list names them")
    parser.add_argument("--list", action="store_true", help="the claims with about their processor time")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many, from 0 (default: {SEEDS})")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="folder (default: runs/claims)")
    options = parser.parse_args(arguments)
    if options.list:
        print(listing())
        return 0
    if options.seeds < 2:
        parser.error(f"--seeds {options.seeds}: expected at least 2, without which there is no interval")
    if options.name not in claim_names():
        asked = "no claim given" if options.name is None else f"no claim {options.name!r}"
        print(f"{prog}: {asked}; expected one of: {', '.join(claim_names())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        return run(options.name, options.seeds, options.out, prog)
    except RecordError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(f"{prog}: {options.out}: cannot be written ({error.strerror or error})", file=sys.stderr)
        return EXIT_FAILED


def listing() -> str:
    """A line for each claim: name, minutes and seconds, what is said."""
    claims = {name: load_claim(name) for name in claim_names()}
    wide = max(map(len, claims))
    return "\n".join(
        f"{name:{wide}}  {claim.seconds // 60}:{claim.seconds % 60:02} min  {claim.title}"
        for name, claim in claims.items()
    )


def run(name: str, seeds: int, out: Path, prog: str) -> int:
    """Measure the cells that `out` does not have yet, then conclude and draw."""
    out.mkdir(parents=True, exist_ok=True)
    measure_missing(name, seeds, out, prog)
    if read_table(out / f"{name}.csv").empty:
        return EXIT_FAILED
    verdict = write_conclusion(out, name)
    print(textwrap.fill(f"{load_claim(name).title} The claim {verdict.outcome}. {verdict.found}", 100))
    print(f"-> {shown_path(out)}/{name}.md, .csv, .json, .svg, .png")
    return 0


def measure_missing(name: str, seeds: int, out: Path, prog: str) -> None:
    """Measure each cell without rows; a case without its data is named once and left out."""
    claim, table = load_claim(name), out / f"{name}.csv"
    cells, here, missing = claim.cells(seeds), measured_cells(read_table(table)), set[str]()
    if here:
        print(f"{prog}: {len(here & set(cells))} of {len(cells)} cells are in {shown_path(table)}", file=sys.stderr)
    for number, (case, seed) in enumerate(cells, start=1):
        if (case, seed) in here or case in missing:
            continue
        start, used = time.perf_counter(), time.process_time()
        try:
            measured = list(claim.measure(case, seed))
        except MissingDataError as error:
            print(f"{prog}: {case}: left out: {error}", file=sys.stderr)
            missing.add(case)
            continue
        append_cell(table, case, seed, measured)
        seconds = time.perf_counter() - start
        write_environment(out / f"{name}.json", seconds, time.process_time() - used, 1)
        print(f"[{number}/{len(cells)}] {case}, seed {seed}: {seconds:.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_process(main, sys.argv[1:], prog="python -m tidepool.analysis.claims.frame.program")
