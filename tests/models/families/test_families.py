"""Every family: sizes, parameters counted by hand, gradients everywhere, the same start on every backend.

A training step of each on this project's kernels alone: test_training_step.py. Torchvision's networks:
test_torchvision.py.
"""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models.network_step import MEMBERS
from tidepool import models
from tidepool.models import build_model, input_kind

SIZES: dict[str, tuple[tuple[int, ...], ...]] = {
    "image": ((8, 8), (28, 28), (9, 15), (33, 19)),
    "waveform": ((1020,), (2001,)),
    "video": ((1, 8, 8), (5, 9, 15)),
}
LARGER: dict[str, tuple[tuple[int, ...], ...]] = {
    "alexnet": ((63, 63), (64, 80)),
    "vgg11": ((32, 32), (33, 65)),
    "vgg11_bn": ((32, 32), (33, 65)),
    "speednet": ((9, 9), (33, 19)),
}
CASES = [(member.name, size) for member in MEMBERS for size in LARGER.get(member.name, SIZES[input_kind(member.name)])]
# A channel or two of a network without norms may be dead for every sample.
WIDER = {"vgg11": {"width": 4}, "vggish": {"width": 4}, "c3d": {"width": 4}}
OPTIONS: dict[str, dict[str, Any]] = {member.name: member.options | WIDER.get(member.name, {}) for member in MEMBERS}
FAMILIES = tuple(OPTIONS)


def _build(name: str, size: tuple[int, ...], channels: int, backend: str = "cudnn", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    settings = {"num_classes": 10, "in_channels": channels, "image_size": size, "backend": backend}
    return build_model(name, **settings, **OPTIONS[name])


def _input(size: tuple[int, ...], channels: int, num: int = 5) -> torch.Tensor:
    return torch.randn(num, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "size"), CASES, ids=lambda value: value if isinstance(value, str) else str(value))
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_and_a_gradient_for_every_parameter(name: str, size: tuple[int, ...], channels: int) -> None:
    model = _build(name, size, channels)
    logits = model(_input(size, channels))
    assert logits.shape == (5, 10)
    F.cross_entropy(logits, torch.tensor([0, 3, 9, 1, 2])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), parameter_name
    for parameter in (next(model.parameters()), list(model.parameters())[-1]):
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "size", "channels", "expected"),
    [
        # 64*256+256, 256*128+128, 128*10+10
        ("mlp", (8, 8), 1, 16_640 + 32_896 + 1_290),
        # 3072*256+256, then as above
        ("mlp", (32, 32), 3, 786_688 + 32_896 + 1_290),
        # 5*5*1*6+6, 5*5*6*16+16, 16*2*2*120+120, 120*84+84, 84*10+10
        ("lenet5", (8, 8), 1, 156 + 2_416 + 7_800 + 10_164 + 850),
        # 5*5*3*6+6, 5*5*6*16+16, 16*8*8*120+120, then as above
        ("lenet5", (32, 32), 3, 456 + 2_416 + 123_000 + 10_164 + 850),
        # 33x19 -> 16x9 -> 8x4: 16*8*4*120+120
        ("lenet5", (33, 19), 1, 156 + 2_416 + 61_560 + 10_164 + 850),
        # conv 9*in*out: 3-64, 64-64, 64-128, 128-128, 128-256, 256-256; norm 2*out each; 256*10+10
        (
            "convnet",
            (32, 32),
            3,
            (1_728 + 36_864 + 73_728 + 147_456 + 294_912 + 589_824) + 2 * 2 * (64 + 128 + 256) + 2_570,
        ),
        # conv 27*in*out+out: 3-64, 64-128, 128-256, 256-256, 256-512, 512-512 three times; 512*4*4*4096+4096,
        # 4096*4096+4096; 4096*10+10
        (
            "c3d",
            (16, 112, 112),
            3,
            (5_248 + 221_312 + 884_992 + 1_769_728 + 3_539_456 + 3 * 7_078_400) + 33_558_528 + 16_781_312 + 40_970,
        ),
        # conv 9*in*out+out: 1-64, 64-128, 128-256, 256-256, 256-512, 512-512; 512*4*6*4096+4096, 4096*4096+4096,
        # 4096*128+128; 128*10+10
        (
            "vggish",
            (64, 96),
            1,
            (640 + 73_856 + 295_168 + 590_080 + 1_180_160 + 2_359_808) + 50_335_744 + 16_781_312 + 524_416 + 1_290,
        ),
        # conv 80*128, 3*128*128, 3*128*256, 3*256*512; norm 2*out each; 512*10+10
        ("conv1d_audio", (8000,), 1, 10_240 + 49_152 + 98_304 + 393_216 + 2 * (128 + 128 + 256 + 512) + 5_130),
        # He et al., section 4.2: stem 27*16+32; 6 convolutions a stage of 16, 32, 64 channels; 64*10+10
        (
            "resnet20",
            (32, 32),
            3,
            (432 + 6 * 2_304 + 4_608 + 5 * 9_216 + 18_432 + 5 * 36_864) + 2 * (7 * 16 + 6 * 32 + 6 * 64) + 650,
        ),
        # 2x2 stem of 24 filters with bias; conv 9*in*out: 24-64, 64-64, 64-256, 256-256 twice... ; norm; 256*10
        (
            "speednet",
            (32, 32),
            3,
            312 + 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256) + 2 * (2 * 64 + 4 * 256) + 2_560,
        ),
        # conv 9*in*out of 32, 64 and 128 channels, two a stage; norm; 128*10+10
        (
            "searchable",
            (32, 32),
            3,
            9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 4 * (32 + 64 + 128) + 1_290,
        ),
    ],
)
def test_parameters_are_as_many_as_counted_by_hand(
    name: str, size: tuple[int, ...], channels: int, expected: int
) -> None:
    papers = {"c3d": {"width": 64}, "vggish": {"width": 64}, "conv1d_audio": {"width": 128}}
    with torch.device("meta"):
        model = build_model(name, num_classes=10, in_channels=channels, image_size=size, **papers.get(name, {}))
    assert _count(model) == expected


