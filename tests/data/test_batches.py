"""The order of samples is a function of (seed, epoch) and covers everything once."""

from itertools import chain
from typing import Any

import pytest
import torch

from tidepool.data.batches import AUGMENTATION_STREAM, SHUFFLE_STREAM, epoch_batches, epoch_generator, num_batches


def _order(num: int = 103, size: int = 10, **changes: Any) -> list[list[int]]:
    settings = {"seed": 3, "epoch": 2, "drop_last": False, **changes}
    return [batch.tolist() for batch in epoch_batches(num, size, **settings)]


def test_every_sample_once() -> None:
    batches = _order()
    assert [len(batch) for batch in batches] == [10] * 10 + [3]
    assert sorted(chain(*batches)) == list(range(103))


def test_drop_last_leaves_out_the_short_batch_but_never_the_only_one() -> None:
    assert [len(batch) for batch in _order(drop_last=True)] == [10] * 10
    assert [len(batch) for batch in _order(num=7, drop_last=True)] == [7]


@pytest.mark.parametrize("num", [1, 9, 10, 11, 20])
@pytest.mark.parametrize("drop_last", [False, True])
def test_num_batches_is_how_many_come(num: int, drop_last: bool) -> None:
    assert num_batches(num, 10, drop_last=drop_last) == len(_order(num=num, drop_last=drop_last))


def test_same_seed_and_epoch_give_the_same_order_whatever_happened_before() -> None:
    first = _order()
    torch.manual_seed(99)
    torch.rand(5)
    assert _order() == first


def test_seed_and_epoch_each_change_the_order() -> None:
    orders = [_order(), _order(seed=4), _order(epoch=3), _order(seed=2, epoch=3)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    _order()
    assert torch.equal(torch.get_rng_state(), state)


def test_streams_differ_and_repeat() -> None:
    draws = [
        torch.rand(4, generator=epoch_generator(seed=1, epoch=1, stream=stream)).tolist()
        for stream in (SHUFFLE_STREAM, AUGMENTATION_STREAM, AUGMENTATION_STREAM)
    ]
    assert draws[0] != draws[1]
    assert draws[1] == draws[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "batch_size=0; expected at least 1"),
        ({"num": 0}, "num_samples=0; expected at least 1"),
        ({"seed": -1}, "seed=-1; expected at least 0"),
        ({"epoch": -1}, "epoch=-1; expected at least 0"),
    ],
)
def test_values_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        _order(**changes)
