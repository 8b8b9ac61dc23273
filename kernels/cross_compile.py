"""The work of `compile_check`: layers that between them use every shipped tile, and what came out of compiling them.

Runs in a process with interpreting off and no GPU needed. See `compile_check` for the command.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from kernels import launch
from kernels.arguments import build_geometry, parse_layer
from kernels.compile_check import Row
from kernels.conv_relu_pool_dgrad import conv_relu_pool_dgrad
from kernels.conv_relu_pool_forward import conv_relu_pool_forward, empty_saved
from kernels.conv_relu_pool_wgrad import conv_relu_pool_wgrad
from kernels.memory_format import empty_in_format
from kernels.pooling import AvgPool, MaxPool


@dataclass(frozen=True)
class Case:
    """A layer to compile: x (N, C, *spatial) and weight (K, C/groups, *kernel) sizes and the op's settings."""

    name: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    dtypes: tuple[str, ...] = ("bf16",)
    settings: dict[str, Any] = field(default_factory=dict)
    without_gradients: bool = False  # compile inference and the bias gradient alone as well


_ALL_DTYPES = ("bf16", "fp16", "tf32", "fp32")
CASES = (
    Case("3x3_pool2", (64, 64, 56, 56), (128, 64, 3, 3), _ALL_DTYPES, {"padding": 1, "pool": MaxPool(2)}, True),
    Case("3x3_c16_k16", (64, 16, 32, 32), (16, 16, 3, 3), _ALL_DTYPES, {"padding": 1, "pool": MaxPool(2)}),
    Case("3x3_c48_pool2", (16, 48, 28, 28), (48, 48, 3, 3), ("bf16", "fp32"), {"padding": 1, "pool": MaxPool(2)}),
    Case("rgb_3x3_pool2", (64, 3, 224, 224), (64, 3, 3, 3), _ALL_DTYPES, {"padding": 1, "pool": MaxPool(2)}),
    Case("lenet1", (64, 1, 28, 28), (6, 1, 5, 5), ("bf16", "fp32"), {"padding": 2, "pool": MaxPool(2)}),
    Case("lenet2", (64, 6, 14, 14), (16, 6, 5, 5), ("bf16", "fp32"), {"pool": MaxPool(2)}),
    Case(
        "stem_7x7_s2",
        (16, 3, 224, 224),
        (64, 3, 7, 7),
        ("bf16",),
        {"stride": 2, "padding": 3, "pool": MaxPool(3, 2, 1)},
    ),
    Case("overlap_3_2", (16, 64, 27, 27), (192, 64, 5, 5), ("bf16",), {"padding": 2, "pool": MaxPool(3, 2)}),
    Case("no_pool_s2", (16, 64, 56, 56), (128, 64, 3, 3), ("bf16",), {"stride": 2, "padding": 1, "pool": None}),
    Case("linear", (16, 64, 28, 28), (64, 64, 1, 1), ("bf16",), {"activation": None, "pool": None}),
    Case("avg_bits", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16", "fp32"), {"padding": 1, "pool": AvgPool(2)}, True),
    Case("silu_max", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"padding": 1, "activation": "silu"}),
    Case("gelu_avg", (16, 64, 28, 28), (64, 64, 3, 3), ("bf16",), {"activation": "gelu", "pool": AvgPool(2)}),
    Case("big_window", (4, 16, 40, 40), (16, 16, 3, 3), ("bf16",), {"pool": MaxPool(17)}),
    Case("dilated_pool", (4, 16, 40, 40), (16, 16, 3, 3), ("bf16",), {"pool": MaxPool(3, 1, 1, 2, True)}),
    Case("grouped", (16, 64, 28, 28), (64, 16, 3, 3), ("bf16",), {"padding": 1, "groups": 4}),
    Case("depthwise", (16, 64, 28, 28), (64, 1, 3, 3), ("bf16",), {"padding": 1, "groups": 64, "pool": None}),
    Case(
        "depthwise_pool",
        (16, 24, 27, 27),
        (48, 1, 5, 5),
        _ALL_DTYPES,
        {"padding": 2, "groups": 24, "stride": 2, "pool": MaxPool(3, 2, 1)},
        True,
    ),
    Case("depthwise_3d", (4, 64, 8, 14, 14), (64, 1, 3, 3, 3), ("bf16",), {"padding": 1, "groups": 64}),
    Case("depthwise_avg", (4, 64, 14, 14), (64, 1, 3, 3), ("bf16",), {"groups": 64, "pool": AvgPool(2)}),
    Case("audio_1d", (16, 32, 4000), (64, 32, 9), ("bf16",), {"stride": 4, "padding": 4, "pool": MaxPool(2)}),
    Case("video_3d", (4, 16, 16, 28, 28), (32, 16, 3, 3, 3), ("bf16",), {"padding": 1, "pool": MaxPool(2)}),
)
_TORCH_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32, "fp32": torch.float32}


