"""Memory that tells: unwritten tensors start with a known pattern, and lie between guards nobody may touch."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

GUARD = 4096  # bytes on each side; a multiple of every alignment that kernels are specialised on
PATTERNS = (0xFF, 0x00)
"""Two fills that differ in every bit, so that what was never written differs between two runs. 0xFF... is NaN."""


@dataclass
class Allocation:
    """One unwritten tensor that was handed out: a view into the middle of `buffer`."""

    buffer: Tensor
    size: int
    pattern: int

    def contents(self) -> Tensor:
        """Its bytes."""
        return self.buffer[GUARD : GUARD + self.size].cpu().clone()

    def check_guards(self) -> None:
        """Raise AssertionError if a byte before or after it has changed."""
        for side in (self.buffer[:GUARD], self.buffer[GUARD + self.size :]):
            assert bool((side == self.pattern).all()), "wrote outside of a tensor"


@contextlib.contextmanager
def guarded_memory(pattern: int) -> Iterator[list[Allocation]]:
    """Within it, torch.empty, empty_like, empty_strided and Tensor.new_empty hand out guarded tensors of `pattern`."""
    allocations: list[Allocation] = []

    def guarding(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate(*args: Any, **kwargs: Any) -> Tensor:
            plain = original(*args, **kwargs)
            size = plain.untyped_storage().nbytes()
            if plain.numel() == 0 or plain.device.type == "meta":
                return plain
            buffer = torch.full((size + 2 * GUARD,), pattern, dtype=torch.uint8, device=plain.device)
            allocations.append(Allocation(buffer, size, pattern))
            inside = buffer.view(plain.dtype) if plain.dtype != torch.uint8 else buffer
            return inside.as_strided(plain.size(), plain.stride(), GUARD // plain.element_size())

        return allocate

    with (
        mock.patch.object(torch, "empty", guarding(torch.empty)),
        mock.patch.object(torch, "empty_like", guarding(torch.empty_like)),
        mock.patch.object(torch, "empty_strided", guarding(torch.empty_strided)),
        mock.patch.object(torch.Tensor, "new_empty", guarding(torch.Tensor.new_empty)),
    ):
        yield allocations
