"""The GPUs whose code can be run here."""

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True, kw_only=True)
class Target:
    """A GPU by its compute capability, with what its driver says of it. Sizes in bytes: `shared_block` the most shared
    memory of one program, `shared` of a multiprocessor (CUDA C++ Programming Guide, "Technical specifications per
    compute capability")."""

    capability: int
    shared_block: int
    multiprocessors: int
    registers: int = 65536

    @property
    def name(self) -> str:
        return f"sm_{self.capability}"

    @property
    def shared(self) -> int:
        return self.shared_block + KIB


TARGETS = (
    Target(capability=80, shared_block=163 * KIB, multiprocessors=108),
    Target(capability=90, shared_block=227 * KIB, multiprocessors=132),
)


def target_named(name: str) -> Target:
    """The target called sm_80 or sm_90. Raises ValueError that lists those there are."""
    for target in TARGETS:
        if name == target.name:
            return target
    raise ValueError(f"simulated device {name!r}: expected one of {', '.join(target.name for target in TARGETS)}")
