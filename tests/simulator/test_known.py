"""What the simulator says of code before running it; the compile check asks it of every kernel."""

from tests.simulator.ptx_kernels import kernel
from tidepool import simulator


def test_code_that_can_be_run() -> None:
    assert simulator.unknown_code(kernel("add.s32 %r1, %r0, 1; @%p1 bra END; END: ", 1)) == ""


def test_the_first_unknown_instruction_is_named() -> None:
    found = simulator.unknown_code(kernel("add.s32 %r1, %r0, 1; tcgen05.alloc.b32 [%r1], 32; fancy.b32 %r1;", 1))
    assert found.startswith("opcode tcgen05.alloc.b32")
    assert "\n" not in found
