"""Every family: sizes, parameters counted by hand, gradients everywhere, the same start and step on every backend."""

import ast
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from models import build_model

FAMILIES = ("mlp", "lenet5", "convnet")
SIZES = ((8, 8), (28, 28), (32, 32), (9, 15), (33, 19))


def _build(name: str, size: tuple[int, int], channels: int, backend: str = "cudnn", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, num_classes=10, in_channels=channels, image_size=size, backend=backend)


def _pictures(size: tuple[int, int], channels: int, num: int = 3) -> torch.Tensor:
    return torch.randn(num, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_and_a_gradient_for_every_parameter(name: str, size: tuple[int, int], channels: int) -> None:
    model = _build(name, size, channels)
    logits = model(_pictures(size, channels))
    assert logits.shape == (3, 10)
    F.cross_entropy(logits, torch.tensor([0, 3, 9])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


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
        # conv 9*in*out+out: 3-64, 64-64, 64-128, 128-128, 128-256, 256-256; norm 2*out each; 256*10+10
        (
            "convnet",
            (32, 32),
            3,
            (1_792 + 36_928 + 73_856 + 147_584 + 295_168 + 590_080) + 2 * 2 * (64 + 128 + 256) + 2_570,
        ),
    ],
)
def test_parameters_are_as_many_as_counted_by_hand(
    name: str, size: tuple[int, int], channels: int, expected: int
) -> None:
    assert _count(_build(name, size, channels)) == expected


def test_options_change_the_count_as_counted_by_hand() -> None:
    # conv 1-8, 8-16, 16-32; norm 2*(8+16+32); 32*4+4
    slim = build_model("convnet", num_classes=4, in_channels=1, width=8, depth=1)
    assert _count(slim) == (80 + 1_168 + 4_640) + 112 + 132
    # a linear classifier: 3*5*7*4+4
    assert _count(build_model("mlp", num_classes=4, image_size=(5, 7), hidden=())) == 424
    # 105*20+20, 20*4+4
    assert _count(build_model("mlp", num_classes=4, image_size=(5, 7), hidden=[20])) == 2_120 + 84


def test_a_thousand_hidden_units_on_a_256_pixel_picture_need_196_million_weights() -> None:
    with torch.device("meta"):
        model = build_model("mlp", num_classes=10, image_size=256, hidden=(1000,))
    assert next(model.parameters()).numel() == 196_608_000


def test_convnet_takes_any_size_without_being_told() -> None:
    model = build_model("convnet", num_classes=10, backend="cudnn", width=4).eval()
    for size in SIZES:
        assert model(_pictures(size, 3)).shape == (3, 10)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_seed_alone_decides_the_start(name: str) -> None:
    first = _build(name, (12, 12), 3, "cudnn").state_dict()
    for backend in ("triton", "compile", "auto"):
        other = _build(name, (12, 12), 3, backend).state_dict()
        assert list(other) == list(first)
        assert all(torch.equal(other[key], first[key]) for key in first)
    reseeded = _build(name, (12, 12), 3, "cudnn", seed=1).state_dict()
    assert not torch.equal(reseeded["head.weight"], first["head.weight"])


@pytest.mark.parametrize(("name", "size"), [("lenet5", (8, 8)), ("convnet", (9, 11))])
def test_triton_and_cudnn_agree_on_logits_and_gradients(name: str, size: tuple[int, int]) -> None:
    results = []
    for backend in ("cudnn", "triton"):
        torch.manual_seed(0)
        options = {"width": 4, "depth": 1} if name == "convnet" else {}
        model = build_model(name, num_classes=10, in_channels=1, image_size=size, backend=backend, **options)
        logits = model(_pictures(size, 1, num=4))
        F.cross_entropy(logits, torch.tensor([0, 3, 9, 3])).backward()
        results.append([logits, *(parameter.grad for parameter in model.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lenet5", "convnet"])
def test_convolution_and_pool_come_from_the_op_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def stand_in(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, **settings: object) -> torch.Tensor:
        calls.append(settings["backend"])
        window = getattr(settings["pool"], "kernel", 1)
        return x.new_ones(x.shape[0], weight.shape[0], x.shape[2] // window, x.shape[3] // window)

    monkeypatch.setattr("kernels.conv_relu_pool", stand_in)
    for function in ("conv1d", "conv2d", "conv3d", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"):
        monkeypatch.setattr(F, function, None)
    model = _build(name, (16, 16), 3, backend="triton")
    assert model(_pictures((16, 16), 3)).shape == (3, 10)
    assert calls == ["triton"] * {"lenet5": 2, "convnet": 6}[name]


# The registry checks the backend's name, for every model alike.
SOURCES = sorted(path for path in Path(models.__file__).parent.glob("*.py") if path.name != "registry.py")


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
