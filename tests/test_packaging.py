"""The wheel: one name, beside other people's packages of the same names as our folders, with all that it reads."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import tidepool

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = ("models", "data", "kernels", "training", "sweeping", "benchmarking", "analysis", "records")
CHECK = """
import sys, models, data, kernels, training, sweeping, benchmarking, analysis, records
import torch, tidepool
from tidepool import AvgPool, MaxPool, build_model, conv_relu_pool, fuse
import tidepool.analysis, tidepool.benchmarking, tidepool.data, tidepool.sweeping, tidepool.training
import model_file

foreign = (models, data, kernels, training, sweeping, benchmarking, analysis, records)
assert all(module.whose == "somebody else's" for module in foreign)
x, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
y = conv_relu_pool(x, weight, pool=MaxPool(2), backend="triton")
wanted = torch.nn.functional.max_pool2d(torch.relu(torch.nn.functional.conv2d(x, weight)), 2)
torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AvgPool2d(2))
fused, report = fuse(network, backend="triton")
fused(x)
assert len(report.fused) == 1
assert build_model("lenet5", num_classes=10, in_channels=1, image_size=8)(x[:, :1]).shape == (2, 10)
assert AvgPool(2) is not None
assert tidepool.__file__.startswith(sys.argv[1]), tidepool.__file__
print("both", model_file.whose)
"""


FOLDERS = sorted(path.name for path in (ROOT / "src" / "tidepool").iterdir() if path.is_symlink())
"""The folders at the top of the repository that are installed."""
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from a copy of the sources, from another working directory."""
    tree, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("built")
    for name in (*FOLDERS, "src"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=NOT_SOURCE)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", built, tree]
    subprocess.run(command, cwd=built, check=True)
    (file,) = built.glob("*.whl")
    return file


def test_the_wheel_installs_one_name_and_carries_what_it_reads(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"tidepool"}
    assert "tidepool/py.typed" in names
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    sources = {f"tidepool/{path.relative_to(ROOT)}" for path in files if "__pycache__" not in path.parts}
    assert not sources - set(names)


@pytest.mark.full
def test_the_wheel_works_beside_other_peoples_packages_of_our_folders_names(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel], check=True)
    (tmp_path / "model_file.py").write_text('whose = "somebody else\'s"\n')
    for index, name in enumerate(FOREIGN):
        folder = (site, tmp_path)[index % 2] / name
        folder.mkdir()
        (folder / "__init__.py").write_text('whose = "somebody else\'s"\n')
    (tmp_path / "run.py").write_text(CHECK)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "run.py", str(site)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "both somebody else's\n", done.stderr
    sweep = [sys.executable, "-P", "-m", "tidepool", "sweep", str(ROOT / "sweeps" / "quickstart.yaml"), "--dry_run"]
    done = subprocess.run(sweep, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "10 runs" in done.stdout) == (0, True), done.stderr
    assert done.stdout.startswith(f"/usr/bin/env {sys.executable} -P -m tidepool train --")
    console = [sys.executable, site / "bin" / "tidepool", "--version"]
    done = subprocess.run(console, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == f"tidepool {tidepool.__version__} ({site / 'tidepool'})\n", done.stderr


def test_constraints_pin_every_requirement_within_what_pyproject_admits() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {name.lower(): version for name, version in pinned.items()}
    for text in (*project["dependencies"], *project["optional-dependencies"]["test"]):
        requirement = Requirement(text)
        version = pinned[requirement.name.lower()]
        assert requirement.specifier.contains(version), f"{text}: {version} is pinned"
