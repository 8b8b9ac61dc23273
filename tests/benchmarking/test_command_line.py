"""bench.py's flags: what they mean, and one line for what cannot be used."""

from pathlib import Path

import pytest

from tests.kernels.exact import INTERPRETED
from tidepool.benchmarking.command_line import UsageError, parse_options
from tidepool.benchmarking.opponents import BACKEND_NAMES
from tidepool.benchmarking.program import main

HOME = Path(__file__).resolve().parents[2]


def test_defaults_and_lists() -> None:
    plain = parse_options([])
    assert (plain.suite, plain.backends, plain.dtypes) == ("blocks", BACKEND_NAMES, ("bf16",))
    assert plain.passes == ("forward", "forward_training", "backward", "train")
    assert str(plain.out) == "results/kernel_speed"
    commas = parse_options(["--backends=triton,cudnn", "--dtype=bf16,fp32", "--passes", "train", "forward"])
    assert (commas.backends, commas.dtypes, commas.passes) == (
        ("triton", "cudnn"),
        ("bf16", "fp32"),
        ("train", "forward"),
    )
    assert parse_options(["--suite=models"]).passes == ("train",)


def test_what_sweep_py_passes_is_accepted(tmp_path: Path) -> None:
    options = parse_options(
        ["--suite=blocks", f"--run_dir={tmp_path}", "--resume=auto", "--group=g", "--name=n", "--project=p",
         "--progress=False", "--cuda_graph=True", "--predict=False"]
    )  # fmt: skip
    assert (options.out, options.run_dir, options.progress, options.cuda_graph) == (tmp_path, tmp_path, False, True)
    assert (options.group, options.name, options.project, options.predict) == ("g", "n", "p", False)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--suite=all"], "argument --suite: invalid choice"),
        (["--cases=vgg16_6"], "unknown case 'vgg16_6'; expected some of the suite's 44, as vgg16_"),
        (["--backends=triton,eager"], "unknown backend 'eager'; expected some of: triton, auto, cudnn,"),
        (["--dtype=int8"], "--dtype: 'int8'; expected some of: bf16, fp16, fp32, tf32"),
        (["--passes=train,"], "--passes: an empty entry in 'train,'"),
        (["--passes=dgrad"], "--passes: 'dgrad'; expected some of: forward, forward_training, backward, train"),
        (["--budget_s=0"], "argument --budget_s: '0'; expected a number of seconds above 0"),
        (["--budget_s=nan"], "argument --budget_s: 'nan'; expected a number of seconds above 0"),
        (["--processes=0"], "argument --processes: '0'; expected a whole number from 1"),
        (["--cuda_graph=yes"], "argument --cuda_graph: 'yes'; expected True or False"),
        (["--predict", "--visit"], "--predict, --counters and --visit: give one of them"),
        (["--predict", "--predict_on=H900"], "unknown device 'H900'; expected some of: H200,"),
        (["--suite=models", "--passes=forward"], "--passes: networks are timed in whole steps, expected train"),
        (["--visit", "--suite=models"], "--visit goes through blocks and models by itself"),
        (["--run_dir=a", "--out=b"], "--out and --run_dir: a run keeps its measurements in its own folder"),
        (["--out=bench.py"], "--out: bench.py is a file, expected a folder"),
        (["--speed"], "unrecognized arguments: --speed"),
    ],
)
def test_bad_flags_are_one_line(flags: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HOME)
    with pytest.raises(UsageError) as refused:
        parse_options(flags)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(not INTERPRETED, reason="there is a GPU, and timing would begin")
def test_timing_without_a_gpu_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--out={tmp_path / 'out'}"], prog="bench.py") == 2
    told = capsys.readouterr()
    needs = "timing needs an NVIDIA GPU, and none was found; --predict and --counters work without one"
    assert told.err == f"bench.py: {needs}\n"
    assert not (tmp_path / "out").exists()
