"""Global and shared memory: what is refused, and what is no fault."""

import numpy as np
import pytest

from tests.simulator.ptx_kernels import LATE, execute
from tidepool.simulator.faults import Fault
from tidepool.simulator.global_memory import view_of
from tidepool.simulator.schedule import Schedule
from tidepool.simulator.tensor_map import TensorMap

OWN = "mad.wide.u32 %rd10, %r0, 4, %rd1;"
"""%rd10: the thread's own word of the first array."""


def words(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint32)


def test_a_load_beyond_the_array_is_told_with_its_place() -> None:
    with pytest.raises(Fault, match=r"bounds: .*read out of bounds by 1 lanes: byte 124 of a storage of 124 bytes"):
        execute(f"{OWN} ld.global.b32 %r1, [%rd10];", words(31))


def test_a_store_before_the_array_is_told() -> None:
    with pytest.raises(Fault, match=r"bounds: .*write out of bounds"):
        execute(f"{OWN} st.global.b32 [%rd10+-4], %r0;", words(40))


def test_masked_lanes_touch_nothing() -> None:
    out = words(31)
    execute(f"{OWN} setp.lt.u32 %p1, %r0, 31; @%p1 st.global.b32 [%rd10], 7;", out)
    assert (out == 7).all()


def test_storage_between_the_elements_of_a_view_does_not_exist() -> None:
    view = view_of(3, (2, 3), (10, 2), 4, "view")
    held = view.holds(np.arange(0, 70), 1)
    inside = {3 + 40 * i + 8 * j + b for i in range(2) for j in range(3) for b in range(4)}
    assert set(np.nonzero(held)[0].tolist()) == inside
    assert not view.holds(np.array([3]), 8).any()  # the next element is no neighbour


def test_an_expanded_view_has_its_one_element() -> None:
    view = view_of(0, (5, 1), (0, 1), 2, "expanded")
    assert np.nonzero(view.holds(np.arange(8), 2))[0].tolist() == [0]
    assert view.extent == 2


@pytest.mark.parametrize("value", ["%r1", "7"])
def test_two_programs_may_write_the_same_and_no_other_value(value: str) -> None:
    body = f"mov.u32 %r1, %ctaid.x; {OWN} st.global.b32 [%rd10], {value};"
    if value == "7":
        execute(body, words(32), programs=3)
    else:
        with pytest.raises(Fault, match="race: "):
            execute(body, words(32), programs=3)


@pytest.mark.parametrize("chunk", [0, 1])
def test_reading_what_another_program_writes_is_a_race(chunk: int) -> None:
    body = f"""{OWN} mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0;
    @%p1 st.global.b32 [%rd10], 7;
    @!%p1 ld.global.b32 %r2, [%rd10];"""
    with pytest.raises(Fault, match="race: "):
        execute(body, words(32), programs=2, schedule=Schedule(programs=chunk))


@pytest.mark.parametrize("writer", [0, 1, 2])
@pytest.mark.parametrize("chunk", [0, 1])
def test_writing_what_other_programs_have_read_at_once_is_a_race(chunk: int, writer: int) -> None:
    body = f"""{OWN} mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, {writer}; ld.global.b32 %r2, [%rd10];
    @%p1 st.global.b32 [%rd10], 7;"""
    with pytest.raises(Fault, match="race: "):
        execute(body, words(32), programs=3, schedule=Schedule(programs=chunk))


def test_misaligned_accesses_are_told() -> None:
    with pytest.raises(Fault, match=r"alignment: .*8 bytes"):
        execute("add.s64 %rd10, %rd1, 4; ld.global.v2.b32 {%r1, %r2}, [%rd10];", words(32))


def test_shared_memory_that_nothing_wrote_is_told() -> None:
    with pytest.raises(Fault, match=r"unwritten: .*shared memory read that nothing wrote, at address 0"):
        execute("shl.b32 %r1, %r0, 2; ld.shared.b32 %r2, [%r1];", words(32), shared=128)


def test_shared_memory_beyond_the_programs_is_told() -> None:
    with pytest.raises(Fault, match=r"bounds: .*shared memory address 380, 4 bytes, of 256"):
        execute("shl.b32 %r1, %r0, 2; st.shared.b32 [%r1], %r0;", words(32), threads=96, shared=256)


EXCHANGE = (
    """shl.b32 %r1, %r0, 2; st.shared.b32 [%r1], %r0; {barrier}
xor.b32 %r2, %r1, 128; ld.shared.b32 %r3, [%r2]; """
    + OWN
    + " st.global.b32 [%rd10], %r3;"
)


@pytest.mark.parametrize("kind", ["eager", "late", "seeded"])
def test_warps_exchange_by_way_of_a_barrier(kind: str) -> None:
    out = words(64)
    execute(EXCHANGE.format(barrier="bar.sync 0;"), out, threads=64, shared=256, schedule=Schedule(kind=kind, seed=3))
    assert out.tolist() == [i ^ 32 for i in range(64)]


