"""What a GPU is: one record for every target that kernels are compiled and checked for, found by its capability.

A kernel's tiles are chosen by a record's properties, never by a list of names kept elsewhere. A card without a record
of its own takes the nearest one: the same kind of matrix instruction, no more shared memory or registers than the card
has, and of those the closest capability.
"""

import functools
import re
from dataclasses import dataclass

import torch

from tidepool.simulator import targets as simulated
from tidepool.simulator.targets import KIB


class UnsupportedTarget(RuntimeError):  # noqa: N818  (it is a card that is meant, not a failure)
    """A card that the kernels do not run on; the message is one line and says what they need."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """One kind of GPU, as its multiprocessors (compute units) are built.

    `arch` is Triton's name for it; `matrix` the instruction that products of blocks compile to. Sizes in bytes, counts
    of one multiprocessor: `shared_block` is the most shared memory of one program, `reserved_shared` what a program
    takes besides its own, `tf32` whether there are products of float32 rounded to it. `card` is the reference card,
    with `multiprocessors` of them.
    """

    name: str
    backend: str
    arch: int | str
    matrix: str
    card: str
    multiprocessors: int
    shared_block: int
    shared: int
    threads: int
    registers: int = 65536
    warp: int = 32
    reserved_shared: int = 0
    tf32: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def is_nvidia(self) -> bool:
        """Whether NVIDIA's compiler makes the machine code."""
        return self.backend == "cuda"


def _made_of(gpu: simulated.Target, matrix: str, card: str, threads: int = 2048) -> Target:
    return Target(
        name=gpu.name,
        backend="cuda",
        arch=gpu.capability,
        matrix=matrix,
        card=card,
        multiprocessors=gpu.multiprocessors,
        shared_block=gpu.shared_block,
        shared=gpu.shared,
        threads=threads,
        registers=gpu.registers,
        reserved_shared=gpu.shared - gpu.shared_block,
    )


def _nvidia(
    capability: int, matrix: str, card: str, multiprocessors: int, shared_block: int, threads: int = 2048
) -> Target:
    gpu = simulated.Target(capability=capability, shared_block=shared_block, multiprocessors=multiprocessors)
    return _made_of(gpu, matrix, card, threads)


def _cdna(arch: str, card: str, multiprocessors: int, shared: int, *, tf32: bool = False) -> Target:
    """512 vector registers a lane on each of 4 SIMDs, 8 waves of 64 each. Only CDNA3 has products of xf32."""
    return Target(
        name=arch,
        backend="hip",
        arch=arch,
        matrix="mfma",
        card=card,
        multiprocessors=multiprocessors,
        shared_block=shared,
        shared=shared,
        threads=4 * 8 * 64,
        registers=4 * 512 * 64,
        warp=64,
        tf32=tf32,
    )


# What sm_80 and sm_90 are made of is the simulator's to say. NVIDIA: CUDA C++ Programming Guide, table "Technical
# specifications per compute capability". AMD: ISA guides of CDNA2 to CDNA4 and RDNA3 (1536 vector registers a lane on
# each of 2 SIMDs, 16 waves of 32 each). Multiprocessors: the vendors' data sheets of the reference card; of an MI250X
# one of its two dies.
SM_80 = _made_of(simulated.target_named("sm_80"), "mma.sync", "A100")
SM_86 = _nvidia(86, "mma.sync", "RTX 3090", 82, 99 * KIB, threads=1536)
SM_87 = _nvidia(87, "mma.sync", "Jetson AGX Orin", 16, 163 * KIB, threads=1536)
SM_89 = _nvidia(89, "mma.sync", "RTX 4090", 128, 99 * KIB, threads=1536)
SM_90 = _made_of(simulated.target_named("sm_90"), "wgmma", "H100")
SM_100 = _nvidia(100, "tcgen05", "B200", 148, 227 * KIB)
SM_103 = _nvidia(103, "tcgen05", "B300", 148, 227 * KIB)
SM_120 = _nvidia(120, "mma.sync", "RTX 5090", 170, 99 * KIB, threads=1536)
GFX90A = _cdna("gfx90a", "MI250X", 110, 64 * KIB)
GFX942 = _cdna("gfx942", "MI300X", 304, 64 * KIB, tf32=True)
GFX950 = _cdna("gfx950", "MI355X", 256, 160 * KIB)
GFX1100 = Target(
    name="gfx1100",
    backend="hip",
    arch="gfx1100",
    matrix="wmma",
    card="RX 7900 XTX",
    multiprocessors=96,
    shared_block=64 * KIB,
    shared=64 * KIB,
    threads=2 * 16 * 32,
    registers=2 * 1536 * 32,
    tf32=False,
)
TARGETS = (SM_80, SM_86, SM_87, SM_89, SM_90, SM_100, SM_103, SM_120, GFX90A, GFX942, GFX950, GFX1100)
"""What kernels are compiled for and checked on."""

