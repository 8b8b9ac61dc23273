"""`squeeze_excite` with backend="triton": the error rule, exact cases, layouts, dtypes, what autograd asks of it."""

import pytest
import torch
from torch import Tensor

from tests.kernels.exact import DEVICE, integers
from tests.kernels.guarded_memory import PATTERNS, guarded_memory
from tidepool.kernels import squeeze_excite
from tidepool.kernels.ops.gate import ops
from tidepool.kernels.oracle.error_rule import Truth, error_rule

SIZES = ((2, 3, 5, 7), (1, 70, 4, 3), (3, 2, 11), (2, 5, 2, 3, 4))
TESTS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def gate_size(size: tuple[int, ...]) -> tuple[int, ...]:
    return (*size[:2], *[1] * (len(size) - 2))


def results(x: Tensor, gate: Tensor, grad: Tensor, backend: str, device: str = "cpu") -> dict[str, Tensor]:
    """y, dx and dgate."""
    given = [t.detach().to(device).requires_grad_() for t in (x, gate)]
    y = squeeze_excite(*given, backend=backend)
    y.backward(grad.to(device))
    return {"y": y.detach(), "dx": given[0].grad, "dgate": given[1].grad}  # type: ignore[dict-item]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_error_rule(size: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, gate, grad = (torch.randn(s, generator=generator).to(dtype) for s in (size, gate_size(size), size))
    ours, twin = (results(x, gate, grad, backend, d) for backend, d in (("triton", DEVICE), ("cudnn", "cpu")))
    truth = results(x.double(), gate.double(), grad.double(), "cudnn")
    spatial = tuple(range(2, len(size)))
    slope = torch.sigmoid(gate.double()) * (1 - torch.sigmoid(gate.double()))
    summed = (x.double() * grad.double()).square().sum(spatial, keepdim=True).sqrt() * slope
    sizes = {"y": truth["y"].abs(), "dx": truth["dx"].abs(), "dgate": summed}
    for name, tensor in ours.items():
        terms = torch.tensor(float(torch.Size(size[2:]).numel()) if name == "dgate" else 1.0)
        error_rule(f"{size}, {dtype}, {name}", tensor.cpu(), twin[name], Truth(truth[name], sizes[name], terms))
        assert tensor.stride() == twin[name].stride()


def test_gates_of_0_and_infinity_are_exact() -> None:
    """sigmoid(0) = 1/2, sigmoid(inf) = 1, sigmoid(-inf) = 0: integers, equal to the bit."""
    x = integers((3, 2, 4, 5), torch.float16, torch.Generator().manual_seed(0))
    gate = torch.tensor([[0, torch.inf], [-torch.inf, 0], [0, 0]]).half().view(3, 2, 1, 1)
    grad = integers((3, 2, 4, 5), torch.float16, torch.Generator().manual_seed(1))
    ours, theirs = (results(x, gate, grad, b, d) for b, d in (("triton", DEVICE), ("cudnn", "cpu")))
    for name, tensor in ours.items():
        assert torch.equal(tensor.cpu(), theirs[name]), name


def test_layouts_repetition_and_memory() -> None:
    """Stepped and expanded inputs as contiguous ones; two runs equal to the bit; nothing outside is touched."""
    x = torch.randn(2, 6, 5, 8, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    gate = torch.randn(2, 1, 1, 1, generator=torch.Generator().manual_seed(1)).to(DEVICE).expand(2, 6, 1, 1)
    stepped, grad = x[:, ::2, :, ::2], torch.ones(1, device=DEVICE).expand(2, 3, 5, 4)
    expected = results(stepped.contiguous(), gate[:, :3].contiguous(), grad.contiguous(), "triton", DEVICE)
    for pattern in PATTERNS:
        with guarded_memory(pattern) as allocations:
            found = results(stepped, gate[:, :3], grad, "triton", DEVICE)
        for allocation in allocations:
            allocation.check_guards()
        for name, tensor in found.items():
            assert torch.equal(tensor, expected[name]), name


def test_mixed_dtypes_are_promoted_and_only_wanted_gradients_computed() -> None:
    x = torch.randn(2, 3, 4, 5, device=DEVICE, dtype=torch.bfloat16)
    gate = torch.randn(2, 3, 1, 1, device=DEVICE, requires_grad=True)
    y = squeeze_excite(x, gate, backend="triton")
    y.sum().backward()
    assert y.dtype == torch.float32
    assert x.grad is None
    assert gate.grad is not None
    dx, dgate = ops.squeeze_excite_backward(torch.ones_like(y), x, gate.detach(), False, True)
    assert dx.numel() == 0
    assert torch.equal(dgate, gate.grad)
    empty = squeeze_excite(x[:0].requires_grad_(), gate[:0], backend="triton")
    assert empty.shape == (0, 3, 4, 5)


def test_opcheck() -> None:
    x = torch.randn(2, 3, 4, 5, device=DEVICE)
    gate = torch.randn(2, 3, 1, 1, device=DEVICE)
    done = torch.library.opcheck(ops.squeeze_excite_backward.default, (x, x, gate, True, True), test_utils=TESTS)
    assert set(done.values()) == {"SUCCESS"}
    given = (x.requires_grad_(), gate.requires_grad_())
    assert set(torch.library.opcheck(ops.squeeze_excite.default, given, test_utils=TESTS).values()) == {"SUCCESS"}
