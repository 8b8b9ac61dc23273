"""Is a layer right on a backend? Asked of every case in the process that times it, before and after.

The rule is `oracle.error_rule`: no farther from float64 than twice PyTorch's own error in the same dtype, plus
rounding. The layer runs at its full size; float64 judges some of its samples, spread over the batch and with its first
and last among them, where all of them would be slow:

* y and dx of those samples are their own, whatever the others hold;
* y's incoming gradient is 0 for every other sample, so that the weight's and the bias's gradients are those samples'
  too, and dx of the others has to be exactly 0.

Inputs are normal at unit scale. Where winners would be undecided for more than UNDECIDED_LIMIT of the outputs (long
sums), and in TF32, which cannot tell near-equal candidates apart, they are sparse small integers: every sum is exact in
float32, so nothing is undecided and ties abound.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from tidepool.benchmarking.cases import LayerCase
from tidepool.kernels.activations import as_activation
from tidepool.kernels.layer.pooling import MaxPool
from tidepool.kernels.oracle import error_rule
from tidepool.kernels.oracle.error_rule import Inputs, RuleBrokenError, Truth
from tidepool.kernels.oracle.reference import conv_act_pool_reference

UNDECIDED_LIMIT = 0.05
MOST_CONV_ELEMENTS = 2**25
"""Convolution outputs judged in float64: 256 MiB of them, several times over."""
MOST_PRODUCTS = 2**34
"""Products of one float64 convolution, of which a question takes about a dozen."""

Layer = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class NotJudgedError(Exception):
    """There is no telling whether the layer is right; the message is one line."""


@dataclass(frozen=True)
class _RuleLayer:
    """A layer as the rule asks for it; the layout is this module's business."""

    name: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    options: dict[str, object]
    bias: bool
    channels_last: bool
    rank: int
    fan_in: int


@dataclass(frozen=True)
class Question:
    """One draw for a case, the samples judged, the truth about them and PyTorch's answer."""

    case: LayerCase
    inputs: Inputs
    samples: Tensor
    truth: dict[str, Truth]
    twin: dict[str, Tensor]
    draw: str
    undecided_share: float

    def check(self, layer: Layer, *, channels_last: bool, inference_only: bool = False) -> str | None:
        """None where `layer` is right, else one line that says what is wrong.

        `channels_last` is the format its inputs come in; `inference_only` looks at y alone.
        """
        placed = in_layout(self.inputs, channels_last and self.case.channels_last)
        if inference_only:
            with torch.no_grad():
                found = {"y": layer(placed.x, placed.weight, placed.bias)}
        else:
            found = error_rule.results(layer, placed)
        try:
            for name, tensor in found.items():
                self._judge(name, tensor)
        except RuleBrokenError as error:
            return " ".join(str(error).split())
        return None

    def _judge(self, name: str, tensor: Tensor) -> None:
        where = f"{self.case.name}, {self.draw} inputs, {name}"
        if name in ("y", "dx") and len(self.samples) < len(tensor):
            others = torch.ones(len(tensor), dtype=torch.bool, device=tensor.device)
            others[self.samples] = False
            rest = tensor[others]
            if name == "dx" and bool((rest != 0).any()):
                raise RuleBrokenError(f"{where}: not 0 in samples that got no gradient")
            if not bool(rest.isfinite().all()):
                raise RuleBrokenError(f"{where}: not finite in a sample besides those compared")
            tensor = tensor[self.samples]
        error_rule.error_rule(where, tensor, self.twin[name], self.truth[name])


