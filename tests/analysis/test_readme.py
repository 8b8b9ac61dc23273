"""The README's blocks against the records: what is generated, what is found different, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.analysis.runs.run_writer import write_json, write_run, write_sweep
from tidepool.analysis.readme import check, find_blocks, main, write
from tidepool.analysis.report import main as report_main
from tidepool.analysis.runs.networks import networks_table
from tidepool.analysis.runs.recording import record
from tidepool.analysis.runs.records import read_records
from tidepool.analysis.runs.tables import all_tables, recorded_tables
from tidepool.analysis.runs.views import shown
from tidepool.analysis.text import markdown
from tidepool.records.recorded_sweep import read_recorded_sweep

COMMAND = "python bench.py --suite smoke"
ENVIRONMENT = {
    "commit": "0123456789abcdef", "dirty": False, "date": "2026-01-02T03:04:05+00:00", "cpu": "Test CPU 3000",
    "gpu": None, "torch": "2.13.0", "triton": "3.7.1", "python": "3.12.3", "command": COMMAND,
}  # fmt: skip
SPEEDS = "shape,step_ms,memory_bytes,difference_points,torch\n3|x,0.123456,2048,-0.126,2.10\nb,,4096,0.5,2.10\n"


@pytest.fixture
def readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """README.md with one block of results/speeds/speeds.csv, not yet generated."""
    monkeypatch.chdir(tmp_path)
    place(tmp_path / "results" / "speeds", "speeds.csv", SPEEDS)
    return with_block(tmp_path / "README.md", "speeds/speeds.csv")


@pytest.fixture
def sweep(quickstart: Path) -> Path:
    """runs/quickstart and the sweep file that made it, whose own name is another."""
    Path("sweeps").mkdir()
    Path("sweeps/a_first.yaml").write_text("program: train.py\n")
    Path("sweeps/digits.yaml").write_text("name: quickstart\nprogram: train.py\n")
    return quickstart


def place(folder: Path, name: str, table: str, **environment: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(table)
    write_json(folder / "environment.json", ENVIRONMENT | environment)


def with_block(readme: Path, marker: str, content: str = "not measured") -> Path:
    readme.write_text(f"# Title\n\n<!-- results: {marker} -->\n{content}\n<!-- end results -->\n\nProse, 99 %.\n")
    return readme


def block_of(readme: Path) -> list[str]:
    lines = readme.read_text().split("\n")
    (block,) = find_blocks(lines, "README.md")
    return lines[block.first + 1 : block.last]


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that exits 2 and prints nothing else."""
    try:
        code = main(arguments)
    except SystemExit as error:  # argparse's own way out
        code = int(error.code or 0)
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_written_block_holds_the_table_and_where_it_comes_from(readme: Path) -> None:
    assert write(readme) == 1
    assert block_of(readme) == [
        "| Shape | Step ms | Memory bytes | Difference points | Torch |",
        "| --- | ---: | ---: | ---: | --- |",
        "| 3\\|x | 0.123 | 2048 | −0.13 | 2.10 |",
        "| b | – | 4096 | +0.50 | 2.10 |",
        "",
        "[results/speeds/speeds.csv](results/speeds/speeds.csv): commit 0123456789ab, 2026-01-02, Test CPU 3000 "
        f"without a GPU, PyTorch 2.13.0, Triton 3.7.1, Python 3.12.3. Rebuilt by `{COMMAND}`.",
    ]


def test_writing_changes_only_blocks_and_only_once(readme: Path) -> None:
    write(readme)
    text = readme.read_text()
    assert text.startswith("# Title\n\n<!-- results: speeds/speeds.csv -->\n|")
    assert text.endswith("<!-- end results -->\n\nProse, 99 %.\n")
    assert write(readme) == 0
    assert readme.read_text() == text


def test_every_block_of_a_readme_is_written(readme: Path) -> None:
    place(Path("results/other"), "other.csv", "loss\n0.5\n")
    readme.write_text(readme.read_text() + "\n<!-- results: other/other.csv -->\n<!-- end results -->\n")
    assert write(readme) == 2
    assert check(readme) == []
    assert "| 0.500 |" in readme.read_text()


