"""Which samples make up which batch: a function of (seed, epoch) alone, so that a resumed run stays in step."""

from collections.abc import Iterator

import numpy as np
import torch

SHUFFLE_STREAM = 0
AUGMENTATION_STREAM = 1
CUTOUT_STREAM = 2
MIXING_STREAM = 3


def epoch_generator(*, seed: int, epoch: int, stream: int) -> torch.Generator:
    """A CPU generator that is a function of its arguments alone; different streams are independent of each other."""
    state = np.random.SeedSequence((seed, epoch, stream)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def epoch_batches(
    num_samples: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    drop_last: bool,
    device: torch.device | str = "cpu",
) -> Iterator[torch.Tensor]:
    """Yield int64 index tensors (batch_size,) on `device` that cover 0..num_samples-1 once, shuffled.

    The last one is shorter when `batch_size` does not divide `num_samples`, and left out with `drop_last`;
    `drop_last` never leaves an epoch without a batch: fewer samples than one batch make one short batch.

    Raises:
        ValueError: `batch_size` or `num_samples` is below 1, or `seed` or `epoch` is negative.
    """
    for argument, value, least in (
        ("num_samples", num_samples, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("epoch", epoch, 0),
    ):
        if value < least:
            raise ValueError(f"{argument}={value}; expected at least {least}")
    return _index_batches(num_samples, batch_size, seed, epoch, drop_last, device)


def num_batches(num_samples: int, batch_size: int, *, drop_last: bool) -> int:
    """How many batches `epoch_batches` yields."""
    whole, rest = divmod(num_samples, batch_size)
    return whole + (1 if rest and (not drop_last or whole == 0) else 0)


def _index_batches(
    num_samples: int, batch_size: int, seed: int, epoch: int, drop_last: bool, device: torch.device | str
) -> Iterator[torch.Tensor]:
    # Permuted on the CPU so that the order is the same whatever the device is.
    generator = epoch_generator(seed=seed, epoch=epoch, stream=SHUFFLE_STREAM)
    order = torch.randperm(num_samples, generator=generator).to(device)
    for batch in range(num_batches(num_samples, batch_size, drop_last=drop_last)):
        yield order[batch * batch_size : (batch + 1) * batch_size]
