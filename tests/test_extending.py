"""docs/extending.md is carried out as written, in a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.extending_page import Block, changed_files, sections

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"
SECTIONS = sections(PAGE.read_text())
COPIED = ("src", "sweeps", *(path.name for path in (ROOT / "src" / "tidepool").iterdir() if path.is_symlink()))


@dataclass(frozen=True)
class CarriedOut:
    """The copy, what each section raised there, and what was printed."""

    copy: Path
    raised: dict[str, str]
    printed: str


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory: pytest.TempPathFactory) -> CarriedOut:
    """All sections, carried out once."""
    copy = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in COPIED:
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    (copy / "tests" / "kernels").mkdir(parents=True)
    for name in ("train.py", "sweep.py", "tests/kernels/shapes.py"):
        shutil.copy(ROOT / name, copy / name)
    outcomes = copy.with_name("outcomes.json")
    command = [sys.executable, str(ROOT / "tests" / "extending_page.py"), str(PAGE), str(outcomes)]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return CarriedOut(copy, json.loads(outcomes.read_text()), done.stdout)


def test_the_page_has_a_section_for_everything_that_can_be_added() -> None:
    assert list(SECTIONS) == ["An activation", "A pool", "A network", "A data set", "A target", "A sweep"]


@pytest.mark.full
@pytest.mark.parametrize("heading", SECTIONS)
def test_a_section_works_as_written(heading: str, carried_out: CarriedOut) -> None:
    blocks = SECTIONS[heading]
    assert any(block.path is not None or block.language == "diff" for block in blocks)
    assert any(block.path is None and block.language in ("python", "") for block in blocks)
    assert carried_out.raised[heading] == ""


def test_the_network_was_trained_on_the_data_set(carried_out: CarriedOut) -> None:
    run = carried_out.copy / "runs" / "stripes"
    config, summary = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "summary"))
    assert (config["noise"], config["width"], summary["status"]) == (10.0, 4, "finished")


def test_the_sweep_lists_its_runs(carried_out: CarriedOut) -> None:
    *runs, last = (line for line in carried_out.printed.splitlines() if "--model=two_stages" in line or "runs" in line)
    assert len({line.partition("--run_dir")[0] for line in runs if "--width=" in line}) == 12
    assert last == "12 runs"


def test_what_the_page_names_exists() -> None:
    text = PAGE.read_text()
    made = {block.path for blocks in SECTIONS.values() for block in blocks}
    paths = set(re.findall(r"\b(?:kernels|models|data|tests|benchmarking|src)/[\w/]+(?:\.py)?", text)) - made
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in re.findall(r"`(test_\w+)`", text) if f"def {name}(" not in tests] == []


def test_a_change_to_a_line_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.py").write_text("one\ntwo\ntwo\n")
    ((path, text),) = changed_files(Block("diff", None, "--- file.py\n@@\n-one\n+three\n"))
    assert (path, text) == (Path("file.py"), "three\ntwo\ntwo\n")
    for line in ("four", "two"):
        with pytest.raises(ValueError, match="expected exactly once"):
            list(changed_files(Block("diff", None, f"--- file.py\n@@\n-{line}\n+three\n")))
