"""Disassembly is read with its control words, from text and from cubins, several at once."""

import struct
import subprocess

import pytest

from tests.simulator.sass.compiled import NVDISASM, Kernels
from tidepool.simulator.sass import Control, Instruction, disassemble, parse

TEXT = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;                   /* 0x00000a00ff017b82 */
                                                                            /* 0x000e300000000800 */
        /*0010*/              @!P0 BRA 0x40 ;                               /* 0x0000000000080947 */
                                                                            /* 0x000fea0003800000 */
        /*0020*/                   IADD3 R2, R1, R3, RZ ;                   /* 0x0000000301027210 */
                                                                            /* 0x001fc80007ffe0ff */
        /*0030*/                   STG.E [R4.64], R2 ;                      /* 0x0000000204007986 */
                                                                            /* 0x0041e2000c101904 */
"""


def test_instructions_of_text_with_their_control_words() -> None:
    assert parse(TEXT) == [
        Instruction(0x00, "LDC", "R1, c[0x0][0x28]", "", Control(8, write=0)),
        Instruction(0x10, "BRA", "0x40", "!P0", Control(5)),
        Instruction(0x20, "IADD3", "R2, R1, R3, RZ", "", Control(4, waits=(0,))),
        Instruction(0x30, "STG.E", "[R4.64], R2", "", Control(1, read=0, waits=(2,))),
    ]


def test_a_branch_knows_where_it_goes_and_an_instruction_its_name() -> None:
    _, branch, _, store = parse(TEXT)
    assert branch.target == 0x40
    assert store.name == "STG"
    with pytest.raises(ValueError, match="expected an address"):
        _ = store.target


def test_text_without_instructions_or_control_words_is_refused() -> None:
    with pytest.raises(ValueError, match="no instructions"):
        parse("nothing here")
    with pytest.raises(ValueError, match="has no control word"):
        parse("\n".join(TEXT.splitlines()[:2]))


def test_what_is_no_cubin_is_refused() -> None:
    with pytest.raises(ValueError, match="not a cubin"):
        disassemble([b"not an ELF file"], "sm_90", NVDISASM)


NOP, EXIT = (0x7918, 0x000FC00000000000), (0x794D, 0x000FEA0003800000)


def branch_back(instructions: int) -> tuple[int, int]:
    """BRA to so many instructions before it. Its offset counts from the next one, in units of 4 bytes: 8 bits from bit
    16, the others from bit 34."""
    offset = -4 * (instructions + 1)
    return (offset >> 8 & 0x3FFFFFFF) << 34 | (offset & 0xFF) << 16 | 0x7947, 0x000FC0000383FFFF


def cubin(*instructions: tuple[int, int]) -> bytes:
    """An ELF file of one kernel: header, names and code of its sections, their headers (System V ABI, chapter 4)."""
    code = b"".join(struct.pack("<QQ", *words) for words in instructions)
    names = b"\0.text.kernel\0.shstrtab\0"
    start, table = 64 + len(names), 64 + len(names) + len(code)
    header = b"\x7fELF\x02".ljust(0x28, b"\0") + struct.pack("<Q", table)
    header = header.ljust(0x3A, b"\0") + struct.pack("<HHH", 64, 3, 2)
    sections = [(0, 0, 0), (1, start, len(code)), (14, 64, len(names))]
    return (header + names + code) + b"".join(
        struct.pack("<IIQQQQ", name, 1, 0, 0, offset, size).ljust(64, b"\0") for name, offset, size in sections
    )


def test_a_branch_goes_where_it_went_whatever_the_code_around_it_repeats() -> None:
    first, second = disassemble([cubin(*300 * [NOP], branch_back(300), EXIT), cubin(NOP, EXIT)], "sm_90", NVDISASM)
    assert [instruction.name for instruction in first] == [*300 * ["NOP"], "BRA", "EXIT"]
    assert first[300].target == 0
    assert [instruction.address for instruction in second] == [0, 16]


@pytest.mark.full
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_cubins_read_together_are_what_cuobjdump_prints_of_each(target: str, kernels: Kernels) -> None:
    files = kernels.files(target)
    assert len(files) >= 2
    together = disassemble([file.read_bytes() for file in files], target, NVDISASM)
    for file, found in zip(files, together, strict=True):
        command = [str(NVDISASM.with_name("cuobjdump")), "-sass", str(file)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert found == parse(printed)
