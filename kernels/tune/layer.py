"""Times every way to run one layer, after checking each, and makes a table entry of the fastest.

A candidate is right if y and all gradients of a training step that uses it keep the error rule against float64
(`error_rule`), on a part of the batch where the whole would be slow. One that is wrong, or that does not compile or
launch, is written down with the reason and takes no further part.

What is timed apart adds up: dgrad and wgrad from the codes or from the unpooled gradient, and unpooling once if either
starts from it. Whole steps, planned and eager, are then timed against each other, and the faster one is the plan.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from tidepool.kernels.auto import plan as plans
from tidepool.kernels.auto.layer import Needs, PlannedLayer, planned_layer
from tidepool.kernels.auto.plan import Choice, LayerPlan, candidates, linear_part, problem_of
from tidepool.kernels.auto.table import Entry, machine_of, make_entry
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.checks import check_channels, check_tensors
from tidepool.kernels.layer.described import DescribedLayer
from tidepool.kernels.layer.pooling import MaxPool
from tidepool.kernels.operators.call import LayerCall, layer_call
from tidepool.kernels.ops.conv import conv_relu_pool
from tidepool.kernels.oracle.error_rule import (
    Inputs,
    RuleBrokenError,
    RuleCase,
    Truth,
    draw,
    error_rule,
    in_pytorch,
    results,
    truth,
)
from tidepool.kernels.oracle.reference import conv_act_pool_reference
from tidepool.kernels.runtime.errors import ArgumentError
from tidepool.kernels.runtime.launch import operand_kind, programs_in_flight
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.runtime.timing import Timer, cache_bytes, median, percentile, sets_beyond_cache
from tidepool.kernels.tiles.candidates import Tile, tile_to_json

PASSES = ("inference", "train")
"""What can be tuned apart: forward without gradients, and everything a training step runs."""
CHECKED_ELEMENTS = 2**24
"""Convolution outputs of the part of a batch that candidates are checked on."""

Report = Callable[[str], None]


class TuningError(RuntimeError):
    """A layer of which no candidate at all was right; the message is one line."""


@dataclass(frozen=True)
class PartOfBatch(DescribedLayer):
    """A layer on fewer samples, as the error rule wants it."""

    name: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, Any]
    bias: bool
    channels_last: bool = True


@dataclass(frozen=True)
class Tensors:
    """One set of a layer's tensors: y's gradient `grad`, what the fused forward saved, the unpooled gradient `g`."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    grad: Tensor
    code: Tensor | None
    saved: Tensor | None
    g: Tensor


def settings_of(layer: RuleCase) -> dict[str, Any]:
    """The op's settings of a layer, defaults filled in."""
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "activation": "relu", "pool": MaxPool(2)}
    return {**defaults, **layer.options}


def call_of(layer: RuleCase, dtype: torch.dtype, device: torch.device) -> LayerCall:
    """The layer as a call on tensors that are not there yet. Raises ArgumentError for a layer that the op refuses."""
    x, weight = _blank(layer, layer.x, dtype), _blank(layer, layer.weight, dtype)
    settings = parse_layer(tuple(layer.weight[2:]), **settings_of(layer))
    if settings.activation.learned:
        raise ArgumentError(f"expected a layer without a learned slope, but got activation {settings.activation.name}")
    check_tensors(x, weight, None)
    check_channels(x, weight, None, settings.groups)
    call = layer_call(x, weight, settings)
    blanks = {name: getattr(call, name) for name in ("y", "code", "winner", "dx")}
    placed: dict[str, Any] = {
        name: None if blank is None else replace(blank, device=device) for name, blank in blanks.items()
    }
    return replace(call, device_type=device.type, launches={}, **placed)


def _blank(layer: RuleCase, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    channels_last = layer.channels_last and len(size) in formats
    kind = formats[len(size)] if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=dtype, device="meta", memory_format=kind)


