"""How `backend="auto"` runs a layer: a way for forward and for each gradient, chosen apart.

    forward   fused      this project's kernel                   epilogue  PyTorch's convolution, then one pass
    dgrad     fused      from y's gradient and the codes         dense     unpool, then this project's kernel
    wgrad     fused      the same                                cudnn     unpool, then PyTorch's convolution_backward

or `eager` for all of it: PyTorch as it is. Where dgrad and wgrad both start from the unpooled gradient, it is written
once. A `LayerPlan` is decided before a layer runs and travels with it as text, so that forward and backward agree,
and a compiled graph holds the decision it was traced with.

Where a plan comes from, in this order: `use` (given by hand), an entry measured on this GPU model by these versions of
everything, an entry of other versions (a hint, `stale`), and else a bound from `roofline` with assumed efficiencies.
PLAN.md describes tables and what they guarantee.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from tidepool.kernels.activations import NO_ACTIVATION
from tidepool.kernels.auto import table as plan_table
from tidepool.kernels.auto.roofline import Cost, Device, device_named, layer_cost, reference_device
from tidepool.kernels.auto.table import Problem, machine_of
from tidepool.kernels.layer.geometry import Geometry, Shapes
from tidepool.kernels.operators.call import LayerCall
from tidepool.kernels.runtime.launch import operand_kind, programs_in_flight
from tidepool.kernels.runtime.mode import mode_of
from tidepool.kernels.runtime.targets import Target, UnsupportedTarget, target_of_device
from tidepool.kernels.tiles.candidates import (
    Tile,
    dgrad_candidates,
    forward_candidates,
    tile_from_json,
    tile_to_json,
    wgrad_candidates,
)

FORWARD_WAYS = ("fused", "epilogue")
INFERENCE_WAYS = (*FORWARD_WAYS, "eager")
GRADIENT_WAYS = ("fused", "dense", "cudnn")
STEPS = ("planned", "eager")


@dataclass(frozen=True)
class Choice:
    """A way, and the tile of its kernel where it is one of this project's (None: the rule's)."""

    way: str
    tile: Tile | None = None


_FUSED = Choice("fused")


@dataclass(frozen=True)
class LayerPlan:
    """One layer's choices. `dgrad` and `wgrad` hold when both are asked for, `_alone` when one is.

    `train` is whether a step that records gradients runs as planned or eagerly as a whole; `train_without_dx` the same
    for a layer whose input needs no gradient.
    """

    inference: Choice = _FUSED
    forward: Choice = _FUSED
    dgrad: Choice = _FUSED
    wgrad: Choice = _FUSED
    dgrad_alone: Choice = _FUSED
    wgrad_alone: Choice = _FUSED
    train: str = "planned"
    train_without_dx: str = "planned"

    def to_json(self) -> dict[str, Any]:
        """The plan as a JSON object."""
        entry: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Choice):
                tile = None if value.tile is None else tile_to_json(value.tile)
                value = {"way": value.way, "tile": tile}
            entry[field.name] = value
        return entry

    def text(self) -> str:
        """The plan as one line: what the planned operators take."""
        return json.dumps(self.to_json(), separators=(",", ":"))


EAGER = LayerPlan(inference=Choice("eager"), train="eager", train_without_dx="eager")
_WAYS = {"inference": INFERENCE_WAYS, "forward": FORWARD_WAYS}


def plan_from_json(entry: Any) -> LayerPlan:
    """The plan of a `LayerPlan.to_json` object. Raises ValueError that names what is wrong."""
    if not isinstance(entry, dict) or entry.keys() != {field.name for field in fields(LayerPlan)}:
        raise ValueError(f"plan: expected the fields {', '.join(f.name for f in fields(LayerPlan))}, got {entry!r}")
    values: dict[str, Any] = {}
    for name, value in entry.items():
        if name in ("train", "train_without_dx"):
            if value not in STEPS:
                raise ValueError(f"plan: {name} is {value!r}, expected {' or '.join(STEPS)}")
            values[name] = value
            continue
        ways = _WAYS.get(name, GRADIENT_WAYS)
        if not isinstance(value, dict) or value.keys() != {"way", "tile"} or value["way"] not in ways:
            raise ValueError(f"plan: {name} is {value!r}, expected a tile and a way of {', '.join(ways)}")
        tile = None if value["tile"] is None else tile_from_json(value["tile"])
        values[name] = Choice(value["way"], tile)
    return LayerPlan(**values)


@functools.lru_cache(maxsize=4096)
def plan_from_text(text: str) -> LayerPlan:
    """The plan that wrote `text`. Raises ValueError when none did."""
    return plan_from_json(json.loads(text))


@dataclass(frozen=True)
class Decision:
    """A plan and where it came from: given, measured, stale or assumed."""

    plan: LayerPlan
    source: str


# --- Candidates ------------------------------------------------------------------------------------------------------


def can_mix(geometry: Geometry, shapes: Shapes) -> bool:
    """Whether PyTorch's convolution takes the layer as it is: padding of equal sides, so not an odd "same"."""
    sizes = zip(
        shapes.input,
        shapes.conv,
        (geometry.kernel_d, geometry.kernel_h, geometry.kernel_w),
        (geometry.stride_d, geometry.stride_h, geometry.stride_w),
        (geometry.padding_d, geometry.padding_h, geometry.padding_w),
        (geometry.dilation_d, geometry.dilation_h, geometry.dilation_w),
        strict=True,
    )
    return all(
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 == conv
        for size, conv, kernel, stride, padding, dilation in sizes
    )


