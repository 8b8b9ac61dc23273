"""Recorded claims say what their rows say: conclusions are worked out anew from results/claims/."""

import subprocess
import sys
from pathlib import Path

import pytest

from tidepool.analysis.claims.frame import claim_names, load_claim
from tidepool.analysis.claims.frame.record import measured_cells, read_table
from tidepool.analysis.claims.frame.section import claim_tables
from tidepool.analysis.claims.frame.showing import chapter, text_of
from tidepool.analysis.report import write_report
from tidepool.records import read_json

RESULTS = Path(__file__).resolve().parents[3] / "results" / "claims"
RECORDED = sorted(path.stem for path in RESULTS.glob("*.csv"))


@pytest.mark.parametrize("name", RECORDED)
def test_the_text_is_what_the_rows_give(name: str) -> None:
    claim, table = load_claim(name), read_table(RESULTS / f"{name}.csv")
    assert (RESULTS / f"{name}.md").read_text(encoding="utf-8") == text_of(claim, claim.conclude(table))


@pytest.mark.parametrize("name", RECORDED)
def test_every_cell_is_recorded_with_its_machine(name: str) -> None:
    assert measured_cells(read_table(RESULTS / f"{name}.csv")) == set(load_claim(name).cells())
    environment = read_json(RESULTS / f"{name}.json") or {}
    assert environment["cells"] == len(load_claim(name).cells())
    assert environment["torch"]
    assert environment["cpu"]
    assert environment["commit"]


def test_a_changed_digit_changes_the_text() -> None:
    claim, table = load_claim("location"), read_table(RESULTS / "location.csv")
    before = text_of(claim, claim.conclude(table))
    table.loc[table["quantity"] == "test_accuracy", "value"] -= 0.01
    assert text_of(claim, claim.conclude(table)) != before


def test_claims_are_named_once_in_the_order_of_the_chapter() -> None:
    places = [load_claim(name).place for name in claim_names()]
    assert places == sorted(set(places))
    assert set(RECORDED) <= set(claim_names())
    assert max(load_claim(name).seconds for name in claim_names()) <= 300


@pytest.mark.full
def test_the_chapter_is_drawn_from_rows_alone_without_torch() -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'triton'): raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from tidepool.analysis.claims.frame import chapter\n"
        f"for one in chapter(Path({str(RESULTS)!r})):\n"
        "    print(one.name, one.figure.svg.count('<svg'), len(one.paragraphs))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == [
        [name, "1", "3"] for name in claim_names() if name in RECORDED
    ]


def test_a_folder_without_claims_has_no_chapter(tmp_path: Path) -> None:
    assert chapter(tmp_path) == []


def test_a_report_shows_the_chapter_beside_records_and_alone(tmp_path: Path) -> None:
    page = write_report([RESULTS], tmp_path / "report").read_text(encoding="utf-8")
    assert "CNNs, claim by claim" in page
    assert "<dt>weight sharing</dt><dd>holds in part" in page
    for name in RECORDED:
        assert load_claim(name).title in page
        assert (tmp_path / "report" / "figures" / f"claim-{name}.svg").is_file()
    assert claim_tables([RESULTS.parent, RESULTS]) == {name: RESULTS / f"{name}.csv" for name in RECORDED}
