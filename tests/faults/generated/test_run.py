"""A run judges what it says, goes on where kill -9 stopped it, and writes what it found."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.generated import __main__ as command
from tests.faults.generated.__main__ import main
from tests.faults.generated.mutants import Mutant, all_mutants, in_order, mutants_of
from tests.faults.generated.reach import BUDGET_S, Reach
from tests.faults.generated.record import known_rows, read_csv, rule_rows, unexplained, wilson
from tests.faults.generated.trial import SUITES, Verdict, Worker
from tests.faults.harness import ROOT, HarnessError, copy_tree
from tidepool.records import MetricsWriter

TOY = """\
def kernel(function):
    return function


@kernel
def doubled(x):
    if x > 100:
        return x * 3
    while x < 0:
        x += 1
    return x * 2
"""
TESTS = "from tidepool.kernels.toy import doubled\n\ndef test_small(): assert doubled(1) == 2\n"
PATIENT = "def test_patient(pytestconfig): assert float(pytestconfig.getini('timeout')) == 0\n"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker on a tree whose kernels are one small function."""
    tree = tmp_path_factory.mktemp("toy")
    copy_tree(tree)
    (tree / "kernels/__init__.py").write_text("")
    (tree / "kernels/toy.py").write_text(TOY)
    (tree / "tests/kernels/test_toy.py").write_text(TESTS)
    (tree / "tests/kernels/test_broken.py").write_text(f"{TESTS.replace('== 2', '== 3')}")
    (tree / "tests/kernels/test_patient.py").write_text(PATIENT)
    (tree / "tests/kernels/conftest.py").unlink()
    with Worker(tree) as started:
        yield started


def toy_mutant(old: str, new: str) -> Mutant:
    (found,) = [m for m in mutants_of(TOY, "kernels/toy.py") if (m.old, m.edit.text) == (old, new)]
    return found


def test_reach_is_the_lines_that_a_test_ran(worker: Worker) -> None:
    (note,) = worker.reach("tests/kernels/test_toy.py")
    assert note["test"] == "tests/kernels/test_toy.py::test_small"
    assert note["lines"] == {"kernels/toy.py": [7, 9, 11]}


@pytest.mark.full
def test_a_tree_that_fails_unchanged_is_refused(worker: Worker) -> None:
    with pytest.raises(HarnessError, match=r"without any mutation .*test_broken\.py::test_small fails"):
        worker.reach("tests/kernels/test_broken.py")


@pytest.mark.full
def test_the_clock_ends_no_test(worker: Worker) -> None:
    """On a busy machine, traced, a test took more than the five minutes that the project's own options leave it."""
    (note,) = worker.reach("tests/kernels/test_patient.py")
    assert note["passed"]


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ("x * 2", "(x + 2)", Verdict("tests/kernels/test_toy.py::test_small", "AssertionError")),
        ("x > 100", "(x >= 100)", Verdict("", "")),
    ],
    ids=["killed", "survived"],
)
def test_a_mutant_is_judged_and_the_file_put_back(worker: Worker, old: str, new: str, verdict: Verdict) -> None:
    before = (worker.tree / "kernels/toy.py").stat()
    assert worker.judge(toy_mutant(old, new), ["tests/kernels/test_toy.py"]) == verdict
    assert (worker.tree / "kernels/toy.py").read_text() == TOY
    assert (worker.tree / "kernels/toy.py").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.full
def test_what_cannot_be_tested_is_no_catch(worker: Worker) -> None:
    verdict = worker.judge(toy_mutant("x * 2", "(x + 2)"), ["tests/kernels/test_gone.py"])
    assert (verdict.caught_by, verdict.tested) == ("", False)


