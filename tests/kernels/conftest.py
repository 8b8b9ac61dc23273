"""Fixtures of the kernel tests."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from tidepool.kernels.operators.call import forget_calls

LAYERS = (
    "convolution",
    "convolution_backward",
    "mkldnn_convolution",
    "cudnn_convolution",
    "_slow_conv2d_forward",
    "slow_conv3d_forward",
    "slow_conv_dilated2d",
    "slow_conv_dilated3d",
    "_conv_depthwise2d",
    "conv_depthwise3d",
    "im2col",
    "col2im",
    "max_pool1d",
    "mkldnn_max_pool2d",
    "mkldnn_max_pool3d",
    "max_pool2d_with_indices",
    "max_pool2d_with_indices_backward",
    "max_pool3d_with_indices",
    "max_pool3d_with_indices_backward",
    "max_unpool2d",
    "max_unpool3d",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool3d",
    "avg_pool3d_backward",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
)
"""ATen's convolutions, pools, and the products they could be written as."""

NORMS = (
    "native_batch_norm",
    "native_batch_norm_backward",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit.no_stats",
    "_batch_norm_with_update",
    "batch_norm_backward",
    "var_mean.correction",
    "mean.dim",
)
"""ATen's batch norms, and the reductions they and a global average pool could be written as."""


COMPILED_ROOMS = ("activations", "conv", "norm", "operators", "ops")
"""Whose tests are run on compiled code, on a simulated device as on a GPU."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a simulated device the tests that launch kernels. Warnings that are expected and say nothing about a test.

    `--on` is an option of `tests/conftest.py`, which copies of the tree for planted faults do without.
    """
    if config.getoption("--on", default=None):
        rooms = [Path(__file__).parent / room for room in COMPILED_ROOMS]
        left = [item for item in items if not any(item.path.is_relative_to(room) for room in rooms)]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            # NumPy under the interpreter, of NaN and infinity, and of masked-out columns that nobody reads.
            item.add_marker(pytest.mark.filterwarnings("ignore:(invalid|overflow|divide).*encountered:RuntimeWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"))
            # PyTorch's side of padding="same".
            item.add_marker(pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning"))


@pytest.fixture(autouse=True)
def int1_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every masked load and store of an interpreted kernel gets a mask of int1, as a compiled one does."""
    builder = interpreter.InterpreterBuilder

    def watched(real: Any, position: int) -> Any:
        def access(self: Any, *arguments: Any, **keywords: Any) -> Any:
            mask = arguments[position] if len(arguments) > position else keywords["mask"]
            typed = mask.dtype.scalar == tl.int1 if isinstance(mask, interpreter.TensorHandle) else True
            assert np.asarray(mask.data).dtype == np.bool_, f"a mask of {mask.dtype}"
            assert typed, f"a mask of {mask.dtype}"
            return real(self, *arguments, **keywords)

        return access

    monkeypatch.setattr(builder, "create_masked_load", watched(builder.create_masked_load, 1))
    monkeypatch.setattr(builder, "create_masked_store", watched(builder.create_masked_store, 2))


@pytest.fixture(autouse=True)
def fresh_launches() -> None:
    """No launch made ready in another test, which may have changed what it would decide."""
    forget_calls()


@contextlib.contextmanager
def _refusing(names: tuple[str, ...]) -> Iterator[None]:
    """These ATen operators raise AssertionError, whoever calls them, from C++ too."""

    def raising(name: str) -> Any:
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError(f"aten::{name} was called")

        return refuse

    from tests.kernels.exact import DEVICE  # decided when a simulated device has been entered, after this file is read

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of overriding kernels, which is meant
        for name in names:
            library.impl(name, raising(name), DEVICE.upper())
    yield
    library._destroy()


@pytest.fixture
def no_pytorch_layers() -> Iterator[None]:
    """PyTorch's convolutions, pools and matrix products raise AssertionError, whoever calls them, from C++ too."""
    with _refusing(LAYERS):
        yield


@pytest.fixture
def no_pytorch_norms() -> Iterator[None]:
    """The same, and PyTorch's batch norms and means."""
    with _refusing(LAYERS + NORMS):
        yield


@contextlib.contextmanager
def _float32_products(precision: str) -> Iterator[None]:
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision  # type: ignore[attr-defined]
    convolutions.fp32_precision = precision  # type: ignore[attr-defined]
    yield
    convolutions.fp32_precision = before  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def ieee_float32(request: pytest.FixtureRequest) -> Iterator[None]:
    """float32 is multiplied as float32, in cuDNN and in the kernels: PyTorch's default, TF32, has errors of its own."""
    if "tf32_float32" in request.fixturenames:
        yield
        return
    with _float32_products("ieee"):
        yield


@pytest.fixture
def tf32_float32() -> Iterator[None]:
    """float32 is multiplied as TF32, in cuDNN and in the kernels."""
    with _float32_products("tf32"):
        yield
