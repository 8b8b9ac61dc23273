"""Every activation's device functions against PyTorch's, value and derivative, at kinks, infinities and NaN too.

A 1x1 convolution with weight 1 hands each z to the activation as it is.
"""

import pytest
import torch
from torch import Tensor

from tests.kernels.activations.listed import ACTIVATIONS, every_activation
from tidepool.kernels import AvgPool, MaxPool, conv_act_pool
from tidepool.kernels.activations import Activation
from tidepool.kernels.layer.pooling import Pool

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
INFINITY = float("inf")
KINKS = (0.0, 3.0, 6.0)
BIT_EQUAL = ("relu", "relu6", "leaky_relu", "hardswish")
"""Those whose formula has no rounding that PyTorch's order of operations could do differently."""


def grid(dtype: torch.dtype) -> Tensor:
    """z from -20 to 20, every kink, and its neighbours that the dtype has (about 0 the normal ones: BLAS may flush
    others)."""
    kinks = torch.tensor([sign * kink for kink in KINKS for sign in (-1, 1)], dtype=dtype)
    near = [torch.nextafter(kinks[2:], torch.full_like(kinks[2:], to)) for to in (-INFINITY, INFINITY)]
    far = torch.tensor([-100.0, -50.0, -(2.0**-100), 2.0**-100, 50.0, 100.0], dtype=dtype)
    return torch.cat([torch.linspace(-20, 20, 321, dtype=torch.float64).to(dtype), kinks, *near, far])