INTERPRETER = Target(
    name="interpreter",
    backend="interpreter",
    arch="cpu",
    matrix="none",
    card="CPU",
    multiprocessors=1,
    shared_block=0,
    shared=0,
    threads=1,
    registers=0,
    tf32=False,
)
"""Where kernels are interpreted: any tile runs."""


def having(*matrix: str) -> tuple[Target, ...]:
    """The targets with one of these matrix instructions."""
    return tuple(target for target in TARGETS if target.matrix in matrix)


def target_named(name: str) -> Target:
    """The target called `sm_90`, `cuda:90`, `gfx942` or `hip:gfx942`. Raises ValueError that lists the choices."""
    short = re.sub(r"^cuda:(sm_)?", "sm_", name).removeprefix("hip:")
    for target in TARGETS:
        if target.name == short:
            return target
    raise ValueError(f"unknown target {name!r}: expected one of {', '.join(map(str, TARGETS))}")


def target_of(backend: str, arch: int | str, shared_block: int | None = None, registers: int | None = None) -> Target:
    """The record of a card, or the nearest that fits it: `backend` and `arch` as Triton names them ("cuda", 90).

    `shared_block` (bytes a program may have) and `registers` (of a multiprocessor) are the card's own limits, None
    where they are not known. Raises UnsupportedTarget where no record fits.
    """
    number, matrix = _number_and_matrix(backend, arch)
    fitting = [
        target
        for target in having(matrix)
        if target.backend == backend
        and (shared_block is None or target.shared_block <= shared_block)
        and (registers is None or target.registers <= registers)
    ]
    if not fitting:
        has = "" if shared_block is None else f" with {shared_block} bytes of shared memory a program"
        raise UnsupportedTarget(
            f"the kernels need an NVIDIA GPU of compute capability 8.0 or more or an AMD GPU with matrix instructions "
            f"(gfx90a or later of CDNA, gfx1100 or later of RDNA), and this one is {_spelled(backend, arch)}{has}"
        )
    return min(fitting, key=lambda target: (abs(_number_and_matrix(backend, target.arch)[0] - number), target.name))


def _spelled(backend: str, arch: int | str) -> str:
    return f"of capability {int(arch) // 10}.{int(arch) % 10}" if backend == "cuda" else str(arch)


def _number_and_matrix(backend: str, arch: int | str) -> tuple[int, str]:
    """The capability as a number to compare, and the matrix instruction that Triton compiles products to there."""
    if backend == "cuda":
        capability = int(arch)
        kinds = ((80, "none"), (90, "mma.sync"), (100, "wgmma"), (110, "tcgen05"))
        return capability, next((matrix for below, matrix in kinds if capability < below), "mma.sync")
    found = re.match(r"gfx([0-9a-f]+)", str(arch))
    number = int(found[1], 16) if found else 0
    cdna = 0x90A <= number < 0xA00
    return number, "mfma" if cdna else "wmma" if number >= 0x1100 else "none"


@functools.cache
def target_of_device(device: torch.device) -> Target:
    """The record for a GPU of this machine. Raises UnsupportedTarget where the kernels do not run on it."""
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None:
        arch: int | str = properties.gcnArchName.split(":")[0]
        return target_of("hip", arch, getattr(properties, "shared_memory_per_block", None))
    arch = 10 * properties.major + properties.minor
    registers = getattr(properties, "regs_per_multiprocessor", None)
    return target_of("cuda", arch, getattr(properties, "shared_memory_per_block_optin", None), registers)
