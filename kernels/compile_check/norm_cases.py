"""The layers with a norm that `compile_check` compiles, and the launches each of them makes.

Between them: every kernel around a norm, dense and depthwise, pools before and behind it, residuals, one to three
dimensions, both layouts, all dtypes. The convolutions' own gradients are `conv_launches`' business.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from tidepool.kernels.compile_check.conv_cases import Case
from tidepool.kernels.layer.formats import empty_in_format
from tidepool.kernels.layer.norm_settings import parse_norm_layer
from tidepool.kernels.layer.pooling import AvgPool, MaxPool
from tidepool.kernels.norm.statistics import conv_norm_act_coefficients
from tidepool.kernels.operators import norm_implementations as implementations
from tidepool.kernels.operators.norm_call import norm_call, normed_layer
from tidepool.kernels.ops.average import average
from tidepool.kernels.ops.gate import excite, excite_backward


@dataclass(frozen=True)
class NormCase:
    """A layer to compile: x and weight sizes as in `conv_cases.Case`, and `conv_norm_act`'s settings."""

    name: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    dtypes: tuple[str, ...] = ("bf16",)
    settings: dict[str, Any] = field(default_factory=dict)
    residual: bool = False
    channels_last: bool = True  # where there is such a format: one spatial dimension has none
    input_gradient: bool = True
    affine: bool = True  # the norm has weight, bias and running statistics

    def convolution(self) -> Case:
        """The convolution by itself, with the pool where that comes before the norm."""
        settings = {**self.settings, "activation": None}
        if not settings.pop("pool_first", False):
            settings["pool"] = None
        return Case(
            self.name,
            self.x,
            self.weight,
            self.dtypes,
            settings,
            channels_last=self.channels_last,
            input_gradient=self.input_gradient,
        )


NORM_CASES = (
    NormCase("norm_3x3", (64, 64, 56, 56), (64, 64, 3, 3), ("bf16", "tf32"), {"padding": 1}, residual=True),
    NormCase(
        "norm_stem",
        (64, 3, 224, 224),
        (64, 3, 7, 7),
        ("bf16",),
        {"stride": 2, "padding": 3, "pool": MaxPool(3, 2, 1)},
    ),
    NormCase(
        "norm_pool_first",
        (64, 64, 32, 32),
        (128, 64, 3, 3),
        ("fp16",),
        {"padding": 1, "pool": MaxPool(2), "pool_first": True, "activation": "gelu"},
    ),
    NormCase(
        "norm_depthwise", (64, 96, 56, 56), (96, 1, 5, 5), ("bf16",), {"padding": 2, "groups": 96, "activation": "silu"}
    ),
    NormCase(
        "norm_contiguous",
        (16, 32, 28, 28),
        (32, 32, 3, 3),
        ("fp32",),
        {"padding": 1, "pool": AvgPool(2)},
        residual=True,
        channels_last=False,
    ),
    NormCase(
        "norm_video",
        (4, 16, 16, 28, 28),
        (32, 16, 3, 3, 3),
        ("bf16",),
        {"padding": 1, "pool": MaxPool(2), "activation": "silu"},
        affine=False,
    ),
)
SQUEEZE_EXCITE = "squeeze_excite"


def launch_norm_case(case: NormCase, dtype: torch.dtype) -> None:
    """Training forward and backward, and inference, on unwritten CPU tensors."""
    settings = parse_norm_layer(case.weight[2:], **case.settings)
    like = torch.empty(0, dtype=dtype)
    channels_last = case.channels_last and len(case.x) > 3
    x, weight = (empty_in_format(size, like, channels_last) for size in (case.x, case.weight))
    layer = normed_layer(x.shape, weight.shape, settings)
    z_size = (case.x[0], case.weight[0], *layer.conv_shapes.output[3 - layer.conv.rank :])
    residual = empty_in_format(z_size, like, channels_last) if case.residual else None
    rows = [torch.empty(case.weight[0]) for _ in range(4)]
    norm = (rows[0], rows[1], rows[2], rows[3])
    bare = (None, None, None, None)
    call = norm_call(x, weight, residual, settings)
    normed = implementations.forward(x, weight, None, residual, norm if case.affine else bare, 0.1, 1e-5, call)
    again = implementations.residual_for_backward(residual, settings)
    implementations.backward(
        normed.y, normed.z, normed.code, normed.coefficients, again, torch.float32,
        None if residual is None else dtype, True, (True, residual is not None, True, True), call,
    )  # fmt: skip
    implementations.infer(x, weight, None, residual, norm, 1e-5, call)
    conv_norm_act_coefficients(normed.z, None, 0, *norm, 0.0, 1e-5)


def launch_squeeze_excite(dtype: torch.dtype) -> None:
    """Squeeze-and-excite and the global average pool, forward and backward."""
    x = empty_in_format((64, 96, 28, 28), torch.empty(0, dtype=dtype), True)
    gate = x.new_empty(64, 96, 1, 1)
    average(x)
    excite_backward(excite(x, gate), x, gate, True, True)
