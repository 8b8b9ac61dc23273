"""The lists of cases: what the issue of a fair comparison asks for is in them, and they are written down beforehand."""

import csv
from pathlib import Path

import pytest
import torch

from tidepool.benchmarking.cases import CaseError, LayerCase
from tidepool.benchmarking.records import write_cases
from tidepool.benchmarking.suites import BLOCKS, MODELS, SMOKE, chosen, suite
from tidepool.benchmarking.workload import PASSES, layer_bounds
from tidepool.kernels.auto.roofline import DEVICES
from tidepool.records import RecordError

RECORDED = Path(__file__).resolve().parents[2] / "results" / "kernel_speed"


def test_names_are_unique() -> None:
    names = [case.name for case in (*SMOKE, *BLOCKS, *MODELS)]
    assert len(names) == len(set(names))


def test_every_layer_is_one_the_op_takes() -> None:
    """Through the op's own checks and the roofline, which refuse sizes that do not fit."""
    for case in (*SMOKE, *BLOCKS):
        for pass_ in PASSES:
            bounds = layer_bounds(case, torch.bfloat16, pass_, DEVICES[0])
            assert bounds.flops, case.name
            assert bounds.roofline_ms, case.name


def test_every_network_can_be_built_for_its_images() -> None:
    for case in MODELS:
        with torch.device("meta"):
            model = case.network("cudnn")
        assert sum(parameter.numel() for parameter in model.parameters()) > 10_000, case.name


@pytest.mark.parametrize(
    ("name", "x", "weight"),
    [
        ("vgg16_1_b64", (64, 64, 224, 224), (64, 64, 3, 3)),
        ("vgg16_5_b64", (64, 512, 14, 14), (512, 512, 3, 3)),
        ("vgg16_cifar_5_b512", (512, 512, 2, 2), (512, 512, 3, 3)),
        ("kernelbench_1_b128", (128, 64, 128, 128), (128, 64, 3, 3)),
        ("kernelbench_82_b128", (128, 8, 256, 256), (64, 8, 3, 3)),
        ("kernelbench_lenet_2_b4096", (4096, 6, 14, 14), (16, 6, 5, 5)),
        ("depthwise_5x5_stride2_b64", (64, 144, 56, 56), (144, 1, 5, 5)),
        ("video_1_b8", (8, 3, 16, 112, 112), (64, 3, 3, 3, 3)),
    ],
)
def test_sizes(name: str, x: tuple[int, ...], weight: tuple[int, ...]) -> None:
    (case,) = chosen(BLOCKS, [name])
    assert isinstance(case, LayerCase)
    assert (case.x, case.weight) == (x, weight)


def test_suites_and_cases_that_do_not_exist_are_refused() -> None:
    with pytest.raises(CaseError, match="unknown suite 'all'; expected one of: smoke, blocks, models"):
        suite("all")
    with pytest.raises(CaseError, match="unknown case 'x'"):
        chosen(SMOKE, ["smoke_1d", "x"])


def test_the_recorded_lists_are_these() -> None:
    """results/kernel_speed/cases.csv is the list fixed beforehand: a case that changes needs another name."""
    with (RECORDED / "cases.csv").open(newline="") as file:
        recorded = {(row["suite"], row["case"]): row["description"] for row in csv.DictReader(file)}
    here = {(name, case.name): case.describe() for name in ("blocks", "models") for case in suite(name)}
    assert recorded == here


def test_a_case_of_other_sizes_does_not_enter_a_recorded_list(tmp_path: Path) -> None:
    write_cases(tmp_path, "smoke", SMOKE)
    before = (tmp_path / "cases.csv").read_bytes()
    write_cases(tmp_path, "smoke", SMOKE)
    assert (tmp_path / "cases.csv").read_bytes() == before
    with pytest.raises(RecordError, match="write into another folder"):
        write_cases(tmp_path, "smoke", [SMOKE[0].at_batch(3)])


def test_a_changed_batch_shows_in_the_description() -> None:
    case = SMOKE[0]
    assert case.describe() == "4x8x10x12 * 16x8x3x3, padding=1, activation=relu, pool=MaxPool(2)"
    assert case.at_batch(3).describe().startswith("3x8x10x12")
