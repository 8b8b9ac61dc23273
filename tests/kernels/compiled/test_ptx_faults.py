"""Faults planted in compiled code are noticed, as `results/compiled_faults` has it."""

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.compiled.equivalence import read_arguments
from tests.kernels.compiled.ptx_faults import RULES, SUBJECTS, launched_program, notices

RECORD = Path(__file__).resolve().parents[3] / "results" / "compiled_faults" / "faults.csv"
ROWS = list(csv.DictReader(RECORD.open(encoding="utf-8")))
NOTICED = [row for row in ROWS if row["noticed_by"]]
_EACH = 60, 20
"""Of so many faults that are noticed the default tier plants one, and the full tier; all are planted in the run that
`results/compiled_faults` records."""


def test_the_record_has_every_rule_and_subject_and_most_are_noticed() -> None:
    assert {row["subject"] for row in ROWS} == {subject.name for subject in SUBJECTS}
    assert {row["rule"] for row in ROWS} == {rule.name for rule in RULES}
    assert len(NOTICED) >= 40
    for rule in RULES:
        found = [row["noticed_by"] for row in ROWS if row["rule"] == rule.name]
        assert any(found), f"{rule.name} is never noticed"


def test_what_is_not_noticed_is_argued_and_what_is_noticed_is_not() -> None:
    for row in ROWS:
        assert bool(row["noticed_by"]) != bool(row["argument"]), row
    assert {row["argument"] for row in ROWS} == {"", *(argument.name for argument in read_arguments())}


def _parameters() -> list[Any]:
    return [
        pytest.param(
            row,
            marks=[] if number % _EACH[0] == 0 else pytest.mark.full,
            id=f"{row['subject']}-{row['rule']}-{row['place']}",
        )
        for number, row in enumerate(NOTICED)
        if number % _EACH[1] == 0
    ]


@pytest.mark.parametrize("row", _parameters())
def test_what_the_record_says_is_noticed_is_noticed(row: dict[str, str]) -> None:
    subject = next(one for one in SUBJECTS if one.name == row["subject"])
    rule = next(one for one in RULES if one.name == row["rule"])
    original = launched_program(subject)
    planted = list(rule.planted(original.text))[int(row["place"])]
    assert notices(subject, original, planted)
