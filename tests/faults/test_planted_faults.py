"""The harness plants what it says and the tests catch it: a sample of faults.

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
from tests.faults.mutation import Mutation
from tests.faults.mutations import MUTATIONS, SAMPLE
from tests.faults.record import read_rows, row, write_csv, write_table

KERNEL_FILES = sorted(
    str(p.relative_to(ROOT))
    for p in (ROOT / "kernels").rglob("*.py")
    if "tl.load" in p.read_text() or "@kernel" in p.read_text()
)
LAST = MUTATIONS[-1]


def mutation(name: str, function: str, old: str, new: str, within: str = "") -> Mutation:
    """One of no list."""
    return Mutation(name=name, function=function, kind="bounds", old=old, new=new, within=within)


def contents(tree: Path) -> dict[str, bytes]:
    """Every file of a tree."""
    return {str(p.relative_to(tree)): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


@pytest.mark.parametrize("fault", MUTATIONS, ids=lambda fault: fault.name)
def test_found_exactly_once(fault: Mutation) -> None:
    fault.find(ROOT)


def test_names_are_unique_and_every_kernel_file_has_three() -> None:
    assert max(Counter(mutation.name for mutation in MUTATIONS).values()) == 1
    count = Counter(mutation.find(ROOT).path for mutation in MUTATIONS)
    assert len(KERNEL_FILES) == 21
    assert all(count[file] >= 3 for file in KERNEL_FILES), count


@pytest.mark.full
def test_a_sample_of_faults_is_caught_and_the_tree_stays_as_it_was(tmp_path: Path) -> None:
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
    recorded = [tuple(row[column] for column in ("mutation", "function", "old", "new", "within")) for row in rows]
    assert recorded == [(m.name, m.function, m.old, m.new, m.within) for m in MUTATIONS]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A copy whose kernels are an empty package, which starts fast."""
    copy_tree(tmp_path)
    (tmp_path / "kernels/__init__.py").write_text("")
    return tmp_path


def write_test(tree: Path, body: str) -> str:
    """A module of two tests, the second with that body; returns its path."""
    text = f"import os\ndef test_fine(): pass\ndef test_bad(): {body}\n"
    (tree / "tests/test_child.py").write_text(text)
    return "tests/test_child.py"


@pytest.mark.full
@pytest.mark.parametrize(
    ("body", "caught_by", "failure"),
    [
        ("pass", "", ""),
        ("assert 1 == 2", "test_bad", "AssertionError"),
        ("1 // 0", "test_bad", "ZeroDivisionError"),
        ("os.abort()", "test_bad", "signal 6"),
        ("all(x == 0 for x in iter(int, 1))", "test_bad", "no end"),
    ],
    ids=["passes", "fails", "raises", "crashes", "hangs"],
)
def test_what_a_child_saw_is_told(body: str, caught_by: str, failure: str, toy: Path) -> None:
    found = run_tests(toy, [write_test(toy, body)], limit_s=10)
    assert found == (f"tests/test_child.py::{caught_by}" if caught_by else "", failure)


@pytest.mark.full
def test_a_copy_that_cannot_be_tested_is_no_catch(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    nonsense = mutation("nonsense", "MAX_BYTE_CODES", "254", "no_such_name")
    with pytest.raises(HarnessError, match="mutation nonsense: no test ran to a result"):
        plant(nonsense, tmp_path, [DETECTOR], DETECTOR_LIMIT_S)


@pytest.mark.full
def test_an_unchanged_tree_that_fails_is_refused(toy: Path) -> None:
    child = write_test(toy, "assert False")
    with pytest.raises(HarnessError, match=r"without any mutation tests/test_child\.py::test_bad fails \(Assert"):
        check_unchanged(toy, [child], limit_s=60)


def test_record_holds_every_row_and_escapes_bars(tmp_path: Path) -> None:
    nan = mutation("nan", "fold", "a | b", "a, b", "c = _")
    write_csv(
        tmp_path / "m.csv",
        [
            row(Outcome(nan, "kernels/f.py", "tests/x.py::test_y", "AssertionError", 1.25), "abc"),
            row(Outcome(LAST, "g.py", "", "", 2.0), None),
        ],
    )
    write_table(tmp_path / "m.csv", tmp_path / "m.md")
    header, first, second = (tmp_path / "m.csv").read_text().splitlines()
    assert header == "schema_version,mutation,file,function,kind,old,new,within,caught,caught_by,failure,seconds,commit"
    assert first == '1,nan,kernels/f.py,fold,bounds,a | b,"a, b",c = _,1,tests/x.py::test_y,AssertionError,1.2,abc'
    assert second.endswith(",0,,,2.0,")
    table = (tmp_path / "m.md").read_text()
    assert "1 of 2 mutations of the kernels were caught" in table
    assert (
        r"| nan | `fold` | bounds | `a \| b` within `c = _` | `a, b` | `tests/x.py::test_y` (AssertionError) |" in table
    )
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
        yield Outcome(mutations[0], "kernels/x.py", "tests/x.py::test_y", "AssertionError", 1.0)
        raise HarnessError("without any mutation tests/x.py::test_z fails")

    monkeypatch.setattr(command, "plant_all", break_off)
    assert main(["--out", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["unfinished.csv"]
    (found,) = csv.DictReader((tmp_path / "unfinished.csv").open(newline=""))
    assert (found["mutation"], found["caught_by"]) == (MUTATIONS[0].name, "tests/x.py::test_y")


def test_named_faults_replace_their_rows_of_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def survive(mutations: Any, **_: Any) -> Iterator[Outcome]:
        return iter([Outcome(mutation, "f.py", "", "", 1.0) for mutation in mutations])

    caught = [row(Outcome(m, "f.py", "tests/x.py::test_y", "AssertionError", 1.0), "old") for m in MUTATIONS[:3]]
    write_csv(tmp_path / "mutations.csv", caught)
    monkeypatch.setattr(command, "plant_all", survive)
    assert main(["--only", MUTATIONS[1].name, "--out", str(tmp_path)]) == 1
    rows = read_rows(tmp_path / "mutations.csv")
    assert [(name, found["caught"]) for name, found in rows.items()] == [
        (m.name, state) for m, state in zip(MUTATIONS, "101", strict=False)
    ]
    assert [found["commit"] == "old" for found in rows.values()] == [True, False, True]


def test_list_names_every_mutation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines] == [mutation.name for mutation in MUTATIONS]
