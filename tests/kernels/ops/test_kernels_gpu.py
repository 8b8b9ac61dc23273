"""What only a GPU can show: real layers compiled in every dtype, CUDA graphs, memory, more than 2^31 elements.

Where kernels are compiled, every other file of this folder runs compiled as well; this one comes on top, without any
option. Its last tests need `compute-sanitizer`, of the CUDA toolkit, and are skipped without it:

    pytest tests/kernels -n 0
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels import error_rule
from tests.kernels.exact import DEVICE, assert_as_pytorch, integer_inputs
from tests.kernels.shapes import CASES, Case
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool
from tidepool.kernels.oracle.reference import conv_act_pool_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE != "cuda", reason="no NVIDIA GPU here"),
]

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
REAL_LAYERS = (
    Case("resnet_stem_224", (2, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3, "pool": MaxPool(3, 2, 1)}),
    Case("alexnet_1", (2, 3, 224, 224), (64, 3, 11, 11), {"stride": 4, "padding": 2, "pool": MaxPool(3, 2)}),
    Case("alexnet_2", (4, 64, 27, 27), (192, 64, 5, 5), {"padding": 2, "pool": MaxPool(3, 2)}),
    Case("vgg_3", (2, 128, 56, 56), (128, 128, 3, 3), {"padding": 1}, channels_last=True),
    Case("vgg_5", (4, 512, 14, 14), (512, 512, 3, 3), {"padding": 1}, channels_last=True),
    Case("resnext", (2, 128, 28, 28), (128, 4, 3, 3), {"groups": 32, "padding": 1, "pool": None}, channels_last=True),
    Case("mobilenet", (2, 144, 56, 56), (144, 1, 3, 3), {"groups": 144, "stride": 2, "padding": 1, "pool": None}),
    Case(
        "efficientnet", (2, 96, 56, 56), (96, 1, 5, 5), {"groups": 96, "activation": "silu", "padding": 2, "pool": None}
    ),
    Case(
        "average_head", (4, 64, 30, 30), (96, 64, 3, 3), {"activation": "gelu", "pool": AvgPool(2)}, channels_last=True
    ),
    Case("c3d_2", (1, 64, 8, 28, 28), (128, 64, 3, 3, 3), {"padding": 1}),
    Case("waveform_1", (4, 1, 16000), (64, 1, 80), {"stride": 4, "pool": MaxPool(4)}),
)


@HALVES
@pytest.mark.parametrize("case", REAL_LAYERS, ids=lambda case: case.name)
def test_real_layers_within_the_error_rule(case: Case, dtype: torch.dtype) -> None:
    error_rule.check(case, dtype, device="cuda", most_undecided=0.05)


@pytest.mark.parametrize("case", REAL_LAYERS, ids=lambda case: case.name)
def test_real_layers_within_the_error_rule_in_float32(case: Case, ieee_float32: None) -> None:
    error_rule.check(case, torch.float32, device="cuda", most_undecided=0.05)


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bfloat16_in_full(case: Case, seed: int) -> None:
    error_rule.check(case, torch.bfloat16, device="cuda", seed=seed, most_undecided=0.05)
    if case.options.get("activation") not in ("silu", "gelu") and not isinstance(case.options.get("pool"), AvgPool):
        assert_as_pytorch(*integer_inputs(case, torch.bfloat16, seed), device="cuda", **case.options)


SMOOTH = [
    c for c in (*CASES, *REAL_LAYERS) if c.options.get("activation", "relu") != "relu" and c.options.get("pool") is None
]


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.name)
def test_tf32_within_twice_cudnns_tf32(case: Case, tf32_float32: None) -> None:
    """Layers without winners: which of two candidates is larger, TF32 cannot say to float32's last bits."""
    error_rule.check(case, torch.float32, device="cuda")


# CUDA graphs, streams, devices.