@functools.lru_cache(maxsize=4096)
def linear_part(geometry: Geometry, shapes: Shapes) -> tuple[Geometry, Shapes]:
    """The layer's convolution alone: what dense gradient kernels see of the unpooled gradient."""
    ones = {f"{name}_{axis}": 1 for name in ("window", "pool_stride", "pool_dilation") for axis in "dhw"}
    zeros = {f"pool_padding_{axis}": 0 for axis in "dhw"}
    plain: dict[str, Any] = {**ones, **zeros, "activation": NO_ACTIVATION, "pool": "none", "partial_windows": False}
    return replace(geometry, count_include_pad=True, **plain), replace(shapes, output=shapes.conv)


def candidates(
    pass_: str, geometry: Geometry, shapes: Shapes, target: Target, operands: str, programs_wanted: int
) -> list[Choice]:
    """Every choice of a pass ("inference", "forward", "dgrad", "wgrad") on a target, the rule's fused tile first.

    `programs_wanted` as for `tiles.candidates.wgrad_candidates`.
    """

    def tiles(geometry: Geometry, shapes: Shapes) -> list[Tile]:
        if pass_ == "wgrad":
            return wgrad_candidates(geometry, shapes, target, operands, programs_wanted)
        of_pass = dgrad_candidates if pass_ == "dgrad" else forward_candidates
        return of_pass(geometry, shapes, target, operands)

    found = [Choice("fused", tile) for tile in tiles(geometry, shapes)]
    mix = can_mix(geometry, shapes)
    if pass_ in ("inference", "forward"):
        found += [Choice("epilogue")] if mix else []
        return [*found, Choice("eager")] if pass_ == "inference" else found
    linear = linear_part(geometry, shapes)
    if linear[0] != geometry:
        found += [Choice("dense", tile) for tile in tiles(*linear)]
    return [*found, Choice("cudnn")] if mix else found


# --- Decisions -------------------------------------------------------------------------------------------------------

_given: LayerPlan | None = None


@contextlib.contextmanager
def use(plan: LayerPlan) -> Iterator[None]:
    """Run `backend="auto"` by this plan in the block, whatever the layer and, interpreted, on a CPU too.

    Graphs that torch.compile traced outside the block keep the plan they were traced with. A layer that PyTorch's
    convolution does not take (`can_mix`) runs fused where the plan would have mixed.
    """
    global _given
    before, _given = _given, plan
    try:
        yield
    finally:
        _given = before


def is_given() -> bool:
    """Whether a plan given by hand is in force."""
    return _given is not None


@functools.cache
def kernels_run_on(device: torch.device) -> bool:
    """Whether this project's kernels run on the device: a GPU with a target near it. Of any other GPU it warns once."""
    if device.type != "cuda":
        return False
    try:
        target_of_device(device)
    except UnsupportedTarget as error:
        plan_table.warn_once(f'backend="auto" runs PyTorch\'s own kernels here: {error}')
        return False
    return True


def decide(call: LayerCall, has_bias: bool, dtype: torch.dtype) -> Decision:
    """The plan of a call in `dtype` (autocast's, where that is on). Looked up once per call description, then cached.

    Raises RuntimeError where another rank of the job has other tables.
    """
    if _given is not None:
        return _fitted(_given, call.geometry, call.shapes)
    return _decide(call, has_bias, dtype, operand_kind(dtype, call.y.device), plan_table.generation())


@functools.lru_cache(maxsize=4096)
def _fitted(plan: LayerPlan, geometry: Geometry, shapes: Shapes) -> Decision:
    if can_mix(geometry, shapes):
        return Decision(plan, "given")
    changed: dict[str, Any] = {}
    for field in fields(plan):
        value = getattr(plan, field.name)
        if isinstance(value, Choice) and value.way in ("epilogue", "cudnn"):
            changed[field.name] = _FUSED
    return Decision(replace(plan, **changed), "given")


@functools.lru_cache(maxsize=4096)
def _decide(call: LayerCall, has_bias: bool, dtype: torch.dtype, operands: str, generation: int) -> Decision:
    device = call.y.device
    if call.dx.size.numel() == 0 or dtype == torch.float64 or not kernels_run_on(device):
        return Decision(EAGER, "assumed")
    machine, problem = machine_of(device), problem_of(call, has_bias, dtype, operands)
    entry, exact = plan_table.find(machine, problem)
    if entry is not None:
        try:
            plan = plan_from_json(entry["plan"])
        except ValueError as error:
            plan_table.warn_once(f"tuning table of {machine.gpu}: {error}; the entry is ignored")
        else:
            return Decision(_with_known_tiles(plan, call, operands), "measured" if exact else "stale")
    if torch.version.hip is not None:
        return Decision(EAGER, "assumed")
    card = device_named(machine.gpu) or reference_device(target_of_device(device), machine.gpu)
    return Decision(assumed_plan(call.geometry, call.shapes, dtype, card), "assumed")


