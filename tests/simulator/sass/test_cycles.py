"""Sequences by hand, each with the cycles that the table's numbers give by a sum on paper."""

import pytest

from tests.simulator.sass.written import code
from tidepool.simulator.sass import SM_80, SM_90, Launch, Machine, Modelled, model
from tidepool.simulator.sass.assumed import TABLE

WARP, WARP_GROUP = Launch(threads=32), Launch(threads=128)
EXIT = "\nEXIT"


def modelled(text: str, launch: Launch = WARP, machine: Machine = SM_90) -> Modelled:
    return model(code(text + EXIT), launch, machine)


def test_stall_counts_are_waited_for() -> None:
    found = modelled("FADD R0, R0, R1 ; stall=4\n" * 10)
    assert found.cycles == 10 * 4 + 1
    assert found.instructions == 11


@pytest.mark.parametrize(
    ("opcode", "sm_80", "sm_90"),
    [("ISETP.GE.AND P0", 2, 2), ("FFMA R0", 2, 1), ("IMAD R0", 2, 2), ("HFMA2 R0", 1, 1), ("MUFU.EX2 R0", 8, 8)],
)
def test_a_pipe_takes_an_instruction_as_often_as_it_has_lanes(opcode: str, sm_80: int, sm_90: int) -> None:
    # The last one of 20 is issued after 19 times the pipe's cycles, EXIT in the next cycle.
    assert modelled(f"{opcode}\n" * 20, machine=SM_80).cycles == 19 * sm_80 + 2
    assert modelled(f"{opcode}\n" * 20, machine=SM_90).cycles == 19 * sm_90 + 2


def test_two_pipes_work_at_once() -> None:
    assert modelled("LOP3.LUT R0\nIMAD R1\n" * 10).cycles == 20 + 1


def test_a_partition_issues_one_instruction_a_cycle() -> None:
    found = modelled("NOP\n" * 49, Launch(threads=8 * 32))  # two warps a partition
    assert found.cycles == 2 * 50
    assert found.binds == "issue slots"
    assert found.busy["issue slots"] == 1


def test_a_result_is_waited_for_at_its_barrier_only() -> None:
    arrives = 128 / 39 + SM_90["latency: global"]
    waiting = modelled("LDG.E R0, [R2.64] ; write=0\nFADD R1, R0, R0 ; waits=0")
    assert waiting.cycles == pytest.approx(arrives + 2)
    assert waiting.binds == "wait: global loads"
    quick = SM_90.with_numbers({"bytes: l2": 128})
    assert modelled("LDG.E R0, [R2.64] ; write=0\nFADD R1, R0, R0 ; waits=1", machine=quick).cycles == 3


def test_operands_are_waited_for_at_the_barrier_of_their_reading() -> None:
    read = 1 + SM_90["latency: global store"]  # behind a cycle of the way to memory
    assert modelled("STG.E [R2.64], R0 ; read=3\nMOV R0, R1 ; waits=3").cycles == read + 2


def test_a_barrier_holds_every_warp_until_the_last_is_there() -> None:
    # Two warps a partition arrive in cycles 0 and 1, and go on one after the other.
    found = modelled("BAR.SYNC.DEFER_BLOCKING 0x0", Launch(threads=8 * 32))
    assert found.cycles == 1 + SM_90["latency: barrier"] + 2


def through_a_barrier(instruction: str) -> str:
    return f"{instruction} ; write=0\nNOP ; waits=0"


