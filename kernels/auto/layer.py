"""One layer as its plan runs it: this project's kernels and PyTorch's convolution, mixed."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tidepool.kernels.auto.plan import Choice, LayerPlan, linear_part
from tidepool.kernels.conv.epilogue import adds_bias, conv_act_pool_epilogue, conv_act_pool_unpool
from tidepool.kernels.layer.formats import empty_in_format, in_strides_of, is_channels_last
from tidepool.kernels.operators.call import Blank, LayerCall
from tidepool.kernels.operators.conv_implementations import (
    input_gradient,
    launch_forward,
    slope_gradient,
    weight_gradient,
)

Needs = tuple[bool, bool, bool]
"""Whether gradients of x, weight and bias are asked for."""
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True, slots=True, eq=False)
class PlannedLayer:
    """A `LayerCall` with its plan. `conv` is the convolution's output, or its gradient, to allocate.

    `linear` is the call of the convolution alone, whose y is that; `settings` its stride, padding, dilation as PyTorch
    takes them; `is_linear`: there is neither activation nor pool, and so nothing to do behind a convolution.
    """

    call: LayerCall
    plan: LayerPlan
    conv: Blank
    linear: LayerCall
    settings: tuple[list[int], list[int], list[int]]
    is_linear: bool

    def infer(self, x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor | None = None) -> Tensor:
        """y (N, K, *output); nothing is saved."""
        y = self.call.y.allocate()
        return self._run(self.plan.inference, x, weight, bias, slope, y, None, None)

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """y, and the codes or bits and the winners that backward needs (None: not needed)."""
        call = self.call
        y = call.y.allocate()
        code = None if call.code is None else call.code.allocate()
        winner = None if call.winner is None else call.winner.allocate()
        return self._run(self.plan.forward, x, weight, bias, slope, y, code, winner), code, winner

    def _run(
        self,
        choice: Choice,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        slope: Tensor | None,
        y: Tensor,
        code: Tensor | None,
        winner: Tensor | None,
    ) -> Tensor:
        geometry, shapes = self.call.geometry, self.call.shapes
        if choice.way == "fused":
            launch_forward(x, weight, bias, y, code, winner, self.call, slope, choice.tile)
            return y
        if self.is_linear:
            return _in_strides(self._convolution(x, weight, bias), y.stride())
        outside = bias if adds_bias(x.device, geometry) else None
        conv = self._convolution(x, weight, None if outside is not None else bias)
        conv_act_pool_epilogue(conv, outside, y, code, winner, geometry, shapes, None, slope)
        return y

    def _convolution(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride, padding, dilation = self.settings
        return torch.convolution(
            x, weight, bias, stride, padding, dilation, False, [0] * len(stride), self.call.geometry.groups
        )

    def backward(
        self,
        grad: Tensor,
        code: Tensor | None,
        saved: Tensor | None,
        x: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        needs: Needs,
    ) -> Gradients:
        """dx, dweight and dbias where `needs` asks for them, else None.

        grad (N, K, *output); code and saved as forward returned them; x may be None where dweight is not asked for,
        and bias is looked at only where the convolution is computed again (`LayerCall.smooth_average`).
        """
        if self.call.smooth_average:
            assert x is not None
            saved = self.pre_activation(x, weight, bias)
        return self.gradients(grad, code, saved, x, weight, needs)

    def through_slope(
        self,
        grad: Tensor,
        saved: Tensor | None,
        x: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        slope: Tensor,
        needs: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Of an activation with a learned slope, where `needs` asks for them: the gradient at the values that were kept
        or are computed again, with which backward goes on in `behind_slope`, and the slope's."""
        if self.call.smooth_average:
            assert x is not None
            saved = self.pre_activation(x, weight, bias)
        assert saved is not None
        return slope_gradient(grad, saved, slope, *needs, self.call.layer)

    @property
    def behind_slope(self) -> "PlannedLayer":
        """What is left of backward behind a learned slope."""
        assert self.call.behind_slope is not None
        return planned_layer(self.call.behind_slope, self.plan)

    def gradients(
        self,
        grad: Tensor,
        code: Tensor | None,
        saved: Tensor | None,
        x: Tensor | None,
        weight: Tensor,
        needs: Needs,
    ) -> Gradients:
        """`backward`, given the pre-activation in `saved` where it is computed again."""
        needs_x, needs_weight, needs_bias = needs
        dgrad, wgrad = self._choices(needs)
        g = self.unpooled(grad, code, saved) if dgrad.way != "fused" or wgrad.way != "fused" else None
        by_pytorch = (needs_x and dgrad.way == "cudnn", needs_weight and wgrad.way == "cudnn")
        dx, dweight = self._convolution_backward(g, x, weight, by_pytorch)
        if needs_x and dgrad.way != "cudnn":
            dx = input_gradient(*self._source(dgrad, grad, code, saved, g), weight, self._seen(dgrad), dgrad.tile)
        dbias = None
        if needs_weight and wgrad.way != "cudnn":
            assert x is not None
            source, call = self._source(wgrad, grad, code, saved, g), self._seen(wgrad)
            dweight, dbias = weight_gradient(*source, x, weight, True, needs_bias, call, wgrad.tile)
        elif needs_bias:
            # From y's gradient and the codes: fewer bytes than from g. x is looked at for its size alone.
            like = x if x is not None else grad.new_empty(1).expand(self.call.dx.size)
            _, dbias = weight_gradient(grad, code, saved, like, weight, False, True, self.call)
        return dx, dweight, dbias

    def _choices(self, needs: Needs) -> tuple[Choice, Choice]:
        """The ways of dgrad and wgrad; fused, which takes nothing beforehand, for the one that is not needed."""
        needs_x, needs_weight, _ = needs
        if needs_x and needs_weight:
            return self.plan.dgrad, self.plan.wgrad
        unused = Choice("fused")
        return self.plan.dgrad_alone if needs_x else unused, self.plan.wgrad_alone if needs_weight else unused

    def _source(
        self, choice: Choice, grad: Tensor, code: Tensor | None, saved: Tensor | None, g: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What a gradient kernel reads."""
        if choice.way == "fused":
            return grad, code, saved
        assert g is not None
        return g, None, None

    def _seen(self, choice: Choice) -> LayerCall:
        """The layer that a gradient kernel sees."""
        return self.call if choice.way == "fused" else self.linear

    def unpooled(self, grad: Tensor, code: Tensor | None, saved: Tensor | None) -> Tensor:
        """The gradient at the convolution's output (N, K, *conv)."""
        if self.is_linear:
            return grad
        g = self.conv.allocate()
        conv_act_pool_unpool(grad, code, in_strides_of(code, saved), g, self.call.geometry, self.call.shapes)
        return g

    def _convolution_backward(
        self, g: Tensor | None, x: Tensor | None, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """dx and dweight from PyTorch's convolution, where wanted, in the strides of x and of weight."""
        if g is None or not any(wanted):
            return None, None
        stride, padding, dilation = self.settings
        like = x if x is not None else self.call.dx.allocate()  # for its size and format
        dx, dweight, _ = torch.ops.aten.convolution_backward(
            g, like, weight, None, stride, padding, dilation, False, [0] * len(stride), self.call.geometry.groups,
            [*wanted, False],
        )  # fmt: skip
        return (
            _in_strides(dx, self.call.dx.stride) if wanted[0] else None,
            _in_strides(dweight, torch.empty_like(weight, device="meta").stride()) if wanted[1] else None,
        )

    def pre_activation(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution once more, by the library that computed it in forward and in its dtype."""
        conv = self.conv.allocate()
        if self.plan.forward.way == "fused":
            launch_forward(x, weight, bias, conv, None, None, self.linear)
            return conv
        with torch._C._DisableAutocast():  # backward may run under it
            return _in_strides(self._convolution(x, weight, bias), conv.stride())


def _in_strides(result: Tensor, strides: tuple[int, ...]) -> Tensor:
    """The tensor as it is, or copied, in those strides."""
    if result.stride() == strides:
        return result
    return torch.empty_strided(result.shape, strides, dtype=result.dtype, device=result.device).copy_(result)


@functools.lru_cache(maxsize=4096)
def planned_layer(call: LayerCall, plan: LayerPlan) -> PlannedLayer:
    """The layer of a call under a plan, put together once."""
    geometry, shapes, rank = call.geometry, call.shapes, call.geometry.rank
    y = torch.empty_strided(call.y.size, call.y.stride, dtype=call.y.dtype, device="meta")
    size = (*call.y.size[:2], *shapes.conv[3 - rank :])
    conv = empty_in_format(size, y, is_channels_last(y))
    blank = Blank(conv.shape, conv.stride(), conv.dtype, call.y.device)
    linear, linear_shapes = linear_part(geometry, shapes)
    alone: dict[str, Any] = {
        "y": blank, "code": None, "winner": None, "smooth_average": False, "behind_slope": None, "launches": {}
    }  # fmt: skip
    return PlannedLayer(
        call,
        plan,
        blank,
        replace(call, geometry=linear, shapes=linear_shapes, **alone),
        (
            [geometry.stride_d, geometry.stride_h, geometry.stride_w][3 - rank :],
            [geometry.padding_d, geometry.padding_h, geometry.padding_w][3 - rank :],
            [geometry.dilation_d, geometry.dilation_h, geometry.dilation_w][3 - rank :],
        ),
        linear == geometry,
    )
