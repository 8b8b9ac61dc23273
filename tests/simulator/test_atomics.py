"""Atomics: what they compute, lane after lane, what they order, and which accesses beside them are races."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from tests.simulator.ptx_kernels import EAGER, LATE, execute, kernel
from tidepool import simulator
from tidepool.simulator.faults import Fault, UnknownCode
from tidepool.simulator.machine import steps_of
from tidepool.simulator.numbers import Array, bf16_bits, bf16_values
from tidepool.simulator.ptx import parse
from tidepool.simulator.schedule import Schedule

SCHEDULES = [EAGER, LATE, Schedule(kind="seeded", seed=1), Schedule(programs=1)]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: f"{one.kind}{one.programs}")
OWN = "mad.wide.u32 %rd10, %r0, 4, %rd1;"
PROGRAM = "mov.u32 %r9, %ctaid.x;"


def words(values: Array | list[int]) -> Array:
    return np.array(values, np.uint32)


@every_schedule
def test_programs_count_together(schedule: Schedule) -> None:
    """Every lane of 3 programs of 64 adds its number to one of four words."""
    out = words([0, 0, 0, 0])
    body = "and.b32 %r1, %r0, 3; mad.wide.u32 %rd10, %r1, 4, %rd1; red.global.gpu.relaxed.add.u32 [%rd10], %r0;"
    execute(body, out, threads=64, programs=3, schedule=schedule)
    assert out.tolist() == [3 * sum(range(start, 64, 4)) for start in range(4)]


@every_schedule
def test_what_was_there_comes_back_to_one_lane_each(schedule: Schedule) -> None:
    counter, out = words([5]), np.zeros(96, np.uint32)
    body = f"""{PROGRAM} atom.global.add.u32 %r1, [%rd1], 1;
    mad.lo.u32 %r2, %r9, 32, %r0; mad.wide.u32 %rd10, %r2, 4, %rd2; st.global.b32 [%rd10], %r1;"""
    execute(body, counter, out, programs=3, schedule=schedule)
    assert sorted(out.tolist()) == list(range(5, 101))
    assert counter.tolist() == [101]


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def turned(operation: str, bits: int, before: int, value: int) -> int:
    """One integer operation, on unsigned representations; `s` operations compare as signed."""
    mask = (1 << bits) - 1
    a, b = (signed(before, bits), signed(value, bits)) if operation.endswith("s") else (before, value)
    found: dict[str, Callable[[], int]] = {
        "add.u": lambda: a + b, "add.s": lambda: a + b, "min.u": lambda: min(a, b), "min.s": lambda: min(a, b),
        "max.u": lambda: max(a, b), "max.s": lambda: max(a, b), "and.b": lambda: a & b, "or.b": lambda: a | b,
        "xor.b": lambda: a ^ b, "exch.b": lambda: b, "inc.u": lambda: 0 if a >= b else a + 1,
        "dec.u": lambda: b if a == 0 or a > b else a - 1,
    }  # fmt: skip
    return found[operation]() & mask


OPERATIONS = [(f"{name}.{kind}", bits) for name, kinds in
              {"add": "us", "min": "us", "max": "us", "and": "b", "or": "b", "xor": "b", "exch": "b"}.items()
              for kind in kinds for bits in (32, 64) if (name, kind, bits) != ("add", "s", 64)]  # fmt: skip


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(("operation", "bits"), [*OPERATIONS, ("inc.u", 32), ("dec.u", 32)])
def test_integers(operation: str, bits: int, space: str) -> None:
    """32 lanes at one place, in turn."""
    random = np.random.default_rng(bits)
    dtype = np.uint32 if bits == 32 else np.uint64
    values = random.integers(0, 2**bits, 32, dtype=dtype)
    if operation in ("inc.u", "dec.u"):
        values = random.integers(0, 9, 32, dtype=dtype)
    start, out = np.array([2 ** (bits - 1) + 3], dtype), np.zeros(33, dtype)
    name, size = ("%r", 4) if bits == 32 else ("%rd", 8)
    place = {"global": "[%rd1]", "shared": "[%r5]"}[space]
    prepared = f"mov.b32 %r5, 8; ld.global.b{bits} {name}20, [%rd1]; st.shared.b{bits} [%r5], {name}20; bar.sync 0;"
    after = f"ld.{space}.b{bits} {name}23, {place}; st.global.b{bits} [%rd3+{32 * size}], {name}23;"
    body = f"""{prepared if space == "shared" else ""} mad.wide.u32 %rd10, %r0, {size}, %rd2;
    ld.global.b{bits} {name}21, [%rd10]; atom.{space}.{operation}{bits} {name}22, {place}, {name}21; {after}
    mad.wide.u32 %rd10, %r0, {size}, %rd3; st.global.b{bits} [%rd10], {name}22;"""
    execute(body, start, values, out, shared=64)
    state, expected = int(2 ** (bits - 1) + 3), []
    for value in values.tolist():
        expected.append(state)
        state = turned(operation, bits, state, value)
    assert out.tolist() == [*expected, state]


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_compare_and_swap(bits: int) -> None:
    dtype = {16: np.uint16, 32: np.uint32, 64: np.uint64}[bits]
    out, expected = np.arange(32).astype(dtype), np.arange(32)
    before = np.zeros(32, dtype)
    name = {16: "%rs", 32: "%r", 64: "%rd"}[bits]
    body = f"""mad.wide.u32 %rd10, %r0, {bits // 8}, %rd1; and.b32 %r1, %r0, 30; cvt.u64.u32 %rd21, %r1;
    cvt.u{bits}.u64 {name}22, %rd21; atom.global.acq_rel.gpu.cas.b{bits} {name}23, [%rd10], {name}22, 77;
    mad.wide.u32 %rd10, %r0, {bits // 8}, %rd2; st.global.b{bits} [%rd10], {name}23;"""
    execute(body if bits < 64 else body.replace("cvt.u64.u64 %rd22, %rd21;", "mov.b64 %rd22, %rd21;"), out, before)
    assert (out == np.where(expected % 2 == 0, 77, expected)).all()
    assert (before == expected).all()


def summed(kind: str, space: str, values: Array, bits: Callable[[Array], Array]) -> Array:
    """32 values of a type added to a zero in turn."""
    raw = np.ascontiguousarray(bits(values))
    size = raw.itemsize
    name = {2: "%rs", 4: "%r", 8: "%rd"}[size]
    out = np.zeros(1, raw.dtype)
    place = {"global": "[%rd2]", "shared": "[%r5]"}[space]
    rounding = ".noftz" if "f16" in kind else ""
    body = f"""mov.b32 %r5, 0; st.shared.b64 [%r5], 0; bar.sync 0; mad.wide.u32 %rd10, %r0, {size}, %rd1;
    ld.global.b{8 * size} {name}21, [%rd10]; red.{space}.add{rounding}.{kind} {place}, {name}21;"""
    if space == "shared":
        body += f"bar.sync 0; ld.shared.b{8 * size} {name}22, [%r5]; st.global.b{8 * size} [%rd2], {name}22;"
    execute(body, raw, out, shared=64)
    return out


@pytest.mark.parametrize("space", ["global", "shared"])
def test_floats_are_rounded_each_time(space: str) -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal(32)
    for kind, dtype in (("f32", np.float32), ("f64", np.float64), ("f16", np.float16)):
        own = values.astype(dtype)
        total = dtype(0)
        for value in own:
            total = dtype(total + value)
        found = summed(kind, space, own, lambda array: array.view(f"u{array.itemsize}")).view(dtype)
        assert found[0] == total, kind
    own = bf16_values(bf16_bits(values.astype(np.float32)))
    total = np.zeros(1, np.float32)
    for value in own:
        total = bf16_values(bf16_bits(total + value))
    assert bf16_values(summed("bf16", space, own, bf16_bits)) == total


def test_pairs_of_halves() -> None:
    pairs = np.arange(64, dtype=np.float16).reshape(32, 2)
    found = summed("f16x2", "global", pairs, lambda array: array.view(np.uint32).reshape(-1))
    assert found.view(np.float16).tolist() == pairs.sum(0).tolist()


@pytest.mark.parametrize(("space", "expected"), [("global", 0.0), ("shared", 32 * 2.0**-140)])
def test_subnormal_sums_are_flushed_in_global_memory_alone(space: str, expected: float) -> None:
    tiny = np.full(32, 2.0**-140, np.float32)
    assert summed("f32", space, tiny, lambda array: array.view(np.uint32)).view(np.float32)[0] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("atom.add.u32 %r1, [%rd1], %r2;", "generic addresses"),
        ("atom.global.add.s64 %rd2, [%rd1], %rd3;", "kind of atomic"),
        ("red.global.exch.b32 [%rd1], %r2;", "kind of atomic"),
        ("atom.global.and.u32 %r1, [%rd1], %r2;", "kind of atomic"),
        ("atom.global.add.f16 %rs1, [%rd1], %rs2;", "noftz"),
        ("atom.global.add.v2.f32 {%r1, %r2}, [%rd1], {%r3, %r4};", "modifier .v2"),
        ("atom.shared::cluster.add.u32 %r1, [%r2], %r3;", "modifier .shared_cluster"),
    ],
)
def test_atomics_that_are_not_known(text: str, message: str) -> None:
    with pytest.raises(UnknownCode, match=message):
        steps_of(parse(kernel(text, 1)))