class _Tuner:
    """The state of one layer's tuning."""

    def __init__(self, layer: RuleCase, dtype: torch.dtype, device: torch.device, timer: Timer, report: Report) -> None:
        self.layer, self.dtype, self.device, self.timer, self.report = layer, dtype, device, timer, report
        self.call = call_of(layer, dtype, device)
        self.operands = operand_kind(dtype, device)
        self.rows: list[dict[str, Any]] = []
        self.sets: list[Tensors] = []
        self._checked: dict[LayerPlan, str] = {}
        self._answers: tuple[Inputs, dict[str, Tensor], dict[str, Truth], PartOfBatch] | None = None

    # --- Right or wrong ---

    def _expected(self) -> tuple[Inputs, dict[str, Tensor], dict[str, Truth], PartOfBatch]:
        """Inputs on a part of the batch, PyTorch's results in the dtype, and the truth; worked out once."""
        if self._answers is None:
            layer, shapes = self.layer, self.call.shapes
            per_sample = prod(shapes.conv) * layer.weight[0]
            batch = min(max(CHECKED_ELEMENTS // per_sample, 1), layer.x[0])
            size = (batch, *layer.x[1:])
            part = PartOfBatch(
                layer.name, size, tuple(layer.weight), dict(layer.options), layer.bias, layer.channels_last
            )
            inputs, _ = draw(part, self.dtype, 0, self.device)
            twin = results(lambda x, weight, bias: in_pytorch(part, x, weight, bias), inputs)
            self._answers = inputs, twin, truth(part, inputs), part
        return self._answers

    def wrong(self, plan: LayerPlan) -> str:
        """Why a training step under this plan is not right, in one line; empty if it is."""
        if plan not in self._checked:
            self._checked[plan] = self._check(plan)
        return self._checked[plan]

    def _check(self, plan: LayerPlan) -> str:
        inputs, twin, exact, part = self._expected()
        try:
            with plans.use(plan):
                ours = results(lambda x, w, b: conv_relu_pool(x, w, b, **part.options, backend="auto"), inputs)
                for name, tensor in ours.items():
                    error_rule(name, tensor, twin[name], exact[name])
        except RuleBrokenError as error:
            return str(error)
        except Exception as error:  # a kernel that does not compile or launch is no candidate, whatever it raised
            return _in_a_line(error)
        return ""

    # --- Times ---

    def time(self, pass_: str, choice: Choice, plan: LayerPlan, function: Callable[..., object]) -> float | None:
        """Median milliseconds of `function` on the tensor sets, or None where a step under `plan` is wrong; noted."""
        row: dict[str, Any] = {"pass": pass_, "way": choice.way}
        row["tile"] = None if choice.tile is None else tile_to_json(choice.tile)
        self.rows.append(row)
        wrong = self.wrong(plan)
        if not wrong:
            try:
                samples = self.timer.measure(function, rotate=[(tensors,) for tensors in self.tensors()])
            except Exception as error:  # as in `_check`: the whole batch may not fit where a part of it does
                wrong = _in_a_line(error)
        if wrong:
            row["refused"] = wrong
            self.report(f"{self.layer.name}: {pass_} {_described(choice)} refused: {wrong}")
            return None
        row.update(median=median(samples), p20=percentile(samples, 0.2), p80=percentile(samples, 0.8))
        row["samples"] = len(samples)
        self.report(f"{self.layer.name}: {pass_} {_described(choice)} {row['median']:.4f} ms")
        return float(row["median"])

    def tensors(self) -> list[Tensors]:
        """As many sets as leave the cache before their turn comes again."""
        if not self.sets:
            call, generator = self.call, torch.Generator(self.device).manual_seed(1)
            elements = prod(call.dx.size) + prod(call.y.size)
            count = sets_beyond_cache(elements * self.dtype.itemsize, cache_bytes(self.device))
            self.sets = [self._one_set(generator) for _ in range(count)]
        return self.sets

    def _one_set(self, generator: torch.Generator) -> Tensors:
        call = self.call

        def normal(like: Tensor) -> Tensor:
            return like.copy_(torch.randn(like.shape, generator=generator, device=self.device, dtype=torch.float32))

        x = normal(call.dx.allocate())
        weight = normal(torch.empty_like(_blank(self.layer, self.layer.weight, self.dtype), device=self.device))
        weight.div_(self.layer.fan_in**0.5)
        bias = normal(torch.empty(weight.shape[0], dtype=self.dtype, device=self.device)) if self.layer.bias else None
        planned = planned_layer(call, LayerPlan())
        y, code, saved = planned.forward(x, weight, bias)
        if call.smooth_average:
            saved = planned.pre_activation(x, weight, bias)
        grad = normal(torch.empty_like(y))
        return Tensors(x, weight, bias, grad, code, saved, planned.unpooled(grad, code, saved))

    def listed(self, pass_: str) -> list[Choice]:
        """The candidates of a pass here."""
        call, programs = self.call, programs_in_flight(self.device)
        return candidates(pass_, call.geometry, call.shapes, mode_of(self.device).target, self.operands, programs)


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _described(choice: Choice) -> str:
    if choice.tile is None:
        return choice.way
    return f"{choice.way} {tile_words(choice.tile)}"


def tile_words(tile: Tile) -> str:
    """A tile as `name=value` words."""
    return " ".join([f"{name}={value}" for name, value in tile_to_json(tile).items() if name != "kind"])


def tune_layer(
    layer: RuleCase,
    dtype: torch.dtype,
    device: torch.device,
    *,
    timer: Timer,
    report: Report,
    passes: Sequence[str] = PASSES,
    known: LayerPlan | None = None,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Entry:
    """Measure a layer (sizes, settings; see `error_rule.RuleCase`) in `dtype` and return its table entry.

    `passes` of PASSES; what is not among them is taken from `known`. After a way's first tile, further tiles are timed
    only while `may_go_on`; an entry that lacks some says `"complete": False`. Raises TuningError when nothing was
    right.
    """
    tuner = _Tuner(layer, dtype, device, timer, report)
    plan, complete = known or LayerPlan(), True
    if "inference" in passes:
        inference, all_timed = _tune_inference(tuner, may_go_on)
        plan, complete = replace(plan, inference=inference), complete and all_timed
    if "train" in passes:
        plan, all_timed = _tune_training(tuner, plan, may_go_on)
        complete = complete and all_timed
    problem = problem_of(tuner.call, layer.bias, dtype, tuner.operands)
    entry = make_entry(machine_of(device), problem, plan.to_json(), tuner.rows)
    return {**entry, "name": layer.name, "passes": list(passes), "complete": complete}


def _timed(
    choices: list[Choice], may_go_on: Callable[[], bool], time: Callable[[Choice], float | None]
) -> tuple[dict[Choice, float], bool]:
    """Milliseconds of every right choice, and whether all were tried: one tile of every way, then while `may_go_on`."""
    first: dict[str, Choice] = {}
    for choice in choices:
        first.setdefault(choice.way, choice)
    times = {choice: time(choice) for choice in first.values()}
    for choice in [choice for choice in choices if choice not in times]:
        if not may_go_on():
            return {c: t for c, t in times.items() if t is not None}, False
        times[choice] = time(choice)
    return {c: t for c, t in times.items() if t is not None}, True


def _tune_inference(tuner: _Tuner, may_go_on: Callable[[], bool]) -> tuple[Choice, bool]:
    call, options = tuner.call, settings_of(tuner.layer)

    def eager(t: Tensors) -> Tensor:
        return conv_act_pool_reference(t.x, t.weight, t.bias, **options)

    def time(choice: Choice) -> float | None:
        if choice.way == "eager":
            return tuner.time("inference", choice, plans.EAGER, torch.no_grad()(eager))
        planned = planned_layer(call, LayerPlan(inference=choice))
        # A step whose forward is this choice is checked: the same kernel, saving codes besides.
        checked = LayerPlan(forward=choice)
        return tuner.time("inference", choice, checked, lambda t: planned.infer(t.x, t.weight, t.bias))

    times, complete = _timed(tuner.listed("inference"), may_go_on, time)
    if not times:
        raise TuningError(f"{tuner.layer.name}: no way to run forward was right")
    return min(times, key=lambda choice: times[choice]), complete


def _tune_training(tuner: _Tuner, plan: LayerPlan, may_go_on: Callable[[], bool]) -> tuple[LayerPlan, bool]:
    call = tuner.call

    def time_forward(choice: Choice) -> float | None:
        planned = planned_layer(call, LayerPlan(forward=choice))
        return tuner.time(
            "forward", choice, LayerPlan(forward=choice), lambda t: planned.forward(t.x, t.weight, t.bias)
        )

    forward, complete = _timed(tuner.listed("forward"), may_go_on, time_forward)
    dgrad, dgrad_complete = _timed(tuner.listed("dgrad"), may_go_on, lambda c: _time_gradient(tuner, "dgrad", c))
    wgrad, wgrad_complete = _timed(tuner.listed("wgrad"), may_go_on, lambda c: _time_gradient(tuner, "wgrad", c))
    if not (forward and dgrad and wgrad):
        if _time_step(tuner, plans.EAGER) is None:
            raise TuningError(f"{tuner.layer.name}: no way to train was right")
        return replace(plan, train="eager", train_without_dx="eager"), complete
    unpool = _time_unpool(tuner, dgrad)
    pairs = {
        (d, w): dgrad[d] + wgrad[w] + (unpool if d.way != "fused" or w.way != "fused" else 0.0)
        for d in dgrad
        for w in wgrad
    }
    both = min(pairs, key=lambda pair: pairs[pair])

    def alone(times: dict[Choice, float]) -> Choice:
        return min(times, key=lambda choice: times[choice] + (unpool if choice.way != "fused" else 0.0))

    plan = replace(
        plan,
        forward=min(forward, key=lambda choice: forward[choice]),
        dgrad=both[0],
        wgrad=both[1],
        dgrad_alone=alone(dgrad),
        wgrad_alone=alone(wgrad),
        train="planned",
        train_without_dx="planned",
    )
    steps: dict[str, Any] = {}
    for name, with_dx in (("train", True), ("train_without_dx", False)):
        planned, eager = _time_step(tuner, plan, with_dx), _time_step(tuner, plans.EAGER, with_dx)
        faster = planned is not None and (eager is None or planned <= eager)
        steps[name] = "planned" if faster else "eager"
    return replace(plan, **steps), complete and dgrad_complete and wgrad_complete


def _time_gradient(tuner: _Tuner, pass_: str, choice: Choice) -> float | None:
    """A gradient by itself: from the codes, or from the unpooled gradient that is there already."""
    plan = _with_gradient(pass_, choice)
    needs: Needs = (pass_ == "dgrad", pass_ == "wgrad", pass_ == "wgrad" and tuner.layer.bias)
    if choice.way == "fused":
        planned = planned_layer(tuner.call, plan)
        return tuner.time(
            pass_, choice, plan, lambda t: planned.gradients(t.grad, t.code, t.saved, t.x, t.weight, needs)
        )
    from_g = _on_unpooled(tuner, replace(choice, way="fused" if choice.way == "dense" else choice.way), pass_)
    fused = planned_layer(tuner.call, LayerPlan())

    def run(t: Tensors) -> None:
        if choice.way == "cudnn" and needs[2]:
            from_g.gradients(t.g, None, None, t.x, t.weight, (False, True, False))
            fused.gradients(t.grad, t.code, t.saved, t.x, t.weight, (False, False, True))
        else:
            from_g.gradients(t.g, None, None, t.x, t.weight, needs)

    return tuner.time(pass_, choice, plan, run)


def _on_unpooled(tuner: _Tuner, choice: Choice, pass_: str) -> PlannedLayer:
    """The layer without activation and pool, whose incoming gradient is the unpooled one."""
    options = {**settings_of(tuner.layer), "activation": None, "pool": None}
    part = PartOfBatch(
        tuner.layer.name, tuner.layer.x, tuner.layer.weight, options, tuner.layer.bias, tuner.layer.channels_last
    )
    call = call_of(part, tuner.dtype, tuner.device)
    assert call.geometry == linear_part(tuner.call.geometry, tuner.call.shapes)[0]
    return planned_layer(call, _with_gradient(pass_, choice))


def _with_gradient(pass_: str, choice: Choice) -> LayerPlan:
    """The fused plan, with another way to one gradient."""
    changed: dict[str, Any] = {pass_: choice, f"{pass_}_alone": choice}
    return LayerPlan(**changed)


def _time_unpool(tuner: _Tuner, dgrad: Iterable[Choice]) -> float:
    """Unpooling by itself; nothing where no right candidate needs it."""
    planned = planned_layer(tuner.call, LayerPlan())
    user = next((choice for choice in dgrad if choice.way != "fused"), None)
    if planned.is_linear or user is None:
        return 0.0
    found = tuner.time(
        "unpool", Choice("fused"), LayerPlan(dgrad=user), lambda t: planned.unpooled(t.grad, t.code, t.saved)
    )
    return 0.0 if found is None else found


def _time_step(tuner: _Tuner, plan: LayerPlan, with_dx: bool = True) -> float | None:
    """Forward and backward through autograd, as a network runs them."""
    options, layer = settings_of(tuner.layer), tuner.layer

    def run(t: Tensors) -> None:
        leaves = [t.x, t.weight] + ([t.bias] if t.bias is not None else [])
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        bias = leaves[2] if layer.bias else None
        x = leaves[0] if with_dx else t.x
        if plan.train == "eager":
            y = conv_act_pool_reference(x, leaves[1], bias, **options)
        else:
            y = conv_relu_pool(x, leaves[1], bias, **options, backend="auto")
        torch.autograd.grad(y, leaves if with_dx else leaves[1:], t.grad)

    way = Choice("eager" if plan.train == "eager" else "planned")
    with plans.use(plan):
        return tuner.time("train" if with_dx else "train_without_dx", way, plan, run)
