"""The work of `compile_check`: layers of every kind, every shipped tile, and what came out of compiling them.

Runs in a process with interpreting off and no GPU needed. See `compile_check` for the command.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from kernels import hopper_tiles, launch, tiles
from kernels.arguments import build_geometry, parse_layer
from kernels.compile_cases import CASES, Case
from kernels.compile_check import Row
from kernels.conv_relu_pool_dgrad import conv_relu_pool_dgrad
from kernels.conv_relu_pool_epilogue import conv_relu_pool_epilogue, conv_relu_pool_unpool
from kernels.conv_relu_pool_forward import conv_relu_pool_forward, empty_saved
from kernels.conv_relu_pool_wgrad import conv_relu_pool_wgrad
from kernels.few_channels_tiles import FEW_CHANNELS, FEW_CHANNELS_TARGETS
from kernels.geometry import Geometry, Shapes
from kernels.launch import channels_are_neighbours, current_target, operand_kind
from kernels.memory_format import empty_in_format
from kernels.norm_compile_cases import NORM_CASES, SQUEEZE_EXCITE, launch_norm_case, launch_squeeze_excite
from kernels.pooling import MaxPool
from kernels.windowed_tiles import WindowedDgradTile, WindowedWgradTile, windowed_dgrad_tiles, windowed_wgrad_tiles

_TORCH_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32, "fp32": torch.float32}
_FAR_APART = {case.name for case in CASES if not case.channels_last}
_DTYPE_OF = {"half": "bf16", "tf32": "tf32", "ieee": "fp32"}


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


def compile_for(target: str) -> None:
    """Have Triton compile for `target` (`cuda:90`) from now on in this process, where nothing was compiled before."""
    triton.runtime.driver.set_active(_NamedTarget(_gpu_target(target)))


def _gpu_target(name: str) -> GPUTarget:
    backend, arch = name.split(":")
    return GPUTarget("cuda", int(arch), 32) if backend == "cuda" else GPUTarget("hip", arch, 64)


def compile_cases(target: str, names: tuple[str, ...] = ()) -> Iterator[Row]:
    """Compile the named cases for `target`, or without names all of them and every shipped tile by itself; one row per
    distinct kernel. A process compiles for one target only."""
    compile_for(target)
    seen = set()
    for case in CASES:
        for dtype in case.dtypes if not names or case.name in names else ():
            with _collecting(dtype) as done:
                _launch_all(case, _tensors(case, dtype))
            for kernel, compiled, keywords in done:
                if compiled.hash not in seen:
                    seen.add(compiled.hash)
                    yield _row(target, case.name, dtype, kernel, compiled, keywords)
    yield from _compile_norm_cases(target, names, seen)
    if not names:
        yield from _compile_tiles(target, seen)


def _compile_norm_cases(target: str, names: tuple[str, ...], seen: set[str]) -> Iterator[Row]:
    """The layers with a norm, of those named or all."""
    work: list[tuple[str, str, Callable[[torch.dtype], None]]] = [
        (case.name, dtype, partial(launch_norm_case, case)) for case in NORM_CASES for dtype in case.dtypes
    ]
    for name, dtype, launch_case in [*work, (SQUEEZE_EXCITE, "bf16", launch_squeeze_excite)]:
        if names and name not in names:
            continue
        with _collecting(dtype) as done:
            launch_case(_TORCH_DTYPES[dtype])
        for kernel, compiled, keywords in done:
            if compiled.hash not in seen:
                seen.add(compiled.hash)
                yield _row(target, name, dtype, kernel, compiled, keywords)


def _compile_tiles(target: str, seen: set[str]) -> Iterator[Row]:
    """Every tile in the shipped lists that declares `target`, for each kind of operands it takes, chosen or not."""
    cases = {case.name: case for case in CASES}
    for shipped_list, launch_tile in (
        ((*tiles.FORWARD, *tiles.FORWARD_IN_STEPS), _forward_tile),
        (tiles.DGRAD, _dgrad_tile),
        (tiles.WGRAD, _wgrad_tile),
    ):
        for shipped in shipped_list:
            case = cases["stem_7x7_s2" if shipped.heavy else "3x3_pool2"]
            for dtype in [_DTYPE_OF[kind] for kind in shipped.operands] if target in shipped.targets else ():
                with _collecting(dtype) as done:
                    launch_tile(shipped, _tensors(case, dtype))
                kernel, compiled, keywords = done[0]
                if compiled.hash not in seen:
                    seen.add(compiled.hash)
                    yield _row(target, f"tile of {case.name}", dtype, kernel, compiled, keywords)
    for case in (cases["3x3_c256"], cases["overlap_3_2"]):
        t = _tensors(case, "bf16")
        for windowed_tile in _windowed_tiles(target, t):
            with _collecting("bf16") as done:
                _windowed_tile(windowed_tile, t)
            kernel, compiled, keywords = done[0]
            if compiled.hash not in seen:
                seen.add(compiled.hash)
                yield _row(target, f"tile of {case.name}", "bf16", kernel, compiled, keywords)
    hopper = hopper_tiles.shipped_hopper_tiles() if target == hopper_tiles.HOPPER_TARGET else ()
    few_channels = FEW_CHANNELS if target in FEW_CHANNELS_TARGETS else ()
    for case_name, boxed in (("3x3_pool2", hopper), ("rgb_3x3_pool2", few_channels)):
        t = _tensors(cases[case_name], "bf16")
        for tile in boxed:
            with _collecting("bf16") as done:
                conv_relu_pool_forward(t.x, t.weight, t.bias, t.y, t.code, t.winner, t.geometry, t.shapes, tile)
            kernel, compiled, keywords = done[0]
            if compiled.hash not in seen:
                seen.add(compiled.hash)
                yield _row(target, f"tile of {case_name}", "bf16", kernel, compiled, keywords)


@dataclass(frozen=True)
class _Tensors:
    """A layer's tensors, on the CPU and unwritten: only their dtypes, sizes, strides and alignment are looked at."""

    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    conv: torch.Tensor
    y: torch.Tensor
    code: torch.Tensor | None
    winner: torch.Tensor | None
    saved: torch.Tensor | None
    geometry: Geometry
    shapes: Shapes


