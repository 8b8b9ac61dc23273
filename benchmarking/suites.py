"""The layers and networks that are compared: fixed beforehand, losers included.

A geometric mean over a suite is a mean over every case of it. What is to be measured is decided here and written into
the records as `cases.csv`; a case that could not be measured stays in the list.

Sizes are those of the papers' networks as torchvision builds them (AlexNet, VGG-16, ResNet), of LeNet-5, of airbench94
(K. Jordan, 2024) for `speednet`, and of KernelBench (Ouyang et al. 2025, the enlarged sizes of its release 0.1) for
`kernelbench`. Where a KernelBench problem does more than conv + bias + activation + pool, the case's note says which
part is measured.
"""

import difflib
from collections.abc import Iterable
from typing import Any

from tidepool.benchmarking.cases import Case, CaseError, LayerCase, ModelCase
from tidepool.kernels.layer.pooling import AvgPool, MaxPool

SUITES = ("smoke", "blocks", "models")


def suite(name: str) -> tuple[Case, ...]:
    """The cases of a suite, in the order they are run. Raises CaseError for another name."""
    if name not in SUITES:
        raise CaseError(f"unknown suite {name!r}; expected one of: {', '.join(SUITES)}")
    suites: dict[str, tuple[Case, ...]] = {"smoke": SMOKE, "blocks": BLOCKS, "models": MODELS}
    return suites[name]


def chosen(cases: Iterable[Case], names: Iterable[str] | None) -> tuple[Case, ...]:
    """Those of `cases` called `names`, or all of them for None. Raises CaseError for a name none has."""
    by_name = {case.name: case for case in cases}
    if names is None:
        return tuple(by_name.values())
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=5, cutoff=0) if len(by_name) > 8 else list(by_name)
            raise CaseError(f"unknown case {name!r}; expected some of the suite's {len(by_name)}, as {', '.join(near)}")
    return tuple(by_name[name] for name in by_name if name in set(names))


def _layers(
    name: str,
    family: str,
    source: str,
    batches: tuple[int, ...],
    pixels: tuple[int, ...],
    weight: tuple[int, ...],
    options: dict[str, Any],
    *,
    bias: bool = True,
    input_gradient: bool = True,
    note: str = "",
) -> list[LayerCase]:
    """One layer at several batch sizes, `name` followed by `_b<batch>`."""
    channels = weight[1] * options.get("groups", 1)
    return [
        LayerCase(
            f"{name}_b{batch}", family, source, (batch, channels, *pixels), weight, options, bias, input_gradient, note
        )
        for batch in batches
    ]


def _vgg(name: str, family: str, size: int, batches: dict[int, tuple[int, ...]]) -> list[LayerCase]:
    """The five layers of VGG-16 that a pool follows, for images of `size`; batch sizes by block."""
    cases = []
    for block, channels in enumerate((64, 128, 256, 512, 512), start=1):
        pixels = (size >> (block - 1),) * 2
        source = f"VGG-16, last layer of block {block}, {size}x{size} pictures"
        weight = (channels, channels, 3, 3)
        cases += _layers(f"{name}_{block}", family, source, batches[block], pixels, weight, {"padding": 1})
    return cases


_NONE: dict[str, Any] = {"pool": None}
_STEM = {"stride": 2, "padding": 3, "pool": MaxPool(3, 2, 1)}
_BENCH = "KernelBench level 2, problem"

SMOKE: tuple[LayerCase, ...] = (
    LayerCase("smoke_pool2", "smoke", "a small VGG block", (4, 8, 10, 12), (16, 8, 3, 3), {"padding": 1}),
    LayerCase(
        "smoke_stem",
        "smoke",
        "a small ResNet stem",
        (2, 3, 19, 17),
        (8, 3, 7, 7),
        _STEM,
        input_gradient=False,
    ),
    LayerCase(
        "smoke_average",
        "smoke",
        "an average pool under SiLU",
        (2, 4, 8, 8),
        (8, 4, 3, 3),
        {"padding": 1, "activation": "silu", "pool": AvgPool(2)},
        bias=False,
    ),
    LayerCase(
        "smoke_depthwise", "smoke", "a small depthwise layer", (2, 6, 9, 8), (6, 1, 3, 3), {"groups": 6, **_NONE}
    ),
    LayerCase("smoke_1d", "smoke", "a short waveform", (2, 3, 37), (6, 3, 5), {"stride": 2, "pool": MaxPool(3, 2)}),
)