def test_an_atomic_out_of_bounds_or_misaligned_is_told() -> None:
    with pytest.raises(Fault, match=r"bounds: .*global atomic access out of bounds by 1 lanes"):
        execute(f"{OWN} red.global.add.u32 [%rd10], 1;", np.zeros(31, np.uint32))
    with pytest.raises(Fault, match=r"alignment: .*global atomic access of 8 bytes"):
        execute(f"{OWN} red.global.add.u64 [%rd10], 1;", np.zeros(64, np.uint32))
    with pytest.raises(Fault, match=r"unwritten: "):
        execute("mov.b32 %r1, 0; red.shared.add.u32 [%r1], 1;", shared=64)


BESIDE = PROGRAM + "setp.eq.u32 %p1, %r9, 0; {first}; {second};"
ATOMIC, LOAD, STORE = "red.global.add.u32 [%rd1], 1", "ld.global.b32 %r2, [%rd1]", "st.global.b32 [%rd1], 9"


@pytest.mark.parametrize("chunk", [0, 1])
@pytest.mark.parametrize(
    ("first", "second"),
    [(ATOMIC, LOAD), (ATOMIC, STORE), (LOAD, ATOMIC), (STORE, ATOMIC)],
    ids=["atomic-load", "atomic-store", "load-atomic", "store-atomic"],
)
def test_a_plain_access_of_another_program_beside_an_atomic_is_a_race(first: str, second: str, chunk: int) -> None:
    body = BESIDE.format(first=f"@%p1 {first}", second=f"@!%p1 {second}")
    with pytest.raises(Fault, match=r"race: .*(atomic|by an atomic)"):
        execute(body, words([0]), programs=2, schedule=Schedule(programs=chunk))