def _tensors(case: Case, dtype: str) -> _Tensors:
    settings = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "activation": "relu", "pool": MaxPool(2)}
    layer = parse_layer(case.weight[2:], **{**settings, **case.settings})
    geometry, shapes = build_geometry(case.x, case.weight, layer)
    like = torch.empty(0, dtype=_TORCH_DTYPES[dtype])

    def tensor(*size: int) -> torch.Tensor:
        return empty_in_format(size, like, case.channels_last and len(case.x) > 3)

    x, weight, bias = tensor(*case.x), tensor(*case.weight), like.new_empty(case.weight[0])
    y = tensor(case.x[0], case.weight[0], *shapes.output[3 - geometry.rank :])
    code, winner = empty_saved(y, geometry, shapes)
    conv = tensor(case.x[0], case.weight[0], *shapes.conv[3 - geometry.rank :])
    saved = conv if geometry.smooth and geometry.pool == "avg" else winner
    return _Tensors(x, weight, bias, conv, y, code, winner, saved, geometry, shapes)


@contextmanager
def _collecting(dtype: str) -> Iterator[list[tuple[str, Any, dict[str, Any]]]]:
    """Launches inside compile instead: (kernel name, compiled kernel, launch keywords) of each, in order."""
    done: list[tuple[str, Any, dict[str, Any]]] = []

    def compile_instead(kernel: Any, grid: tuple[int, ...], *args: Any, **keywords: Any) -> None:
        compiled = kernel.warmup(*args, grid=grid, **keywords)
        assert compiled.metadata.target == triton.runtime.driver.active.get_current_target()
        done.append((kernel.__name__, compiled, keywords))

    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, conv.fp32_precision = conv.fp32_precision, "tf32" if dtype == "tf32" else "ieee"
    launch.replace_launcher(compile_instead)
    try:
        yield done
    finally:
        launch.replace_launcher(None)
        conv.fp32_precision = before


def _launch_all(case: Case, t: _Tensors) -> None:
    """Forward, both gradients, the reduction and the passes around a convolution at the tiles the rule picks; of some
    layers forward alone."""
    conv_relu_pool_forward(t.x, t.weight, t.bias, t.y, t.code, t.winner, t.geometry, t.shapes)
    if not t.geometry.depthwise:  # where forward has a kernel for some tensors only, the one for all others as well
        kind = operand_kind(t.x.dtype)
        outputs, channels_last = t.shapes.num_outputs, channels_are_neighbours(t.x)
        portable = tiles.forward_tile(t.geometry, outputs, current_target(), kind, channels_last)
        conv_relu_pool_forward(t.x, t.weight, t.bias, t.y, t.code, t.winner, t.geometry, t.shapes, portable)
    if case.forward_only:
        return
    conv_relu_pool_dgrad(t.y, t.code, t.saved, t.weight, torch.empty_like(t.x), t.geometry, t.shapes)
    conv_relu_pool_wgrad(t.y, t.code, t.saved, t.x, torch.empty_like(t.weight), t.bias, t.geometry, t.shapes)
    conv_relu_pool_epilogue(t.conv, t.bias, t.y, t.code, t.winner, t.geometry, t.shapes)
    conv_relu_pool_unpool(t.y, t.code, t.saved, torch.empty_like(t.conv), t.geometry, t.shapes)
    if case.without_gradients:
        conv_relu_pool_forward(t.x, t.weight, t.bias, t.y, None, None, t.geometry, t.shapes)
        conv_relu_pool_wgrad(t.y, t.code, t.saved, t.x, None, t.bias, t.geometry, t.shapes)


def _forward_tile(shipped: tiles.Shipped, t: _Tensors) -> None:
    tile = tiles.forward_tile_of(shipped, t.geometry)
    conv_relu_pool_forward(t.x, t.weight, t.bias, t.y, t.code, t.winner, t.geometry, t.shapes, tile)


