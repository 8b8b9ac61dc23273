"""Plants one mutation at a time in a copy of the tree and finds the first test that notices.

A child process runs the fast detector on the copy, and where that passes all of `tests/kernels` but the long modules in
`LONG`. The tree itself is never written to: it is copied once, and every mutation gets a copy of that copy, so a run
is of one state of the code whatever is edited meanwhile. No GPU is shown to the children: faults are planted under
Triton's interpreter.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.faults.mutation import Mutation
from tests.faults.recorder import CPU_LIMIT, RECORD

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "kernels", "records", "simulator", "src", "tests/__init__.py", "tests/kernels", "tests/faults", "pyproject.toml",
)  # fmt: skip
"""What the tests of the kernels need."""
DETECTOR = "tests/faults/test_detector.py"
DETECTORS = {
    "activation_prelu_": "tests/kernels/activations/test_prelu.py",
    "slope_": "tests/kernels/activations/test_prelu.py",
    "activation_": "tests/kernels/activations/test_functions.py",
    "norm_": "tests/faults/test_norm_detector.py",
    "hopper_": "tests/faults/test_box_detector.py",
    "few_channels_": "tests/faults/test_box_detector.py",
    "box_": "tests/faults/test_box_detector.py",
    "address_": "tests/kernels/conv/test_large_offsets.py",
    "division_direct_": "tests/kernels/device/test_division.py",
    "division_signed_": "tests/kernels/compile_check/test_vector_divisions.py",
    "division_rule_": "tests/kernels/compile_check/test_vector_divisions.py",
    "saved_": "tests/kernels/operators/test_saved_layouts.py",
    "unmet_": "tests/kernels/ops/test_edge_cases_values.py",
    "forward_strided_bias": "tests/kernels/ops/test_edge_cases_layout.py",
    "forward_huge_windows": "tests/kernels/layer/test_saved.py",
    "forward_large_windows": "tests/kernels/layer/test_saved.py",
}
"""By the mutation's name, the fast tests that look at what it changes, where they are others than `DETECTOR`."""
LONG = (
    "test_compile_check.py",
    "test_error_rule.py",
    "test_launches_recorded.py",
    "test_op_db.py",
    "test_random_geometry.py",
)
"""Modules of tests/kernels left out: minutes each, or about no line of a kernel."""
DETECTOR_LIMIT_S, WHOLE_LIMIT_S = 300, 1800
"""CPU seconds after which a child counts as endless: on a busy machine the clock goes on without it."""
PATIENCE = 20
"""Times the limit that a child may take by the clock."""


class HarnessError(RuntimeError):
    """The harness could not judge: the tree fails its tests unchanged, or a mutated copy could not be collected."""


@dataclass(frozen=True)
class Outcome:
    """What became of one mutation of a file: the first test that failed and what it saw, or neither if it survived."""

    mutation: Mutation
    file: str
    caught_by: str
    failure: str
    seconds: float

    @property
    def caught(self) -> bool:
        """Whether a test failed."""
        return bool(self.caught_by)


def copy_tree(destination: Path, source: Path = ROOT) -> None:
    """Copy what `COPIED` names from `source` to `destination`, bytecode left out."""
    for name in COPIED:
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source / name, target)


