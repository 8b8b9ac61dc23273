"""The processes of a run that torchrun started: who writes, who takes which samples, and what all have to agree on.

Every process holds the whole data set, makes the draws that one process would make for the whole batch, and takes its
share of the samples. Gradients, losses and right answers are summed over all, so that every process takes the same
steps; only the first one writes.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run; one process is the first of one."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """Its number on this machine, and so the number of its GPU."""

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes records."""
        return self.rank == 0

    def summed(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Scalars on the training device, summed over all processes; each keeps its type."""
        if self.size == 1:
            return values
        together = torch.stack([value.double() for value in values])
        dist.all_reduce(together)
        return tuple(total.to(value.dtype) for total, value in zip(together, values, strict=True))

    def added(self, value: Tensor) -> Tensor:
        """A tensor summed over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def highest(self, *values: int) -> list[int]:
        """Each number's highest value in any process."""
        if self.size == 1:
            return list(values)
        together = torch.tensor(values)
        dist.all_reduce(together, op=dist.ReduceOp.MAX)  # on the CPU, so that no host waits for its GPU
        return together.tolist()

    def first_says(self, say: Callable[[], Any]) -> Any:
        """What `say` gives in the first process, in all of them; what it raises there is raised in all."""
        if self.size == 1:
            return say()
        answer: list[Any] = [None, None]
        if self.writes:
            try:
                answer = [say(), None]
            except Exception as error:
                answer = [None, error]
        dist.broadcast_object_list(answer, src=0, device=torch.device("cpu"))
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def draw_apart(self, seed: int, step: int) -> None:
        """Let dropout draw other numbers in each process, a function of seed and step: nothing of it need be saved."""
        if self.size > 1:
            torch.manual_seed(int(np.random.SeedSequence((seed, step, self.rank)).generate_state(1, np.uint32)[0]))

    @contextlib.contextmanager
    def together_if(self, network: nn.Module, is_last: bool) -> Iterator[None]:
        """Gradients are summed over all processes in the backward pass of the last part of a batch only."""
        if is_last or self.size == 1:
            yield
            return
        with network.no_sync():  # type: ignore[operator]
            yield


ONE_PROCESS = Ranks()


def launched_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def tells() -> bool:
    """Whether this is the process that speaks to people."""
    return not launched_by_torchrun() or os.environ.get("RANK", "0") == "0"


def _meeting_place() -> dict[str, Any]:
    """Where processes find each other, as arguments of `init_process_group`.

    torchrun's own store outlives its processes, and PyTorch 2.13 lets those started again read the addresses of those
    before them there, which nobody answers: so on one machine each start has keys of its own. On several machines the
    counts of starts may differ, and the place is PyTorch's own choice.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return {}
    size = int(os.environ["WORLD_SIZE"])
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), size, is_master=False)
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {"store": dist.PrefixStore(f"start {start}", store), "rank": int(os.environ["RANK"]), "world_size": size}


@contextlib.contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """All processes of the run, joined while the block lasts: over NCCL on GPUs, over gloo on CPUs."""
    if not launched_by_torchrun():
        yield Ranks()
        return
    on_gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    local = int(os.environ["LOCAL_RANK"])
    if on_gpu:
        torch.cuda.set_device(local % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", **_meeting_place())
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()