@every_schedule
def test_a_program_may_read_what_it_alone_changes(schedule: Schedule) -> None:
    out = words(list(range(3)))
    body = f"{PROGRAM} mad.wide.u32 %rd10, %r9, 4, %rd1; red.global.add.u32 [%rd10], 1; ld.global.b32 %r2, [%rd10];"
    execute(body, out, programs=3, schedule=schedule)
    assert out.tolist() == [32, 33, 34]


@pytest.mark.parametrize("chunk", [0, 1])
def test_atomics_of_a_programs_scope_do_not_meet_those_of_another(chunk: int) -> None:
    body = "red.global.cta.relaxed.add.u32 [%rd1], 1;"
    execute(body, words([0]), programs=1)
    with pytest.raises(Fault, match=r"race: .*scope \.cta"):
        execute(body, words([0]), programs=2, schedule=Schedule(programs=chunk))


LAST = (
    PROGRAM
    + """
mad.lo.u32 %r2, %r9, 32, %r0; mad.wide.u32 %rd10, %r2, 4, %rd1; add.u32 %r3, %r2, 1; st.global.b32 [%rd10], %r3;
bar.sync 0; {before} setp.eq.u32 %p1, %r0, 0; mov.b32 %r4, 0; mov.b32 %r8, 0;
@%p1 atom.global.gpu.{kind}.add.u32 %r4, [%rd2], 1; {after}
@%p1 st.shared.b32 [%r8], %r4; bar.sync 0; ld.shared.b32 %r4, [%r8]; setp.ne.u32 %p2, %r4, 3; @%p2 bra END;
mov.b32 %r5, 0; mov.b32 %r6, 0;
LOOP: mad.lo.u32 %r2, %r6, 32, %r0; mad.wide.u32 %rd10, %r2, 4, %rd1; ld.global.b32 %r7, [%rd10]; add.u32 %r5, %r5, %r7;
add.u32 %r6, %r6, 1; setp.lt.u32 %p3, %r6, 4; @%p3 bra LOOP;
mad.wide.u32 %rd10, %r0, 4, %rd3; st.global.b32 [%rd10], %r5; @%p1 st.global.b32 [%rd2], 0;
END: """
)
FENCE = "fence.acq_rel.gpu;"