def test_check_names_file_line_block_and_cell_and_changes_nothing(
    readme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(readme)
    assert main(["--check"]) == 0
    assert capsys.readouterr() == ("", "")
    readme.write_text(changed := readme.read_text().replace("0.123", "0.100").replace("4096", "1"))
    assert main(["--check", "--readme", str(readme)]) == 1
    found = "row 1, Step ms: the block has 0.100, the record gives 0.123 (2 lines differ)"
    assert capsys.readouterr().out == f"README.md:3: results: speeds/speeds.csv: {found}\n"
    assert readme.read_text() == changed


def test_check_sees_a_block_never_written_and_another_environment(readme: Path) -> None:
    assert ": line 1: the block has not measured, the record gives | Shape |" in check(readme)[0]
    write(readme)
    place(Path("results/speeds"), "speeds.csv", SPEEDS, commit="fedcba9876543210")
    (line,) = check(readme)
    assert "line 6: " in line
    assert "commit fedcba987654" in line


def test_check_sees_a_row_added_to_the_block(readme: Path) -> None:
    write(readme)
    readme.write_text(readme.read_text().replace("| b |", "| a | 1 | 1 | 1 | 1 |\n| b |"))
    assert "row 2, Shape: the block has a, the record gives b" in check(readme)[0]


def test_columns_are_chosen_in_their_order(readme: Path) -> None:
    with_block(readme, "speeds/speeds.csv columns=torch,shape")
    write(readme)
    assert block_of(readme)[:3] == ["| Torch | Shape |", "| --- | --- |", "| 2.10 | 3\\|x |"]


def test_markdown_table_is_shown_as_it_stands(readme: Path) -> None:
    table = "| Layer | Time ms |\n| --- | ---: |\n| a\\|b \\\\ | 1.50 |\n| `c` |  |\n"
    place(Path("results/speeds"), "layers.md", f"# Layers\n\n{table}\nMore words.\n")
    with_block(readme, "speeds/layers.md")
    write(readme)
    assert "\n".join(block_of(readme)).startswith(table)
    with_block(readme, "speeds/layers.md columns=time_ms")
    write(readme)
    assert block_of(readme)[:4] == ["| Time ms |", "| ---: |", "| 1.50 |", "|  |"]


@pytest.mark.parametrize("name", ["accuracy", "speed", "agreement", "runs"])
def test_a_reports_tables_are_shown_as_in_the_report(sweep: Path, name: str) -> None:
    write_run(sweep / "d", seed=2**63, status="diverged", accuracy=math.nan, summary={"exit_reason": "loss | NaN"})
    write_run(sweep / "n", seed=7, accuracy=math.nan)
    write_run(sweep / "u", seed=8, status=None)
    record(sweep, Path("results/quickstart"))
    readme = with_block(Path("README.md"), f"quickstart/{name}")
    write(readme)
    expected = markdown(shown(name, all_tables(read_records([sweep]))[name]))
    assert "\n".join(block_of(readme)).startswith(expected + "\n[results/quickstart](results/quickstart): ")


def test_a_reports_headings_and_columns_can_both_be_named(sweep: Path) -> None:
    record(sweep, Path("results/quickstart"))
    columns = "backend,mean_percent,difference_to_cudnn_points,tost_p_value,test_accuracy_mean_percent"
    readme = with_block(Path("README.md"), f"quickstart/accuracy columns={columns}")
    write(readme)
    heading, _, triton, *_ = block_of(readme)
    assert heading.startswith("| Backend | Mean % | Difference to cudnn, points [95 %] | Tost p value | Test accuracy")
    assert triton.startswith("| triton | 97.")
    assert "[" in triton.split("|")[3]


def test_interpreted_times_are_not_measured(sweep: Path) -> None:
    record(sweep, Path("results/quickstart"))
    readme = with_block(Path("README.md"), "quickstart/speed columns=backend,step_ms,step_ms_p50_median")
    write(readme)
    assert block_of(readme)[2] == "| triton | not measured | – |"


def test_markers_in_code_fences_are_only_examples(readme: Path) -> None:
    example = "```\n<!-- results: nowhere.csv -->\n```\n\n~~~md\n<!-- end results -->\n~~~\n"
    readme.write_text(example + readme.read_text())
    assert write(readme) == 1
    assert readme.read_text().startswith(example)


def test_a_fence_left_open_inside_a_block_does_not_hide_its_end(readme: Path) -> None:
    with_block(readme, "speeds/speeds.csv", content="```")
    assert write(readme) == 1
    assert "```" not in readme.read_text()


def test_a_readme_without_blocks_agrees(readme: Path) -> None:
    readme.write_text("# Title\n\n96 % of nothing, `<!-- results: x.csv -->`\n")
    assert check(readme) == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"gpu": "Test GPU 80GB"}, "Test GPU 80GB, PyTorch"),
        ({"gpu": ["Test GPU 80GB", None]}, "Test GPU 80GB (some runs on Test CPU 3000 without it), PyTorch"),
        ({"dirty": True}, "commit 0123456789ab with uncommitted changes, "),
        ({"commit": None}, "commit not recorded, "),
        ({"triton": None}, "Triton not recorded, "),
        ({"torch": ["2.12.0", "2.13.0"]}, "PyTorch 2.12.0 and 2.13.0, "),
    ],
)
def test_environment_line_tells_what_was_and_was_not_recorded(
    readme: Path, environment: dict[str, Any], expected: str
) -> None:
    place(Path("results/speeds"), "speeds.csv", SPEEDS, **environment)
    write(readme)
    assert expected in block_of(readme)[-1]


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("speeds/missing.csv", "results/speeds/missing.csv: no such file"),
        ("../README.md", "expected a path below results/"),
        ("/etc/hostname", "expected a path below results/"),
        ("speeds/speeds.csv columns=shape,step_s", "unknown column 'step_s', expected any of shape, step_ms"),
        ("speeds/speeds.csv colums=shape", "expected <!-- results: <table under results/> [columns=a,b,c] -->"),
        ("speeds/empty.csv", "empty, expected a table"),
        ("speeds/ragged.csv", "rows of different lengths, expected 2 cells in each"),
        ("speeds/accuracy.csv", "not the accuracy table of a report"),
        ("speeds/words.md", "expected one Markdown table"),
        ("speeds", "results/speeds: no measurements of bench.py in this folder"),
        ("sweep/winners", "no table 'winners' in the record of a sweep, expected any of accuracy, "),
        ("sweep/accuracy.csv", "no table 'accuracy.csv' in the record of a sweep"),
        ("damaged/accuracy", "results/damaged/runs.parquet: missing, though manifest.json names it"),
        ("alone/alone.csv", "results/alone/environment.json: no such file"),
    ],
)
@pytest.mark.parametrize("action", ["--check", "--write"])
def test_a_record_that_cannot_be_shown_is_one_line(
    readme: Path, capsys: pytest.CaptureFixture[str], action: str, marker: str, expected: str
) -> None:
    folder = Path("results/speeds")
    (folder / "empty.csv").touch()
    (folder / "ragged.csv").write_text("a,b\n1\n")
    (folder / "words.md").write_text("no table\n")
    columns = list(all_tables(read_records([write_sweep(Path("runs/s"), seeds=1, steps=3)]))["accuracy"].columns)
    (folder / "accuracy.csv").write_text(",".join(columns) + "\n" + ",".join("x" for _ in columns) + "\n")
    Path("results/alone").mkdir()
    Path("results/alone/alone.csv").write_text("a\n1\n")
    Path("sweeps").mkdir()
    Path("sweeps/s.yaml").write_text("program: train.py\n")
    record(Path("runs/s"), Path("results/sweep"))
    record(Path("runs/s"), Path("results/damaged"))
    Path("results/damaged/runs.parquet").unlink()
    before = with_block(readme, marker).read_text()
    line = complaint(capsys, action)
    assert line.startswith("tidepool readme: README.md:3: ")
    assert expected in line
    assert readme.read_text() == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<!-- results: speeds/speeds.csv -->\n", "README.md:1: results: speeds/speeds.csv: not closed"),
        (
            "<!-- results: a.csv -->\n<!-- results: b.csv -->\n<!-- end results -->\n",
            "README.md:1: results: a.csv: not",
        ),
        ("\n<!-- end results -->\n", "README.md:2: <!-- end results --> without a block"),
        ("<!-- results a.csv -->\n<!-- end results -->\n", "README.md:1: <!-- results a.csv -->: expected"),
    ],
)
def test_markers_without_their_partner_are_one_line(
    readme: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    readme.write_text(text)
    assert expected in complaint(capsys, "--check")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected one JSON object, found a list"),
        ('{"schema_version": 2}', "schema_version 2"),
        ('{"schema_version": 1}', "no command, expected the one that rebuilds the table"),
    ],
)
def test_an_environment_that_says_too_little_is_one_line(
    readme: Path, capsys: pytest.CaptureFixture[str], content: str, expected: str
) -> None:
    Path("results/speeds/environment.json").write_text(content)
    assert expected in complaint(capsys, "--check")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--check", "--write"),
        ("--record", "runs"),
        ("--check", "--out", "results/a"),
        ("--record", "runs", "--out", "results/a", "--readme", "README.md"),
        ("--check", "--readme", "missing.md"),
    ],
)
def test_bad_arguments_are_one_line(
    readme: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert complaint(capsys, *arguments).startswith("tidepool readme: ")


def test_record_writes_what_every_table_is_derived_from(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(sweep / "d", seed=5, status="diverged", accuracy=math.nan, summary={"exit_reason": "loss | NaN"}, steps=4)
    write_run(sweep / "u", seed=2**64, status=None, config={"lr": 1, "data_dir": "/home/me/secret/data"})
    assert main(["--record", "runs/quickstart", "--out", "results/quickstart"]) == 0
    assert capsys.readouterr() == ("8 runs -> results/quickstart\n", "")
    out = Path("results/quickstart")
    names = ["curves.parquet", "environment.json", "manifest.json", "runs.parquet", "sweep.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert json.loads((out / "sweep.json").read_text()) == json.loads((sweep / "sweep.json").read_text())
    read = read_records([sweep])
    for name, table in (all_tables(read) | {"networks": networks_table(read)}).items():
        assert recorded_tables(out)[name].to_csv(index=False) == table.to_csv(index=False), name
    rows = read_recorded_sweep(out).runs
    assert [row["config/lr"] for row in rows if row["seed"] == 2**64] == [1]
    assert [row["config/data_dir"] for row in rows if row["seed"] == 2**64] == ["…/data"]


def test_curves_keep_every_measured_value_and_tell_nan_from_not_measured(sweep: Path) -> None:
    with (sweep / "t000" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"schema_version": 1, "step": 61, "epoch": 3.1, "train/loss": "NaN"}) + "\n")
    record(sweep, Path("results/quickstart"))
    there, back = read_records([sweep]).metrics, read_records(["results/quickstart"]).metrics
    keys = ["run", "step", "metric"]
    pd.testing.assert_frame_equal(
        there.sort_values(keys, ignore_index=True), back.sort_values(keys, ignore_index=True), check_exact=True
    )
    assert back.loc[back["step"] == 61, "metric"].tolist() == ["train/loss"]


def test_recorded_environment_merges_the_runs_and_names_no_machine(sweep: Path) -> None:
    places = {"host": "secret-host", "command": "/home/me/python train.py", "platform": "Linux-secret"}
    write_run(sweep / "t000", seed=0, environment=places | {"torch": "2.12.0", "dirty": True, "date": "2026-01-01"})
    record(sweep, Path("results/quickstart"))
    text = Path("results/quickstart/environment.json").read_text()
    environment = json.loads(text)
    assert "secret" not in text
    assert "/home" not in text
    assert environment["schema_version"] == 1
    assert (environment["commit"], environment["dirty"]) == ("0123456789abcdef", True)
    assert (environment["date"], environment["last_date"]) == ("2026-01-01", "2026-01-02T03:04:05+00:00")
    assert [environment[name] for name in ("cpu", "gpu", "torch")] == ["Test CPU 3000", None, ["2.12.0", "2.13.0"]]
    assert environment["precision_conv_tf32"] is False
    assert environment["command"] == (
        "python sweep.py sweeps/digits.yaml && "
        "python -m tidepool.analysis.readme --record runs/quickstart --out results/quickstart"
    )


def test_records_are_the_same_from_wherever_the_runs_lie(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(sweep / "f", seed=9, status="failed", summary={"exit_reason": f"{tmp_path}/data/a.bin: damaged, 1/2"})
    record(sweep, Path("results/near"))
    (tmp_path / "project").mkdir()
    (tmp_path / "sweeps").rename(tmp_path / "project" / "sweeps")
    monkeypatch.chdir(tmp_path / "project")
    record(Path("../runs/quickstart"), Path("results/far"))
    record(sweep, Path("results/absolute"))
    for name in ("runs.parquet", "curves.parquet", "sweep.json"):
        near = (tmp_path / "results" / "near" / name).read_bytes()
        assert Path("results/far", name).read_bytes() == near
        assert Path("results/absolute", name).read_bytes() == near
    text = repr(read_recorded_sweep(Path("results/far")))
    assert str(tmp_path) not in text
    assert "'…/a.bin: damaged, 1/2'" in text


def test_record_says_when_changes_were_uncommitted(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(sweep / "t000", environment={"dirty": True})
    assert main(["--record", "runs/quickstart", "--out", "results/quickstart"]) == 0
    assert "uncommitted changes" in capsys.readouterr().err


@pytest.mark.parametrize("commit", ["fedcba9876543210", None])
def test_record_refuses_runs_of_several_commits(
    sweep: Path, capsys: pytest.CaptureFixture[str], commit: str | None
) -> None:
    write_run(sweep / "t000", environment={"commit": commit})
    line = complaint(capsys, "--record", "runs/quickstart", "--out", "results/quickstart")
    assert f"runs/quickstart: runs disagree on the commit (5 at 0123456789ab, 1 at {(commit or 'none')[:12]});" in line
    assert not Path("results").exists()


def test_record_refuses_what_is_not_one_sweep(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(Path("runs/second"), seeds=1, steps=3)
    write_run(Path("runs/single"))
    for folder in ("runs", "runs/single"):
        line = complaint(capsys, "--record", folder, "--out", "results/a")
        assert f"{folder}: expected the folder of one sweep" in line
    assert "no file in sweeps/ makes the sweep 'second'" in complaint(
        capsys, "--record", "runs/second", "--out", "results/a"
    )
    assert "no such folder" in complaint(capsys, "--record", "runs/missing", "--out", "results/a")


@pytest.mark.parametrize("out", ["elsewhere", "results", "results/..", "runs/quickstart/results"])
def test_record_writes_only_below_results(sweep: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    assert "expected a folder below results/" in complaint(capsys, "--record", "runs/quickstart", "--out", out)


def test_record_over_a_file_is_one_line(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("results").mkdir()
    Path("results/a").touch()
    assert "results/a: cannot be written" in complaint(capsys, "--record", "runs/quickstart", "--out", "results/a")


def test_check_holds_every_recorded_sweep_to_its_manifest(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(sweep, Path("results/quickstart"))
    with_block(Path("README.md"), "quickstart/networks")
    assert main(["--write"]) == 0
    with_block(Path("results/README.md"), "quickstart/accuracy columns=backend")
    assert main(["--write"]) == 0
    assert "[quickstart](quickstart): commit" in Path("results/README.md").read_text()
    assert main(["--check"]) == 0
    capsys.readouterr()
    Path("README.md").write_text("# No block\n")
    Path("results/README.md").unlink()
    Path("results/quickstart/sweep.json").write_text("{}")
    assert main(["--check"]) == 1
    assert capsys.readouterr().out == (
        "results/quickstart/sweep.json: not as it was recorded, its SHA-256 differs from that in manifest.json\n"
    )


def test_a_report_shows_recorded_sweeps_and_counts_a_run_once(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(sweep, Path("results/quickstart"))
    both = read_records(["results", "runs"])
    assert len(both.runs) == 6
    assert both.warnings == ()
    assert len(both.metrics) == len(read_records(["runs"]).metrics)
    assert report_main(["results", "--out", "report"]) == 0
    assert capsys.readouterr().out == "6 runs -> report/report.html\n"
    assert main(["--record", "results", "--out", "results/again"]) == 2
    assert Path("report/tables/accuracy.csv").read_text() == all_tables(both)["accuracy"].to_csv(index=False)
