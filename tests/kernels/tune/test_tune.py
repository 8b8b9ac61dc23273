"""Tuning end to end: a scripted timer, interpreted kernels, real tables, and the plan that `auto` then goes by."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernels.exact import INTERPRETED
from tidepool.kernels import MaxPool
from tidepool.kernels.auto import layer as planned_layer
from tidepool.kernels.auto import table as plan_table
from tidepool.kernels.auto.plan import Choice, plan_from_json
from tidepool.kernels.auto.table import TableError, forget, machine_of, read_table
from tidepool.kernels.conv import epilogue as conv_act_pool_epilogue
from tidepool.kernels.tune import layer as tune_layer
from tidepool.kernels.tune import tuner as tune
from tidepool.kernels.tune.layer import TuningError
from tidepool.kernels.tune.suites import SUITES, LayerTextError, TuneLayer, layer_from_words
from tidepool.kernels.tune.tuner import Outcome, main, tune_layers

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="tunes a CPU, which only the interpreter can be asked to")

CPU = torch.device("cpu")
TINY = TuneLayer("tiny", (2, 2, 6, 5), (3, 2, 2, 2))
OTHER = TuneLayer("other", (1, 2, 5), (2, 2, 2), {"activation": None, "pool": None}, bias=False)
THIRD = TuneLayer("third", (1, 2, 6), (2, 2, 2), {"activation": None, "pool": None}, bias=False)


class ScriptedTimer:
    """Runs what it is given once, and says that it took what a script makes of the call's number: milliseconds."""

    def __init__(self, script: Callable[[int], float]) -> None:
        self.script, self.calls = script, 0

    def measure(self, function: Callable[..., object], *, rotate: Sequence[tuple[Any, ...]] = ((),)) -> list[float]:
        function(*rotate[0])
        self.calls += 1
        return [self.script(self.calls) * share for share in (1.0, 0.9, 1.2)]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv(plan_table.ENVIRONMENT_VARIABLE, str(tmp_path / "own"))
    yield
    forget()


def run(
    layers: list[TuneLayer], path: Path, script: Callable[[int], float], **options: Any
) -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    outcome = tune_layers(
        layers, torch.float32, CPU, timer=ScriptedTimer(script), report=lines.append, table_path=path, **options
    )
    return outcome, lines


def times(path: Path, pass_: str) -> dict[str, list[float]]:
    """Medians of a pass by way, in the order they were taken."""
    found: dict[str, list[float]] = {}
    for row in read_table(path)[0]["times_ms"]:
        if row["pass"] == pass_:
            found.setdefault(row["way"], []).append(row.get("median"))
    return found


def test_the_fastest_of_every_pass_is_the_plan_and_all_times_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    outcome, lines = run([TINY], path, lambda number: 100.0 - number)  # each faster than the one before
    assert outcome == Outcome(measured=["tiny"])
    (entry,) = read_table(path)
    plan = plan_from_json(entry["plan"])
    assert entry["complete"]
    assert entry["machine"]["gpu"] == "cpu"
    assert (entry["problem"]["x"], entry["problem"]["dtype"]) == ([2, 2, 6, 5], "float32")
    # One tile of every way first, then further tiles: the last one taken is the fastest.
    assert [*times(path, "inference")] == ["fused", "epilogue", "eager"]
    assert plan.inference.way == plan.forward.way == "fused"
    assert plan.inference.tile is not None
    assert plan.inference.tile != entry["times_ms"][0]["tile"]
    assert [*times(path, "dgrad")] == [*times(path, "wgrad")] == ["fused", "dense", "cudnn"]
    assert len(times(path, "unpool")["fused"]) == 1
    assert plan.train == plan.train_without_dx == "eager"  # timed after the planned step, so faster here
    assert all(row["p20"] <= row["median"] <= row["p80"] and row["samples"] == 3 for row in entry["times_ms"])
    assert len(lines) == len(entry["times_ms"])


def test_unpooling_is_paid_once_by_both_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_name(cost: dict[tuple[str, str], float]) -> Any:
        def time(self: Any, pass_: str, choice: Choice, plan: Any, function: Any) -> float:
            self.rows.append({"pass": pass_, "way": choice.way})
            return cost.get((pass_, choice.way), 100.0)

        return time

    base = {("dgrad", "fused"): 10.0, ("wgrad", "fused"): 10.0, ("unpool", "fused"): 4.0, ("forward", "fused"): 1.0}
    cheaper = {**base, ("dgrad", "cudnn"): 7.0, ("wgrad", "dense"): 7.0, ("train", "planned"): 1.0}
    monkeypatch.setattr(tune_layer._Tuner, "time", by_name(cheaper))
    run([TINY], tmp_path / "a.json", lambda _: 1.0)
    plan = plan_from_json(read_table(tmp_path / "a.json")[0]["plan"])
    assert (plan.dgrad.way, plan.wgrad.way) == ("cudnn", "dense")  # 7 + 7 + 4 < 10 + 10
    assert (plan.dgrad_alone.way, plan.wgrad_alone.way) == ("fused", "fused")  # 7 + 4 > 10
    assert (plan.train, plan.train_without_dx) == ("planned", "planned")