WAITED_FOR = {
    "latency: mma": through_a_barrier("HMMA.16816.F32 R0, R4, R8, R0"),
    "latency: wgmma": "HGMMA.64x64x16.F32 R24, R32, gdesc[UR8], R24, gsb0\nWARPGROUP.DEPBAR.LE gsb0, 0x0",
    "latency: shared": through_a_barrier("LDS R0, [R1]"),
    "latency: shared store": through_a_barrier("STS [R1], R0"),
    "latency: global": through_a_barrier("LDG.E R0, [R2.64]"),
    "latency: global store": through_a_barrier("STG.E [R2.64], R0"),
    "latency: copy": "LDGSTS.E [R0], [R2.64]\nLDGDEPBAR\nDEPBAR.LE SB0, 0x0",
    "latency: tensor copy": "UTMALDG.2D [UR4], [UR8]\nSYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R3",
    "latency: constant": through_a_barrier("LDC R0, c[0x0][0x28]"),
    "latency: xu": through_a_barrier("MUFU.RCP R0, R1"),
    "latency: shuffle": through_a_barrier("SHFL.BFLY PT, R0, R1, 0x10, 0x1f"),
    "latency: special register": through_a_barrier("S2R R0, SR_TID.X"),
    "latency: uniform": through_a_barrier("R2UR UR0, R0"),
    "latency: fp64": through_a_barrier("DFMA R0, R2, R4, R0"),
    "latency: mbarrier": through_a_barrier("SYNCS.EXCH.64 URZ, [UR4], UR6"),
    "latency: fence": through_a_barrier("MEMBAR.ALL.CTA"),
    "latency: other": through_a_barrier("IMAD R0, R1, R2, R3"),
    "latency: barrier": "BAR.SYNC.DEFER_BLOCKING 0x0",
}


def test_every_latency_of_the_table_is_waited_for_below() -> None:
    assert set(WAITED_FOR) == {name for name, *_ in TABLE if name.startswith("latency: ")}


@pytest.mark.parametrize("name", WAITED_FOR)
def test_a_latency_is_waited_for_in_full(name: str) -> None:
    later = SM_90.with_numbers({name: SM_90[name] + 100})
    assert modelled(WAITED_FOR[name], machine=later).cycles == pytest.approx(modelled(WAITED_FOR[name]).cycles + 100)


@pytest.mark.parametrize(("outstanding", "waits"), [(0, True), (1, False)])
def test_groups_of_copies_are_waited_for_as_far_as_asked(outstanding: int, waits: bool) -> None:
    found = modelled(f"LDGSTS.E [R0], [R2.64]\nLDGDEPBAR\nDEPBAR.LE SB0, {outstanding:#x}", machine=SM_80)
    arrives = 128 / 47 + SM_80["latency: copy"]
    assert found.cycles == pytest.approx(arrives + 2 if waits else 4)


def test_rounds_of_tensor_copies_are_waited_for_in_their_order() -> None:
    fill = "SYNCS.ARRIVE.TRANS64 RZ, [UR4], R2\nUTMALDG.2D [UR4], [UR8]\n"
    wait = "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R3\n"
    launch = Launch(threads=128, tensor_copy=3900)  # 100 cycles through L2
    first, second = 1 + 100 + SM_90["latency: tensor copy"], 1 + 200 + SM_90["latency: tensor copy"]
    assert modelled(2 * fill + wait, launch).cycles == pytest.approx(first + 2)
    assert modelled(2 * fill + 2 * wait, launch).cycles == pytest.approx(second + 2)


def test_tensor_copies_share_the_shared_memory_of_their_stages() -> None:
    stages = "SYNCS.EXCH.64 URZ, [UR4], UR6\n" * 3
    filled = "SYNCS.ARRIVE.TRANS64 RZ, [UR4], R2\nUTMALDG.2D [UR4], [UR8]\nUTMALDG.2D [UR6], [UR9]\n" * 2
    found = modelled(stages + filled, Launch(threads=128, shared=3 * 7800))
    assert found.busy["L2"] * found.cycles == pytest.approx(2 * 7800 / SM_90["bytes: l2"])


def test_products_of_a_warp_group_follow_each_other_without_a_gap() -> None:
    product = "HGMMA.64x256x16.F32.BF16 R24, gdesc[UR8], R24"
    found = modelled(f"{product}\n{product}\n{product}\n{product}, gsb0\nWARPGROUP.DEPBAR.LE gsb0, 0x0", WARP_GROUP)
    assert found.cycles == 4 * 128 + SM_90["latency: wgmma"] + 2
    assert found.tensor_share == pytest.approx(512 / found.cycles)
    assert found.binds == "tensor"


