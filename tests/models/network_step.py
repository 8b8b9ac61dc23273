"""One training step of a small member of every family, what it may not call, and how its results are judged.

The error rule of `kernels.oracle.error_rule`, for a whole network:

    error(ours, float64) <= 2 error(PyTorch, float64) + 2 h,    h = s (2 u + u_acc sqrt(m))

in the same three measures. PyTorch's error is the largest of a few draws: the same step with the samples in another
order, which exact arithmetic would not notice and roundings do. m is the number of products behind a value: every
layer's fan-in, forward and back. s is the size of the largest gradient in the module: a bias in front of a norm has no
gradient of its own, only roundings of terms that cancel. The floor does not shrink with the number of elements as a
single layer's does: in a network the errors of all elements come through the same few channels and are not independent.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.exact import DEVICE
from tidepool.kernels.oracle.error_rule import ACCUMULATOR_UNIT, FLOOR, Truth, measured
from tidepool.models import build_model

NUM_CLASSES = 3
CHANNELS = 2
ORDERS = 4
"""Draws of PyTorch's error."""


@dataclass(frozen=True)
class Member:
    """A network small enough for the interpreter, without what is drawn at random."""

    name: str
    size: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 4


MEMBERS = (
    Member("mlp", (4, 4), {"hidden": (6,)}),
    Member("lenet5", (4, 4)),
    Member("convnet", (8, 8), {"width": 2, "depth": 2}),
    Member("alexnet", (63, 63), {"width": 2, "hidden": 6, "dropout": 0.0}, batch=2),
    Member("vgg11", (32, 32), {"width": 1, "hidden": 6, "dropout": 0.0}, batch=2),
    Member("vgg11_bn", (32, 32), {"width": 1, "hidden": 6, "dropout": 0.0}, batch=8),
    Member("resnet18", (16, 16), {"width": 2, "depth": 1}, batch=8),
    Member("resnet50", (33, 33), {"width": 2, "depth": 1}, batch=8),
    Member("resnet20", (8, 8), {"width": 2}),
    # At 16 x 16 its last norms are over eight values, and what is left depends on roundings more than on the kernels.
    Member("efficientnet_b0", (33, 33), {"width": 0.1, "depth": 0.1, "dropout": 0.0, "stochastic_depth": 0.0}, batch=8),
    Member("speednet", (9, 9), {"width": 2}, batch=8),
    Member("c3d", (2, 8, 8), {"width": 1, "dropout": 0.0}),
    Member("conv1d_audio", (1020,), {"width": 2}, batch=8),
    Member("vggish", (16, 16), {"width": 1}),
    Member("searchable", (16, 16), {"width": 2}, batch=8),
)


def build(member: Member, backend: str, dtype: torch.dtype = torch.float32, **changes: Any) -> nn.Module:
    """The member on the device that this project's kernels run on."""
    torch.manual_seed(0)
    network = build_model(
        member.name,
        num_classes=NUM_CLASSES,
        in_channels=CHANNELS,
        image_size=member.size,
        backend=backend,
        **member.options | changes,
    )
    return network.to(device=DEVICE, dtype=dtype)


def step(network: nn.Module, member: Member, order: int = 0) -> dict[str, Tensor]:
    """Loss, logits, gradients of the input and of every parameter that learns, and buffers, after a training step.

    `order` 0 is the samples' own; others shuffle them, and the results are put back.
    """
    like = next(network.parameters())
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(member.batch, CHANNELS, *member.size, generator=generator)
    shuffled = torch.randperm(member.batch, generator=generator.manual_seed(order))
    shuffled = shuffled if order else torch.arange(member.batch)
    back = shuffled.argsort()
    given = x[shuffled].to(like).requires_grad_()
    logits = network.train()(given)
    loss = F.cross_entropy(logits, (torch.arange(member.batch) % NUM_CLASSES)[shuffled].to(like.device))
    loss.backward()
    assert given.grad is not None
    results = {"loss": loss, "logits": logits[back], "x": given.grad[back]}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            results[name] = parameter.grad
    results |= {name: buffer for name, buffer in network.named_buffers() if buffer.is_floating_point()}
    return {name: tensor.detach().cpu() for name, tensor in results.items()}


def assert_rule(ours: dict[str, Tensor], member: Member) -> None:
    """Every result of one step under the rule."""
    exact = step(build(member, "cudnn", torch.float64).cpu(), member)
    twins = [step(build(member, "cudnn"), member, order) for order in range(ORDERS)]
    assert ours.keys() == exact.keys()
    parameters = build(member, "cudnn").parameters()
    terms = 2 * sum(parameter[0].numel() for parameter in parameters if parameter.dim() > 1)
    for name, tensor in ours.items():
        module = name.rpartition(".")[0]
        beside = [exact[other] for other in exact if other.rpartition(".")[0] == module and module] or [exact[name]]
        size = max(float(value.square().mean().sqrt()) for value in beside)
        floor = FLOOR * size * (torch.finfo(tensor.dtype).eps + ACCUMULATOR_UNIT[tensor.dtype] * terms**0.5)
        truth = Truth(exact[name], torch.zeros_like(exact[name]), torch.ones_like(exact[name]))
        draws = [measured(tensor, twin[name], truth) for twin in twins]
        for rows in zip(*draws, strict=True):
            measure, ours_is, _, _ = rows[0]
            twin_is = max(row[2] for row in rows)
            allowed = 2 * twin_is + floor
            assert ours_is <= allowed, f"{name}: {measure} error {ours_is:.3g}, PyTorch's {twin_is:.3g}, {allowed:.3g}"


FUNCTIONS = [
    (module, name)
    for module in (F, torch)
    for name in dir(module)
    if name.startswith(
        ("conv", "max_pool", "avg_pool", "adaptive_", "batch_norm", "native_batch_norm", "_native_batch")
    )
    or name in ("lp_pool2d", "fractional_max_pool2d", "cudnn_convolution", "mkldnn_convolution", "unfold", "fold")
]
"""PyTorch's convolutions, pools and batch norms (and the unfolding they can be written with)."""
FORBIDDEN = ("conv", "_pool", "batch_norm", "im2col", "col2im")
"""Parts of the names of operators that must not be dispatched."""


class ForbiddenCallError(AssertionError):
    """PyTorch's convolution, pool or batch norm was called."""


class _Watch(TorchDispatchMode):
    """Refuses operators below every function of PyTorch's, in the backward pass as well."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "aten" and any(part in func.__name__ for part in FORBIDDEN):
            raise ForbiddenCallError(f"aten::{func.__name__} was dispatched")
        return func(*args, **(kwargs or {}))


@contextmanager
def without_pytorchs(monkeypatch: Any) -> Iterator[None]:
    """ForbiddenCallError wherever PyTorch's convolutions, pools and batch norms are called, forward or backward."""
    with monkeypatch.context() as patches:
        for module, name in FUNCTIONS:
            patches.setattr(module, name, _refusing(f"{module.__name__}.{name}"))
        with _Watch():
            yield


def _refusing(name: str) -> Any:
    def refuse(*arguments: Any, **settings: Any) -> None:
        raise ForbiddenCallError(f"{name} was called")

    return refuse
