"""What came out of compiling a kernel: registers, spills, instructions, occupancy, and what of it is a problem."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

from tidepool.kernels.compile_check.contracted_sums import contracted_sums
from tidepool.kernels.compile_check.vector_divisions import vector_divisions
from tidepool.kernels.runtime.targets import Target

_PASSES = (
    "reduce", "depthwise", "epilogue", "unpool", "slope", "conv_norm_act", "squeeze_excite", "global_average_pool",
)  # fmt: skip
"""Words in the names of kernels that multiply no blocks."""


@dataclass(frozen=True)
class MachineCode:
    """Registers a thread, spills (NVIDIA: bytes of stack; AMD: bytes and registers), matrix instructions, shuffles."""

    registers: int
    spills: int
    tensor: int
    shuffles: int


def read_machine_code(target: Target, compiled: Any) -> MachineCode:
    """The figures of a compiled kernel. Raises RuntimeError where its resources cannot be read."""
    return _read_cubin(compiled) if target.is_nvidia else _read_amdgcn(compiled.asm["amdgcn"])


def problems_of(
    target: Target, kernel: str, dtype: str, code: MachineCode, compiled: Any, keywords: dict[str, Any], ordered: bool
) -> list[str]:
    """What is wrong with a compiled kernel, in words; `ordered`: its tensors' channels are neighbours."""
    problems = ["spills"] if code.spills else []
    problems += map(str, vector_divisions(compiled.asm["llir"]))
    problems += contracted_sums(compiled.asm.get("ptx", ""))
    if compiled.metadata.shared > target.shared_block:
        problems.append(f"shared memory over {target.shared_block}")
    multiplies = not any(word in kernel for word in _PASSES) and keywords.get("NEEDS_WEIGHT", True)
    if multiplies and dtype != "fp32" and not code.tensor:
        problems.append("no tensor-core instruction")
    # NVIDIA's tensor cores take float32 as TF32; of AMD's matrix instructions those that round are called xf32.
    if dtype == "fp32" and (code.tensor if target.is_nvidia else "xf32" in compiled.asm["amdgcn"]):
        problems.append("tensor-core instructions in exact float32")
    if "hopper" in kernel or "few_channels" in kernel:
        # Where channels are far apart, what is stored, pooled already, is put in order by shuffles.
        problems += _box_problems(compiled, code.shuffles if ordered else 0, keywords)
    if "hopper" in kernel:
        problems += _hopper_problems(compiled, keywords)
    return problems


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


def tool(name: str) -> Path:
    """One of NVIDIA's programs that come with Triton."""
    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name


def _read_cubin(compiled: Any) -> MachineCode:
    """Of the machine code; matrix instructions and shuffles of the PTX, without the broadcasts from lane 0 by which a
    warp learns its number."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage = subprocess.run(
            [tool("cuobjdump"), "-res-usage", cubin.name], capture_output=True, text=True, check=True
        )
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage.stdout)
    if found is None:
        raise RuntimeError(f"cuobjdump -res-usage printed no register count: {usage.stdout!r}")
    registers, stack, local = map(int, found.groups())
    ptx = compiled.asm["ptx"]
    tensor = sum(ptx.count(name) for name in ("wgmma.mma_async", "mma.sync", "tcgen05.mma"))
    shuffles = ptx.count("shfl.sync") - len(re.findall(r"shfl\.sync\.idx\.b32\s+%r\d+, %r\d+, 0, 31, -1;", ptx))
    return MachineCode(registers, stack + local, tensor, shuffles)


def _read_amdgcn(assembly: str) -> MachineCode:
    """Vector registers (accumulation registers included), spilled bytes and registers, matrix instructions, lane swaps.

    Scalar registers spill into lanes of vector registers, which `vgpr_count` counts: that is no memory traffic.
    """

    def number(key: str) -> int:
        return max((int(n) for n in re.findall(rf"\.{key}:\s+(\d+)", assembly)), default=0)

    spills = number("vgpr_spill_count") + number("private_segment_fixed_size")
    swaps = assembly.count("ds_bpermute") + assembly.count("_dpp")
    return MachineCode(number("vgpr_count"), spills, assembly.count("v_mfma") + assembly.count("v_wmma"), swaps)


def resident_programs(target: Target, registers: int, shared: int, warps: int) -> int:
    """How many programs a multiprocessor has room for, as registers, shared memory and threads allow."""
    threads = warps * target.warp
    per_thread = -(-max(registers, 1) // 8) * 8
    return min(
        target.registers // (per_thread * threads),
        target.threads // threads,
        target.shared // (shared + target.reserved_shared or 1),
    )


def occupancy_percent(target: Target, registers: int, shared: int, warps: int) -> int:
    """Percent of the multiprocessor's threads that can be resident."""
    threads = resident_programs(target, registers, shared, warps) * warps * target.warp
    return round(100 * threads / target.threads)
