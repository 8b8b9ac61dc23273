"""Digits changed in README.md and results/, and rows changed together with their hash: each is noticed."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from pathlib import Path

import pytest

from tidepool.analysis.evidence import MANIFEST, evidence_problems, seal, sealed_files
from tidepool.analysis.prose import evaluate
from tidepool.analysis.readme import differences, main
from tidepool.records import RecordError

ROOT = Path(__file__).resolve().parents[2]
CHANGES = 100


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of README.md and results/, which is the working directory."""
    shutil.copytree(ROOT / "results", tmp_path / "results")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noticed() -> str:
    """What is found first; empty where nothing is."""
    try:
        return next(differences([Path("README.md"), Path("results/README.md")]), "")
    except RecordError as error:
        return str(error)


def change_a_digit(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    place = rng.choice([index for index, byte in enumerate(content) if chr(byte).isdigit()])
    content[place] = ord(rng.choice([digit for digit in "0123456789" if ord(digit) != content[place]]))
    path.write_bytes(content)


def with_digits(names: list[str]) -> list[Path]:
    return [Path("results", name) for name in names if re.search(rb"\d", Path("results", name).read_bytes())]


def test_each_of_a_hundred_changed_digits_is_noticed(copy: Path) -> None:
    assert noticed() == ""
    rng = random.Random(16)
    pages = [Path("README.md"), Path("results/README.md")]
    records = [*with_digits(sealed_files(Path("results"))), Path("results", MANIFEST)]
    for path in [*pages * 8, *rng.choices(records, k=CHANGES - 16)]:
        before = path.read_bytes()
        change_a_digit(path, rng)
        assert noticed(), path
        path.write_bytes(before)


@pytest.mark.parametrize(
    "name", ["predictions/predictions.csv", "senses_digits/runs.csv", "quickstart/runs.parquet", "numbers.json"]
)
def test_a_row_changed_together_with_its_hashes_is_noticed(copy: Path, name: str) -> None:
    path = Path("results", name)
    change_a_digit(path, random.Random(3))
    if path.suffix == ".parquet":
        hash_again(path.parent / MANIFEST, path)
        hash_again(Path("results", MANIFEST), path.parent / MANIFEST)
    hash_again(Path("results", MANIFEST), path)
    assert list(evidence_problems(Path("results"))) == []
    assert noticed()


def hash_again(manifest: Path, path: Path) -> None:
    """Make a manifest agree with a file that changed."""
    record = json.loads(manifest.read_text())
    entry = record["files"][path.relative_to(manifest.parent).as_posix()]
    entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def test_a_file_added_or_gone_is_noticed(copy: Path) -> None:
    Path("results/more.csv").write_text("a\n1\n")
    assert noticed() == "results/more.csv: not in manifest.json; `tidepool readme --write` takes it in"
    Path("results/more.csv").unlink()
    Path("results", MANIFEST).unlink()
    assert "manifest.json: no such file" in noticed()


def test_a_line_of_prose_added_or_gone_is_noticed(copy: Path) -> None:
    text = Path("README.md").read_text()
    Path("README.md").write_text(text + "\nIt is 3.7 times as fast.\n")
    assert "numbers not in numbers.json" in noticed()
    lines = text.split("\n")
    lines.remove(next(line for line in lines if "two minutes" not in line and re.search(r"\d", line)))
    Path("README.md").write_text("\n".join(lines))
    assert "is gone that numbers.json has" in noticed()


def test_write_takes_in_new_files_and_appended_rows_and_refuses_changed_ones(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Path("results/host_cost/host_cost.csv")
    table.write_text(table.read_text() + table.read_text().splitlines()[-1] + "\n")
    assert seal(Path("results")) == 1
    table.write_text(table.read_text().replace("76", "67"))
    assert main(["--write"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tidepool readme: results/host_cost/host_cost.csv: recorded rows changed or are gone")
    assert main(["--write", "--rewritten", "measured again"]) == 0
    assert json.loads(Path("results", MANIFEST).read_text())["rewritten"][-1]["reason"] == "measured again"
    assert noticed() == ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [("t.csv.n.sum", "1,234"), ("t.csv[k=a].n.value", "1,000"), ("t.csv[n>100,k=b].n.count", "1"),
     ("t.csv[k=b].n.max", "200"), ("t.csv.x.min", "0.125")],
)  # fmt: skip
def test_a_number_is_worked_out_from_rows(tmp_path: Path, source: str, expected: str) -> None:
    (tmp_path / "t.csv").write_text("k,n,x\na,1000,0.5\nb,34,0.125\nb,200,3\n")
    assert evaluate(source, tmp_path) == expected


@pytest.mark.parametrize(
    "source", ["t.csv", "t.csv.n.mean", "t.csv.z.sum", "t.csv.n.value", "t.csv[n].n.sum", "u.csv.n.sum"]
)
def test_a_source_that_is_none_is_one_line(tmp_path: Path, source: str) -> None:
    (tmp_path / "t.csv").write_text("k,n\na,1000\nb,34\n")
    with pytest.raises(RecordError):
        evaluate(source, tmp_path)
