"""The scripts in examples/ do what they say."""

import importlib.util
import json
import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from tests.analysis.runs.run_writer import write_run

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def example(name: str) -> ModuleType:
    """The script of that name, loaded without being run."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_short_and_tested() -> None:
    tested = {"op_as_a_layer", "fuse_a_network", "train_on_a_folder", "read_a_sweep", "sweep_on_slurm"}
    assert {file.stem for file in EXAMPLES.glob("*.py")} == tested
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text().splitlines()) < 60, file.name


def test_the_op_as_a_layer_learns_the_same_on_both_backends() -> None:
    train = example("op_as_a_layer").train
    ours, eager = train("triton", steps=3), train("cudnn", steps=3)
    assert ours == pytest.approx(eager, rel=1e-4)
    assert ours[-1] < ours[0]


def test_a_network_in_torchvisions_style_is_fused_and_computes_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert example("fuse_a_network").main() < 1e-5
    assert "conv1" in capsys.readouterr().out


@pytest.mark.full
def test_a_folder_of_images_is_learned(tmp_path: Path) -> None:
    run = example("train_on_a_folder").main(tmp_path)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["test_accuracy"] > 0.9


def test_a_sweep_is_read_back(tmp_path: Path) -> None:
    for backend, accuracies in (("triton", (0.5, 0.7)), ("cudnn", (0.25,))):
        for seed, accuracy in enumerate(accuracies):
            write_run(tmp_path / f"{backend}-{seed}", backend=backend, seed=seed, accuracy=accuracy)
    table = example("read_a_sweep").main(tmp_path)
    assert table.loc["triton", "count"] == 2
    assert table.loc["triton", "mean"] == pytest.approx(0.6)
    assert table.loc["cudnn", "mean"] == pytest.approx(0.25)


@pytest.mark.full
@pytest.mark.skipif(not importlib.util.find_spec("submitit"), reason="submitit is not installed")
def test_jobs_of_a_slurm_array_share_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By submitit's local executor: SLURM itself is not tested."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    shutil.copy(Path(__file__).parent / "sweeping" / "fake_train.py", tmp_path)
    content = {"program": "fake_train.py", "method": "grid", "metric": {"name": "val/accuracy", "goal": "maximize"}}
    content |= {"parameters": {"backend": {"value": "cudnn"}, "sleep": {"value": 0.5}, "seed": {"min": 0, "max": 7}}}
    (tmp_path / "shared.yaml").write_text(json.dumps(content))
    submit = example("sweep_on_slurm").submit
    jobs = submit(Path("shared.yaml"), "sqlite:///shared.db", jobs=2, minutes=5, cluster="local")
    outputs = [job.result() for job in jobs]
    assert sorted(Counter((tmp_path / "runs/shared/starts.txt").read_text().split()).values()) == [1] * 8
    assert all("8 finished" in output for output in outputs)
