"""The layers the tests run: odd, non-square, one-channel, multiples of no tile, and one of a real network."""

from dataclasses import dataclass, field
from typing import Any

from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.described import DescribedLayer
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.layer.sizes import build_geometry


@dataclass(frozen=True)
class Case(DescribedLayer):
    """One layer."""

    name: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    bias: bool = True
    channels_last: bool = False


CASES = (
    Case("padded_3x3_pool_2", (2, 3, 9, 7), (5, 3, 3, 3), {"padding": 1}),
    Case("one_channel_one_image", (1, 1, 11, 6), (3, 1, 5, 3)),
    Case("one_filter_one_pixel", (3, 2, 1, 1), (1, 2, 1, 1), {"pool": None}, bias=False),
    Case("33_channels_17_filters", (2, 33, 5, 6), (17, 33, 3, 3), {"padding": 1}),
    Case("channels_last", (2, 5, 8, 9), (6, 5, 3, 3), {"padding": (0, 1)}, channels_last=True),
    Case("strided", (2, 4, 13, 10), (6, 4, 3, 2), {"stride": (3, 2), "padding": (1, 0)}),
    Case("dilated", (1, 3, 14, 11), (4, 3, 3, 2), {"dilation": (2, 3), "padding": 2}, bias=False),
    Case("stride_meets_dilation", (1, 2, 17, 19), (3, 2, 3, 4), {"stride": (2, 6), "dilation": (4, 4), "padding": 5}),
    Case("stride_over_kernel", (2, 2, 11, 13), (4, 2, 1, 2), {"stride": 3, "pool": MaxPool((1, 2), (2, 3))}),
    Case("groups", (2, 6, 8, 7), (9, 2, 3, 3), {"groups": 3, "padding": 1}),
    Case("depthwise_times_two", (1, 5, 9, 8), (10, 1, 3, 3), {"groups": 5, "pool": MaxPool(2, 1)}),
    Case("depthwise_average", (2, 3, 8, 9), (9, 1, 3, 2), {"groups": 3, "stride": (1, 2), "pool": AvgPool((2, 1))}),
    Case("depthwise_silu", (1, 9, 5, 7), (9, 1, 2, 3), {"groups": 9, "padding": 1, "activation": "silu"}),
    Case("resnet_stem", (1, 3, 19, 17), (8, 3, 7, 7), {"stride": 2, "padding": 3, "pool": MaxPool(3, 2, 1)}),
    Case("overlap_dilated_pool", (2, 2, 7, 8), (3, 2, 2, 2), {"pool": MaxPool((3, 2), 1, 1, dilation=2)}),
    Case("ceil_mode", (2, 3, 10, 9), (4, 3, 3, 3), {"padding": 1, "pool": MaxPool(3, 2, ceil_mode=True)}),
    Case("even_kernel_same", (1, 3, 6, 7), (4, 3, 2, 4), {"padding": "same", "pool": MaxPool((2, 3))}),
    Case("window_of_255", (1, 2, 397), (3, 2, 3), {"pool": MaxPool(255, 128)}),
    Case("no_activation", (2, 3, 6, 9), (4, 3, 3, 3), {"activation": None}),
    Case("no_pool", (2, 3, 6, 5), (4, 3, 3, 3), {"pool": None, "padding": 1}),
    Case("neither", (2, 3, 6, 5), (4, 3, 3, 3), {"activation": None, "pool": None}),
    Case("average", (2, 4, 7, 9), (18, 2, 3, 3), {"groups": 2, "pool": AvgPool(2)}),
    Case(
        "average_of_what_exists",
        (2, 3, 10, 7),
        (5, 3, 3, 3),
        {"padding": 1, "pool": AvgPool(3, 2, 1, ceil_mode=True, count_include_pad=False)},
    ),
    Case("average_alone", (1, 2, 8, 9), (3, 2, 2, 3), {"activation": None, "pool": AvgPool((2, 3), 1, (1, 0))}),
    Case("silu_max", (2, 3, 7, 8), (4, 3, 3, 3), {"activation": "silu", "pool": MaxPool(3, 2, 1)}),
    Case("gelu_average", (2, 3, 7, 8), (4, 3, 3, 3), {"activation": "gelu", "pool": AvgPool(2)}),
    Case("gelu_alone", (2, 3, 5, 7), (4, 3, 3, 3), {"activation": "gelu", "pool": None, "padding": 1}),
    Case("waveform", (3, 4, 37), (6, 4, 5), {"stride": 2, "pool": MaxPool(3, 2)}),
    Case("waveform_average", (2, 3, 19), (4, 3, 4), {"padding": "same", "pool": AvgPool(2)}),
    Case("video", (1, 2, 5, 6, 7), (3, 2, 2, 3, 2), {"padding": 1, "pool": MaxPool((1, 2, 2))}),
    Case(
        "video_overlap",
        (1, 2, 6, 5, 7),
        (3, 2, 3, 2, 2),
        {"stride": (2, 1, 1), "pool": MaxPool(2, (1, 2, 1), (1, 0, 1))},
    ),
    Case("video_average", (2, 2, 4, 5, 6), (4, 1, 2, 2, 3), {"groups": 2, "pool": AvgPool(2)}),
    Case("vgg_for_cifar", (1, 64, 16, 16), (64, 64, 3, 3), {"padding": 1}),
)
"""`vgg_for_cifar` is the second layer of VGG on 32 x 32 images, at batch 1 and a quarter of the area."""

NAMED = {case.name: case for case in CASES}


def built(case: Case) -> tuple[Geometry, Shapes]:
    """The layer as kernels know it."""
    return build_geometry(case.x, case.weight, parse_layer(case.weight[2:], **case.options))