def ask(case: LayerCase, dtype: torch.dtype, device: torch.device, *, seed: int, tf32: bool) -> Question:
    """Draw inputs for a case and work out what is right, in float64 on `device`.

    Raises NotJudgedError for the one kind of layer that cannot be judged: TF32 winners under SiLU or GELU.
    """
    smooth = as_activation(case.activation).needs_value
    if tf32 and smooth and isinstance(case.pool, MaxPool):
        raise NotJudgedError(f"{case.name}: which of two values is larger after {case.activation}, TF32 cannot tell")
    generator = torch.Generator(device).manual_seed(seed)
    count = samples_judged(case)
    samples = torch.linspace(0, case.batch - 1, count, device=device).round().long()
    part = _rule_layer(case.at_batch(count))
    undecided_share = 0.0
    draw = "integer" if tf32 and not smooth else "normal"
    x, weight, bias = _draw(case, dtype, generator, draw)
    if draw == "normal":
        with _first_algorithm():
            unclear = error_rule.undecided(part, x[samples], weight, bias)
        undecided_share = float(unclear.double().mean())
        if undecided_share > UNDECIDED_LIMIT and not smooth:
            draw, undecided_share = "integer", 0.0
            x, weight, bias = _draw(case, dtype, generator, draw)
            unclear = torch.zeros_like(unclear)
        grad = _normal(tuple(unclear.shape), dtype, generator).masked_fill(unclear, 0.0)
    if draw == "integer":
        size = _output_size(part, x[samples], weight)
        grad = _integers(size, dtype, generator, most=2)
    judged = Inputs(x[samples], weight, bias, grad)
    full = torch.zeros((case.batch, *grad.shape[1:]), dtype=dtype, device=device)
    full[samples] = grad
    inputs = Inputs(x, weight, bias, full)
    twin = error_rule.results(lambda x, w, b: error_rule.in_pytorch(part, x, w, b), inputs)
    for name in ("y", "dx"):
        twin[name] = twin[name][samples]
    with _first_algorithm():
        truth = error_rule.truth(part, judged)
    return Question(case, inputs, samples, truth, twin, draw, undecided_share)


@contextlib.contextmanager
def _first_algorithm() -> Iterator[None]:
    """cuDNN without trials of its algorithms: float64 is computed once, and nobody times it."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def samples_judged(case: LayerCase) -> int:
    """How many samples of the batch float64 can judge in passing: at least one."""
    conv = conv_elements(case)
    return max(1, min(case.batch, MOST_CONV_ELEMENTS // conv, MOST_PRODUCTS // (conv * case.fan_in)))


def conv_elements(case: LayerCase) -> int:
    """Convolution outputs of one sample."""
    probe = torch.empty((1, *case.x[1:]), device="meta")
    options = {**case.options, "activation": None, "pool": None}
    return prod(conv_act_pool_reference(probe, torch.empty(case.weight, device="meta"), **options).shape)


def in_layout(inputs: Inputs, channels_last: bool) -> Inputs:
    """The same values, x, weight and gradient in channels_last or contiguous."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}

    def placed(tensor: Tensor) -> Tensor:
        wanted = formats.get(tensor.dim()) if channels_last else None
        return tensor.contiguous(memory_format=wanted or torch.contiguous_format)

    return Inputs(placed(inputs.x), placed(inputs.weight), inputs.bias, placed(inputs.grad))


def _rule_layer(case: LayerCase) -> _RuleLayer:
    return _RuleLayer(case.name, case.x, case.weight, case.options, case.bias, False, case.rank, case.fan_in)


def _draw(
    case: LayerCase, dtype: torch.dtype, generator: torch.Generator, kind: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    if kind == "integer":
        x, weight = _integers(case.x, dtype, generator, most=2), _integers(case.weight, dtype, generator, most=1)
        return x, weight, _integers(case.weight[:1], dtype, generator, most=2) if case.bias else None
    x, weight = _normal(case.x, dtype, generator), _normal(case.weight, dtype, generator, case.fan_in**-0.5)
    return x, weight, _normal(case.weight[:1], dtype, generator) if case.bias else None


def _normal(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, scale: float = 1.0) -> Tensor:
    drawn = torch.randn(size, generator=generator, device=generator.device, dtype=torch.float32)
    return drawn.mul_(scale).to(dtype)


def _integers(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, most: int) -> Tensor:
    """Integers from -most to most, about half of them 0."""
    device = generator.device
    values = torch.randint(-most, most + 1, size, generator=generator, device=device, dtype=torch.int8)
    keep = torch.randint(0, 2, size, generator=generator, device=device, dtype=torch.int8)
    return values.mul_(keep).to(dtype)


def _output_size(case: _RuleLayer, x: Tensor, weight: Tensor) -> tuple[int, ...]:
    probe = conv_act_pool_reference(x.to("meta"), weight.to("meta"), **case.options)  # type: ignore[arg-type]
    return tuple(probe.shape)
