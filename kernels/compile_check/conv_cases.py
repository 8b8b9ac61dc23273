"""The layers that `compile_check` compiles: between them every kernel, dtype, kind of pool and number of dimensions."""

from dataclasses import dataclass, field, replace
from typing import Any

from tidepool.kernels.activations import as_activation
from tidepool.kernels.layer.described import DescribedLayer
from tidepool.kernels.layer.pooling import AvgPool, MaxPool


@dataclass(frozen=True)
class Case(DescribedLayer):
    """A layer to compile."""

    name: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    dtypes: tuple[str, ...] = ("bf16",)
    options: dict[str, Any] = field(default_factory=dict)
    without_gradients: bool = False  # compile inference and the bias gradient alone as well
    forward_only: bool = False
    input_gradient: bool = True
    channels_last: bool = True  # where there is such a format: one spatial dimension has none

    @property
    def bias(self) -> bool:
        """Every layer has one."""
        return True

    @property
    def exact(self) -> bool:
        """Whether values and gradients of integers are exact: no smooth or learned activation, no third of a pixel."""
        averages = isinstance(self.pool, AvgPool) and self.pool != AvgPool(2)
        return as_activation(self.activation).name in ("relu", "none") and not averages


_ALL_DTYPES = ("bf16", "fp16", "tf32", "fp32")
CASES: tuple[Case, ...] = (
    Case("3x3_pool2", (64, 64, 56, 56), (128, 64, 3, 3), _ALL_DTYPES, {"padding": 1, "pool": MaxPool(2)}, True),
    Case("3x3_c256", (16, 256, 28, 28), (256, 256, 3, 3), ("bf16",), {"padding": 1, "pool": MaxPool(2)}),
    Case("5x5_s2_pool2", (16, 32, 56, 56), (256, 32, 5, 5), ("bf16",), {"stride": 2, "padding": 2}, forward_only=True),
    Case("3x3_c24_k32", (16, 24, 30, 30), (32, 24, 3, 3), ("fp16",), forward_only=True),
    Case("3x3_ceil", (16, 64, 27, 27), (64, 64, 3, 3), options={"pool": MaxPool(2, ceil_mode=True)}, forward_only=True),
    Case("3x3_c16_k16", (64, 16, 32, 32), (16, 16, 3, 3), _ALL_DTYPES, {"padding": 1, "pool": MaxPool(2)}),
    Case("3x3_c48_pool2", (16, 48, 28, 28), (48, 48, 3, 3), ("bf16", "fp32"), {"padding": 1, "pool": MaxPool(2)}),
    Case("rgb_3x3_pool2", (64, 3, 224, 224), (64, 3, 3, 3), _ALL_DTYPES, {"padding": 1, "pool": MaxPool(2)}),
    Case("lenet1", (64, 1, 28, 28), (6, 1, 5, 5), ("bf16", "fp32"), {"padding": 2, "pool": MaxPool(2)}),
    Case("lenet2", (64, 6, 14, 14), (16, 6, 5, 5), ("bf16", "fp32"), {"pool": MaxPool(2)}),
    Case(
        "stem_7x7_s2",
        (16, 3, 224, 224),
        (64, 3, 7, 7),
        ("bf16", "tf32", "fp32"),
        {"stride": 2, "padding": 3, "pool": MaxPool(3, 2, 1)},
    ),
    Case(
        "overlap_3_2",
        (16, 64, 27, 27),
        (192, 64, 5, 5),
        ("bf16", "tf32", "fp32"),
        {"padding": 2, "pool": MaxPool(3, 2)},
    ),
    Case("no_pool_s2", (16, 64, 56, 56), (128, 64, 3, 3), ("bf16",), {"stride": 2, "padding": 1, "pool": None}),
    Case("linear", (16, 64, 28, 28), (64, 64, 1, 1), ("bf16",), {"activation": None, "pool": None}),
    Case("avg_bits", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16", "fp32"), {"padding": 1, "pool": AvgPool(2)}, True),
    Case("silu_max", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16", "tf32", "fp32"), {"padding": 1, "activation": "silu"}),
    Case("gelu_avg", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"activation": "gelu", "pool": AvgPool(2)}),
    Case("leaky_relu_max", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"padding": 1, "activation": "leaky_relu"}),
    Case("relu6_avg", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"activation": "relu6", "pool": AvgPool(2)}),
    Case("hardsigmoid", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"activation": "hardsigmoid", "pool": None}),
    Case("hardswish_max", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"padding": 1, "activation": "hardswish"}),
    Case("gelu_tanh", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"activation": "gelu_tanh", "pool": None}),
    Case("elu_avg", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"activation": "elu", "pool": AvgPool(2)}),
    Case("sigmoid", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"activation": "sigmoid", "pool": None}),
    Case("tanh_max", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"padding": 1, "activation": "tanh"}),
    Case("mish_max", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"padding": 1, "activation": "mish"}),
    Case("prelu_max", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16", "fp32"), {"padding": 1, "activation": "prelu"}, True),
    Case("prelu_avg", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"activation": "prelu", "pool": AvgPool(2)}),
    Case("prelu", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"activation": "prelu", "pool": None}),
    Case("prelu_rgb", (16, 3, 64, 64), (32, 3, 3, 3), ("bf16",), {"padding": 1, "activation": "prelu"}),
    Case("prelu_depthwise", (16, 64, 28, 28), (64, 1, 3, 3), ("bf16",), {"groups": 64, "activation": "prelu"}),
    Case("prelu_3d", (4, 16, 8, 14, 14), (32, 16, 3, 3, 3), ("bf16",), {"activation": "prelu", "pool": MaxPool(3, 2)}),
    Case("big_window", (4, 16, 40, 40), (16, 16, 3, 3), ("bf16",), {"pool": MaxPool(17)}),
    Case("dilated_pool", (4, 16, 40, 40), (16, 16, 3, 3), ("bf16",), {"pool": MaxPool(3, 1, 1, 2, True)}),
    Case("grouped", (16, 64, 28, 28), (64, 16, 3, 3), ("bf16",), {"padding": 1, "groups": 4}),
    Case("depthwise", (16, 64, 28, 28), (64, 1, 3, 3), ("bf16",), {"padding": 1, "groups": 64, "pool": None}),
    Case(
        "depthwise_pool",
        (16, 24, 27, 27),
        (48, 1, 5, 5),
        _ALL_DTYPES,
        {"padding": 2, "groups": 24, "stride": 2, "pool": MaxPool(3, 2, 1)},
        True,
    ),
    Case("depthwise_3d", (4, 64, 8, 14, 14), (64, 1, 3, 3, 3), ("bf16",), {"padding": 1, "groups": 64}),
    Case("depthwise_avg", (4, 64, 14, 14), (64, 1, 3, 3), ("bf16",), {"groups": 64, "pool": AvgPool(2)}),
    Case("audio_1d", (16, 32, 4000), (64, 32, 9), ("bf16",), {"stride": 4, "padding": 4, "pool": MaxPool(2)}),
    Case(
        "video_3d", (4, 16, 16, 28, 28), (32, 16, 3, 3, 3), ("bf16", "tf32", "fp32"), {"padding": 1, "pool": MaxPool(2)}
    ),
)
_IN_BOTH_LAYOUTS = ("3x3_pool2", "3x3_c256", "rgb_3x3_pool2", "stem_7x7_s2", "overlap_3_2", "no_pool_s2", "avg_bits")
CASES += tuple(  # in PyTorch's default layout, channels far apart: on tensor cores and on plain units
    replace(
        case,
        name=f"{case.name}_nchw",
        channels_last=False,
        dtypes=tuple(dtype for dtype in case.dtypes if dtype in ("bf16", "fp32")),
    )
    for case in CASES
    if case.name in _IN_BOTH_LAYOUTS
)
