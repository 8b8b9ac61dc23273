"""The frame of claims: pictures as text, rows cell by cell, resuming, the command's answers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.claims.frame import program
from tidepool.analysis.claims.frame.claim import Claim, Measurement, MissingDataError, Verdict
from tidepool.analysis.claims.frame.pictures import decode, encode
from tidepool.analysis.claims.frame.record import append_cell, measured_cells, read_table
from tidepool.analysis.claims.frame.samples import above, by_seed, percent, points, within
from tidepool.records import RecordError


def test_a_picture_comes_back_in_256_levels() -> None:
    image = np.array([[0.0, 1.0, 0.5], [-1.0, 2.0, 1.0]])
    assert decode(encode(image, low=0, high=1)).tolist() == [[0, 255, 128], [0, 255, 255]]
    assert decode(encode(np.zeros((2, 2, 3)))).shape == (2, 2, 3)


def test_rows_come_back_and_another_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    append_cell(path, "a, b", 0, [Measurement("loss", 1 / 3, 2), Measurement("count", 7.0)])
    append_cell(path, "a, b", 1, [Measurement("loss", float("nan"), 2)])
    table = read_table(path)
    assert measured_cells(table) == {("a, b", 0), ("a, b", 1)}
    assert by_seed(table, "a, b", "count") == {0: 7.0}
    assert table["value"].isna().tolist() == [False, False, True]
    path.write_text("case,seed\n")
    with pytest.raises(
        RecordError, match=r"x\.csv: cannot be read as a claim's rows \(columns case, seed; expected case"
    ):
        read_table(path)


def test_differences_are_paired_by_seed() -> None:
    a, b = {0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.4, 1: 0.61, 2: 0.79}
    assert above(a, b)
    assert not above(a, b, 0.2)
    assert not above(b, a)
    assert points(a, b) == "+10.0 [+7.5, +12.5] points"
    assert within(a, b, 0.2)
    assert not within(a, b, 0.1)
    assert percent({0: 1.0, 1: 0.9}) == "95.0 [31.5, 100.0] %"


def _claim(calls: list[tuple[str, int]], stop_at: tuple[str, int] | None = None) -> Claim:
    def measure(case: str, seed: int) -> list[Measurement]:
        if (case, seed) == stop_at:
            raise KeyboardInterrupt
        if case == "no data":
            raise MissingDataError("needs a folder")
        calls.append((case, seed))
        return [Measurement("value", seed)]

    return Claim(
        place=1, title="T.", question="Q?", control="c.", anchor="a.", limits="l.", seconds=61, caption="",
        cases=("one", "two", "no data"), measure=measure, fewer_seeds={"two": 1},
        conclude=lambda table: Verdict("undecided", f"{len(table)} rows."), draw=lambda table: Canvas(),
    )  # fmt: skip


def test_a_stopped_run_goes_on_behind_its_last_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(program, "claim_names", lambda: ("t",))
    monkeypatch.setattr("tidepool.analysis.claims.frame.showing.load_claim", lambda _: _claim(calls))
    monkeypatch.setattr(program, "load_claim", lambda _: _claim(calls, stop_at=("one", 1)))
    with pytest.raises(KeyboardInterrupt):
        program.main(["t", "--out", str(tmp_path)])
    monkeypatch.setattr(program, "load_claim", lambda _: _claim(calls))
    assert program.main(["t", "--out", str(tmp_path), "--seeds", "3"]) == 0
    assert calls == [("one", 0), ("two", 0), ("one", 1), ("one", 2)]
    assert "no data: left out: needs a folder" in capsys.readouterr().err
    assert "the claim undecided. 4 rows." in (tmp_path / "t.md").read_text()
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".json", ".md", ".svg", ".png"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "no claim 'nothing'; expected one of: parameter_count, "),
        ([], "no claim given; expected one of: parameter_count, "),
        (["location", "--seeds", "1"], "--seeds 1: expected at least 2"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = program.main(arguments)
    except SystemExit as stop:
        code = int(str(stop.code))
    error = capsys.readouterr().err
    assert code == 2
    assert said in error
    assert error.count("\n") == 1


def test_the_list_names_every_claim_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(program.claim_names())
    assert lines[0].startswith("parameter_count")
    assert "min" in lines[0]


def test_an_empty_table_has_the_columns(tmp_path: Path) -> None:
    assert isinstance(read_table(tmp_path / "none.csv"), pd.DataFrame)
    assert read_table(tmp_path / "none.csv").empty