def test_without_the_barrier_it_is_a_race() -> None:
    with pytest.raises(Fault, match=r"race: .*no order after its writing by warp"):
        execute(EXCHANGE.format(barrier=""), words(64), threads=64, shared=256)


def test_writing_what_another_warp_may_still_read_is_a_race() -> None:
    body = EXCHANGE.format(barrier="bar.sync 0;") + " st.shared.b32 [%r1], 5;"
    with pytest.raises(Fault, match=r"race: .*may still read it"):
        execute(body, words(64), threads=64, shared=256)


def test_two_lanes_writing_different_values_at_once_is_a_race() -> None:
    with pytest.raises(Fault, match=r"race: .*two lanes write different values"):
        execute("mov.b32 %r1, 0; st.shared.b32 [%r1], %r0;", words(32), shared=16)


COPY = """mad.wide.u32 %rd10, %r0, 16, %rd1; shl.b32 %r1, %r0, 4; mov.b32 %r4, {bytes};
cp.async.cg.shared.global [ %r1 + 0 ], [ %rd10 + 0 ], 0x10, %r4; cp.async.commit_group; {wait}
ld.shared.v4.b32 {{%r20, %r21, %r22, %r23}}, [%r1];
mad.wide.u32 %rd10, %r0, 16, %rd2; st.global.v4.b32 [%rd10], {{%r20, %r21, %r22, %r23}};"""


@pytest.mark.parametrize("kind", ["eager", "late", "seeded"])
@pytest.mark.parametrize("size", [16, 0])
def test_cp_async_brings_its_bytes_or_zeros(kind: str, size: int) -> None:
    out = words(128) + 5
    body = COPY.format(wait="cp.async.wait_group 0;", bytes=size)
    execute(body, words(128), out, shared=512, schedule=Schedule(kind=kind))
    assert (out == (words(128) if size else 0)).all()


def test_reading_before_the_copy_has_been_waited_for_is_a_race() -> None:
    with pytest.raises(Fault, match=r"race: .*a copy under way"):
        execute(COPY.format(wait="cp.async.wait_group 1;", bytes=16), words(128), words(128), shared=512)


def test_a_copy_that_is_never_waited_for_is_told() -> None:
    body = COPY.split("cp.async.commit")[0].format(bytes=16)
    with pytest.raises(Fault, match=r"leftover: .*cp.async"):
        execute(body, words(128), words(128), shared=512, schedule=LATE)


def test_matrices_by_rows_and_turned() -> None:
    halves = np.arange(64, dtype=np.uint16)
    out = words(32)
    body = """mad.wide.u32 %rd10, %r0, 4, %rd1; ld.global.b32 %r1, [%rd10]; shl.b32 %r2, %r0, 2;
    st.shared.b32 [%r2], %r1; bar.sync 0; and.b32 %r3, %r0, 7; shl.b32 %r3, %r3, 4;
    ldmatrix.sync.aligned.m8n8.x1{turned}.shared.b16 {{%r4}}, [%r3];
    mad.wide.u32 %rd10, %r0, 4, %rd2; st.global.b32 [%rd10], %r4;"""
    for turned in ("", ".trans"):
        execute(body.format(turned=turned), halves.view(np.uint32).copy(), out, shared=128)
        matrix = halves.reshape(8, 8)
        expected = (matrix.T if turned else matrix).copy().view(np.uint32).ravel()
        assert (out == expected).all()


def test_a_copy_by_threads_needs_a_fence_before_the_asynchronous_proxy_reads() -> None:
    """cp.async writes in the generic proxy (PTX ISA 8.7, section 9.7.9.25.3), a tensor copy in the asynchronous one."""
    tensor_map = TensorMap(address=1, element=4, sizes=(128,), strides=(4,), box=(128,), swizzle=0)
    body = """mad.wide.u32 %rd10, %r0, 16, %rd1; shl.b32 %r1, %r0, 4;
    cp.async.cg.shared.global [ %r1 + 0 ], [ %rd10 + 0 ], 0x10, 16; cp.async.commit_group; cp.async.wait_group 0;
    {fence} bar.sync 0; cvta.param.u64 %rd20, k_map_0; mov.b32 %r2, 0; setp.eq.u32 %p1, %r0, 0;
    @%p1 cp.async.bulk.tensor.1d.global.shared::cta.bulk_group [%rd20, {{%r2}}], [%r2];
    cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;"""
    out = words(128) + 5
    execute(body.format(fence="fence.proxy.async.shared::cta;"), words(128), out, shared=512, maps=(tensor_map,))
    assert (out == words(128)).all()
    with pytest.raises(Fault, match=r"race: .*asynchronous proxy with no fence"):
        execute(body.format(fence=""), words(128), out, shared=512, maps=(tensor_map,))
