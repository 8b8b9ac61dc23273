"""Small kernels of PTX written by hand, run on NumPy arrays."""

import dataclasses
import struct

import numpy as np

from tidepool.simulator.chunk import Launch
from tidepool.simulator.global_memory import GlobalMemory, view_of
from tidepool.simulator.launch import Report, run
from tidepool.simulator.numbers import Array
from tidepool.simulator.ptx import parse
from tidepool.simulator.schedule import Schedule
from tidepool.simulator.tensor_map import TensorMap

HEAD = """
.version 8.7
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 global_smem[];
.visible .entry k({parameters})
{{
    .reg .pred %p<20>;
    .reg .b16 %rs<40>;
    .reg .b32 %r<200>;
    .reg .b64 %rd<40>;
    mov.u32 %r0, %tid.x;
    {pointers}
    {body}
    ret;
}}
"""
EAGER, LATE = Schedule(kind="eager"), Schedule(kind="late")


def kernel(body: str, pointers: int, maps: int = 0) -> str:
    """PTX with `body`, in which %rd1 ... are the pointers, %r0 the thread, k_map_0 ... tensor maps."""
    declared = [f".param .u64 .ptr .global .align 1 k_param_{n}" for n in range(pointers)]
    declared += [f".param .align 64 .b8 k_map_{n}[128]" for n in range(maps)]
    loads = "\n    ".join(f"ld.param.b64 %rd{n + 1}, [k_param_{n}];" for n in range(pointers))
    return HEAD.format(parameters=", ".join(declared), pointers=loads, body=body)


def execute(
    body: str,
    *arrays: Array,
    threads: int = 32,
    programs: int = 1,
    shared: int = 0,
    schedule: Schedule = EAGER,
    maps: tuple[TensorMap, ...] = (),
) -> Report:
    """Run a kernel of `body` on arrays, which are its pointers; a map's address is the number of an array."""
    program = parse(kernel(body, len(arrays), len(maps)))
    memory = GlobalMemory()
    for array in arrays:
        strides = tuple(stride // array.itemsize for stride in array.strides)
        view = view_of(0, array.shape, strides, array.itemsize, f"{array.shape} {array.dtype}")
        memory.add(array.ctypes.data, array.view(np.uint8).reshape(-1), view)
    raw = bytearray(program.parameter_bytes)
    for number, array in enumerate(arrays):
        struct.pack_into("Q", raw, 8 * number, memory.address_of(array.ctypes.data))
    placed = {}
    for number, one in enumerate(maps):
        address = memory.address_of(arrays[one.address].ctypes.data)
        placed[program.parameters[f"k_map_{number}"].offset] = dataclasses.replace(one, address=address)
    launch = Launch(
        program=program, grid=(programs, 1, 1), threads=threads, shared_bytes=shared, parameters=bytes(raw),
        maps=placed, memory=memory,
    )  # fmt: skip
    return run(launch, schedule)


def lanewise(instruction: str, *inputs: Array, result: np.dtype | type) -> Array:
    """The result of `instruction` for each lane's inputs: `{d}` is the result, `{0}`, `{1}` the inputs, each in a
    register as wide as its array's elements (8-bit ones in 16)."""
    names = {1: "%rs", 2: "%rs", 4: "%r", 8: "%rd"}
    lines, operands = [], []
    out = np.zeros(inputs[0].shape[0], result)
    size = out.itemsize
    for number, array in enumerate(inputs):
        width = array.itemsize
        register = f"{names[width]}{20 + number}"
        lines.append(f"mad.wide.u32 %rd10, %r0, {width}, %rd{number + 1};")
        lines.append(f"ld.global.b{8 * width} {{ {register} }}, [ %rd10 + 0 ];")
        operands.append(register)
    target = f"{names[size]}30"
    lines.append(instruction.format(*operands, d=target))
    lines.append(f"mad.wide.u32 %rd10, %r0, {size}, %rd{len(inputs) + 1};")
    lines.append(f"st.global.b{8 * size} [ %rd10 + 0 ], {{ {target} }};")
    execute("\n".join(lines), *[array.copy() for array in inputs], out, threads=len(out))
    return out