def test_tests_of_a_mutant_are_those_that_run_its_line() -> None:
    notes = [
        {"test": "tests/faults/test_a.py::slow", "seconds": 99, "lines": {"kernels/toy.py": [7, 11]}},
        {"test": "tests/faults/test_a.py::quick", "seconds": 1, "lines": {"kernels/toy.py": [11]}},
        {"test": "tests/faults/test_a.py::elsewhere", "seconds": 1, "lines": {"kernels/other.py": [11]}},
        *({"test": f"tests/b.py::{n}", "seconds": 1 + n, "lines": {"kernels/toy.py": [11]}} for n in range(9)),
        *({"test": f"tests/c.py::{n}", "seconds": 2 + n, "lines": {"kernels/toy.py": [11]}} for n in range(9)),
    ]
    made = ["tests/faults/test_a.py::quick", "tests/faults/test_a.py::slow"]
    others = [f"tests/{suite}.py::{number}" for number in range(4) for suite in "bc"]
    assert BUDGET_S == 30  # of which 1 + 2 + 2 + 3 + 3 + 4 + 4 + 5 leave 6
    assert Reach(notes).tests(toy_mutant("x * 2", "(x + 2)")) == [*made, *others, "tests/b.py::4"]
    assert Reach(notes).tests(toy_mutant("x += 1", "pass")) == []


def test_a_place_that_one_long_test_alone_runs_is_tried_by_it() -> None:
    notes = [{"test": "tests/b.py::long", "seconds": 10 * BUDGET_S, "lines": {"kernels/toy.py": [11]}}]
    assert Reach(notes).tests(toy_mutant("x * 2", "(x + 2)")) == ["tests/b.py::long"]


class Pretending:
    """A worker that runs nothing: every mutant of a name with an even first digit is caught."""

    judged = 0

    def __init__(self, _: Path) -> None:
        pass

    def __enter__(self) -> "Pretending":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def reach(self, suite: str) -> list[dict[str, Any]]:
        """One test, which runs every line of every file."""
        files = {mutant.file for mutant in all_mutants(ROOT)}
        lines = {file: list(range(500)) for file in files}
        return (
            [{"test": f"{suite}::test", "seconds": 1.0, "passed": True, "lines": lines}] if suite == SUITES[0] else []
        )

    def judge(self, mutant: Mutant, tests: list[str]) -> Verdict:
        """What its name says."""
        Pretending.judged += 1
        return Verdict(tests[0], "AssertionError") if int(mutant.name[0], 16) % 2 == 0 else Verdict("", "")


class Dying(MetricsWriter):
    """Writes seven rows and then kills the process as `kill -9` does."""

    written = 0

    def write(self, row: Mapping[str, Any]) -> None:
        """Write, or die."""
        if self.written == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        self.written += 1
        super().write(row)


DIES = """\
import sys
from tests.faults.generated import __main__ as command, test_run
command.Worker, command.MetricsWriter = test_run.Pretending, test_run.Dying
command.main(["--count", "20", "--workers", "1", "--out", sys.argv[1]])
"""


def columns(folder: Path) -> list[tuple[str, ...]]:
    """The rows of a record without times."""
    return [(row["mutant"], row["outcome"], row["caught_by"]) for row in read_csv(folder / "mutants.csv")]


def test_goes_on_after_kill_9_and_to_a_larger_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    dies = [sys.executable, "-c", DIES, str(stopped)]
    done = subprocess.run(dies, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(known_rows(stopped)) == 7
    with (stopped / "unfinished.jsonl").open("a") as file:
        file.write('{"mutant": "cut sh')
    monkeypatch.setattr(command, "Worker", Pretending)
    monkeypatch.setattr(Pretending, "judged", 0)
    for count, judged in (("20", 13), ("20", 13), ("25", 18)):
        main(["--count", count, "--out", str(stopped)])
        assert Pretending.judged == judged
    main(["--count", "25", "--out", str(whole)])
    assert columns(stopped) == columns(whole)
    assert sorted(path.name for path in stopped.iterdir()) == [
        "environment.json",
        "mutants.csv",
        "mutants.md",
        "rules.csv",
    ]


def test_again_tries_those_that_lived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "Worker", Pretending)
    main(["--count", "20", "--out", str(tmp_path)])
    lived = sum(outcome == "survived" for _, outcome, _ in columns(tmp_path))
    monkeypatch.setattr(Pretending, "judged", 0)
    main(["--count", "20", "--again", "--out", str(tmp_path)])
    assert 0 < Pretending.judged == lived < 20


