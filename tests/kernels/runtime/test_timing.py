"""What of timing can be told without a GPU: its arithmetic, and its refusal."""

import pytest
import torch

from tidepool.kernels.runtime.timing import CudaTimer, cache_bytes, median, percentile, sets_beyond_cache


def test_percentiles_lie_between_samples() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5
    assert percentile([10.0, 20.0, 30.0, 40.0, 50.0, 60.0], 0.2) == 20.0
    assert percentile([5.0], 0.8) == 5.0
    with pytest.raises(ValueError, match="at least one sample"):
        median([])


def test_rotated_sets_fill_the_cache_twice_and_are_not_endless() -> None:
    assert sets_beyond_cache(50, 100) == 4
    assert sets_beyond_cache(201, 100) == 1
    assert sets_beyond_cache(1, 10**9) == 16
    assert sets_beyond_cache(0, 0) == 1
    assert cache_bytes(torch.device("cpu")) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_the_timer_says_so() -> None:
    with pytest.raises(RuntimeError, match="needs an NVIDIA GPU"):
        CudaTimer().measure(lambda: None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("graph", [False, True])
def test_calls_go_round_their_arguments_and_samples_are_times(graph: bool) -> None:
    seen = []
    tensors = [torch.ones(1024, device="cuda") for _ in range(3)]

    def double(t: torch.Tensor) -> None:
        seen.append(t.data_ptr())
        t.mul_(1.0)

    samples = CudaTimer(budget_ms=5, graph=graph).measure(double, rotate=[(t,) for t in tensors])
    assert len(samples) >= 10
    assert all(s > 0 for s in samples)
    assert seen[:6] == 2 * [t.data_ptr() for t in tensors]
