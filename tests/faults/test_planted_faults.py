"""The harness plants what it says and the tests catch it: a sample of faults, one for every kernel.

All of them: `python -m tests.faults --out results/planted_faults`, whose record is checked against the list here.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import __main__ as command
from tests.faults.__main__ import main
from tests.faults.harness import (
    DETECTOR,
    DETECTOR_LIMIT_S,
    ROOT,
    HarnessError,
    Outcome,
    check_unchanged,
    copy_tree,
    plant,
    plant_all,
    run_tests,
)
from tests.faults.mutation import Mutation, MutationError
from tests.faults.mutations import MUTATIONS, SAMPLE
from tests.faults.record import write_csv, write_table

KERNEL_FILES = sorted(
    p.name for p in (ROOT / "kernels").glob("*.py") if "tl.load" in p.read_text() or "@triton.jit" in p.read_text()
)
LAST = MUTATIONS[-1]


def contents(tree: Path) -> dict[str, bytes]:
    """Every file of a tree."""
    return {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_text_matches_exactly_once(mutation: Mutation) -> None:
    mutation.find((ROOT / mutation.path).read_text(encoding="utf-8"))


def test_names_are_unique_and_every_kernel_file_has_three() -> None:
    assert max(Counter(mutation.name for mutation in MUTATIONS).values()) == 1
    count = Counter(mutation.file for mutation in MUTATIONS)
    assert len(KERNEL_FILES) == 20
    assert all(count[file] >= 3 for file in KERNEL_FILES), count


def test_a_fault_in_every_kernel_is_caught_and_the_tree_stays_as_it_was(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    before = contents(tmp_path)
    sample = [mutation for mutation in MUTATIONS if mutation.name in SAMPLE]
    assert len(sample) == len(SAMPLE)
    outcomes = list(plant_all(sample, whole=False, source=tmp_path))
    assert {outcome.mutation.name for outcome in outcomes} == set(SAMPLE)
    assert [outcome.mutation.name for outcome in outcomes if not outcome.caught] == []
    assert {outcome.failure for outcome in outcomes} == {"AssertionError"}
    assert contents(tmp_path) == before


def test_published_record_shows_every_one_of_the_list_caught() -> None:
    path = ROOT / "results/planted_faults/mutations.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(row["caught"] == "1" and row["caught_by"] for row in rows)
    recorded = [(row["mutation"], row["file"], row["old"], row["new"]) for row in rows]
    assert recorded == [(m.name, m.path, m.old, m.new) for m in MUTATIONS]


def test_text_that_matches_not_once_is_refused(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    gone = Mutation("gone", "pooling.py", "bounds", "no such line", "anything")
    with pytest.raises(
        MutationError, match=r"gone: 'no such line' occurs 0 times in kernels/pooling\.py, expected once"
    ):
        gone.apply(tmp_path)
    ambiguous = Mutation("ambiguous", "geometry.py", "bounds", "return", "return 1 +")
    with pytest.raises(MutationError, match=r"ambiguous: 'return' occurs \d\d+ times"):
        ambiguous.apply(tmp_path)
    with pytest.raises(MutationError, match="defines no function absent"):
        Mutation("lost", "geometry.py", "bounds", "return", "return 1 +", "absent").apply(tmp_path)


def test_function_narrows_the_search(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    old = "- dilation * (kernel - 1)"
    Mutation("narrow", "geometry.py", "dilation", old, "- kernel", "conv_output_size").apply(tmp_path)
    changed = (tmp_path / "kernels/geometry.py").read_text()
    assert changed == (ROOT / "kernels/geometry.py").read_text().replace(old, "- kernel")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A copy whose kernels are an empty package, which starts fast."""
    copy_tree(tmp_path)
    (tmp_path / "kernels/__init__.py").write_text("")
    return tmp_path


def write_test(tree: Path, body: str) -> str:
    """A module of two tests, the second with that body; returns its path."""
    text = f"import os, time\ndef test_fine(): pass\ndef test_bad(): {body}\n"
    (tree / "tests/test_child.py").write_text(text)
    return "tests/test_child.py"


@pytest.mark.parametrize(
    ("body", "caught_by", "failure"),
    [
        ("pass", "", ""),
        ("assert 1 == 2", "test_bad", "AssertionError"),
        ("1 // 0", "test_bad", "ZeroDivisionError"),
        ("os.abort()", "test_bad", "signal 6"),
        ("time.sleep(99)", "test_bad", "no end"),
    ],
    ids=["passes", "fails", "raises", "crashes", "hangs"],
)
def test_what_a_child_saw_is_told(body: str, caught_by: str, failure: str, toy: Path) -> None:
    found = run_tests(toy, [write_test(toy, body)], limit_s=10)
    assert found == (f"tests/test_child.py::{caught_by}" if caught_by else "", failure)


def test_a_copy_that_cannot_be_tested_is_no_catch(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    nonsense = Mutation("nonsense", "pooling.py", "bounds", "class MaxPool(_Pooling):", "class MaxPool(_Pooling)")
    with pytest.raises(HarnessError, match="mutation nonsense: no test ran to a result"):
        plant(nonsense, tmp_path, [DETECTOR], DETECTOR_LIMIT_S)


def test_an_unchanged_tree_that_fails_is_refused(toy: Path) -> None:
    child = write_test(toy, "assert False")
    with pytest.raises(HarnessError, match=r"without any mutation tests/test_child\.py::test_bad fails \(Assert"):
        check_unchanged(toy, [child], limit_s=60)


def test_record_holds_every_row_and_escapes_bars(tmp_path: Path) -> None:
    mutation = Mutation("nan", "window_functions.py", "NaN", "a | b", "a, b")
    write_csv(
        tmp_path / "m.csv",
        [Outcome(mutation, "tests/x.py::test_y", "AssertionError", 1.25), Outcome(LAST, "", "", 2.0)],
    )
    write_table(tmp_path / "m.csv", tmp_path / "m.md")
    header, first, second = (tmp_path / "m.csv").read_text().splitlines()
    assert header == "schema_version,mutation,file,kind,old,new,caught,caught_by,failure,seconds"
    assert first == '1,nan,kernels/window_functions.py,NaN,a | b,"a, b",1,tests/x.py::test_y,AssertionError,1.2'
    assert second.endswith(",0,,,2.0")
    table = (tmp_path / "m.md").read_text()
    assert "1 of 2 one-line mutations of the kernels were caught" in table
    assert r"| nan | NaN | `a \| b` | `a, b` | `tests/x.py::test_y` (AssertionError) |" in table
    assert "**survived**" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "--only nothing: no such mutation"),
        (["--workers", "0"], "--workers 0: expected 1 or more"),
    ],
    ids=["unknown name", "no workers"],
)
def test_bad_arguments_are_one_line_and_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


def test_outcomes_of_a_run_that_breaks_off_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(mutations: Any, **_: Any) -> Iterator[Outcome]:
        yield Outcome(mutations[0], "tests/x.py::test_y", "AssertionError", 1.0)
        raise HarnessError("without any mutation tests/x.py::test_z fails")

    monkeypatch.setattr(command, "plant_all", break_off)
    assert main(["--out", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["unfinished.csv"]
    (row,) = csv.DictReader((tmp_path / "unfinished.csv").open(newline=""))
    assert (row["mutation"], row["caught_by"]) == (MUTATIONS[0].name, "tests/x.py::test_y")


def test_list_names_every_mutation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines] == [mutation.name for mutation in MUTATIONS]