def _layer(channels_last: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(8, 32, 30, 30, generator=generator, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(48, 32, 3, 3, generator=generator, device="cuda", dtype=torch.bfloat16) / 17
    bias = torch.randn(48, generator=generator, device="cuda", dtype=torch.bfloat16)
    if channels_last:
        x, weight = (t.to(memory_format=torch.channels_last) for t in (x, weight))
    return x, weight, bias


def _step(leaves: list[Tensor], **layer: Any) -> list[Tensor]:
    y = conv_relu_pool(*leaves, **layer, backend="triton")
    return [y, *torch.autograd.grad(y, leaves, torch.ones_like(y))]


@pytest.mark.parametrize("layer", [{}, {"pool": AvgPool(2)}, {"activation": "silu", "pool": MaxPool(3, 2, 1)}], ids=str)
def test_cuda_graph_capture_and_replay(layer: dict[str, Any]) -> None:
    leaves = [t.requires_grad_() for t in _layer()]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            _step(leaves, **layer)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = _step(leaves, **layer)
    for seed in (1, 2):
        with torch.no_grad():
            for leaf in leaves:
                leaf.copy_(torch.randn(leaf.shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda"))
        graph.replay()
        replayed = [t.clone() for t in captured]
        for found, expected in zip(replayed, _step(leaves, **layer), strict=True):
            assert torch.equal(found, expected)


def test_on_another_stream() -> None:
    leaves = [t.requires_grad_() for t in _layer()]
    expected = _step(leaves)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = _step(leaves)
    stream.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_on_a_device_that_is_not_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    leaves = [t.to("cuda:1").requires_grad_() for t in _layer()]
    expected = [t.requires_grad_() for t in _layer()]
    for found, there in zip(_step(leaves), _step(expected), strict=True):
        assert torch.equal(found.cpu(), there.cpu())


def test_repeatable_to_the_bit_under_load() -> None:
    """Split sums, with other work in flight: no order of arrival may show."""
    leaves = [t.requires_grad_() for t in _layer()]
    first = _step(leaves)
    noise = torch.randn(4096, 4096, device="cuda")
    side = torch.cuda.Stream()
    for _ in range(20):
        with torch.cuda.stream(side):
            noise = noise @ noise / 64
        assert all(torch.equal(a, b) for a, b in zip(_step(leaves), first, strict=True))


# Memory.


def _extra_bytes(function: Callable[[], Any]) -> int:
    """Most memory allocated at any time during `function`, beyond what was before."""
    function()  # compiles
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kept = function()
    torch.cuda.synchronize()
    del kept
    return torch.cuda.max_memory_allocated() - before


SLACK = 2**20  # packed weights, workspaces of small layers, and the allocator's rounding


@pytest.mark.parametrize("layer", [{}, {"activation": None}, {"pool": AvgPool(2)}, {"pool": None}], ids=str)
@pytest.mark.parametrize("channels_last", [True, False])
def test_no_hidden_copy_of_the_input(layer: dict[str, Any], channels_last: bool) -> None:
    """Forward and backward allocate what they return and save, and no copy of x (64 MiB) in another layout."""
    x, weight, bias = (t.detach() for t in _layer(channels_last))
    x = x[:1, :, :2, :2].repeat(32, 1, 90, 90)
    x = x.to(memory_format=torch.channels_last) if channels_last else x.contiguous()
    size = x.numel() * x.element_size()
    with torch.no_grad():
        y = conv_relu_pool(x, weight, bias, **layer, backend="triton")
        returned = y.numel() * y.element_size()
        forward = _extra_bytes(lambda: conv_relu_pool(x, weight, bias, **layer, backend="triton"))
    assert forward <= returned + SLACK
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    # y, its incoming gradient, at most a byte an output, dx, and workspaces: less than another copy of x would make.
    assert _extra_bytes(lambda: _step(leaves, **layer)) < 2 * returned + y.numel() + 2 * size


# More than 2^31 elements.


def _needs(gigabytes: int) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < gigabytes * 2**30:
        pytest.skip(f"needs {gigabytes} GiB of free GPU memory, {free / 2**30:.0f} are")


def test_43_more_than_2_31_elements_in_x_and_dx() -> None:
    """One picture of 46,400 x 46,400: offsets inside it pass 2^31. Its last rows are as if they were alone."""
    _needs(24)
    side = 46400
    x = torch.randint(-2, 3, (1, 1, side, side), device="cuda", dtype=torch.int8).to(torch.bfloat16).requires_grad_()
    assert x.numel() > 2**31
    weight = torch.tensor([[[[1.0, -1.0], [0.0, 2.0]]]], device="cuda", dtype=torch.bfloat16).requires_grad_()
    y = conv_relu_pool(x, weight, padding="same", backend="triton")
    y.backward(torch.ones_like(y))
    rows = 64
    tail = x.detach()[..., -rows:, :].clone().requires_grad_()
    expected = conv_act_pool_reference(tail, weight.detach(), padding="same")
    assert torch.equal(y[..., -(rows // 2) :, :], expected)
    expected.backward(torch.ones_like(expected))
    assert x.grad is not None
    assert tail.grad is not None
    assert torch.equal(x.grad[..., -(rows - 2) :, :], tail.grad[..., 2:, :])


def test_43_more_than_2_31_elements_in_y() -> None:
    """A batch whose outputs pass 2^31 while its inputs do not."""
    _needs(24)
    x = torch.randint(-2, 3, (8200, 4, 64, 64), device="cuda", dtype=torch.int8).to(torch.bfloat16)
    weight = torch.randint(-1, 2, (65, 4, 1, 1), device="cuda", dtype=torch.int8).to(torch.bfloat16)
    with torch.no_grad():
        y = conv_relu_pool(x, weight, pool=None, backend="triton")
        assert y.numel() > 2**31
        for image in (0, 4000, 8199):
            expected = conv_act_pool_reference(x[image : image + 1], weight, pool=None)
            assert torch.equal(y[image : image + 1], expected)


def test_43_more_than_2_31_elements_in_a_batch_for_every_gradient() -> None:
    """The weight gradient sums over all of it; sparse integers keep the sum exact."""
    _needs(40)
    images = 2**31 // (32 * 64 * 64) + 3
    x = torch.zeros(images, 32, 64, 64, device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    x[::511] = torch.randint(-2, 3, (1, 32, 64, 64), device="cuda", dtype=torch.int8).to(torch.bfloat16)
    x[-1] = x[0]
    assert x.numel() > 2**31
    weight = torch.randint(-1, 2, (16, 32, 3, 3), device="cuda", dtype=torch.int8).to(torch.bfloat16)
    chosen = x[::511].clone(), x[-1:].clone()
    leaves = [x.requires_grad_(), weight.requires_grad_()]
    y = conv_relu_pool(*leaves, padding=1, backend="triton")
    dx, dweight = torch.autograd.grad(y.sum(), leaves)
    total = torch.zeros_like(weight, dtype=torch.float32)
    for part in chosen:
        given = [part.float().requires_grad_(), weight.detach().float().requires_grad_()]
        part_dx, part_dweight = torch.autograd.grad(conv_act_pool_reference(*given, padding=1).sum(), given)
        total += part_dweight
        where = dx[::511] if len(part) > 1 else dx[-1:]
        assert torch.equal(where, part_dx.to(torch.bfloat16))
    assert torch.equal(dweight, total.to(torch.bfloat16))


# Sanitizers.

SANITIZED = """
import torch
from tidepool.kernels import AvgPool, MaxPool, conv_relu_pool
for size, weight, layer in (
    ((2, 3, 9, 7), (5, 3, 3, 3), {"padding": 1}),
    ((1, 17, 7, 9), (19, 17, 2, 2), {"pool": MaxPool(3, 2, 1, ceil_mode=True)}),
    ((1, 5, 7, 9), (9, 5, 2, 2), {"pool": AvgPool(2), "stride": 2}),
    ((1, 6, 7, 9), (12, 1, 3, 2), {"groups": 6, "activation": "silu"}),
    ((1, 2, 4, 5, 6), (3, 2, 2, 2, 2), {}),
    ((2, 3, 31), (4, 3, 5), {"pool": MaxPool(2)}),
    ((2, 40, 9, 11), (32, 40, 3, 3), {"padding": 1}),
):
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [torch.randn(s, device="cuda", dtype=dtype) for s in (size, weight, weight[:1])]
        if size[1] == 40:  # Hopper's forward and the windowed gradients
            leaves[0] = leaves[0].to(memory_format=torch.channels_last)
        y = conv_relu_pool(*(leaf.requires_grad_() for leaf in leaves), **layer, backend="triton")
        y.backward(torch.ones_like(y))
torch.cuda.synchronize()
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed (it comes with the CUDA toolkit)")
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SANITIZED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