@every_schedule
@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [("acq_rel", "", ""), ("relaxed", FENCE, FENCE), ("relaxed", "membar.gl;", "membar.gl;")],
    ids=["acq_rel", "fences", "membars"],
)
def test_the_last_program_reads_what_the_others_left(schedule: Schedule, kind: str, before: str, after: str) -> None:
    """Each of four leaves 32 words and counts itself; whoever is the fourth adds them up, and clears the counter."""
    parts, counter, out = np.zeros(128, np.uint32), words([0]), np.zeros(32, np.uint32)
    body = LAST.format(kind=kind, before=before, after=after)
    execute(body, parts, counter, out, programs=4, shared=64, schedule=schedule)
    assert (out == (np.arange(128) + 1).reshape(4, 32).sum(0)).all()
    assert counter.tolist() == [0]


@pytest.mark.parametrize("chunk", [0, 1])
@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [("relaxed", "", ""), ("release", "", ""), ("acquire", "", ""), ("relaxed", FENCE, ""), ("relaxed", "", FENCE)],
)
def test_without_release_and_acquire_that_is_a_race(kind: str, before: str, after: str, chunk: int) -> None:
    body = LAST.format(kind=kind, before=before, after=after)
    arrays = np.zeros(128, np.uint32), words([0]), np.zeros(32, np.uint32)
    with pytest.raises(Fault, match=r"race: .*global read of what another program of the launch writes"):
        execute(body, *arrays, programs=4, shared=64, schedule=Schedule(programs=chunk))


SHARED = """mov.b32 %r8, 0; setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.b32 [%r8], 0; {first}
red.shared.add.u32 [%r8], %r0; {second} ld.shared.b32 %r4, [%r8]; {own} st.global.b32 [%rd10], %r4;"""


@every_schedule
def test_warps_count_together_in_shared_memory(schedule: Schedule) -> None:
    out = np.zeros(96, np.uint32)
    execute(SHARED.format(first="bar.sync 0;", second="bar.sync 0;", own=OWN), out, threads=96, shared=64,
            schedule=schedule)  # fmt: skip
    assert (out == sum(range(96))).all()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("", "bar.sync 0;", "shared memory read with no order after its writing by warp 0"),
        ("bar.sync 0;", "", r"shared memory read with no order after an atomic by warp \d"),
    ],
)
def test_without_barriers_around_them_that_is_a_race(first: str, second: str, message: str) -> None:
    with pytest.raises(Fault, match=f"race: .*{message}"):
        execute(SHARED.format(first=first, second=second, own=OWN), np.zeros(64, np.uint32), threads=64, shared=64)


