"""What the comparisons with PyTorch stand on: tensors arrive on the device as the views they were."""

import pytest
import torch

from tests.kernels.exact import placed
from tests.kernels.ops.test_edge_cases_layout import VIEWS, random


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_view_is_placed_as_that_view(view: str, device: str) -> None:
    given = VIEWS[view](random(2, 3, 7, 8))
    there = placed(given, device)
    assert there.device.type == device
    assert (there.shape, there.stride(), there.storage_offset()) == (
        given.shape,
        given.stride(),
        given.storage_offset(),
    )
    assert device == "meta" or torch.equal(there, given)


def test_a_placed_tensor_is_a_copy() -> None:
    given = random(2, 3)
    placed(given, "cpu").fill_(9)
    assert not (given == 9).any()
