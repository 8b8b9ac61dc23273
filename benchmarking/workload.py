"""What a session times: a layer or a network prepared on a device, for every backend and pass."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tidepool.benchmarking import correctness
from tidepool.benchmarking.cases import LayerCase
from tidepool.benchmarking.correctness import Question
from tidepool.benchmarking.opponents import Backend, Layer, UnsupportedError, build_layer
from tidepool.kernels.auto.plan import Choice, decide
from tidepool.kernels.auto.roofline import Device, layer_cost, roofline_seconds
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.sizes import build_geometry
from tidepool.kernels.oracle.error_rule import Inputs
from tidepool.kernels.oracle.reference import conv_act_pool_reference
from tidepool.kernels.runtime.timing import Arguments, cache_bytes, sets_beyond_cache
from tidepool.kernels.tune.layer import call_of

PASSES = ("forward", "forward_training", "backward", "train")
"""forward is inference; forward_training saves what backward needs; train is forward_training and backward."""
MOST_SETS = 512
"""Sets of inputs to go round: twice the L2 cache of an H100 for layers of 200 KB and up."""


@dataclass(frozen=True)
class Timed:
    """One pass on one backend: what to call, with which arguments in turn, and whether autograd records it."""

    function: Callable[..., object]
    rotate: Sequence[Arguments]
    grad: bool


@dataclass(frozen=True)
class Bounds:
    """What a pass costs at least. None where it is not worked out (whole networks)."""

    flops: int | None = None
    fused_bytes: int | None = None
    eager_bytes: int | None = None
    roofline_ms: float | None = None


class Workload(Protocol):
    """A case on a device in one dtype."""

    def build(self, backend: Backend) -> None:
        """Make the backend's code for the case. Raises UnsupportedError."""
        ...

    def wrong(self, backend: Backend) -> str | None:
        """None where the backend's results pass, else one line that says which did not. Raises NotJudgedError."""
        ...

    def judged(self) -> dict[str, Any]:
        """How results are judged: `draw`, `undecided_share`, `samples_judged`. Raises NotJudgedError."""
        ...

    def timed(self, backend: Backend, pass_: str, *, graph: bool) -> Timed:
        """What to time. Raises UnsupportedError."""
        ...

    def inputs_bytes(self) -> int:
        """Bytes of what a call is given: inputs, weights, incoming gradients. Asked once a backend is built."""
        ...

    def plan(self, backend: Backend) -> str | None:
        """How `auto` runs the case and where it has that from; None for other backends and whole networks."""
        ...

    def bounds(self, pass_: str, device: Device) -> Bounds:
        """Operations, bytes and least time of a pass."""
        ...


