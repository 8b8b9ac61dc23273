"""Try a seeded sample of the mutants that the rules make of the kernels on the detectors of faults.

    python -m tests.faults.generated --seed 0 --count 1000 --out results/generated_mutants

A second call goes on where the first was stopped, or to a larger --count. Exit status: 0 when every mutant was caught
or is argued to change no result, 1 when one was not, or was caught in spite of an argument, 2 when the run could not
be made.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

from tests.faults.generated.equivalence import ArgumentError, argument_for, read_arguments
from tests.faults.generated.mutants import Mutant, all_mutants, in_order
from tests.faults.generated.reach import MADE_FOR_FAULTS, Reach
from tests.faults.generated.record import (
    REACH,
    UNFINISHED,
    Row,
    fingerprint,
    known_rows,
    row,
    unexplained,
    write_record,
)
from tests.faults.generated.trial import SUITES, Verdict, Worker
from tests.faults.harness import ROOT, HarnessError
from tests.faults.mutation import FOLDER
from tests.faults.record import environment
from tidepool.records import (
    MetricsWriter,
    OneLineParser,
    RecordError,
    keep_rows,
    read_json,
    read_rows,
    write_json,
)


def reaching(suite: str) -> list[str]:
    """The code that decides what a detector reaches: the kernels, its module, and what test modules share."""
    paths = (ROOT / "tests/kernels").rglob("*.py")
    shared = [str(path.relative_to(ROOT)) for path in paths if not path.name.startswith("test_")]
    # The detectors made for faults import one another.
    made = [other for other in SUITES if suite.startswith(MADE_FOR_FAULTS) and other.startswith(MADE_FOR_FAULTS)]
    return sorted({FOLDER, suite, *made, *shared})


def check_same(folder: Path, seed: int, code: str) -> None:
    """Raise RecordError where the folder holds rows of another seed or of other kernels."""
    found = read_json(folder / "environment.json")
    for name, wanted in (("seed", seed), ("kernels", code)):
        if found is not None and found.get(name) != wanted:
            held = f"holds mutants of {name} {found.get(name)}, expected {wanted}"
            raise RecordError(f"--out {folder}: {held}; name another folder")


def read_reach(folder: Path, worker: Worker) -> Reach:
    """What each detector reaches, from the folder where it was found before on the same code."""
    notes = []
    for number, suite in enumerate(SUITES):
        path, code = folder / REACH / f"{number}.json", fingerprint(ROOT, reaching(suite))
        found = read_json(path)
        if found is None or found["code"] != code:
            print(f"{suite}: what it reaches", flush=True)
            path.parent.mkdir(exist_ok=True)
            found = {"suite": suite, "code": code, "notes": worker.reach(suite)}
            write_json(path, found)
        notes += found["notes"]
    return Reach(notes)


def try_all(mutants: Sequence[Mutant], workers: Sequence[Worker], reach: Reach, commit: str | None) -> Iterator[Row]:
    """The row of each mutant as it comes, one at a time for each worker."""
    free: SimpleQueue[Worker] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def judge(mutant: Mutant) -> Row:
        worker, began, tests = free.get(), time.monotonic(), reach.tests(mutant)
        try:
            verdict = worker.judge(mutant, tests) if tests else Verdict("", "")
        finally:
            free.put(worker)
        return row(mutant, tests, verdict, time.monotonic() - began, commit)

    with ThreadPoolExecutor(len(workers)) as pool:
        pending = [pool.submit(judge, mutant) for mutant in mutants]
        try:
            for done in as_completed(pending):
                yield done.result()
        finally:
            for future in pending:
                future.cancel()


def run(folder: Path, sample: Sequence[Mutant], *, again: bool, workers: int, commit: str | None) -> None:
    """Add the rows that the folder lacks to its unfinished ones, and print each."""
    known = known_rows(folder)
    missing = [m for m in sample if m.name not in known or (again and known[m.name]["outcome"] != "killed")]
    if not missing:
        return
    keep_rows(folder / UNFINISHED, read_rows(folder / UNFINISHED))  # without a last line that a kill cut short
    with ExitStack() as stack:
        taken = [stack.enter_context(Worker(ROOT)) for _ in range(workers)]
        reach = read_reach(folder, taken[0])
        writer = MetricsWriter(folder / UNFINISHED)
        stack.callback(writer.close)
        for number, tried in enumerate(try_all(missing, taken, reach, commit), start=1):
            writer.write(tried)
            place = f"{tried['file']}:{tried['line']} {tried['rule']}"
            by = f" by {tried['caught_by']} ({tried['failure']})" if tried["caught_by"] else ""
            print(f"[{number}/{len(missing)}] {place}: {tried['outcome']}{by}, {tried['seconds']} s", flush=True)


def finish(folder: Path, sample: Sequence[Mutant], places: Counter[str], seed: int) -> int:
    """Write the record of the sample; returns the exit status."""
    known, arguments = known_rows(folder), read_arguments()
    rows = [
        known[m.name] | {"line": m.line, "argument": argument_for(m, (ROOT / m.file).read_text("utf-8"), arguments)}
        for m in sample
    ]
    write_record(folder, rows, places, seed)
    left = unexplained(rows)
    for found in left:
        what = "caught in spite of an argument" if found["argument"] else found["outcome"]
        print(f"{found['file']}:{found['line']} {found['rule']}: {found['old']} -> {found['new']}: {what}")
    count = Counter(found["outcome"] for found in rows)
    told = ", ".join(f"{number} {outcome}" for outcome, number in count.most_common())
    print(f"{len(rows)} mutants: {told}; {len(left)} neither caught nor argued")
    return 1 if left else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = OneLineParser(prog="python -m tests.faults.generated", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="which sample (default: 0)")
    parser.add_argument("--count", type=int, default=1000, help="mutants (default: 1000)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the record, and of what a stop leaves")
    parser.add_argument("--workers", type=int, default=2, help="child processes at a time (default: 2)")
    parser.add_argument("--again", action="store_true", help="try those that lived once more, on the tests of today")
    options = parser.parse_args(arguments)
    for name in ("count", "workers"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: expected 1 or more")
    try:
        read_arguments()
        mutants = all_mutants(ROOT)
        code = fingerprint(ROOT, [FOLDER])
        options.out.mkdir(parents=True, exist_ok=True)
        check_same(options.out, options.seed, code)
        command = f"python -m tests.faults.generated --seed {options.seed} --count {options.count}"
        described = environment(command) | {"seed": options.seed, "count": options.count, "kernels": code}
        write_json(options.out / "environment.json", described)
        sample = in_order(mutants, options.seed)[: options.count]
        run(options.out, sample, again=options.again, workers=options.workers, commit=described["commit"])
        return finish(options.out, sample, Counter(mutant.rule for mutant in mutants), options.seed)
    except (HarnessError, ArgumentError, RecordError, OSError) as error:
        print(f"tests.faults.generated: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
