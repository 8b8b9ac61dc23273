"""Compares a fused network with the network itself on an example."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

ROUNDINGS, DRAWS = 8, 8
_GRADIENT = "gradient of "


class FusedResultError(RuntimeError):
    """A fused network's result is not the network's; the message is one line."""


def verify(module: nn.Module, fuse: Callable[[nn.Module], None], example: Any) -> None:
    """Run the network and a fused copy on `example`, in evaluation and in training with a backward pass.

    Outputs, gradients and buffers may differ by no more than four times what they change by when the example is moved
    by one rounding (the largest of DRAWS draws), plus ROUNDINGS roundings of the result's largest element. Raises
    FusedResultError.
    """
    inputs = tuple(example) if isinstance(example, tuple | list) else (example,)
    for training in (False, True):
        plain, fused = (copy.deepcopy(module).train(training) for _ in range(2))
        if not training:
            plain, fused = plain.eval(), fused.eval()
        fuse(fused)
        moved = [
            _results(copy.deepcopy(module).train(training), _moved(inputs, draw), training) for draw in range(DRAWS)
        ]
        expected, found = _results(plain, inputs, training), _results(fused, inputs, training)
        if expected.keys() != found.keys():
            raise FusedResultError(f"fused, the network gives {sorted(found)}, itself {sorted(expected)}")
        # A gradient that cancels out, as of a bias before a norm, is the roundings of its terms.
        steepest = max((_largest(t) for name, t in expected.items() if name.startswith(_GRADIENT)), default=0.0)
        for name, tensor in expected.items():
            scale = steepest if name.startswith(_GRADIENT) else 0.0
            others = [other[name] for other in moved if name in other]
            _compare(name, found[name], tensor, others, training, scale)


def _compare(name: str, found: Tensor, expected: Tensor, moved: list[Tensor], training: bool, scale: float) -> None:
    where = f"{name} in {'training' if training else 'evaluation'}"
    if found.shape != expected.shape or found.dtype != expected.dtype:
        what = [f"{tensor.dtype} of size {list(tensor.shape)}" for tensor in (found, expected)]
        raise FusedResultError(f"{where}: fused {what[0]}, expected {what[1]}")
    if not expected.is_floating_point() or expected.numel() == 0:
        if not torch.equal(found, expected):
            raise FusedResultError(f"{where}: fused {found.flatten()[:3].tolist()}, expected other values")
        return
    right = expected.double()
    change = max((_largest(other.double() - right) for other in moved if other.shape == right.shape), default=0.0)
    allowed = 4 * change + ROUNDINGS * torch.finfo(expected.dtype).eps * max(_largest(right), scale)
    difference = _largest(found.double() - right)
    if not difference <= allowed or not torch.equal(found.isnan(), expected.isnan()):
        raise FusedResultError(f"{where}: fused and plain differ by {difference:.3g}, allowed {allowed:.3g}")


def _largest(tensor: Tensor) -> float:
    return float(tensor.nan_to_num(0.0).abs().max()) if tensor.numel() else 0.0


def _moved(inputs: tuple[Any, ...], draw: int) -> tuple[Any, ...]:
    """The inputs, floating-point elements moved up or down by a rounding."""
    generator = torch.Generator().manual_seed(draw)

    def one(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        up = torch.randint(0, 2, value.shape, generator=generator).to(value.device) * 2 - 1
        return value * (1 + up * torch.finfo(value.dtype).eps)

    return tuple(one(value) for value in inputs)


def _results(module: nn.Module, inputs: tuple[Any, ...], training: bool) -> dict[str, Tensor]:
    """Outputs, gradients of the mean square of the floating-point ones (in training), and buffers, by name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        given = tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)
        with torch.set_grad_enabled(training):
            outputs = [leaf for leaf in tree_leaves(module(*given)) if isinstance(leaf, Tensor)]
    found = {f"output {place}": tensor.detach() for place, tensor in enumerate(outputs)}
    terms = [tensor.square().mean() for tensor in outputs if tensor.is_floating_point() and tensor.requires_grad]
    if training and terms:
        sum(terms[1:], terms[0]).backward()
        found |= {
            f"{_GRADIENT}{name}": parameter.grad
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }
    return found | {f"buffer {name}": buffer.detach() for name, buffer in module.named_buffers()}