BLOCKS: tuple[LayerCase, ...] = (
    *_layers(
        "alexnet_1",
        "AlexNet",
        "AlexNet, layer 1",
        (128, 8),
        (224, 224),
        (64, 3, 11, 11),
        {"stride": 4, "padding": 2, "pool": MaxPool(3, 2)},
        input_gradient=False,
    ),
    *_layers(
        "alexnet_2",
        "AlexNet",
        "AlexNet, layer 2",
        (128, 8),
        (27, 27),
        (192, 64, 5, 5),
        {"padding": 2, "pool": MaxPool(3, 2)},
    ),
    *_layers(
        "lenet_1",
        "LeNet",
        "LeNet-5, layer 1, 28x28 digits",
        (1024, 64),
        (28, 28),
        (6, 1, 5, 5),
        {"padding": 2},
        input_gradient=False,
    ),
    *_layers("lenet_2", "LeNet", "LeNet-5, layer 2, 28x28 digits", (1024, 64), (14, 14), (16, 6, 5, 5), {}),
    *_vgg("vgg16", "VGG-16", 224, {1: (64, 4), 2: (64,), 3: (64, 4), 4: (64,), 5: (64, 4)}),
    *_vgg("vgg16_cifar", "VGG-16, 32x32", 32, {1: (512,), 2: (512, 32), 3: (512,), 4: (512,), 5: (512,)}),
    *_layers(
        "resnet_stem",
        "ResNet stem",
        "ResNet, first layer with its batch normalisation folded in",
        (64, 4),
        (224, 224),
        (64, 3, 7, 7),
        _STEM,
        input_gradient=False,
    ),
    *_layers(
        "speednet_1",
        "speednet",
        "airbench94, first convolution of block 1, pooled before its normalisation",
        (1000,),
        (31, 31),
        (64, 24, 3, 3),
        {"padding": 1, "activation": None},
        bias=False,
    ),
    *_layers(
        "speednet_2",
        "speednet",
        "airbench94, first convolution of block 2, pooled before its normalisation",
        (1000,),
        (15, 15),
        (256, 64, 3, 3),
        {"padding": 1, "activation": None},
        bias=False,
    ),
    *_layers(
        "speednet_3",
        "speednet",
        "airbench94, first convolution of block 3, pooled before its normalisation",
        (1000,),
        (7, 7),
        (256, 256, 3, 3),
        {"padding": 1, "activation": None},
        bias=False,
    ),
    *_layers("conv_1x1", "kernel sizes", "ResNet-50, 1x1 of stage 2", (64,), (56, 56), (64, 256, 1, 1), _NONE),
    *_layers("conv_5x5", "kernel sizes", "a 5x5 layer", (64,), (28, 28), (128, 64, 5, 5), {"padding": 2}),
    *_layers("conv_7x7", "kernel sizes", "a 7x7 layer", (64,), (28, 28), (64, 64, 7, 7), {"padding": 3}),
    *_layers(
        "conv_stride2",
        "stride 2",
        "ResNet-18, first layer of stage 3",
        (64,),
        (56, 56),
        (128, 64, 3, 3),
        {"stride": 2, "padding": 1, **_NONE},
    ),
    *_layers(
        "depthwise_3x3",
        "depthwise",
        "EfficientNet-B0, stage 3, with its SiLU",
        (64,),
        (56, 56),
        (144, 1, 3, 3),
        {"padding": 1, "groups": 144, "activation": "silu", **_NONE},
    ),
    *_layers(
        "depthwise_5x5_stride2",
        "depthwise",
        "EfficientNet-B0, first layer of stage 4, with its SiLU",
        (64,),
        (56, 56),
        (144, 1, 5, 5),
        {"stride": 2, "padding": 2, "groups": 144, "activation": "silu", **_NONE},
    ),
    *_layers(
        "waveform_1",
        "1-D",
        "M5 on raw audio (Dai et al. 2017), layer 1",
        (64,),
        (16000,),
        (128, 1, 80),
        {"stride": 4, "padding": 38, "pool": MaxPool(4)},
        input_gradient=False,
    ),
    *_layers(
        "waveform_2",
        "1-D",
        "M5 on raw audio (Dai et al. 2017), layer 2",
        (64,),
        (1000,),
        (128, 128, 3),
        {"padding": 1, "pool": MaxPool(4)},
    ),
    *_layers(
        "video_1",
        "3-D",
        "C3D (Tran et al. 2015), layer 1",
        (8,),
        (16, 112, 112),
        (64, 3, 3, 3, 3),
        {"padding": 1, "pool": MaxPool((1, 2, 2))},
        input_gradient=False,
    ),
    *_layers(
        "video_2", "3-D", "C3D (Tran et al. 2015), layer 2", (8,), (16, 56, 56), (128, 64, 3, 3, 3), {"padding": 1}
    ),
    *_layers(
        "kernelbench_1",
        "KernelBench",
        f"{_BENCH} 1: convolution, ReLU, second bias",
        (128,),
        (128, 128),
        (128, 64, 3, 3),
        _NONE,
        note="convolution with its bias and ReLU; the bias added after the ReLU is left out",
    ),
    *_layers(
        "kernelbench_35",
        "KernelBench",
        f"{_BENCH} 35: convolution, subtraction, HardSwish, 2x2 max pool, Mish",
        (128,),
        (128, 128),
        (128, 64, 3, 3),
        {"activation": "silu"},
        note="SiLU stands for HardSwish; the subtraction is part of the bias; Mish after the pool is left out",
    ),
    *_layers(
        "kernelbench_46",
        "KernelBench",
        f"{_BENCH} 46: convolution, subtraction, tanh, subtraction, 2x2 average pool",
        (128,),
        (128, 128),
        (128, 64, 3, 3),
        {"activation": "silu", "pool": AvgPool(2)},
        note="SiLU stands for tanh; the first subtraction is part of the bias, the second is left out",
    ),
    *_layers(
        "kernelbench_57",
        "KernelBench",
        f"{_BENCH} 57: convolution, ReLU, HardSwish",
        (128,),
        (128, 128),
        (64, 8, 3, 3),
        _NONE,
        note="convolution with its bias and ReLU; HardSwish after the ReLU is left out",
    ),
    *_layers(
        "kernelbench_82",
        "KernelBench",
        f"{_BENCH} 82: convolution, tanh, scaling, bias, 4x4 max pool",
        (128,),
        (256, 256),
        (64, 8, 3, 3),
        {"activation": "silu", "pool": MaxPool(4)},
        note="SiLU stands for tanh; scaling and the bias after it are left out",
    ),
    *_layers(
        "kernelbench_lenet_1",
        "KernelBench",
        "KernelBench level 3, LeNet-5 at batch 4096, layer 1",
        (4096,),
        (32, 32),
        (6, 1, 5, 5),
        {},
        input_gradient=False,
    ),
    *_layers(
        "kernelbench_lenet_2",
        "KernelBench",
        "KernelBench level 3, LeNet-5 at batch 4096, layer 2",
        (4096,),
        (14, 14),
        (16, 6, 5, 5),
        {},
    ),
)


