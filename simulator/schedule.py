"""In which order things happen that no rule orders."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a launch runs. All orders are legal; a correct program's results do not differ.

    `eager`: warps in step, asynchronous copies and products at once. `late`: those as late as waits allow, as a slow
    memory would. `seeded`: each warp (or warp group) by itself, warps and asynchronous work in a random order.

    `late_registers`: products read their A operand's registers when they are waited for, as the PTX ISA allows (8.7,
    wgmma.wait_group). Triton writes such registers earlier where a loop's products are pipelined (seen in 3.7.1), and
    leaves it to ptxas to order that in machine code; without it the registers are read when the product is started.

    `count`: everything that `Counters` has, and which bytes are touched, at a cost. Without `values` products are not
    computed and asynchronous copies bring nothing, several times as fast: for counting what code does whose branches
    and addresses do not depend on what it multiplies. Only without `checks`, and eager.
    """

    kind: str = "eager"
    seed: int = 0
    checks: bool = True
    count: bool = False
    programs: int = 0
    late_registers: bool = False
    values: bool = True

    def __post_init__(self) -> None:
        if not self.values and (self.checks or self.late):
            raise ValueError("a schedule without values: expected an eager one without checks")
        if self.kind not in KINDS:
            raise ValueError(f"schedule {self.kind!r}: expected one of {', '.join(KINDS)}")

    @property
    def late(self) -> bool:
        """Whether asynchronous work waits until it has to be done."""
        return self.kind != "eager"

    @property
    def seeded(self) -> bool:
        """Whether what runs next is drawn."""
        return self.kind == "seeded"


KINDS = ("eager", "late", "seeded")


def schedule_named(name: str) -> Schedule:
    """`eager`, `late`, `seeded` or `seeded:7` (a seed). Raises ValueError that lists the choices."""
    kind, _, seed = name.partition(":")
    if seed and not seed.isdigit():
        raise ValueError(f"schedule {name!r}: expected a whole number after seeded:")
    return Schedule(kind=kind, seed=int(seed or 0))