def _dgrad_tile(shipped: tiles.Shipped, t: _Tensors) -> None:
    tile = tiles.dgrad_tile_of(shipped, t.geometry)
    conv_relu_pool_dgrad(t.y, t.code, t.saved, t.weight, torch.empty_like(t.x), t.geometry, t.shapes, tile)


def _windowed_tiles(target: str, t: _Tensors) -> list[WindowedDgradTile | WindowedWgradTile]:
    """Every shipped tile of the windowed gradients that may run the layer there."""
    pixels = t.shapes.phase_pixels(t.geometry)
    dgrad = windowed_dgrad_tiles(t.geometry, pixels, target, "half")
    return [*dgrad, *windowed_wgrad_tiles(t.geometry, t.shapes.conv_pixels, target, "half", programs_wanted=512)]


def _windowed_tile(tile: WindowedDgradTile | WindowedWgradTile, t: _Tensors) -> None:
    if isinstance(tile, WindowedDgradTile):
        conv_relu_pool_dgrad(t.y, t.code, t.saved, t.weight, torch.empty_like(t.x), t.geometry, t.shapes, tile)
    else:
        dweight = torch.empty_like(t.weight)
        conv_relu_pool_wgrad(t.y, t.code, t.saved, t.x, dweight, t.bias, t.geometry, t.shapes, tile)


def _wgrad_tile(shipped: tiles.Shipped, t: _Tensors) -> None:
    tile = tiles.wgrad_tile_of(shipped, t.geometry, t.shapes.conv_pixels, programs_wanted=512)
    dweight = torch.empty_like(t.weight)
    conv_relu_pool_wgrad(t.y, t.code, t.saved, t.x, dweight, t.bias, t.geometry, t.shapes, tile)


def _row(target: str, case: str, dtype: str, kernel: str, compiled: Any, keywords: dict[str, Any]) -> Row:
    blocks = {k: v for k, v in keywords.items() if k.startswith("BLOCK") or k in ("JOINT", "FLAT", "PERSISTENT")}
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
    passes = ("reduce", "depthwise", "epilogue", "unpool", "conv_norm_act", "squeeze_excite", "global_average_pool")
    multiplies = not any(word in kernel for word in passes) and keywords.get("NEEDS_WEIGHT", True)
    if multiplies and dtype != "fp32" and not tensor:
        problems.append("no tensor-core instruction")
    # NVIDIA's tensor cores take float32 as TF32; of AMD's matrix instructions those that round are called xf32.
    if dtype == "fp32" and (tensor if target.startswith("cuda") else "xf32" in compiled.asm["amdgcn"]):
        problems.append("tensor-core instructions in exact float32")
    if "hopper" in kernel or "few_channels" in kernel:
        channels_last = case not in _FAR_APART  # else what is stored, pooled already, is put in order by shuffles
        problems += _box_problems(compiled, shuffles if channels_last else 0, keywords)
    if "hopper" in kernel:
        problems += _hopper_problems(compiled, keywords)
    occupancy = _occupancy(limits, registers, shared, keywords.get("num_warps", 4))
    return replace(row, occupancy_percent=occupancy, problem=", ".join(problems))


def _box_problems(compiled: Any, shuffles: int, keywords: dict[str, Any]) -> list[str]:
    """What forward kernels of boxes of pixels are built to avoid: windows whose elements change hands."""
    problems = []
    if shuffles and not (keywords["SAVE"] and keywords["G"].saves_bits):  # bits of eight filters, in eight lanes
        problems.append("shuffles in the pool")
    # Pieces of windows, still [filters, rows, columns, elements], or all of a tile with windows to come, go through
    # shared memory.
    pixels = keywords.get("BLOCK_N", 1) * keywords["BLOCK_H"] * keywords["BLOCK_W"]
    whole = rf"{keywords['BLOCK_K']}x{pixels}x(bf16|f16|f32)" if keywords["G"].window > 1 else r"(\d+x){3,}f32"
    if re.search(rf"ttg\.convert_layout [^:]*: tensor<((\d+x){{3,}}f32|{whole})", compiled.asm["ttgir"]):
        problems.append("shared memory in the pool")
    return problems


def _hopper_problems(compiled: Any, keywords: dict[str, Any]) -> list[str]:
    """What the Hopper forward has to be made of."""
    ptx = compiled.asm["ptx"]
    problems = [] if "cp.async.bulk.tensor" in ptx else ["no tensor copies"]
    if keywords["BLOCK_K"] >= 64 and "wgmma.mma_async" not in ptx:
        problems.append("no wgmma")
    return problems


def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _read_cubin(compiled: Any) -> tuple[int, int, int, int]:
    """Registers, spill instructions and tensor-core instructions of the machine code; shuffles of the PTX, without the
    broadcasts from lane 0 by which a warp learns its number."""
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
    shuffles = ptx.count("shfl.sync") - len(re.findall(r"shfl\.sync\.idx\.b32\s+%r\d+, %r\d+, 0, 31, -1;", ptx))
    return registers, stack + local, tensor, shuffles


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
