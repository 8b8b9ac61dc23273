"""The coverage report: it names what a step really starts, and its totals are those of the network."""

from typing import Any

import pytest
import torch

import tidepool.kernels.runtime.launch
from tests.kernels.exact import INTERPRETED
from tests.models.network_step import CHANNELS, MEMBERS, NUM_CLASSES, Member, build, step
from tidepool.kernels.runtime.launch import replace_launcher
from tidepool.models import build_model, usual_input
from tidepool.models.coverage.cover import cover, main

BY_NAME = {member.name: member for member in MEMBERS}


def _covered(member: Member, backend: str) -> list[Any]:
    with torch.device("meta"):
        model = build_model(
            member.name,
            num_classes=NUM_CLASSES,
            in_channels=CHANNELS,
            image_size=member.size,
            backend=backend,
            **member.options,
        )
    return cover(model, (member.batch, CHANNELS, *member.size))


@pytest.mark.skipif(not INTERPRETED, reason="a GPU's launches are the report's own source")
@pytest.mark.parametrize("name", ["lenet5", "speednet", "searchable", "conv1d_audio"])
def test_kernels_are_those_that_a_step_starts(name: str) -> None:
    member = BY_NAME[name]
    started: list[str] = []

    def launcher(kernel: Any, grid: tuple[int, ...], *arguments: Any, **settings: Any) -> None:
        started.append(getattr(kernel, "fn", kernel).__name__.removesuffix("_kernel"))
        tidepool.kernels.runtime.launch.launch_now(kernel, grid, *arguments, **settings)

    network = build(member, "triton")
    replace_launcher(launcher)
    try:
        step(network, member)
    finally:
        replace_launcher(None)
    rows = _covered(member, "triton")
    forward = [kernel for row in rows for kernel in row.carried_by["forward"] if not kernel.startswith("aten::")]
    assert started[: len(forward)] == forward
    gradients = {
        kernel
        for row in rows
        for result, starters in row.carried_by.items()
        if result != "forward"
        for kernel in starters
    }
    assert set(started[len(forward) :]) == {kernel for kernel in gradients if not kernel.startswith("aten::")}


def test_pytorchs_operators_are_named_for_its_backend() -> None:
    rows = {row.name: row for row in _covered(BY_NAME["lenet5"], "cudnn")}
    assert rows["conv2"].carried_by == {
        "forward": ("aten::convolution", "aten::relu", "aten::max_pool2d_with_indices"),
        "x": ("aten::max_pool2d_with_indices_backward", "aten::threshold_backward", "aten::convolution_backward"),
        "weight": ("aten::max_pool2d_with_indices_backward", "aten::threshold_backward", "aten::convolution_backward"),
    }


def test_no_gradient_is_listed_that_nobody_wants() -> None:
    rows = {row.name: row for row in _covered(BY_NAME["speednet"], "cudnn")}
    assert "x" not in rows["stem"].carried_by
    assert "x" in rows["layers.0.conv"].carried_by


@pytest.mark.parametrize("backend", ["triton", "cudnn"])
def test_parameters_operations_and_names_add_up(backend: str) -> None:
    with torch.device("meta"):
        model = build_model("resnet18", num_classes=1000, backend=backend)
    rows = cover(model, (2, 3, 64, 64))
    assert sum(row.parameters for row in rows) == sum(parameter.numel() for parameter in model.parameters())
    by_name = {row.name: row for row in rows}
    assert [name for name in by_name if name.startswith("layer2.0")] == [
        "layer2.0.downsample.0",
        "layer2.0.conv1",
        "layer2.0.conv2",
    ]
    # 3x3 of 64 by 64 channels at 16x16 pixels of two images: 2 operations a product, forward and two gradients.
    assert by_name["layer1.0.conv1"].flops == 3 * 2 * (2 * 16 * 16) * 64 * 64 * 9
    assert by_name["fc"].flops == 3 * 2 * 2 * 512 * 1000
    assert by_name["fc"].bytes_moved == 3 * 4 * (2 * 512 + 512 * 1000 + 2 * 1000)


def test_the_fused_backend_moves_fewer_bytes() -> None:
    member = BY_NAME["convnet"]
    ours, theirs = (sum(row.bytes_moved for row in _covered(member, backend)) for backend in ("triton", "cudnn"))
    assert ours < theirs


def test_the_command_prints_every_layer_and_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["searchable", "--depth", "1", "--image_size", "16x8", "--num_classes", "4", "--backend", "cudnn"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("searchable at 8 x 3 x 16 x 8, fp32, backend cudnn")
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")][1:] == [
        "stages.0.first.conv",
        "stages.1.first.conv",
        "stages.2.first.conv",
        "(network)",
        "head",
        "total",
    ]
    # conv 9*in*out of 32, 64, 128 channels; norm; 128*4+4
    assert f"{9 * (3 * 32 + 32 * 64 + 64 * 128) + 2 * 224 + 516:,} parameters" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["lenet6"], "argument name: invalid choice: 'lenet6'"),
        (["vgg16", "--image_size", "8"], "model 'vgg16' cannot take 8x8 images"),
        (["vgg16", "--image_size", "8xx"], "argument --image_size: '8xx'; expected a number"),
        (["c3d", "--image_size", "8x8"], "image_size=(8, 8); expected one number or (frames, height, width)"),
        (["lenet5", "--batch_size", "0"], "argument --batch_size: 0; expected"),
        (["lenet5", "--width", "3"], "unrecognized arguments: --width 3"),
        (["searchable", "--skips", "maybe"], "skips='maybe'; expected True or False"),
        (["resnet18", "--batch_size", "1", "--image_size", "8"], "Expected more than 1 value per channel"),
        ([], "the following arguments are required: name"),
    ],
)
def test_one_line_and_exit_code_2(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as exit_request:
        code = exit_request.code  # type: ignore[assignment]
    assert code == 2
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1
    assert text.startswith(f"tidepool coverage: {complaint}")


@pytest.mark.parametrize("name", [member.name for member in MEMBERS])
def test_every_family_takes_its_usual_input(name: str) -> None:
    with torch.device("meta"):
        channels, *size = usual_input(name)
        build_model(name, num_classes=10, in_channels=channels, image_size=tuple(size))
