"""A whole network's training step, prepared for every backend: forward, cross entropy, backward, SGD step.

Right is a network whose errors against float64, as root mean squares of its logits, of every parameter's gradient and
of all gradients together, are at most twice eager PyTorch's in the same dtype, plus FLOOR roundings of that dtype: of
the tensor's own size for the logits and all gradients together, of the largest gradient's for a single one, since some
(a bias before a batch norm) are zero but for rounding. A network has no sum whose rounding could be counted; its layers
are judged more strictly (`correctness`). Every side starts from the same weights; dropout is off on all of them.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidepool.benchmarking.cases import ModelCase
from tidepool.benchmarking.opponents import BACKENDS, Backend, UnsupportedError
from tidepool.benchmarking.workload import Bounds, Timed
from tidepool.kernels.auto.roofline import Device
from tidepool.kernels.runtime.timing import cache_bytes, sets_beyond_cache
from tidepool.models import available_models

MODEL_PASSES = ("train",)
LEARNING_RATE = 1e-5
LOGITS = "logits"
FLOOR = 4
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
_EAGER = next(backend for backend in BACKENDS if backend.name == "cudnn")


class ModelWorkload:
    """See `workload.Workload`. bf16 and fp16 are autocast over float32 weights, as train.py trains."""

    def __init__(self, case: ModelCase, dtype: torch.dtype, device: torch.device, *, seed: int) -> None:
        self.case, self.dtype, self.device, self.seed = case, dtype, device, seed
        self._models: dict[str, nn.Module] = {}
        self._truth: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None

    def build(self, backend: Backend) -> None:
        """See Workload."""
        if backend.inference_only:
            raise UnsupportedError(f"{backend.name} has no backward pass")
        if self.case.model not in available_models():
            raise UnsupportedError(f"no network is called {self.case.model} here")
        model = self._model(backend)
        if backend.compiled:
            mode = None if backend.mode == "default" else backend.mode
            model = torch.compile(model, dynamic=False, mode=mode)  # type: ignore[assignment]
        self._models[backend.name] = model

    def wrong(self, backend: Backend) -> str | None:
        """See Workload. Asked after timing, too, of weights set back to the start."""
        model = self._models[backend.name]
        start = self._model(backend).state_dict()
        _plain(model).load_state_dict(start)
        found = self._results(model, backend, torch.float32)
        truth, twin = self._judges()
        rounding = FLOOR * torch.finfo(self.dtype).eps / 2
        largest = max(_rms([tensor]) for name, tensor in truth.items() if name != LOGITS)
        parts = {name: ([name], largest) for name in truth if name != LOGITS}
        gradients = list(parts)
        parts = {LOGITS: ([LOGITS], _rms([truth[LOGITS]]))} | parts
        parts["all gradients"] = (gradients, _rms(truth[name] for name in gradients))
        for part, (names, size) in parts.items():
            ours, theirs = (_rms(side[name].double() - truth[name] for name in names) for side in (found, twin))
            allowed = 2 * theirs + rounding * size
            if not ours <= allowed:
                return f"{self.case.name}, {part}: error {ours:.3g}, PyTorch's {theirs:.3g}, allowed {allowed:.3g}"
        return None

    def judged(self) -> dict[str, Any]:
        """See Workload."""
        return {"draw": "normal", "undecided_share": 0.0, "samples_judged": self.case.batch}

    def timed(self, backend: Backend, pass_: str, *, graph: bool) -> Timed:
        """See Workload."""
        if pass_ not in MODEL_PASSES:
            raise UnsupportedError(f"networks are timed in training steps, not in {pass_}")
        model = self._models[backend.name]
        optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)

        def step(x: Tensor, target: Tensor) -> None:
            optimizer.zero_grad(set_to_none=True)
            self._loss(model, x, target)[1].backward()
            optimizer.step()

        # A step writes far more than a cache holds: the batches differ so that nothing is learnt by heart.
        count = sets_beyond_cache(self._batch_bytes(), cache_bytes(self.device))
        return Timed(step, [self._batch(backend, index) for index in range(count)], grad=True)

    def inputs_bytes(self) -> int:
        """See Workload: the batch, and weights, gradients and momentum, all in float32."""
        model = next(iter(self._models.values()))
        return self._batch_bytes() + 3 * 4 * sum(parameter.numel() for parameter in model.parameters())

    def _batch_bytes(self) -> int:
        return 4 * torch.Size((self.case.batch, self.case.in_channels, *self.case.image_size)).numel()

    def plan(self, backend: Backend) -> str | None:
        """Each layer has its own."""
        return None

    def bounds(self, pass_: str, device: Device) -> Bounds:
        """Not worked out for whole networks."""
        return Bounds()

    def _model(self, backend: Backend) -> nn.Module:
        torch.manual_seed(self.seed)
        case = self.case
        model = case.network(backend.op)
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
        model = model.to(self.device).train()
        if backend.channels_last:
            for parameter in model.parameters():
                if parameter.dim() in _FORMATS:
                    parameter.data = parameter.data.contiguous(memory_format=_FORMATS[parameter.dim()])
        return model

    def _batch(self, backend: Backend, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator(self.device).manual_seed(self.seed + index)
        case = self.case
        size = (case.batch, case.in_channels, *case.image_size)
        x = torch.randn(size, generator=generator, device=self.device)
        if backend.channels_last and x.dim() in _FORMATS:
            x = x.contiguous(memory_format=_FORMATS[x.dim()])
        return x, torch.randint(case.num_classes, (case.batch,), generator=generator, device=self.device)

    def _loss(self, model: nn.Module, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and loss."""
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype.itemsize == 2 and x.dtype != torch.float64):
            logits = model(x)
        return logits, F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), target)

    def _results(self, model: nn.Module, backend: Backend, dtype: torch.dtype) -> dict[str, Tensor]:
        """Logits and every parameter's gradient, after the first step's forward and backward."""
        x, target = self._batch(backend, 0)
        model.zero_grad(set_to_none=True)
        logits, loss = self._loss(model, x.to(dtype), target)
        loss.backward()
        found = {LOGITS: logits.detach()}
        found |= {n: p.grad.detach().clone() for n, p in _plain(model).named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        return found

    def _judges(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The truth, in float64, and eager PyTorch's results."""
        if self._truth is None:
            exact = self._results(self._model(_EAGER).double(), _EAGER, torch.float64)
            self._truth = exact, self._results(self._model(_EAGER), _EAGER, torch.float32)
        return self._truth


def _plain(model: nn.Module) -> nn.Module:
    """The network that torch.compile wrapped, whose parameters have their own names."""
    return getattr(model, "_orig_mod", model)


def _rms(tensors: Iterable[Tensor]) -> float:
    """Root mean square over all elements of some tensors."""
    squares, count = 0.0, 0
    for tensor in tensors:
        squares += float(tensor.double().square().sum())
        count += tensor.numel()
    return math.sqrt(squares / max(count, 1))
