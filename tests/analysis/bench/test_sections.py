"""Reports, terminal text and README blocks of bench.py's measurements."""

from pathlib import Path

import pytest

from tests.analysis.bench.bench_writer import write_cases, write_host_cost, write_predictions, write_timings
from tests.analysis.runs.run_writer import write_run
from tidepool.analysis import readme
from tidepool.analysis.report import comparison_text, main, write_report
from tidepool.records import RecordError


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "kernel_speed"
    write_cases(folder)
    write_timings(folder)
    write_host_cost(tmp_path / "results" / "host_cost")
    write_predictions(tmp_path / "results" / "predictions")
    return folder


def test_a_report_of_measurements_alone(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", "--out", "report"]) == 0
    assert capsys.readouterr().out == "3 folders of measurements -> report/report.html\n"
    html = (tmp_path / "report" / "report.html").read_text()
    for section in ("kernel-speed", "roofline", "memory", "cases", "host-cost", "predictions", "rebuild"):
        assert f'<section id="{section}">' in html
    assert "least 0.833 (third_b8)" in html
    names = {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    assert names == {f"{stem}.{kind}" for stem in ("kernel_speed", "kernel_speed_means", "host_time", "predicted")
                     for kind in ("csv", "md")}  # fmt: skip
    figures = sorted(path.name for path in (tmp_path / "report" / "figures").iterdir())
    assert len(figures) == 10  # SVG and PNG
    before = html
    assert write_report(["results"], "report").read_text().replace("--out report", "") == before.replace(
        "--out report", ""
    )


def test_runs_and_measurements_share_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "one", steps=2)
    write_host_cost(tmp_path / "results" / "host_cost")
    html = write_report(["runs", "results"], "both").read_text()
    assert '<section id="accuracy">' in html
    assert '<section id="host-cost">' in html
    text = comparison_text(["runs", "results"])
    assert "Test accuracy" in text
    assert "0.91 [" in text


def test_nothing_at_all_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="no run records found"):
        write_report([tmp_path / "empty"], tmp_path / "report")


def _block(tmp_path: Path, name: str) -> str:
    page = tmp_path / "README.md"
    page.write_text(f"before\n<!-- results: {name} -->\n<!-- end results -->\nafter\n")
    assert readme.write(page) == 1
    assert readme.check(page) == []
    return page.read_text()


def test_the_readmes_speed_block_follows_the_measurements(measured: Path, tmp_path: Path) -> None:
    text = _block(tmp_path, "kernel_speed")
    assert "| blocks | one | 2 | 3.00 [no spread] | 2.00 [no spread] | 1.60 [no spread] | 1.25 [no spread] |" in text
    assert "0.833 (third_b8) | 0.500 |" in text
    assert "Test GPU 80GB, bf16; 3 processes; commit 0123456789ab" in text
    (measured / "timings.csv").unlink()
    assert readme.check(tmp_path / "README.md") != []
    text = _block(tmp_path, "kernel_speed")
    assert "| blocks | all | 3 | not measured | not measured | not measured | not measured |" in text
    assert "nothing has been timed yet" in text


def test_readme_blocks_of_host_time_and_predictions(measured: Path, tmp_path: Path) -> None:
    host = _block(tmp_path, "host_cost")
    assert "| this project, launches stubbed | 77.5 | 76.0–80.0 |" in host
    predicted = _block(tmp_path, "predictions")
    assert "assumptions, not measurements" in predicted
    assert "| first_b64 | 700 | 1,700 | 7,600 | 0.225 |" in predicted


def test_a_folder_without_measurements_is_refused(measured: Path, tmp_path: Path) -> None:
    (tmp_path / "results" / "other").mkdir()
    page = tmp_path / "README.md"
    page.write_text("<!-- results: other -->\n<!-- end results -->\n")
    with pytest.raises(RecordError, match=r"no measurements of bench\.py"):
        readme.check(page)
    page.write_text("<!-- results: kernel_speed columns=a -->\n<!-- end results -->\n")
    with pytest.raises(RecordError, match="columns= goes with a table"):
        readme.check(page)
