"""The rule that judges the kernels is judged here: it passes what is honest and fails what is not."""

import pytest
import torch
from torch import Tensor

from tests.kernels.error_rule import Truth, draw, error_rule, in_pytorch, results, truth, undecided, windows
from tests.kernels.shapes import NAMED, Case
from tidepool.kernels import MaxPool

LAYER = NAMED["padded_3x3_pool_2"]


@pytest.fixture(scope="module")
def judged() -> dict[torch.dtype, tuple[dict[str, Tensor], dict[str, Truth]]]:
    """PyTorch's results and the truth for one layer, by dtype."""
    found = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        inputs, _ = draw(LAYER, dtype, seed=0)
        found[dtype] = results(lambda *given: in_pytorch(LAYER, *given), inputs), truth(LAYER, inputs)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["y", "dx", "dweight", "dbias"])
def test_rounded_truth_and_pytorch_pass(judged, dtype: torch.dtype, name: str) -> None:
    twin, exact = judged[dtype][0][name], judged[dtype][1][name]
    error_rule(name, exact.value.to(dtype), twin, exact)
    error_rule(name, twin, twin, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["y", "dx", "dweight", "dbias"])
def test_one_wrong_element_fails(judged, dtype: torch.dtype, name: str) -> None:
    twin, exact = judged[dtype][0][name], judged[dtype][1][name]
    wrong = exact.value.to(dtype).clone()
    wrong.view(-1)[-1] += 0.25 * exact.size.max()
    with pytest.raises(AssertionError, match=f"^{name}: largest error"):
        error_rule(name, wrong, twin, exact)


def test_nan_fails(judged) -> None:
    twin, exact = judged[torch.float32][0]["y"], judged[torch.float32][1]["y"]
    wrong = twin.clone()
    wrong.view(-1)[3] = torch.nan
    with pytest.raises(AssertionError, match="largest error nan"):
        error_rule("y", wrong, twin, exact)


@pytest.mark.parametrize("name", ["y", "dx", "dweight"])
def test_bf16_cut_off_instead_of_rounded_fails(judged, name: str) -> None:
    # The twin is the rounded truth: on some processors PyTorch's own bf16 dweight is biased, and twice that is allowed.
    exact = judged[torch.bfloat16][1][name]
    twin = exact.value.to(torch.bfloat16)
    cut = (exact.value.float().view(torch.int32) & ~0xFFFF).view(torch.float32).to(torch.bfloat16)
    with pytest.raises(AssertionError, match="mean outward error"):
        error_rule(name, cut, twin, exact)


def test_a_sum_kept_in_float16_fails(judged) -> None:
    """32 products' worth of rounding in float16 where float32 was due: a little wrong everywhere."""
    twin, exact = judged[torch.float16][0]["y"], judged[torch.float16][1]["y"]
    noise = torch.randn(exact.value.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wrong = (exact.value * (1 + 2.0**-11 * 32**0.5 * noise)).half()
    with pytest.raises(AssertionError, match=r"largest error|root mean square error"):
        error_rule("y", wrong, twin, exact)


def test_other_shape_or_dtype_fails(judged) -> None:
    twin, exact = judged[torch.float32][0]["y"], judged[torch.float32][1]["y"]
    with pytest.raises(AssertionError, match="float64"):
        error_rule("y", twin.double(), twin, exact)
    with pytest.raises(AssertionError, match="PyTorch gives"):
        error_rule("y", twin[:1], twin, exact)


def test_undecided_marks_near_ties_and_signs_only() -> None:
    layer = Case("line", (1, 1, 8), (1, 1, 1), {"pool": MaxPool(2)}, bias=False)
    third = torch.tensor(1 / 3)
    x = torch.tensor([[[1.0, 1.0, 2.0, 1.0, -1.0, -2.0, 3.0, 3.0 * (1 + 2.0**-23)]]])
    # Times 1: sums are exact up to the bound, so only the last pair (one ulp apart) is beyond telling.
    assert undecided(layer, x, third.view(1, 1, 1), None).tolist() == [[[True, False, False, True]]]


def test_windows_are_those_of_pytorch() -> None:
    z = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for pool in (MaxPool(3, 2, 1), MaxPool((2, 3), (3, 1), (1, 0), dilation=2), MaxPool(3, 2, ceil_mode=True)):
        expected = torch.nn.functional.max_pool2d(
            z, pool.kernel, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
        )
        assert torch.equal(windows(z, pool, 2).amax(-1), expected)