def test_waiting_for_another_lane_in_step_is_told() -> None:
    """Lanes of a warp that all want one lock: whoever has it goes no further than the others."""
    body = """LOOP: atom.global.cas.b32 %r1, [%rd1], 0, 1; setp.ne.u32 %p1, %r1, 0; @%p1 bra LOOP;
    atom.global.exch.b32 %r1, [%rd1], 0;"""
    with pytest.raises(Fault, match=r"deadlock: .*tried 1001 times"):
        execute(body, words([0]))


def test_a_load_beside_a_compare_and_swap_of_the_same_place_is_a_guess() -> None:
    """So LLVM adds where the target has no atomic for it; another address register is another matter."""
    out = np.zeros(1, np.float32)
    body = """{load}
    LOOP: mov.b32 %r1, %r2; add.f32 %r3, %r1, 0f3F800000;
    atom.relaxed.gpu.global.cas.b32 %r2, [%rd1], %r1, %r3; setp.ne.u32 %p1, %r2, %r1; @%p1 bra LOOP;"""
    execute(body.format(load="ld.global.b32 %r2, [%rd1];"), out, programs=3)
    assert out[0] == 96
    with pytest.raises(Fault, match=r"race: .*changes by an atomic"):
        execute(body.format(load="add.s64 %rd5, %rd1, 0; ld.global.b32 %r2, [%rd5];"), out, programs=3)


@triton.jit
def histogram_kernel(x_ptr, out_ptr, count, BINS: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    tl.atomic_add(out_ptr + tl.load(x_ptr + at, mask=mask, other=0) % BINS, 1, mask=mask)


@triton.jit
def column_sum_kernel(x_ptr, out_ptr, rows, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, COLUMNS)
    x = tl.load(x_ptr + row[:, None] * COLUMNS + column[None, :], mask=(row < rows)[:, None], other=0.0)
    tl.atomic_add(out_ptr + column, tl.sum(x, 0).to(out_ptr.dtype.element_ty))


@triton.jit
def locked_kernel(lock_ptr, x_ptr, BLOCK: tl.constexpr):
    while tl.atomic_cas(lock_ptr, 0, 1) == 1:
        pass
    at = tl.arange(0, BLOCK)
    tl.store(x_ptr + at, tl.load(x_ptr + at) + at)
    tl.debug_barrier()
    tl.atomic_xchg(lock_ptr, 0)


@pytest.mark.parametrize("schedule", ["eager", "late", "seeded:1"])
@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_triton_adds_atomically(name: str, schedule: str) -> None:
    x = torch.arange(300, dtype=torch.int32) * 7
    bins = torch.zeros(10, dtype=torch.int32)
    rows = torch.arange(37.0 * 16).reshape(37, 16) % 5
    with simulator.device(name, schedule):
        histogram_kernel[(3,)](x, bins, 300, BINS=10, BLOCK=128)
        assert torch.equal(bins, torch.bincount(x % 10, minlength=10).to(torch.int32))
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            out = torch.zeros(16, dtype=dtype)
            column_sum_kernel[(5,)](rows, out, 37, COLUMNS=16, BLOCK=8)
            assert torch.equal(out, rows.sum(0).to(dtype)), dtype


@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_a_lock_lets_programs_change_the_same_memory(name: str) -> None:
    lock, x = torch.zeros(1, dtype=torch.int32), torch.zeros(128, dtype=torch.int32)
    with simulator.device(name):
        locked_kernel[(3,)](lock, x, BLOCK=128)
    assert torch.equal(x, 3 * torch.arange(128, dtype=torch.int32))
    assert lock.item() == 0