def problem_of(call: LayerCall, has_bias: bool, dtype: torch.dtype, operands: str) -> Problem:
    """What of a call its measured times depend on."""
    name = str(dtype).removeprefix("torch.")
    geometry = call.geometry
    kernel = (geometry.kernel_d, geometry.kernel_h, geometry.kernel_w)[3 - geometry.rank :]
    return Problem(
        op="conv_relu_pool",
        layer=call.layer.text(),
        x=tuple(call.dx.size),
        weight=(geometry.groups * geometry.filters, geometry.channels, *kernel),
        bias=has_bias,
        dtype=f"{name}/tf32" if operands == "tf32" else name,
        memory_format="channels_last" if call.x_channels_last else "contiguous",
    )


def _with_known_tiles(plan: LayerPlan, call: LayerCall, operands: str) -> LayerPlan:
    """The plan, its tiles replaced by the rule's where a table of other versions names one that is not shipped now."""
    changed: dict[str, Any] = {}
    for field in fields(plan):
        choice = getattr(plan, field.name)
        if isinstance(choice, Choice) and choice.tile is not None:
            pass_ = field.name.removesuffix("_alone")
            programs = programs_in_flight(call.y.device)
            target = mode_of(call.y.device).target
            if choice not in candidates(pass_, call.geometry, call.shapes, target, operands, programs):
                changed[field.name] = replace(choice, tile=None)
    return replace(plan, **changed)


# --- Without a measurement -------------------------------------------------------------------------------------------

ASSUMED_MEMORY = 0.8
"""Share of the copy bandwidth a pass is assumed to reach. Nothing here is measured: a tuned table replaces it."""
ASSUMED_CUDNN = 0.75
ASSUMED_OURS = {"half": 0.55, "tf32": 0.5, "ieee": 0.35, "double": 0.3}
"""Share of the matrix rate that convolutions are assumed to reach, PyTorch's and this project's."""
ASSUMED_LAUNCH_S = 4e-6


def assumed_seconds(cost: Cost, device: Device, ours: bool, waste: float = 1.0) -> float:
    """The roofline of `cost` at assumed efficiencies; `waste` is how much of a product is padding to a tile."""
    total = 0.0
    for kernel in cost.kernels:
        share = ASSUMED_OURS[kernel.operands] / waste if ours else ASSUMED_CUDNN
        compute = kernel.flops / (device.matrix_tflops[kernel.operands] * 1e12 * share)
        moving = (kernel.bytes_read + kernel.bytes_written) / (device.copy_bytes_per_s * ASSUMED_MEMORY)
        total += max(compute, moving) + ASSUMED_LAUNCH_S
    return total


def assumed_plan(geometry: Geometry, shapes: Shapes, dtype: torch.dtype, device: Device) -> LayerPlan:
    """The plan that bounds at assumed efficiencies favour. Depthwise layers, bound by memory, run fused."""
    if geometry.depthwise:
        return LayerPlan()

    def seconds(pass_: str, variant: str) -> float:
        cost = layer_cost(geometry, shapes, dtype, pass_, variant, device=device)
        return assumed_seconds(cost, device, variant == "fused", waste if variant == "fused" else 1.0)

    waste = (-(-geometry.filters // 16) * 16) / geometry.filters  # rows of a product come in sixteens
    bare = linear_part(geometry, shapes)[0] == geometry  # nothing to do around the convolution: fused, or eager
    mix = can_mix(geometry, shapes) and not bare
    forward = {"fused": seconds("forward", "fused"), "eager": seconds("forward", "eager")}
    training = {"fused": seconds("forward_training", "fused")}
    backward = {way: {"fused": seconds(way, "fused")} for way in ("dgrad", "wgrad", "backward")}
    if mix:
        forward["epilogue"], training["epilogue"] = seconds("forward", "mix"), seconds("forward_training", "mix")
        for way, times in backward.items():
            times["cudnn"] = seconds(way, "mix")
    both = Choice(_fastest(backward["backward"]))
    plan = LayerPlan(
        inference=Choice(_fastest(forward)),
        forward=Choice(_fastest(training)),
        dgrad=both,
        wgrad=both,
        dgrad_alone=Choice(_fastest(backward["dgrad"])),
        wgrad_alone=Choice(_fastest(backward["wgrad"])),
    )
    planned = min(training.values()) + min(backward["backward"].values())
    if seconds("train", "eager") < planned:
        plan = replace(plan, train="eager", train_without_dx="eager")
    return plan


def _fastest(times: dict[str, float]) -> str:
    return min(times, key=lambda way: times[way])