@dataclass(frozen=True)
class Limits:
    """Of one multiprocessor: shared memory per block and in all (bytes), registers, threads; `wave` threads a warp."""

    shared_block: int
    shared: int
    registers: int
    threads: int
    wave: int = 32


# NVIDIA: CUDA C++ Programming Guide, table "Technical specifications per compute capability". AMD: CDNA3 ISA guide
# (512 vector registers a lane on each of 4 SIMDs, 8 waves each, 64 KiB of local data share).
LIMITS = {
    "cuda:80": Limits(163 * 1024, 164 * 1024, 65536, 2048),
    "cuda:86": Limits(99 * 1024, 100 * 1024, 65536, 1536),
    "cuda:90": Limits(227 * 1024, 228 * 1024, 65536, 2048),
    "cuda:100": Limits(227 * 1024, 228 * 1024, 65536, 2048),
    "hip:gfx942": Limits(64 * 1024, 64 * 1024, 4 * 512 * 64, 4 * 8 * 64, wave=64),
}
_RESERVED_SHARED = 1024
"""Bytes of shared memory a block takes on NVIDIA GPUs besides its own."""


class _NamedTarget:
    """Stands in for Triton's driver: says what to compile for, and has no device behind it."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def _gpu_target(name: str) -> GPUTarget:
    backend, arch = name.split(":")
    return GPUTarget("cuda", int(arch), 32) if backend == "cuda" else GPUTarget("hip", arch, 64)


def compile_cases(target: str, names: tuple[str, ...] = ()) -> Iterator[Row]:
    """Compile the named cases (all without names) for `target`, one row per distinct kernel."""
    unknown = set(names) - {case.name for case in CASES}
    if unknown:
        raise ValueError(f"unknown case {sorted(unknown)[0]}: expected one of {', '.join(c.name for c in CASES)}")
    triton.runtime.driver.set_active(_NamedTarget(_gpu_target(target)))
    seen = set()
    for case in CASES:
        if names and case.name not in names:
            continue
        for dtype in case.dtypes:
            for kernel, compiled, keywords in _compile_case(case, dtype):
                if compiled.hash not in seen:
                    seen.add(compiled.hash)
                    yield _row(target, case.name, dtype, kernel, compiled, keywords)


def _compile_case(case: Case, dtype: str) -> list[tuple[str, Any, dict[str, Any]]]:
    """Run the launchers of forward (saving and not), both gradients and the reduction; collect what they compiled."""
    done: list[tuple[str, Any, dict[str, Any]]] = []

    def compile_instead(kernel: Any, grid: tuple[int, ...], *args: Any, **keywords: Any) -> None:
        compiled = kernel.warmup(*args, grid=grid, **keywords)
        assert compiled.metadata.target == triton.runtime.driver.active.get_current_target()
        done.append((kernel.__name__, compiled, keywords))

    settings = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "activation": "relu", "pool": MaxPool(2)}
    layer = parse_layer(case.weight[2:], **{**settings, **case.settings})
    geometry, shapes = build_geometry(case.x, case.weight, layer)
    like = torch.empty(0, dtype=_TORCH_DTYPES[dtype])
    channels_last = len(case.x) > 3

    def tensor(*size: int) -> torch.Tensor:
        return empty_in_format(size, like, channels_last and len(size) == len(case.x))

    x, weight, bias = tensor(*case.x), tensor(*case.weight), like.new_empty(case.weight[0])
    y = tensor(case.x[0], case.weight[0], *shapes.output[3 - geometry.rank :])
    code, winner = empty_saved(y, geometry, shapes)
    saved = winner
    if geometry.smooth and geometry.pool == "avg":
        saved = tensor(case.x[0], case.weight[0], *shapes.conv[3 - geometry.rank :])
    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, conv.fp32_precision = conv.fp32_precision, "tf32" if dtype == "tf32" else "ieee"
    launch.replace_launcher(compile_instead)
    try:
        conv_relu_pool_forward(x, weight, bias, y, code, winner, geometry, shapes)
        conv_relu_pool_dgrad(y, code, saved, weight, torch.empty_like(x), geometry, shapes)
        conv_relu_pool_wgrad(y, code, saved, x, torch.empty_like(weight), bias, geometry, shapes)
        if case.without_gradients:
            conv_relu_pool_forward(x, weight, bias, y, None, None, geometry, shapes)
            conv_relu_pool_wgrad(y, code, saved, x, None, bias, geometry, shapes)
    finally:
        launch.replace_launcher(None)
        conv.fp32_precision = before
    return done


def _row(target: str, case: str, dtype: str, kernel: str, compiled: Any, keywords: dict[str, Any]) -> Row:
    blocks = {k: v for k, v in keywords.items() if k.startswith("BLOCK") or k in ("JOINT", "FLAT")}
    tile = "x".join(str(int(v)) for v in blocks.values()) + f" w{keywords.get('num_warps', 4)}"
    shared = compiled.metadata.shared
    if target.startswith("cuda"):
        registers, spills, tensor, shuffles = _read_cubin(compiled)
    else:
        registers, spills, tensor, shuffles = _read_amdgcn(compiled.asm["amdgcn"])
    row = Row(target, case, dtype, kernel, tile, registers, spills, shared, tensor, shuffles, 0, "")
    limits = LIMITS[target]
    problems = []
    if spills:
        problems.append("spills")
    if shared > limits.shared_block:
        problems.append(f"shared memory over {limits.shared_block}")
    multiplies = "reduce" not in kernel and "depthwise" not in kernel and keywords.get("NEEDS_WEIGHT", True)
    if multiplies and dtype != "fp32" and not tensor:
        problems.append("no tensor-core instruction")
    occupancy = _occupancy(limits, registers, shared, keywords.get("num_warps", 4))
    return replace(row, occupancy_percent=occupancy, problem=", ".join(problems))


def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _read_cubin(compiled: Any) -> tuple[int, int, int, int]:
    """Registers, spill instructions and tensor-core instructions of the machine code; shuffles of the PTX."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = subprocess.run(
            [_tool("cuobjdump"), "-res-usage", cubin.name], capture_output=True, text=True, check=True
        )
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage.stdout)
    if found is None:
        raise RuntimeError(f"cuobjdump -res-usage printed no register count: {usage.stdout!r}")
    registers, stack, local = map(int, found.groups())
    ptx = compiled.asm["ptx"]
    tensor = sum(ptx.count(name) for name in ("wgmma.mma_async", "mma.sync", "tcgen05.mma"))
    return registers, stack + local, tensor, ptx.count("shfl.sync")


def _read_amdgcn(assembly: str) -> tuple[int, int, int, int]:
    """Vector registers (accumulation registers included), spilled bytes and registers, matrix instructions, lane swaps.

    Scalar registers spill into lanes of vector registers, which `vgpr_count` counts: that is no memory traffic.
    """

    def number(key: str) -> int:
        return max((int(n) for n in re.findall(rf"\.{key}:\s+(\d+)", assembly)), default=0)

    spills = number("vgpr_spill_count") + number("private_segment_fixed_size")
    swaps = assembly.count("ds_bpermute") + assembly.count("_dpp")
    return number("vgpr_count"), spills, assembly.count("v_mfma"), swaps


def _occupancy(limits: Limits, registers: int, shared: int, warps: int) -> int:
    """Percent of the multiprocessor's threads that can be resident, as registers, shared memory and threads allow."""
    threads = warps * limits.wave
    per_thread = -(-max(registers, 1) // 8) * 8
    reserved = _RESERVED_SHARED if limits.wave == 32 else 0
    blocks = min(
        limits.registers // (per_thread * threads), limits.threads // threads, limits.shared // (shared + reserved or 1)
    )
    return round(100 * blocks * threads / limits.threads)
