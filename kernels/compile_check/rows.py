"""What the compile check says of one compiled kernel, or of one that ran, and the line it prints for it."""

from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Row:
    """One compiled kernel. `tensor` counts tensor-core instructions, `problem` is empty when all is well.

    `cycles` of one program, `us` (microseconds) of the case's launch on a whole GPU and what `binds` it are modelled,
    not measured, and uncalibrated (simulator/sass). `loops`: "layer" where the loop with the products runs as often as
    the case's layer has it, else how often every loop is taken to run. None and "" on targets without a model.
    """

    target: str
    case: str
    dtype: str
    kernel: str
    tile: str
    registers: int
    spills: int
    shared_bytes: int
    tensor: int
    shuffles: int
    occupancy_percent: int
    problem: str
    cycles: int | None = None
    us: float | None = None
    loops: str = ""
    binds: str = ""

    def line(self) -> str:
        """The row as the command prints it."""
        return _line(astuple(self))


MODELLED = "modelled, uncalibrated"
_HEADINGS = {
    "shared_bytes": "shared B",
    "occupancy_percent": "occupancy %",
    "binds": f"binds (cycles, us, binds: {MODELLED})",
}
_WIDTHS = (9, 22, 6, 38, 26, 9, 6, 9, 6, 8, 11, 20, 9, 9, 5, 0)


def heading() -> str:
    """The names of the columns."""
    return _line(tuple(_HEADINGS.get(field.name, field.name) for field in fields(Row)))


def _line(cells: tuple[object, ...]) -> str:
    return " ".join(
        ("" if cell is None else str(cell)).ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)
    ).rstrip()


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One layer that ran: `tile` is empty where the rules chose, `problem` where all was well."""

    target: str
    schedule: str
    case: str
    dtype: str
    tile: str
    programs: int
    warp_instructions: int
    problem: str

    def line(self) -> str:
        """The row as the command prints it."""
        cells = (self.target, self.case, self.dtype, self.tile, self.programs, self.warp_instructions, self.problem)
        return " ".join(str(cell).ljust(width) for cell, width in zip(cells, _RAN_WIDTHS, strict=True)).rstrip()


_RAN_WIDTHS = (6, 24, 6, 84, 8, 12, 0)
_RAN_HEADINGS = ("target", "case", "dtype", "tile", "programs", "warp instr.", "problem")
RAN_HEADING = " ".join(name.ljust(width) for name, width in zip(_RAN_HEADINGS, _RAN_WIDTHS, strict=True)).rstrip()
