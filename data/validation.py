"""The validation split: held out of what there is to train on by a fixed rule that no seed comes into."""

from dataclasses import replace

import torch
from torch import Tensor

from tidepool.data.dataset import DataError, LabelledData, Split, statistics_of

EVERY = 10


def with_validation(data: LabelledData) -> LabelledData:
    """`data` with a validation split: the one it came with, else what `held_out` says of its training split, which
    loses it; `mean` and `std` are then those of what is left to train on.

    Raises:
        DataError: nothing can be held out, since no class has two samples (or there is one group).
    """
    if data.validation is not None:
        return data
    labels = data.train.labels.cpu()
    chosen = held_out(labels) if data.groups is None else held_out_groups(labels, data.groups)
    if not len(chosen):
        what = "one sample of each class" if data.groups is None else "one group of samples"
        raise DataError(
            f"data {data.name!r}: {what} to train on ({len(labels)} in all); expected more, since one in {EVERY} is "
            "held out for validation"
        )
    stays = torch.ones(len(labels), dtype=torch.bool)
    stays[chosen] = False
    train, validation = (_part(data.train, places) for places in (stays.nonzero().flatten(), chosen))
    mean, std = statistics_of(train.inputs)
    device = data.mean.device
    groups = None if data.groups is None else data.groups[stays]
    return replace(data, train=train, validation=validation, groups=groups, mean=mean.to(device), std=std.to(device))


def held_out(labels: Tensor) -> Tensor:
    """(N,) labels -> the places held out, ascending: every tenth, counted class by class in the order of the data, so
    that each class has its share to within one sample; of fewer than ten the last. No class loses its only sample.
    """
    counts = torch.bincount(labels)
    order = torch.argsort(labels, stable=True)
    return _every_tenth(order[counts[labels[order]] > 1]).sort().values


def held_out_groups(labels: Tensor, groups: Tensor) -> Tensor:
    """As `held_out`, with whole groups: (N,) `groups` says which each sample is of, such as who speaks. A group counts
    to the lowest class in it, and groups of one class are in the order of their numbers."""
    known = groups.unique()
    if len(known) < 2:
        return torch.empty(0, dtype=torch.int64)
    lowest = torch.full((int(known.max()) + 1,), int(labels.max()), dtype=torch.int64)
    lowest.scatter_reduce_(0, groups, labels, "amin")
    chosen = _every_tenth(known[torch.argsort(lowest[known], stable=True)])
    return torch.isin(groups, chosen).nonzero().flatten()


def _every_tenth(order: Tensor) -> Tensor:
    return order[EVERY - 1 :: EVERY] if len(order) >= EVERY else order[-1:]


def _part(split: Split, places: Tensor) -> Split:
    places = places.to(split.labels.device)
    return Split(split.inputs[places], split.labels[places])
