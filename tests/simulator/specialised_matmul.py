"""A warp-specialised Gluon matrix product for Hopper, with faults that can be planted in how its warps synchronise.

out (M, N) = a (M, K) @ b (N, K)^T + bias (N). One warp copies blocks of a and b with TMA into STAGES buffers, four
warps multiply them with wgmma and store the result with TMA; both walk over the same tiles. `full[i]` is completed by
the bytes of buffer i, `empty[i]` by the consumer that is done with it.
"""

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

# Triton 3.9 renamed these.
load = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
store = tma.async_store if hasattr(tma, "async_store") else tma.async_copy_shared_to_global

BLOCK, STAGES = 64, 3
FAULTS = {
    "consumer_does_not_wait": "reads a buffer before its bytes are there",
    "consumer_waits_for_the_other_phase": "reads a buffer before its bytes are there",
    "producer_does_not_wait": "overwrites a buffer that is being multiplied",
    "producer_waits_for_the_other_phase": "waits for what nobody has used yet",
    "released_before_it_is_read": "hands a buffer back while its product is under way",
    "not_released": "waits for a buffer that nobody hands back",
    "released_twice": "completes a phase that has not begun",
    "half_the_bytes_expected": "opens a buffer when half of it is there",
    "more_bytes_expected": "waits for bytes that nobody sends",
    "two_arrivals_expected": "waits for a consumer that is not there",
    "product_not_waited_for": "reads an accumulator that is being written",
    "store_not_waited_for": "overwrites what is being stored",
}
"""Name of each, and what the kernel does then that no correct one does."""


@gluon.jit
def produce(a, b, a_buffers, b_buffers, full, empty, tiles, columns, steps, STAGES: gl.constexpr, FAULT: gl.constexpr):
    BYTES: gl.constexpr = (a.block_type.shape[0] + b.block_type.shape[0]) * a.block_type.shape[1] * 2
    at = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        for step in range(steps):
            i = at % STAGES
            phase = (at // STAGES) & 1
            if FAULT == "producer_waits_for_the_other_phase":
                mbarrier.wait(empty.index(i), phase)
            elif FAULT != "producer_does_not_wait":
                mbarrier.wait(empty.index(i), phase ^ 1)
            if FAULT == "half_the_bytes_expected":
                mbarrier.expect(full.index(i), BYTES // 2)
            elif FAULT == "more_bytes_expected":
                mbarrier.expect(full.index(i), BYTES + 16)
            else:
                mbarrier.expect(full.index(i), BYTES)
            k = step * a.block_type.shape[1]
            load(a, [tile // columns * a.block_type.shape[0], k], full.index(i), a_buffers.index(i))
            load(b, [tile % columns * b.block_type.shape[0], k], full.index(i), b_buffers.index(i))
            at += 1


@gluon.jit
def consume(
    out, bias, a_buffers, b_buffers, out_buffer, full, empty, tiles, columns, steps,
    STAGES: gl.constexpr, FAULT: gl.constexpr,
):  # fmt: skip
    ROWS: gl.constexpr = out.block_type.shape[0]
    COLUMNS: gl.constexpr = out.block_type.shape[1]
    MMA: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, COLUMNS, 16])
    at = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        acc = gl.zeros((ROWS, COLUMNS), dtype=gl.float32, layout=MMA)
        for step in range(steps):
            i = at % STAGES
            phase = (at // STAGES) & 1
            if FAULT == "consumer_waits_for_the_other_phase":
                mbarrier.wait(full.index(i), phase ^ 1)
            elif FAULT != "consumer_does_not_wait":
                mbarrier.wait(full.index(i), phase)
            acc = warpgroup_mma(a_buffers.index(i), b_buffers.index(i).permute((1, 0)), acc, is_async=True)
            if FAULT == "released_before_it_is_read":
                mbarrier.arrive(empty.index(i), count=1)
            acc = warpgroup_mma_wait(1, (acc,))
            if step > 0 and FAULT != "not_released" and FAULT != "released_before_it_is_read":
                mbarrier.arrive(empty.index((at - 1) % STAGES), count=1)
                if FAULT == "released_twice":
                    mbarrier.arrive(empty.index((at - 1) % STAGES), count=1)
            at += 1
        if FAULT != "product_not_waited_for":
            acc = warpgroup_mma_wait(0, (acc,))
        if FAULT != "released_before_it_is_read":
            mbarrier.arrive(empty.index((at - 1) % STAGES), count=1)
        column = tile % columns * COLUMNS
        acc += gl.load(bias + column + gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, MMA))).to(gl.float32)[None, :]
        if FAULT != "store_not_waited_for":
            tma.store_wait(0)
        out_buffer.store(acc.to(gl.bfloat16))
        fence_async_shared()
        store(out, [tile // columns * ROWS, column], out_buffer)
    tma.store_wait(0)


@gluon.jit
def specialised_matmul_kernel(
    a, b, out, bias, tiles, columns, steps, STAGES: gl.constexpr, FAULT: gl.constexpr
):  # fmt: skip
    a_buffers = gl.allocate_shared_memory(gl.bfloat16, [STAGES, a.block_type.shape[0], a.block_type.shape[1]], a.layout)
    b_buffers = gl.allocate_shared_memory(gl.bfloat16, [STAGES, b.block_type.shape[0], b.block_type.shape[1]], b.layout)
    out_buffer = gl.allocate_shared_memory(gl.bfloat16, [out.block_type.shape[0], out.block_type.shape[1]], out.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=2 if FAULT == "two_arrivals_expected" else 1)
    gl.warp_specialize(
        [
            (consume, (out, bias, a_buffers, b_buffers, out_buffer, full, empty, tiles, columns, steps, STAGES, FAULT)),
            (produce, (a, b, a_buffers, b_buffers, full, empty, tiles, columns, steps, STAGES, FAULT)),
        ],
        [1],
        [24],
    )


def specialised_matmul(a: Tensor, b: Tensor, bias: Tensor, *, programs: int, fault: str = "") -> Tensor:
    """a (M, K) @ b (N, K)^T + bias (N), bf16, sizes multiples of BLOCK, by so many programs on the current device."""
    (rows, k), columns = a.shape, b.shape[0]
    out = torch.full((rows, columns), torch.nan, dtype=torch.bfloat16)
    block = [BLOCK, BLOCK]
    layout = gl.NVMMASharedLayout.get_default_for(block, gl.bfloat16)
    maps = [TensorDescriptor.from_tensor(t, block, layout) for t in (a, b, out)]
    tiles = rows // BLOCK * (columns // BLOCK)
    specialised_matmul_kernel[(programs,)](
        *maps, bias, tiles, columns // BLOCK, k // BLOCK, STAGES=STAGES, FAULT=fault, num_warps=4
    )
    return out
