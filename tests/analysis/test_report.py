"""The report as a whole: complete, self-contained, the same every time, and clear about bad input."""

from __future__ import annotations

import html as html_module
import json
import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.analysis.many_runs import write_runs
from tests.analysis.runs.run_writer import write_run, write_sweep
from tidepool.analysis.report import main, write_report
from tidepool.analysis.runs.records import read_records
from tidepool.records import RecordError

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """Collects tags, attributes and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def small(runs: Path) -> Path:
    """runs/small: one short run a backend."""
    return write_sweep(runs / "small", seeds=1, steps=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_report_writes_page_tables_and_figures(quickstart_report: Path) -> None:
    names = contents(quickstart_report)
    assert {"report.html", "tables/accuracy.csv", "tables/accuracy.md", "tables/speed.csv"} <= names.keys()
    assert any(name.startswith("figures/curve-train-loss") and name.endswith(".svg") for name in names)


def test_page_asks_for_nothing_outside_itself(quickstart_report: Path) -> None:
    html = (quickstart_report / "report.html").read_text()
    page = Page(html)
    assert not {"iframe", "object", "embed", "base"} & set(page.tags)
    assert not {(tag, name) for tag, name, _ in page.attributes} & {("script", "src"), ("img", "srcset")}
    for tag, name, value in page.attributes:
        if name in {"src", "href", "xlink:href", "srcset", "action", "data", "poster"} and tag != "a":
            assert value.startswith(("#", "data:")), (tag, name, value[:80])
        if name == "href" and tag == "a":  # sections, and folders of runs, which lie beside the page
            assert value.startswith(("#", "../")), value[:80]
        assert not name.startswith("on"), (tag, name)
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", html))


def test_identifiers_are_unique(quickstart_report: Path) -> None:
    page = Page((quickstart_report / "report.html").read_text())
    identifiers = [value for _, name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))


def test_the_verdicts_come_first(quickstart_report: Path) -> None:
    html = (quickstart_report / "report.html").read_text()
    first = Page(html[: html.index("</dl>")]).text
    assert "Accuracy too few seeds: 3 of at least 5" in first
    assert "Speed not measured kernels interpreted" in first
    assert "Best run 98.33 % on the test split" in first
    assert "Runs 6 of 6 finished" in first
    assert html.index('class="badges"') < html.index('id="runs"') < html.index('id="accuracy"')


def test_a_runs_name_links_to_its_folder(quickstart_report: Path) -> None:
    html = (quickstart_report / "report.html").read_text()
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', html)[0])
    links = [data["base"] + row[0] if row[-1] == 1 else row[-1] for row in data["rows"]]
    assert len(links) == 6
    assert all((quickstart_report / link / "summary.json").is_file() for link in links)


def test_first_screen_answers_the_four_questions(quickstart_report: Path) -> None:
    text = Page((quickstart_report / "report.html").read_text()).text
    first = text[: text.index("runs overview accuracy")]
    assert "6 runs (6 finished) of lenet5 on digits" in first
    assert "Test CPU 3000; no GPU." in first
    assert "(n = 3, sd" in first
    assert "95 % interval" in first
    assert "Speed of triton: interpreted: not a speed measurement" in first


def test_interpreted_step_time_appears_nowhere(small: Path, tmp_path: Path) -> None:
    for number, run in enumerate(sorted(small.glob("t*"))):
        shutil.rmtree(run)
        write_run(run, backend="triton", seed=number, step_ms=98765.4)
    write_report([small], tmp_path / "out")
    for name, content in contents(tmp_path / "out").items():
        assert b"98765" not in content, name
        assert b"98,765" not in content, name


def test_failed_runs_are_listed_with_reasons(small: Path, tmp_path: Path) -> None:
    write_run(small / "bad", seed=9, status="diverged", accuracy=math.nan, summary={"exit_reason": "loss <NaN> at 3"})
    text = Page(write_report([small], tmp_path / "out").read_text()).text
    assert "loss <NaN> at 3" in text
    assert "1 diverged of 3 runs" in text


def test_hostile_names_stay_text(runs: Path, tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)> $x$ | \ud800"
    write_run(runs / "a", config={"model": hostile, "lr": hostile}, summary={"exit_reason": hostile}, media=True)
    write_run(runs / "b", config={"model": hostile}, environment={"command": hostile, hostile: hostile})
    page = Page(write_report([runs], tmp_path / "out").read_text())
    assert not any(name == "onerror" for _, name, _ in page.attributes)
    assert hostile.replace("\ud800", "?") in page.text


def test_same_records_give_the_same_bytes(quickstart: Path, tmp_path: Path, quickstart_report: Path) -> None:
    write_report([quickstart], tmp_path / "out")
    assert contents(tmp_path / "out") == contents(quickstart_report)


def test_output_inside_the_input_is_not_read_back(small: Path) -> None:
    out = small / "report"
    write_report([small], out)
    write_run(out / "planted", seed=77)
    write_report([small], out)
    assert "planted" not in (out / "report.html").read_text()


def test_output_may_be_the_runs_folder_itself(small: Path) -> None:
    write_report([small], small)
    write_report([small], small)
    assert len(read_records([small]).runs) == 2


def test_stale_figures_of_an_earlier_report_go_and_other_files_stay(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_report([small], out)
    (out / "figures" / "stale.svg").write_text("<svg/>")
    (out / "mine.txt").write_text("keep")
    write_report([small], out)
    assert not (out / "figures" / "stale.svg").exists()
    assert (out / "mine.txt").exists()


def test_files_in_a_folder_without_a_report_are_left_alone(small: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "figures").mkdir(parents=True)
    (tmp_path / "out" / "figures" / "mine.svg").write_text("<svg/>")
    write_report([small], tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "mine.svg").exists()


def test_damaged_pictures_are_named_and_not_shown(small: Path, tmp_path: Path) -> None:
    (small / "t000" / "media").mkdir()
    (small / "t000" / "media" / "feature_maps.png").write_text("no picture")
    text = Page(write_report([small], tmp_path / "out").read_text()).text
    assert "runs/small/t000/media/feature_maps.png: not shown (not a PNG file)" in text


def test_no_compiled_run_is_said_instead_of_a_figure(runs: Path, tmp_path: Path) -> None:
    write_run(runs / "a", backend="triton")
    text = Page(write_report([runs], tmp_path / "out").read_text()).text
    assert "No figure: no run used compiled kernels." in text


def test_report_of_a_single_unfinished_run(runs: Path, tmp_path: Path) -> None:
    folder = write_run(runs / "a", status=None, steps=2)
    (folder / "environment.json").unlink()
    text = Page(write_report([runs], tmp_path / "out").read_text()).text
    assert "No run finished, so there is no step time." in text
    assert "No run recorded its environment." in text


def test_rebuild_command_is_the_one_that_was_given(small: Path, tmp_path: Path) -> None:
    text = Page(write_report([small], tmp_path / "my out").read_text()).text
    assert "python -m tidepool.analysis.report runs/small --out 'my out'" in text


def test_command_prints_the_path_and_warnings(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small / "x").mkdir()
    (small / "x" / "config.json").write_text("{}")
    assert main(["runs", "--out", "out"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "2 runs -> out/report.html\n"
    assert captured.err == "warning: runs/small/x/config.json: not a record of this project, skipped\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["nowhere"], ["empty"], ["file"], ["runs", "--out"], ["runs", "--nonsense"], ["runs", "--out", "file"],
     ["runs", "--out", "file/below"]],
)  # fmt: skip
def test_bad_arguments_are_one_line_and_exit_2(
    quickstart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code  # type: ignore[assignment]
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("tidepool report: ")
    assert captured.err.count("\n") == 1


def test_unreadable_input_raises_for_callers(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no run records found"):
        write_report([runs], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_report_is_written_where_torch_and_triton_are_missing(quickstart: Path) -> None:
    """In a process that cannot import them, nor anything of the network side."""
    code = (
        "import sys\n"
        "names = ('torch', 'triton', 'wandb', *(f'tidepool.{n}' for n in ('kernels', 'models', 'data', 'training')))\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in names: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import tidepool.analysis\n"
        "from tidepool.analysis.report import main\n"
        "sys.exit(main(['runs', '--out', 'report']))\n"
    )
    source = str(ROOT / "src")
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": source}, check=True, timeout=120)
    assert Path("report/report.html").is_file()


STEPS = """
const result = {};
const wait = () => new Promise((done) => setTimeout(done, 50));
const rows = () => [...document.querySelectorAll(".data tbody tr")].map((row) => row.cells[0].textContent);
const heads = [...document.querySelectorAll(".data th")];
const press = (name) => heads.find((head) => head.textContent === name).querySelector("button").click();
addEventListener("load", async () => {
  result.over = document.documentElement.scrollWidth - innerWidth;
  result.folded = rows();
  document.querySelector(".fold").click();
  press("Seed"); await wait(); result.up = rows().map((name) => name.slice(-1));
  press("Seed"); await wait(); result.down = rows().map((name) => name.slice(-1));
  const box = document.querySelector(".data input");
  box.value = "t00"; box.dispatchEvent(new Event("input")); result.filtered = rows();
  dispatchEvent(new Event("beforeprint"));
  result.printed = rows().length;
  result.closed = document.querySelectorAll("details:not([open])").length;
  dispatchEvent(new Event("afterprint"));
  const figure = document.querySelector("figure[data-points]"), drawing = figure.querySelector("svg");
  const [x, y, text] = JSON.parse(figure.dataset.points)[0], box2 = drawing.getBoundingClientRect();
  drawing.dispatchEvent(new PointerEvent("pointermove",
    { clientX: box2.left + x * box2.width, clientY: box2.top + y * box2.height }));
  result.hover = [figure.querySelector(".value").textContent, text];
  parent.postMessage(JSON.stringify(result), "*");
});
"""


@pytest.fixture
def browser() -> str:
    """Chromium's program, which CI installs; a machine that has none still runs all other tests."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or pytest.skip("Chromium is not installed")


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1400])
def test_page_works_in_chromium(runs: Path, tmp_path: Path, width: int, browser: str) -> None:
    """Sorting, filtering, folding, hovering and printing; nothing too wide; no console error."""
    html = write_report([write_sweep(runs, seeds=5, media=True)], tmp_path / "out").read_text()
    (tmp_path / "page.html").write_text(html.replace("</body>", f"<script>{STEPS}</script></body>"))
    # The page is measured in a frame of the width: a headless window has a least width of its own.
    frame = f"<script>onmessage = e => document.title = e.data</script><iframe style='width:{width}px;"
    (tmp_path / "frame.html").write_text(f"{frame}height:800px;border:0' src='page.html'></iframe>")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--enable-logging=stderr",
               "--v=0", "--dump-dom", f"file://{tmp_path / 'frame.html'}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stdout[:500]
    result = json.loads(html_module.unescape(title[1]))
    assert result["over"] <= 0
    assert result["folded"] == ["5 runs", "5 runs"]
    assert result["up"] == [str(seed) for seed in range(5) for _ in range(2)]
    assert result["down"] == result["up"][::-1]
    assert len(result["filtered"]) == 5
    assert result["printed"] == 10
    assert result["closed"] == 0
    assert result["hover"][0] == result["hover"][1]


@pytest.mark.browser
@pytest.mark.full
def test_a_printed_page_loses_no_run(runs: Path, tmp_path: Path, browser: str) -> None:
    write_runs(runs, 250, rows=2)
    page, pdf = write_report([runs], tmp_path / "out"), tmp_path / "page.pdf"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               f"--print-to-pdf={pdf}", f"file://{page}"]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    # A link is printed for each run that is: a hundred stand on the page before it is printed.
    assert len(set(re.findall(rb"/URI \((.*?)\)", pdf.read_bytes()))) >= 250
