"""Branches, barriers, mbarriers and waiting, under every schedule."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.simulator.ptx_kernels import EAGER, LATE, execute, kernel
from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.machine import steps_of
from tidepool.simulator.ptx import parse
from tidepool.simulator.schedule import Schedule, schedule_named
from tidepool.simulator.tensor_map import TensorMap, swizzled

SCHEDULES = [EAGER, LATE, *(Schedule(kind="seeded", seed=seed) for seed in range(4))]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.kind}{s.seed}")
OWN = "mad.wide.u32 %rd10, %r0, 4, %rd1;"


def words(count: int, value: int = 0) -> np.ndarray:
    return np.full(count, value, np.uint32)


@every_schedule
def test_lanes_that_part_meet_again(schedule: Schedule) -> None:
    out = words(64)
    body = f"""{OWN} and.b32 %r1, %r0, 3; setp.eq.u32 %p1, %r1, 0; @%p1 bra LEFT;
    setp.eq.u32 %p2, %r1, 1; @%p2 bra INNER; mov.b32 %r2, 30; bra JOIN;
    INNER: mov.b32 %r2, 20; bra JOIN;
    LEFT: mov.b32 %r2, 10;
    JOIN: add.s32 %r2, %r2, 1; st.global.b32 [%rd10], %r2;"""
    execute(body, out, threads=64, schedule=schedule)
    assert out.tolist() == [{0: 11, 1: 21}.get(i % 4, 31) for i in range(64)]


@every_schedule
def test_programs_loop_as_often_as_they_have_to_with_barriers_inside(schedule: Schedule) -> None:
    out = words(4 * 64)
    body = """mov.u32 %r1, %ctaid.x; mov.b32 %r2, 0; shl.b32 %r5, %r0, 2;
    LOOP: st.shared.b32 [%r5], %r2; bar.sync 0; xor.b32 %r6, %r5, 128; ld.shared.b32 %r7, [%r6]; bar.sync 0;
    add.s32 %r2, %r7, 1; setp.le.u32 %p1, %r2, %r1; @%p1 bra LOOP;
    mad.lo.s32 %r3, %r1, 64, %r0; mad.wide.u32 %rd10, %r3, 4, %rd1; st.global.b32 [%rd10], %r2;"""
    execute(body, out, threads=64, programs=4, shared=256, schedule=schedule)
    assert (out.reshape(4, 64) == np.arange(1, 5)[:, None]).all()


@every_schedule
def test_warps_go_different_ways_and_meet_at_named_barriers(schedule: Schedule) -> None:
    out = words(64)
    body = f"""{OWN} shl.b32 %r5, %r0, 2; setp.ge.u32 %p1, %r0, 32; @%p1 bra CONSUMER;
    st.shared.b32 [%r5], %r0; barrier.arrive 1, 64; bra END;
    CONSUMER: barrier.sync 1, 64; xor.b32 %r6, %r5, 128; ld.shared.b32 %r7, [%r6]; st.global.b32 [%rd10], %r7;
    END: """
    execute(body, out, threads=64, shared=256, schedule=schedule)
    assert out[32:].tolist() == list(range(32))


@every_schedule
def test_lanes_that_end_early(schedule: Schedule) -> None:
    out = words(64)
    execute(f"{OWN} setp.lt.u32 %p1, %r0, 40; @%p1 ret; st.global.b32 [%rd10], 1;", out, threads=64, schedule=schedule)
    assert out.tolist() == [0] * 40 + [1] * 24


@every_schedule
def test_a_barrier_that_some_warps_never_reach_is_a_deadlock(schedule: Schedule) -> None:
    body = "setp.lt.u32 %p1, %r0, 32; @%p1 bra A; barrier.sync 1, 64; bra B; A: barrier.sync 2, 64; B: "
    with pytest.raises(Fault, match=r"deadlock: warps \[\d\] wait for barrier at"):
        execute(body, words(1), threads=64, schedule=schedule)


def test_part_of_a_warp_at_a_barrier_is_told() -> None:
    with pytest.raises(Fault, match="convergence: part of a warp at a barrier"):
        execute("setp.lt.u32 %p1, %r0, 5; @%p1 bar.sync 0;", words(1))


@every_schedule
def test_shuffles(schedule: Schedule) -> None:
    out = words(64)
    body = f"""{OWN} shfl.sync.bfly.b32 %r1, %r0, 5, 31, -1; shfl.sync.idx.b32 %r2, %r0, 3, 31, -1;
    shfl.sync.down.b32 %r3, %r0, 4, 31, -1; mad.lo.s32 %r4, %r2, 64, %r1; mad.lo.s32 %r4, %r3, 4096, %r4;
    st.global.b32 [%rd10], %r4;"""
    execute(body, out, threads=64, schedule=schedule)
    for lane, value in enumerate(out.tolist()):
        down = lane + 4 if lane % 32 < 28 else lane
        assert (value & 63, value >> 6 & 63, value >> 12) == (lane ^ 5, lane // 32 * 32 + 3, down)


@every_schedule
@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("add.s32", lambda v: v.sum() & 0xFFFFFFFF),
        ("min.s32", lambda v: v.min() & 0xFFFFFFFF),
        ("max.s32", lambda v: v.max() & 0xFFFFFFFF),
        ("min.u32", lambda v: (v & 0xFFFFFFFF).min()),
        ("and.b32", lambda v: np.bitwise_and.reduce(v & 0xFFFFFFFF)),
        ("xor.b32", lambda v: np.bitwise_xor.reduce(v & 0xFFFFFFFF)),
    ],
)
def test_one_value_of_all_lanes(schedule: Schedule, operation: str, expected: Callable[[Any], int]) -> None:
    """Of threads 0 to 63 minus 40: signed, and the warps apart."""
    out = words(64)
    body = f"{OWN} sub.s32 %r1, %r0, 40; mov.b32 %r3, -1; redux.sync.{operation} %r2, %r1, %r3; "
    execute(body + "st.global.b32 [%rd10], %r2;", out, threads=64, schedule=schedule)
    values = np.arange(64, dtype=np.int64).reshape(2, 32) - 40
    assert out.astype(np.int64).tolist() == [int(expected(warp)) for warp in values for _ in range(32)]


BOX = """setp.eq.u32 %p1, %r0, 0; mov.b32 %r1, 4096; mov.b32 %r2, 0;
@%p1 mbarrier.init.shared::cta.b64 [%r1], 1; bar.sync 0;
@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], {bytes};
cvta.param.u64 %rd20, k_map_0; mov.b32 %r3, {column}; mov.b32 %r4, 1;
@%p1 cp.async.bulk.tensor.2d.shared::cta.global.mbarrier::complete_tx::bytes [%r2], [%rd20, {{%r3, %r4}}], [%r1];
{{ .reg .pred complete; waitLoop:
mbarrier.try_wait.parity.shared::cta.b64 complete, [%r1], {parity};
@!complete bra.uni waitLoop; }}
shl.b32 %r5, %r0, 2; ld.shared.b32 %r6, [%r5]; mad.wide.u32 %rd10, %r0, 4, %rd2; st.global.b32 [%rd10], %r6;"""
MAP = TensorMap(address=0, element=2, sizes=(40, 6), strides=(2, 80), box=(16, 4), swizzle=1)


@every_schedule
@pytest.mark.parametrize("column", [0, 8, 32, -8])
def test_boxes_arrive_swizzled_with_zeros_outside(schedule: Schedule, column: int) -> None:
    tensor = np.arange(1, 241, dtype=np.uint16).reshape(6, 40)
    out = words(32)
    body = BOX.format(bytes=128, column=column, parity=0)
    execute(body, tensor, out, shared=8192, maps=(MAP,), schedule=schedule)
    padded = np.pad(tensor, ((0, 0), (16, 16)))
    box = padded[1:5, 16 + column : 32 + column].reshape(-1)
    places = swizzled(np.arange(64) * 2, 32) // 2
    assert (out.view(np.uint16)[places] == box).all()


@pytest.mark.parametrize(("bytes_", "parity"), [(160, 0), (128, 1)])
def test_an_mbarrier_with_a_wrong_count_or_parity_is_noticed(bytes_: int, parity: int) -> None:
    """Too many bytes are never there; the phase before the first counts as over, and the box is read too early."""
    body = BOX.format(bytes=bytes_, column=0, parity=parity)
    with pytest.raises(Fault, match=r"deadlock|race|unwritten"):
        execute(body, np.zeros((6, 40), np.uint16), words(32), shared=8192, maps=(MAP,), schedule=LATE)


def test_an_mbarrier_used_before_a_barrier_after_its_making_is_a_race() -> None:
    body = BOX.format(bytes=128, column=0, parity=0).replace("bar.sync 0;", "")
    with pytest.raises(Fault, match="race: mbarrier used with no barrier after it was made"):
        execute(body, np.zeros((6, 40), np.uint16), words(64), threads=64, shared=8192, maps=(MAP,))


def test_writing_without_a_fence_before_the_asynchronous_proxy_is_a_race() -> None:
    body = "mov.b32 %r9, 0; st.shared.b32 [%r9], 0; " + BOX.format(bytes=128, column=0, parity=0)
    with pytest.raises(Fault, match=r"race: .*asynchronous proxy with no fence"):
        execute(body, np.zeros((6, 40), np.uint16), words(32), shared=8192, maps=(MAP,))
    fenced = body.replace("bar.sync 0;", "fence.proxy.async.shared::cta; bar.sync 0;")
    execute(fenced, np.zeros((6, 40), np.uint16), words(32), shared=8192, maps=(MAP,))


@pytest.mark.parametrize("text", ["frobnicate.b32 %r1, %r2;", "add.rz.f32 %r1, %r2, %r3;", "mov.b32 %r1, %nonsense;"])
def test_unknown_code_is_named_with_its_line(text: str) -> None:
    with pytest.raises(UnknownCode, match=text.split()[0].split(".")[0] if "nonsense" not in text else "nonsense"):
        steps_of(parse(kernel(text, 0)))


def test_registers_that_were_never_written_are_no_fault_until_they_matter() -> None:
    out = words(32)
    execute(f"{OWN} selp.b32 %r1, %r150, 3, false; st.global.b32 [%rd10], %r1;".replace("false", "%p9"), out)
    with pytest.raises(Fault, match="bounds"):
        execute("ld.global.b32 %r1, [%rd30];", out)


def test_schedules_by_name() -> None:
    assert schedule_named("seeded:7") == Schedule(kind="seeded", seed=7)
    with pytest.raises(ValueError, match="expected one of eager, late, seeded"):
        schedule_named("early")
    with pytest.raises(ValueError, match="whole number"):
        schedule_named("seeded:x")
