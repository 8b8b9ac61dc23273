"""A working directory with a program that stands in for train.py, and ways to write and run sweep files there."""

from __future__ import annotations

import importlib.util
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.sweeping import postgres_server
from tests.sweeping.postgres_server import Server
from tidepool.sweeping.program import main
from tidepool.sweeping.spec import Sweep, read_sweep

FAKE_TRAIN = Path(__file__).with_name("fake_train.py")

WriteSweep = Callable[..., Path]
RunSweep = Callable[..., int]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory but for fake_train.py; no GPU, no W&B settings."""
    shutil.copy(FAKE_TRAIN, tmp_path / "fake_train.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for variable in ("OMP_NUM_THREADS", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def write_sweep(workplace: Path) -> WriteSweep:
    """Writes ``<file>.yaml`` in the workplace: a grid over fake_train.py, changed by keywords (None removes a key)."""

    def write(file: str = "try", **changes: object) -> Path:
        content: dict[str, object] = {"program": "fake_train.py", "method": "grid", **changes}
        content.setdefault("parameters", {"backend": {"value": "cudnn"}, "seed": {"values": [0, 1, 2]}})
        path = workplace / f"{file}.yaml"
        kept = {key: value for key, value in content.items() if value is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path

    return write


@pytest.fixture
def read(write_sweep: WriteSweep, workplace: Path) -> Callable[..., Sweep]:
    """Writes a sweep file as `write_sweep` does and reads it."""
    return lambda **changes: read_sweep(write_sweep(**changes), home=workplace)


@pytest.fixture
def run_sweep(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> RunSweep:
    """Runs sweep.py's main in this process, with a report that takes no time."""

    def report(paths: list[Path], out: Path) -> Path:
        out.mkdir(parents=True, exist_ok=True)
        page = out / "report.html"
        page.write_text("\n".join(sorted(path.name for path in paths)))
        return page

    monkeypatch.setattr("tidepool.analysis.report.write_report", report)
    monkeypatch.setattr(
        "tidepool.analysis.report.comparison_text",
        lambda paths, *, training: f"comparison of {len(paths)} runs" if training else "",
    )
    return lambda *arguments: main([str(argument) for argument in arguments])


def starts(directory: Path) -> Counter[str]:
    """How often each run folder of the sweep in `directory` was started."""
    file = directory / "starts.txt"
    return Counter(file.read_text().split()) if file.exists() else Counter()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of the tests' own, where Debian's binaries and psycopg are installed."""
    if postgres_server.binaries() is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip("PostgreSQL or psycopg is not installed")
    with postgres_server.server() as made:
        yield made