def run_tests(tree: Path, tests: Sequence[str], limit_s: int) -> tuple[str, str]:
    """Run `tests` on the copy at `tree` up to the first failure: (its node id, exception's name), both empty if none.

    A crashed or endless child counts as the failure of the test it was in. Raises HarnessError when no test started.
    """
    record = tree / "record.jsonl"
    record.write_text("")
    # The project's own options would share the tests out among workers, where "first" has no meaning.
    # Nor is their limit by the clock, which a busy machine uses up: `limit_s` is of CPU time.
    options = ["-x", "-q", "-o", "addopts=", "-o", "timeout=0", "-p", "no:cacheprovider", "-p", "tests.faults.recorder"]
    environment = {
        **os.environ,
        RECORD: str(record),
        CPU_LIMIT: str(limit_s),
        "PYTHONPATH": os.pathsep.join([str(tree / "src"), str(tree)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE * limit_s,
            check=False,
        )
        status, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        status, output = None, ""
    notes = [json.loads(line) for line in record.read_text().splitlines()]
    failed = [note for note in notes if note["event"] == "failed"]
    started = [note for note in notes if note["event"] == "started"]
    if status == 0:
        return "", ""
    if status == 1 and failed:
        return failed[0]["test"], failed[0]["failure"]
    if started and (status is None or status == -signal.SIGXCPU):
        return started[-1]["test"], "no end"
    if started and status is not None and status < 0:
        return started[-1]["test"], f"signal {-status}"
    last = output.strip().splitlines()[-1:] or ["no output"]
    raise HarnessError(f"no test ran to a result (exit status {status}): {last[0]}")


def whole_suite(tree: Path) -> list[str]:
    """The kernel tests that judge what the detector passed."""
    found = (tree / "tests/kernels").rglob("test_*.py")
    return sorted(str(path.relative_to(tree)) for path in found if path.name not in LONG)


def check_unchanged(tree: Path, tests: Sequence[str], limit_s: int) -> None:
    """Raise HarnessError unless the unmutated copy at `tree` passes."""
    caught_by, failure = run_tests(tree, tests, limit_s)
    if caught_by:
        raise HarnessError(f"without any mutation {caught_by} fails ({failure}): nothing can be told")


def plant(mutation: Mutation, tree: Path, tests: Sequence[str], limit_s: int) -> Outcome:
    """Plant `mutation` in a copy of `tree` and run `tests` on it.

    Raises MutationError when it does not match once, HarnessError when the mutated copy cannot be tested.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="planted_fault_") as folder:
        copy = Path(folder)
        copy_tree(copy, tree)
        file = mutation.apply(copy)
        try:
            caught_by, failure = run_tests(copy, tests, limit_s)
        except HarnessError as error:
            raise HarnessError(f"mutation {mutation.name}: {error}") from error
    return Outcome(mutation, file, caught_by, failure, time.monotonic() - began)


def detector_of(mutation: Mutation) -> str:
    """The fast tests that look at what the mutation changes."""
    return next((tests for prefix, tests in DETECTORS.items() if mutation.name.startswith(prefix)), DETECTOR)


def plant_all(
    mutations: Sequence[Mutation], *, whole: bool, workers: int = 2, source: Path = ROOT
) -> Iterator[Outcome]:
    """Yield the outcome of each mutation of the tree at `source` as it comes, `workers` children at a time.

    The detector judges all of them; with `whole`, the kernel tests judge what it missed. Either has to pass on the
    unmutated tree first. Raises MutationError before anything runs when one does not match once, HarnessError as
    `check_unchanged` and `plant` do.
    """
    with tempfile.TemporaryDirectory(prefix="planted_faults_") as folder:
        tree = Path(folder)
        copy_tree(tree, source)
        for mutation in mutations:
            mutation.find(tree)
        missed = []
        for detector in dict.fromkeys(map(detector_of, mutations)):
            group = [mutation for mutation in mutations if detector_of(mutation) == detector]
            for outcome in _judge(group, tree, [detector], DETECTOR_LIMIT_S, workers):
                if whole and not outcome.caught:
                    missed.append(outcome.mutation)
                else:
                    yield outcome
        if missed:
            yield from _judge(missed, tree, whole_suite(tree), WHOLE_LIMIT_S, workers)


def _judge(
    mutations: Sequence[Mutation], tree: Path, tests: Sequence[str], limit_s: int, workers: int
) -> Iterator[Outcome]:
    check_unchanged(tree, tests, limit_s)
    with ThreadPoolExecutor(workers) as pool:
        pending = [pool.submit(plant, mutation, tree, tests, limit_s) for mutation in mutations]
        try:
            for done in as_completed(pending):
                yield done.result()
        finally:
            for future in pending:
                future.cancel()