def test_a_folder_of_another_seed_or_of_other_kernels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "Worker", Pretending)
    main(["--count", "3", "--out", str(tmp_path)])
    assert main(["--seed", "1", "--count", "3", "--out", str(tmp_path)]) == 2
    assert "holds mutants of seed 0, expected 1" in capsys.readouterr().err
    environment = json.loads((tmp_path / "environment.json").read_text())
    (tmp_path / "environment.json").write_text(json.dumps(environment | {"kernels": "other"}))
    assert main(["--count", "3", "--out", str(tmp_path)]) == 2
    assert "holds mutants of kernels other" in capsys.readouterr().err


def test_every_survivor_is_on_the_page_and_in_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "Worker", Pretending)
    assert main(["--count", "30", "--out", str(tmp_path)]) == 1
    rows = read_csv(tmp_path / "mutants.csv")
    lived = [row for row in rows if row["outcome"] == "survived"]
    page, told = (tmp_path / "mutants.md").read_text(), capsys.readouterr().out
    assert lived
    for row in lived:
        assert f"| {row['file'].removeprefix('kernels/')}:{row['line']} | `{row['function']}` | {row['rule']} |" in page
        line = f"{row['file']}:{row['line']} {row['rule']}: {row['old']} -> {row['new']}"
        assert (line in told) == (not row["argument"])
    assert [row["mutant"] for row in rows] == [m.name for m in in_order(all_mutants(ROOT), 0)[:30]]


def found(rule: str, outcome: str, argument: str = "") -> dict[str, Any]:
    return {"rule": rule, "outcome": outcome, "argument": argument, "failure": "AssertionError"}


def test_rates_leave_out_what_is_argued_and_what_was_not_tested() -> None:
    rows = [
        *[found("sum_sign", "killed")] * 8,
        found("sum_sign", "survived"),
        found("sum_sign", "not reached"),
        found("sum_sign", "survived", "argued"),
        found("sum_sign", "not tested"),
        found("axis_wrong", "killed"),
    ]
    by_rule = {row["rule"]: row for row in rule_rows(rows, Counter(sum_sign=40, axis_wrong=2))}
    assert (by_rule["sum_sign"]["tried"], by_rule["sum_sign"]["kill_rate_percent"]) == (12, "80.0")
    assert (by_rule["sum_sign"]["low_percent"], by_rule["sum_sign"]["high_percent"]) == ("49.0", "94.3")
    assert (by_rule["all"]["places"], by_rule["all"]["killed"]) == (42, 9)
    assert by_rule["term_dropped"]["kill_rate_percent"] == ""


def test_unexplained_is_what_lived_without_an_argument_or_was_caught_with_one() -> None:
    rows = [
        found("axis_wrong", "killed"),
        found("axis_wrong", "killed", "argued"),
        found("axis_wrong", "survived"),
        found("axis_wrong", "not reached", "argued"),
        found("axis_wrong", "not tested"),
    ]
    assert unexplained(rows) == rows[1:3]


def test_wilson_is_the_score_interval() -> None:
    assert wilson(0, 0) == (0, 1)
    assert wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson(20, 20) == pytest.approx((0.838875, 1), abs=1e-6)


@pytest.mark.parametrize("flag", ["--count", "--workers"])
def test_bad_numbers_are_one_line_and_exit_2(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--out", str(tmp_path), flag, "0"])
    assert ended.value.code == 2
    assert f"{flag} 0: expected 1 or more" in capsys.readouterr().err