class LayerWorkload:
    """A layer. Inputs are normal random numbers at unit scale, several sets where one would stay in the L2 cache."""

    def __init__(self, case: LayerCase, dtype: torch.dtype, device: torch.device, *, tf32: bool, seed: int) -> None:
        self.case, self.dtype, self.device, self.tf32, self.seed = case, dtype, device, tf32, seed
        self._layers: dict[str, Layer] = {}
        self._sets: dict[tuple[bool, int], Inputs] = {}

    def build(self, backend: Backend) -> None:
        """See Workload."""
        self._layers[backend.name] = build_layer(backend, self.case)

    def wrong(self, backend: Backend) -> str | None:
        """See Workload. Each call draws nothing new: the question is the same before and after timing."""
        layer = self._layers[backend.name]
        options = {"channels_last": backend.channels_last, "inference_only": backend.inference_only}
        return self._question.check(layer, **options)

    def judged(self) -> dict[str, Any]:
        """See Workload."""
        question = self._question
        return {
            "draw": question.draw,
            "undecided_share": question.undecided_share,
            "samples_judged": len(question.samples),
        }

    @functools.cached_property
    def _question(self) -> Question:
        return correctness.ask(self.case, self.dtype, self.device, seed=self.seed, tf32=self.tf32)

    def timed(self, backend: Backend, pass_: str, *, graph: bool) -> Timed:
        """See Workload."""
        layer = self._layers[backend.name]
        if backend.inference_only and pass_ != "forward":
            raise UnsupportedError(f"{backend.name} has no backward pass")
        if graph and pass_ == "backward":
            raise UnsupportedError("backward alone cannot be captured: autograd runs it on its forward's stream")
        sets = [self._set(backend, index) for index in range(self._count())]
        if pass_ == "forward":
            return Timed(layer, [(s.x, s.weight, s.bias) for s in sets], grad=False)
        leaves: list[tuple[Any, ...]] = [self._leaves(s) for s in sets]
        if pass_ == "forward_training":
            return Timed(layer, leaves, grad=True)
        wanted = [[t for t in given if t is not None and t.requires_grad] for given in leaves]
        grads = [s.grad for s in sets]
        if pass_ == "train":

            def train(given: Arguments, of: list[Tensor], grad: Tensor) -> object:
                return torch.autograd.grad(layer(*given), of, grad)

            return Timed(train, list(zip(leaves, wanted, grads, strict=True)), grad=True)
        if backend.compiled:
            layer = build_layer(backend, self.case)  # one whose backward may run more than once
        with _graphs_kept(), torch.enable_grad():
            outputs = [layer(*given) for given in leaves]
            _backward(outputs[0], wanted[0], grads[0])  # compiles the backward graph, if that was left to its call
        return Timed(_backward, list(zip(outputs, wanted, grads, strict=True)), grad=True)

    def inputs_bytes(self) -> int:
        """See Workload: x, weight, bias and y's gradient."""
        return self._set_bytes

    def plan(self, backend: Backend) -> str | None:
        """See Workload."""
        return plan_text(self.case, self.dtype, self.device) if backend.op == "auto" else None

    def bounds(self, pass_: str, device: Device) -> Bounds:
        """See Workload. The roofline is that of one fused kernel per result, the same for every backend."""
        return layer_bounds(self.case, self.dtype, pass_, device)

    @functools.cached_property
    def _output_size(self) -> tuple[int, ...]:
        x, weight = (torch.empty(size, device="meta") for size in (self.case.x, self.case.weight))
        return tuple(conv_act_pool_reference(x, weight, **self.case.options).shape)

    @functools.cached_property
    def _set_bytes(self) -> int:
        sizes = [self.case.x, self.case.weight, self._output_size, *([self.case.weight[:1]] if self.case.bias else [])]
        return sum(torch.Size(size).numel() for size in sizes) * self.dtype.itemsize

    def _count(self) -> int:
        return sets_beyond_cache(self._set_bytes, cache_bytes(self.device), most=MOST_SETS)

    def _set(self, backend: Backend, index: int) -> Inputs:
        """Set `index` of random inputs: the same numbers on every backend, the same tensors on those of one layout."""
        layout = backend.channels_last and self.case.channels_last
        if (layout, index) not in self._sets:
            self._sets[layout, index] = correctness.in_layout(self._drawn(index), layout)
        return self._sets[layout, index]

    def _drawn(self, index: int) -> Inputs:
        generator, case = torch.Generator(self.device).manual_seed(self.seed + 1 + index), self.case

        def normal(size: tuple[int, ...], scale: float = 1.0) -> Tensor:
            drawn = torch.randn(size, generator=generator, device=self.device, dtype=torch.float32)
            return drawn.mul_(scale).to(self.dtype)

        x, weight = normal(case.x), normal(case.weight, case.fan_in**-0.5)
        bias = normal(case.weight[:1]) if case.bias else None
        return Inputs(x, weight, bias, normal(self._output_size))

    def _leaves(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor | None]:
        x = inputs.x.requires_grad_(self.case.input_gradient)
        return x, inputs.weight.requires_grad_(), None if inputs.bias is None else inputs.bias.requires_grad_()


def plan_text(case: LayerCase, dtype: torch.dtype, device: torch.device) -> str:
    """How `auto` runs a layer here and now, and where it has that from: measured, stale or assumed."""
    decision = decide(call_of(case, dtype, device), case.bias, dtype)
    plan = decision.plan
    ways = ", ".join(
        f"{name} {_choice_text(getattr(plan, name))}" for name in ("inference", "forward", "dgrad", "wgrad")
    )
    return f"{decision.source}: {ways}, train {plan.train if case.input_gradient else plan.train_without_dx}"


def _choice_text(choice: Choice) -> str:
    return choice.way if choice.tile is None else f"{choice.way} {choice.tile}"


def layer_bounds(case: LayerCase, dtype: torch.dtype, pass_: str, device: Device) -> Bounds:
    """Operations of a pass, bytes moved by fused and by eager kernels, and the fused kernels' roofline time."""
    settings = {**case.options, "activation": case.activation, "pool": case.pool}
    layer = parse_layer(case.weight[2:], **settings)
    geometry, shapes = build_geometry(case.x, case.weight, layer)
    costs = [
        layer_cost(
            geometry, shapes, dtype, pass_, variant, bias=case.bias, input_gradient=case.input_gradient, device=device
        )
        for variant in ("fused", "eager")
    ]
    seconds = roofline_seconds(costs[0], device)
    return Bounds(costs[0].flops, costs[0].bytes_moved, costs[1].bytes_moved, seconds * 1e3)


def _backward(output: Tensor, of: list[Tensor], grad: Tensor) -> object:
    return torch.autograd.grad(output, of, grad, retain_graph=True)


def _graphs_kept() -> Any:
    """torch.compile's backward may otherwise reuse what forward saved, and could not run twice."""
    from torch._functorch import config

    return config.patch(donated_buffer=False)
