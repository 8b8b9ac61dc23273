"""`global_average_pool` with backend="triton": the error rule, exact means, layouts, dtypes, autograd."""

import pytest
import torch
from torch import Tensor

from tests.kernels.exact import DEVICE, integers
from tidepool.kernels import global_average_pool, squeeze_excite
from tidepool.kernels.ops.average import ops
from tidepool.kernels.oracle.error_rule import Truth, error_rule

TESTS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def results(x: Tensor, grad: Tensor, backend: str, device: str = "cpu") -> dict[str, Tensor]:
    leaf = x.detach().to(device).requires_grad_()
    y = global_average_pool(leaf, backend=backend)
    y.backward(grad.to(device))
    return {"y": y.detach(), "dx": leaf.grad}  # type: ignore[dict-item]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(2, 3, 5, 7), (1, 70, 7, 7), (3, 2, 11), (2, 5, 2, 3, 4)], ids=str)
def test_error_rule(size: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = (*size[:2], *[1] * (len(size) - 2))
    x, grad = (torch.randn(s, generator=generator).to(dtype) for s in (size, rows))
    ours, twin = (results(x, grad, backend, d) for backend, d in (("triton", DEVICE), ("cudnn", "cpu")))
    truth = results(x.double(), grad.double(), "cudnn")
    pixels = torch.Size(size[2:]).numel()
    spread = x.double().square().sum(tuple(range(2, len(size))), keepdim=True).sqrt() / pixels
    for name, size_of, terms in (("y", spread, float(pixels)), ("dx", truth["dx"].abs(), 1.0)):
        error_rule(
            f"{size}, {dtype}, {name}", ours[name].cpu(), twin[name], Truth(truth[name], size_of, torch.tensor(terms))
        )


@pytest.mark.parametrize("channels_last", [False, True])
def test_means_of_integers_over_8_pixels_are_exact(channels_last: bool) -> None:
    x = integers((3, 5, 2, 4), torch.float16, torch.Generator().manual_seed(0)).to(DEVICE)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    y = global_average_pool(x, keepdim=False, backend="triton")
    assert y.shape == (3, 5)
    assert torch.equal(y.float(), x.float().mean((2, 3)))
    assert torch.equal(global_average_pool(x[:, ::2], backend="triton")[..., 0, 0], y[:, ::2])


def test_backward_writes_one_number_a_channel_and_other_kernels_read_it_so() -> None:
    x = torch.randn(2, 3, 4, 5, device=DEVICE, requires_grad=True)
    gate = torch.zeros(2, 3, 1, 1, device=DEVICE, requires_grad=True)
    y = squeeze_excite(x, gate, backend="triton")
    strides = []
    y.register_hook(lambda grad: strides.append(grad.stride()))
    global_average_pool(y, backend="triton").sum().backward()
    assert strides[0][2:] == (0, 0)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.5 / 20))


def test_no_pytorch_mean_is_called(no_pytorch_norms: None) -> None:
    x = torch.ones(2, 3, 4, 5, device=DEVICE, requires_grad=True)
    global_average_pool(
        squeeze_excite(x, torch.zeros(2, 3, 1, 1, device=DEVICE), backend="triton"), backend="triton"
    ).sum().backward()
    assert x.grad is not None


def test_empty_batch_and_opcheck() -> None:
    assert global_average_pool(torch.empty(0, 3, 4, 5, device=DEVICE), backend="triton").shape == (0, 3, 1, 1)
    x = torch.randn(2, 3, 4, 5, device=DEVICE, requires_grad=True)
    done = torch.library.opcheck(ops.global_average_pool.default, (x,), test_utils=TESTS)
    assert set(done.values()) == {"SUCCESS"}