@pytest.mark.parametrize(
    ("operands", "cycles"),
    [("gdesc[UR8], R24", (16 + 64) * 32 / 128), ("R32, gdesc[UR8], R24", 16 * 16 * 16 / 512)],
)
def test_narrow_products_are_bound_by_the_shared_memory_they_read(operands: str, cycles: float) -> None:
    product = f"HGMMA.64x16x16.F32.BF16 R24, {operands}, gsb0\nWARPGROUP.DEPBAR.LE gsb0, 0x0"
    assert modelled(product, WARP_GROUP).cycles == cycles + SM_90["latency: wgmma"] + 2


@pytest.mark.parametrize(
    ("opcode", "cycles"),
    [("HMMA.16816.F32.BF16", 8), ("HMMA.1688.F32.TF32", 8), ("IMMA.16832.S8.S8", 8), ("DMMA.884", 16)],
)
def test_matrix_instructions_of_a_warp_take_the_tensor_cores_cycles(opcode: str, cycles: int) -> None:
    found = modelled(f"{opcode} R0, R4, R8, R0\n" * 20, machine=SM_80)
    assert found.cycles == pytest.approx(max(19 * cycles + 2, 20 * cycles / 4))
    assert found.tensor_share == pytest.approx(20 * cycles / 4 / found.cycles)  # one warp: one partition of four


def test_no_schedule_beats_shared_memory() -> None:
    found = modelled("LDS.128 R0, [R4]\n" * 20, WARP_GROUP)
    assert found.cycles == 20 * 4 * 4  # 4 warps, 512 bytes each, 128 a cycle
    assert found.binds == "shared memory"


def test_no_schedule_beats_l2() -> None:
    found = modelled("LDG.E.128 R0, [R4.64]\n" * 100, WARP_GROUP)
    assert found.cycles == pytest.approx(100 * 4 * 512 / SM_90["bytes: l2"])
    assert found.binds == "L2"


def test_programs_beside_each_other_hide_latency() -> None:
    text = "LDG.E R0, [R2.64] ; write=0\nFADD R1, R0, R0 ; waits=0\n" * 8
    alone, four = (modelled(text, Launch(threads=128, resident=resident)) for resident in (1, 4))
    assert alone.cycles <= four.cycles < 1.1 * alone.cycles
    assert four.busy["L2"] == pytest.approx(4 * alone.busy["L2"] * alone.cycles / four.cycles)


def test_facts_of_a_launch_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="threads 0: expected at least 1"):
        Launch(threads=0)
    with pytest.raises(ValueError, match="programs 0: expected at least 1"):
        Launch(threads=32, programs=0)


def test_products_that_wait_fill_a_queue() -> None:
    text = "HGMMA.64x256x16.F32.BF16 R24, gdesc[UR8], R24\n" * 8
    found = modelled(text, WARP_GROUP)
    # The first five go at once; the others when the one four before them starts, in cycles 128, 256 and 384.
    assert found.waits["tensor"] * found.cycles == pytest.approx(384 - 4 - 3)
    assert "tensor" not in modelled(text, WARP_GROUP, SM_90.with_numbers({"tensor: products waiting": 8})).waits


def test_accesses_that_wait_for_shared_memory_fill_a_queue() -> None:
    found = modelled("LDS.128 R0, [R4]\n" * 20, WARP_GROUP)
    last = 19 * 16 - SM_90["queue: memory"]
    assert found.waits["shared memory"] * found.cycles == pytest.approx(last - 19)


def test_accesses_in_flight_to_l2_are_limited() -> None:
    patient = SM_90.with_numbers({"queue: memory": 10_000})  # only L2 is in the way
    found = modelled("LDG.E.128 R0, [R4.64]\n" * 100, WARP_GROUP, patient)
    last = 99 * 4 * 512 / SM_90["bytes: l2"] - SM_90["queue: l2"]
    assert found.waits["L2"] * found.cycles == pytest.approx(last - 99)


def test_programs_beside_each_other_start_one_after_the_other() -> None:
    two = Launch(threads=128, resident=2)
    assert "issue slots" not in modelled("NOP\n" * 8, two).waits
    assert "issue slots" in modelled("NOP\n" * 8, two, SM_90.with_numbers({"start: stagger": 0})).waits
