"""Runs of tests on a worker's own copy of the tree: of the unchanged tree once, and of each mutant.

A worker keeps one copy, changes one file of it for a mutant and puts it back. Its child processes are forked from one
that has torch and Triton imported (`warm_child`), which spares each run three seconds.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.generated.mutants import Mutant
from tests.faults.generated.reach_recorder import REACH
from tests.faults.harness import DETECTOR as DENSE
from tests.faults.harness import DETECTORS, PATIENCE, HarnessError, copy_tree
from tests.faults.recorder import CPU_LIMIT, RECORD

SUITES = tuple(sorted({DENSE, *DETECTORS.values()}, key=lambda suite: ("faults" not in suite, suite)))
"""Every detector of the harness, those that were made to find faults first."""
SUITE_LIMIT_S, MUTANT_LIMIT_S = 1500, 120
"""CPU seconds after which a run of a suite, traced, and the tests of a mutant count as endless."""


@dataclass(frozen=True)
class Verdict:
    """What the tests said of a mutant: the first that failed and what it saw, both empty where none did.

    `tested` is false where no test could start, and `failure` says why.
    """

    caught_by: str
    failure: str
    tested: bool = True


class Worker:
    """One copy of the tree and the process that tests it. A context manager: leaving it removes both."""

    def __init__(self, source: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mutants_")
        self.tree = Path(self._folder.name) / "tree"
        self._planted_before = 0
        copy_tree(self.tree, source)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm_child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self._folder.name,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

    def reach(self, suite: str) -> list[dict[str, Any]]:
        """The notes of `reach_recorder` on a suite. Raises HarnessError where a test fails without any mutation."""
        notes = self._note_file("reach.jsonl")
        plugin, environment = "tests.faults.generated.reach_recorder", {REACH: str(notes)}
        status = self._run([suite], plugin, environment, SUITE_LIMIT_S * PATIENCE)
        found = _read(notes)
        failed = [note["test"] for note in found if not note["passed"]]
        if failed or status != 0 or not found:
            where = failed[0] if failed else f"{suite} (exit status {status}: {self._last_words()})"
            raise HarnessError(f"without any mutation {where} fails: nothing can be told")
        return found

    def judge(self, mutant: Mutant, tests: list[str]) -> Verdict:
        """Run the tests on the mutant up to the first failure."""
        notes = self._note_file("record.jsonl")
        environment = {RECORD: str(notes), CPU_LIMIT: str(MUTANT_LIMIT_S)}
        with self._planted(mutant):
            status = self._run(tests, "tests.faults.recorder", environment, MUTANT_LIMIT_S * PATIENCE)
        events = _read(notes)
        failed = [note for note in events if note["event"] == "failed"]
        started = [note for note in events if note["event"] == "started"]
        if status == 0:
            return Verdict("", "")
        if status == 1 and failed:
            return Verdict(failed[0]["test"], failed[0]["failure"])
        if status is None or status == -signal.SIGXCPU:
            return Verdict(started[-1]["test"] if started else tests[0], "no end")
        if status < 0 and started:
            return Verdict(started[-1]["test"], f"signal {-status}")
        return Verdict("", f"exit status {status}: {self._last_words()}", tested=False)

    @contextmanager
    def _planted(self, mutant: Mutant) -> Iterator[None]:
        """The mutant in the worker's tree, and the file as it was afterwards, time of change included."""
        path = self.tree / mutant.file
        kept = self.tree.parent / "original.py"
        shutil.copy2(path, kept)
        try:
            path.write_text(mutant.applied(path.read_text(encoding="utf-8")), encoding="utf-8")
            self._planted_before += 1
            # A time of its own, so that no bytecode of another mutant or of the original is taken for this one's.
            os.utime(path, (self._planted_before, self._planted_before))
            yield
        finally:
            shutil.copy2(kept, path)

    def _run(self, tests: list[str], plugin: str, environment: dict[str, str], patience_s: int) -> int | None:
        job = {
            "tree": str(self.tree),
            "tests": tests,
            "plugin": plugin,
            "environment": environment,
            "patience_s": patience_s,
            "output": str(self.tree.parent / "output.txt"),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise HarnessError("the process that tests mutants ended")
        status: int | None = json.loads(answer)
        return status

    def _note_file(self, name: str) -> Path:
        path = self.tree.parent / name
        path.write_text("")
        return path

    def _last_words(self) -> str:
        text = (self.tree.parent / "output.txt").read_text(errors="replace").strip()
        return (text.splitlines() or ["no output"])[-1]


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