def test_options_change_the_count_as_counted_by_hand() -> None:
    # conv 1-8, 8-16, 16-32 without bias; norm 2*(8+16+32); 32*4+4
    slim = build_model("convnet", num_classes=4, in_channels=1, width=8, depth=1)
    assert _count(slim) == (72 + 1_152 + 4_608) + 112 + 132
    # a linear classifier: 3*5*7*4+4
    assert _count(build_model("mlp", num_classes=4, image_size=(5, 7), hidden=())) == 424
    # 105*20+20, 20*4+4
    assert _count(build_model("mlp", num_classes=4, image_size=(5, 7), hidden=[20])) == 2_120 + 84


def test_a_thousand_hidden_units_on_a_256_pixel_picture_need_196_million_weights() -> None:
    with torch.device("meta"):
        model = build_model("mlp", num_classes=10, image_size=256, hidden=(1000,))
    assert next(model.parameters()).numel() == 196_608_000


SIZELESS = ("convnet", "alexnet", "vgg11_bn", "resnet18", "resnet20", "efficientnet_b0", "speednet", "conv1d_audio")


@pytest.mark.parametrize("name", SIZELESS)
def test_some_take_any_size_without_being_told(name: str) -> None:
    model = build_model(name, num_classes=10, backend="cudnn", **OPTIONS[name]).eval()
    for size in LARGER.get(name, SIZES[input_kind(name)]):
        assert model(_input(size, 3)).shape == (5, 10)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20", "efficientnet_b0"])
def test_one_pixel_is_enough_for_those_that_pad(name: str) -> None:
    model = build_model(name, num_classes=10, backend="cudnn", image_size=1, **OPTIONS[name]).eval()
    assert model(_input((1, 1), 3)).shape == (5, 10)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_seed_alone_decides_the_start(name: str) -> None:
    size = next(member.size for member in MEMBERS if member.name == name)
    first = _build(name, size, 3, "cudnn").state_dict()
    for backend in ("triton", "compile", "auto"):
        other = _build(name, size, 3, backend).state_dict()
        assert list(other) == list(first)
        assert all(torch.equal(other[key], first[key]) for key in first)
    reseeded = _build(name, size, 3, "cudnn", seed=1).state_dict()
    head = next(key for key in reversed(first) if key.endswith("weight"))
    assert not torch.equal(reseeded[head], first[head])


def test_skips_are_an_option_of_the_searchable_networks() -> None:
    settings: dict[str, Any] = {"num_classes": 10, "image_size": 8, "width": 4, "depth": 3, "backend": "cudnn"}
    torch.manual_seed(0)
    with_skips = build_model("searchable", **settings, skips=True).eval()
    without = build_model("searchable", **settings, skips=False).eval()
    without.load_state_dict(with_skips.state_dict())
    x = _input((8, 8), 3)
    assert not torch.allclose(with_skips(x), without(x))
    for network in (with_skips, without):  # convolutions that give nothing leave only what skips past them
        for name, parameter in network.named_parameters():
            if "others" in name:
                nn.init.zeros_(parameter)
    assert without(x).std(0).max() == 0
    assert with_skips(x).std(0).max() > 0


@pytest.mark.parametrize(("layers", "blocks"), [(20, 9), (32, 15), (44, 21), (56, 27), (110, 54)])
def test_cifar_resnets_have_as_many_blocks_as_their_names_say(layers: int, blocks: int) -> None:
    with torch.device("meta"):
        model = build_model(f"resnet{layers}", num_classes=10)
    assert len(model.get_submodule("blocks")) == blocks  # type: ignore[arg-type]


# The registry checks the backend's name, for every model alike; the coverage report says what each would start.
SOURCES = sorted(
    path for path in Path(models.__file__).parent.rglob("*.py") if path.name not in ("registry.py", "cover.py")
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_model_asks_which_backend_runs_it(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, (ast.If, ast.IfExp, ast.While)):
            asked: ast.AST = node.test
        elif isinstance(node, ast.Match):
            asked = node.subject
        elif isinstance(node, ast.Compare):
            asked = node
        else:
            continue
        names = {n.id for n in ast.walk(asked) if isinstance(n, ast.Name)}
        names |= {n.attr for n in ast.walk(asked) if isinstance(n, ast.Attribute)}
        assert "backend" not in names, f"{source.name}, line {node.lineno}"