def both(z: Tensor, activation: Activation, pool: Pool, grad: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    """y and dz of the kernels and of PyTorch at z (length,), taken as one row of pixels."""
    found = []
    for backend in ("triton", "cudnn"):
        x = z.clone().view(1, 1, -1).requires_grad_()
        y = conv_act_pool(x, torch.ones(1, 1, 1, dtype=z.dtype), activation=activation, pool=pool, backend=backend)
        (dz,) = torch.autograd.grad(y, x, torch.ones_like(y) if grad is None else grad.view_as(y))
        found.append((y.detach().flatten(), dz.flatten()))
    return found


@every_activation
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_value_and_slope_are_pytorchs(activation: Activation, dtype: torch.dtype) -> None:
    (y, dz), (y_twin, dz_twin) = both(grid(dtype), activation, None)
    if activation.name in BIT_EQUAL:
        assert torch.equal(y, y_twin)
    if dtype == torch.float32:  # on some CPUs PyTorch's float32 GELU, by way of oneDNN, is 6 roundings off
        y_twin = activation.reference(grid(dtype).double()).float()
    # PyTorch takes the slope of some activations from the rounded result, and its GELUs and Mish cancel in their tails,
    # by up to 9 and 17 roundings; `test_accuracy_of_slopes` holds ours to the exact ones.
    unit = torch.finfo(dtype).eps
    if dtype == torch.float64 and activation.name == "gelu":
        # z / 2 (1 + erf) cancels in its tail: a rounding of erf, of which either may be one off, is |z| / 2 of them.
        assert ((y - y_twin).abs() <= 4 * unit * y_twin.abs() + unit * (2 + grid(dtype).abs())).all()
    else:
        torch.testing.assert_close(y, y_twin, rtol=4 * unit, atol=2 * unit)
    slack, floor = {"mish": (24, 2), "gelu_tanh": (12, 12)}.get(activation.name, (4, 2))
    torch.testing.assert_close(dz, dz_twin, rtol=slack * unit, atol=floor * unit)


@every_activation
def test_relative_accuracy_of_values_near_zero(activation: Activation) -> None:
    z = torch.cat([sign * torch.logspace(-8, 0, 60, dtype=torch.float64) for sign in (-1, 1)])
    (y, _), _ = both(z.float(), activation, None)
    exact = activation.reference(z.float().double())
    assert ((y.double() - exact).abs() <= 4e-7 * exact.abs()).all()


@every_activation
def test_accuracy_of_slopes(activation: Activation) -> None:
    """A few roundings, of z times the slope where z is large: nothing that cancels is multiplied by more."""
    z = torch.linspace(-20, 20, 4001)
    (_, dz), _ = both(z, activation, None)
    leaf = z.double().requires_grad_()
    (exact,) = torch.autograd.grad(activation.reference(leaf).sum(), leaf)
    assert ((dz.double() - exact).abs() <= 4 * 2.0**-24 * (1 + z.double().abs())).all()


@every_activation
def test_derivative_at_kinks_is_pytorchs(activation: Activation) -> None:
    z = torch.tensor([k for kink in (*KINKS, 1.0) for k in (kink, -kink)])
    (_, dz), (_, twin) = both(z, activation, None)
    torch.testing.assert_close(dz, twin, rtol=1e-6, atol=1e-6)
    if activation.formula.kinks:
        assert torch.equal(dz == 0, twin == 0)


@every_activation
@pytest.mark.parametrize("special", [INFINITY, -INFINITY, float("nan")], ids=["inf", "-inf", "nan"])
def test_infinities_and_nan_are_pytorchs(activation: Activation, special: float) -> None:
    """One number, which PyTorch's scalar loop works out: its vectorised one has other derivatives of NaN for some."""
    ours, twin = both(torch.tensor([special]), activation, None)
    for one, other in zip(ours, twin, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True, rtol=0, atol=0)


@every_activation
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_ties_of_rounded_values_under_a_max_pool_fall_as_pytorchs(activation: Activation, dtype: torch.dtype) -> None:
    """Values close together, of which activation and rounding make equal ones: the first of them gets the gradient."""
    generator = torch.Generator().manual_seed(3)
    centre = torch.randint(-6, 7, (400, 1), generator=generator) / 2
    z = (centre + torch.randn(400, 4, generator=generator) * 2**-7).to(dtype).flatten()
    (y, dz), (y_twin, dz_twin) = both(z, activation, MaxPool(4))
    candidates = activation.reference(z).view(-1, 4)
    assert (candidates == candidates.amax(1, keepdim=True)).sum(1).float().mean() > 1.05 or activation.is_identity
    ours, twins = ((t.view(-1, 4) != 0).float() for t in (dz, dz_twin))
    exact = activation.name in (*BIT_EQUAL, "none")
    # Where float32 arithmetic differs in its last bit a value may round the other way, in less than one in fifty.
    assert torch.equal(ours, twins) if exact else (ours != twins).any(1).float().mean() < 0.02
    torch.testing.assert_close(y, y_twin, rtol=2 * torch.finfo(dtype).eps, atol=2.0**-24)


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh", "mish", "hardswish"])
def test_the_winner_of_a_max_pool_is_of_activated_values(name: str) -> None:
    z = torch.tensor([-1.0, -5.0, -1.25, -0.75])
    (y, dz), (y_twin, dz_twin) = both(z, Activation(name), MaxPool(4))
    torch.testing.assert_close(y, y_twin, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dz, dz_twin, rtol=1e-5, atol=1e-6)
    assert torch.equal(dz != 0, dz_twin != 0)
    assert y > Activation(name).reference(z.max())


@every_activation
def test_an_average_passes_each_pixels_own_slope(activation: Activation) -> None:
    z = grid(torch.float32)[:320]
    grad = torch.linspace(-2, 2, 160)
    (y, dz), (y_twin, dz_twin) = both(z, activation, AvgPool(2), grad)
    torch.testing.assert_close(y, y_twin, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(dz, dz_twin, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", [a.name for a in ACTIVATIONS if a.needs_side])
@pytest.mark.parametrize("window", [64, 127, 128, 254, 300])
def test_large_windows_code_the_winner_and_its_side(name: str, window: int) -> None:
    """Windows on both sides of what a byte codes, the winner last, once on either side."""
    for top in (-0.5, 0.5):
        z = torch.full((window,), -2.0)
        z[-1] = top
        (_, dz), (_, twin) = both(z, Activation(name), MaxPool(window))
        torch.testing.assert_close(dz, twin, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [a.name for a in ACTIVATIONS if a.needs_side])
def test_an_infinite_gradient_where_the_slope_is_zero_stays_zero(name: str) -> None:
    grad = torch.full((2,), INFINITY)
    (_, dz), (_, twin) = both(torch.tensor([-4.0, 1.0]), Activation(name), None, grad)
    assert torch.equal(dz, twin)
