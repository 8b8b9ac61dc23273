"""Plant every listed fault in copies of the tree and record which test catches it.

    python -m tests.faults --out results/planted_faults

Exit status: 0 when every mutation was caught, 1 when one survived, 2 when the run could not be made.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from tests.faults.harness import ROOT, HarnessError, Outcome, plant_all
from tests.faults.mutation import Mutation, MutationError
from tests.faults.mutations import MUTATIONS
from tests.faults.record import environment, read_rows, row, write_csv, write_table
from tidepool.records import OneLineParser


def _selected(names: list[str]) -> list[Mutation]:
    """The mutations of those names, all of them for none. Raises MutationError for a name that is not listed."""
    known = {mutation.name: mutation for mutation in MUTATIONS}
    for name in names:
        if name not in known:
            raise MutationError(f"--only {name}: no such mutation, --list shows all {len(known)}")
    return [known[name] for name in names] if names else list(MUTATIONS)


def _run(mutations: list[Mutation], workers: int, unfinished: Path | None, commit: str | None) -> list[Outcome]:
    """All outcomes in the list's order, each printed as it comes. Where the run breaks off, those that had come are
    written to `unfinished`."""
    outcomes: dict[str, Outcome] = {}
    try:
        for outcome in plant_all(mutations, whole=True, workers=workers):
            outcomes[outcome.mutation.name] = outcome
            told = f"caught by {outcome.caught_by} ({outcome.failure})" if outcome.caught else "SURVIVED"
            count = f"{len(outcomes)}/{len(mutations)}"
            print(f"[{count}] {outcome.mutation.name}: {told}, {outcome.seconds:.0f} s", flush=True)
    except BaseException:
        if unfinished is not None and outcomes:
            write_csv(unfinished, [row(outcome, commit) for outcome in outcomes.values()])
        raise
    return [outcomes[mutation.name] for mutation in mutations]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = OneLineParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    files = "mutations.csv, mutations.md and environment.json; unfinished.csv where a run breaks off"
    parser.add_argument("--out", type=Path, help=f"folder for {files}")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="only these; the other rows of --out stay"
    )
    parser.add_argument("--workers", type=int, default=2, help="child processes at a time (default: 2)")
    parser.add_argument("--list", action="store_true", help="name the mutations and run nothing")
    options = parser.parse_args(arguments)
    try:
        if options.workers < 1:
            raise MutationError(f"--workers {options.workers}: expected 1 or more")
        mutations = _selected(options.only)
        if options.list:
            for mutation in mutations:
                place = mutation.find(ROOT)
                print(f"{mutation.name} ({place}, {mutation.kind}): {mutation.searched} -> {mutation.new}")
            return 0
        described = environment(f"python -m tests.faults{' --only ' if options.only else ''}{' '.join(options.only)}")
        if options.out is not None:
            _check_writable(options.out)
        unfinished = None if options.out is None else options.out / "unfinished.csv"
        commit = described["commit"]
        outcomes = _run(mutations, options.workers, unfinished, commit)
        if options.out is not None:
            kept = read_rows(options.out / "mutations.csv") if options.only else {}
            rows = kept | {outcome.mutation.name: row(outcome, commit) for outcome in outcomes}
            write_csv(options.out / "mutations.csv", [rows[m.name] for m in MUTATIONS if m.name in rows])
            write_table(options.out / "mutations.csv", options.out / "mutations.md")
            (options.out / "environment.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    except (HarnessError, MutationError, OSError) as error:
        print(f"tests.faults: {error}", file=sys.stderr)
        return 2
    survived = sum(not outcome.caught for outcome in outcomes)
    print(f"{len(outcomes) - survived} of {len(outcomes)} mutations caught")
    return 1 if survived else 0


def _check_writable(folder: Path) -> None:
    """Make the folder, and raise OSError now rather than after the run if it takes no file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"--out {folder}: cannot be made ({error.strerror}); expected a folder to write into") from error
    if not os.access(folder, os.W_OK):
        raise OSError(f"--out {folder}: no permission to write there")
    with tempfile.TemporaryFile(dir=folder):
        pass


if __name__ == "__main__":
    sys.exit(main())