def test_a_wrong_candidate_is_refused_and_never_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = conv_act_pool_epilogue.conv_act_pool_epilogue

    def half_as_large_again(conv: Any, bias: Any, y: Any, *rest: Any) -> None:
        honest(conv * 1.5, bias, y, *rest)

    def does_not_compile(*_: Any) -> None:
        raise RuntimeError("out of shared memory\nand more")

    monkeypatch.setattr(planned_layer, "conv_act_pool_epilogue", half_as_large_again)
    monkeypatch.setattr(planned_layer, "conv_act_pool_unpool", does_not_compile)
    path = tmp_path / "table.json"
    outcome, lines = run([TINY], path, lambda _: 1.0)
    assert outcome.measured == []
    assert outcome.failed == ["tiny"]
    assert "out of shared memory" in lines[0]
    monkeypatch.setattr(planned_layer, "conv_act_pool_unpool", conv_act_pool_epilogue.conv_act_pool_unpool)
    run([TINY], path, lambda number: 1.0 / number)
    refused = [row for row in read_table(path)[0]["times_ms"] if "refused" in row]
    assert {row["way"] for row in refused} == {"epilogue"}
    assert all("error" in row["refused"] and "\n" not in row["refused"] for row in refused)
    plan = plan_from_json(read_table(path)[0]["plan"])
    assert (plan.inference.way, plan.forward.way) != ("epilogue", "epilogue")
    assert plan.forward.way == "fused"


def test_a_second_run_goes_on_where_the_budget_ended(tmp_path: Path) -> None:
    path, now = tmp_path / "table.json", {"s": 0.0}

    def clock() -> float:
        return now["s"]

    def script(_: int) -> float:
        now["s"] += 1.0
        return 1.0

    layers = [OTHER, THIRD]
    outcome, _ = run(layers, path, script, budget_s=3.0, clock=clock)
    assert outcome == Outcome(left=["other", "third"])  # begun, essentials measured, further tiles not
    assert not read_table(path)[0]["complete"]
    outcome, _ = run(layers, path, script, budget_s=400.0, clock=clock)
    assert outcome.measured == ["other", "third"]
    outcome, lines = run(layers, path, script, budget_s=1.0, clock=clock)
    assert outcome == Outcome(skipped=["other", "third"])
    assert lines == ["other: measured before", "third: measured before"]
    assert len(read_table(path)) == 2
    outcome, _ = run([OTHER], path, script, retune=True)
    assert outcome.measured == ["other"]
    assert len(read_table(path)) == 2


def test_one_pass_at_a_time_keeps_the_other(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    run([OTHER], path, lambda number: 1.0 / number, passes=("inference",))
    assert {row["pass"] for row in read_table(path)[0]["times_ms"]} == {"inference"}
    inference = read_table(path)[0]["plan"]["inference"]
    outcome, _ = run([OTHER], path, lambda number: 1.0 / number, passes=("train",))
    assert outcome.measured == ["other"]
    assert read_table(path)[0]["plan"]["inference"] == inference


def test_a_file_that_is_no_table_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text("precious")
    with pytest.raises(TableError, match="cannot be read as JSON"):
        run([TINY], path, lambda _: 1.0)
    assert path.read_text() == "precious"


def test_nothing_right_at_all_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_layer._Tuner, "wrong", lambda *_: "all is wrong")
    with pytest.raises(TuningError, match="tiny: no way to run forward was right"):
        tune_layer.tune_layer(TINY, torch.float32, CPU, timer=ScriptedTimer(lambda _: 1.0), report=lambda _: None)


def test_layers_in_words() -> None:
    layer = layer_from_words("x=8x3x32x30 weight=16x3x3x3 padding=1x2 stride=2 pool=max3/2p1 activation=silu bias=no")
    assert (layer.x, layer.weight, layer.bias) == ((8, 3, 32, 30), (16, 3, 3, 3), False)
    assert layer.options == {"padding": (1, 2), "stride": 2, "pool": MaxPool(3, 2, 1), "activation": "silu"}
    assert layer.channels_last
    for words, message in (
        ("x=8x3 weight=a", "expected weight as numbers"),
        ("x=8x3x3 weight=2x3x3 pool=big", "expected pool like max2"),
        ("x=8x3x3 weight=2x3x3 colour=red", "got 'colour'"),
        ("x=8x3x3 x=8x3x3", "distinct words"),
        ("x=8x3x3 weight=2x3x3 bias=maybe", "yes or no"),
    ):
        with pytest.raises(LayerTextError, match=message) as refusal:
            layer_from_words(words)
        assert "\n" not in str(refusal.value)


def test_the_command_lists_candidates_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--suite", "vgg16", "lenet5", "--dry_run", "--target", "sm_90", "--batch_size", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {layer.name for name in ("vgg16", "lenet5") for layer in SUITES[name]}
    assert {line.split()[1] for line in lines} == {"inference", "forward", "dgrad", "wgrad"}
    assert {line.split()[2] for line in lines} == {"fused", "epilogue", "eager", "dense", "cudnn"}
    assert not any("block_p=2048" in line for line in lines)  # tiles of the GPU, not of the interpreter


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "lenet5"], "none was found"),
        (["--shapes", "x=3"], "expected weight as numbers"),
        (["--shapes", "x=2x3x4x4 weight=2x5x3x3"], "expected input to have 5 channels"),
        (
            ["--shapes", "x=2x3x4x4 weight=2x3x3x3 activation=prelu"],
            "without a learned slope, but got activation prelu",
        ),
        (["--suite", "lenet5", "--batch_size", "0"], "--batch_size of at least 1"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_what_cannot_be_tuned_is_said_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("tidepool tune: ")


def test_interpreted_kernels_are_not_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tune, "interpreting_asked", lambda: True)
    assert main(["--suite", "lenet5"]) == 2
    assert "TRITON_INTERPRET has them interpreted" in capsys.readouterr().err


def test_the_default_table_is_the_users_for_this_machine(tmp_path: Path) -> None:
    assert tune.default_table(CPU) == tmp_path / "own" / "cpu.json"
    assert machine_of(CPU).gpu == "cpu"