def _model(
    model: str,
    batch: int,
    size: tuple[int, ...],
    *,
    channels: int = 3,
    classes: int = 1000,
    family: str,
    note: str = "",
) -> ModelCase:
    pixels = "x".join(map(str, size))
    return ModelCase(
        f"{model}_{pixels}_b{batch}",
        family,
        f"{model}, one training step",
        model,
        batch,
        channels,
        size,
        classes,
        note=note,
    )


MODELS: tuple[ModelCase, ...] = (
    _model(
        "lenet5",
        4096,
        (32, 32),
        channels=1,
        classes=20,
        family="conv-relu-pool",
        note="KernelBench level 3's LeNet-5, except that ours pads its 5x5 filters",
    ),
    _model("convnet", 512, (32, 32), classes=10, family="conv-relu-pool"),
    _model("alexnet", 128, (224, 224), family="conv-relu-pool"),
    _model("vgg16", 64, (224, 224), family="conv-relu-pool"),
    _model("vgg16_bn", 512, (32, 32), classes=10, family="conv-relu-pool"),
    _model("speednet", 1000, (32, 32), classes=10, family="fast CIFAR"),
    _model("resnet18", 128, (224, 224), family="skip connections"),
    _model("resnet50", 128, (224, 224), family="skip connections"),
    _model("resnet20", 512, (32, 32), classes=10, family="skip connections"),
    _model("efficientnet_b0", 128, (224, 224), family="searched scaling"),
    _model("vggish", 64, (64, 96), channels=1, classes=10, family="audio"),
    _model("conv1d_audio", 64, (16000,), channels=1, classes=10, family="audio"),
    _model("c3d", 8, (16, 112, 112), classes=101, family="video"),
)
