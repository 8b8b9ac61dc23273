"""Every number that the model assumes, in one table, with where it comes from. None was fitted: no GPU has spoken."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tidepool.simulator.targets import target_named

_GUIDE = "CUDA C++ Programming Guide, Throughput of Native Arithmetic Instructions: {} a cycle and multiprocessor"
_DISSECTED = "Luo et al., arXiv:2402.13499, measured; contention added by assumption"
_A100 = "NVIDIA A100 Tensor Core GPU Architecture white paper"
_H100 = "NVIDIA H100 Tensor Core GPU Architecture white paper"
_ASSUMED = "assumed"
_OF_80, _OF_90 = target_named("sm_80"), target_named("sm_90")

TABLE: tuple[tuple[str, float, float, str], ...] = (
    # name, sm_80, sm_90, source
    ("clock: GHz", 1.41, 1.755, f"boost clocks of A100 and H100 SXM under load; {_A100}; assumed for H100"),
    ("multiprocessors", _OF_80.multiprocessors, _OF_90.multiprocessors, f"{_A100}; {_H100} (SXM)"),
    ("partitions", 4, 4, f"{_A100}; {_H100}"),
    # Cycles for which one warp instruction holds its pipe in a partition: 32 lanes over the lanes of the pipe.
    ("pipe: alu", 2, 2, _GUIDE.format("64 (compare, minimum, maximum, shift, logic)")),
    ("pipe: fma", 2, 1, _GUIDE.format("64 and 128 (float32 multiply-add)")),
    ("pipe: half", 1, 1, _GUIDE.format("256 (float16, two a lane)")),
    ("pipe: imad", 2, 2, _GUIDE.format("64 (32-bit integer multiply-add)")),
    ("pipe: xu", 8, 8, _GUIDE.format("16 (reciprocal, exponential); conversions assumed to run there")),
    ("pipe: fp64", 4, 2, _GUIDE.format("32 and 64 (float64)")),
    ("pipe: uniform", 2, 2, f"{_ASSUMED}: one instruction every other cycle"),
    # Multiply-adds of a partition's tensor core a cycle.
    ("tensor: half", 256, 512, f"{_A100} (1,024 a multiprocessor); {_H100} (2,048)"),
    ("tensor: tf32", 128, 256, f"{_A100} (512); {_H100} (1,024)"),
    ("tensor: int8", 512, 1024, f"{_A100} (2,048); {_H100} (4,096)"),
    ("tensor: fp64", 16, 32, f"{_A100} (64); {_H100} (128)"),
    ("tensor: share for mma.sync", 1.0, 0.62, "Luo et al., arXiv:2402.13499: mma on H100 reaches 62 % of wgmma"),
    ("tensor: products waiting", 4, 4, f"{_ASSUMED}: wgmma queued in a partition before issue stops"),
    # Cycles from issue to result.
    ("latency: mma", 33, 33, "Luo et al., arXiv:2402.13499 (m16n8k16 on A100 and H100: 32 to 33)"),
    ("latency: wgmma", 26, 26, f"{_ASSUMED}: start and end of a product around its cycles in the tensor core"),
    ("latency: shared", 29, 29, _DISSECTED),
    ("latency: shared store", 16, 16, _ASSUMED),
    ("latency: global", 500, 550, f"{_DISSECTED} (L2 262 and 262, memory 466 and 479)"),
    ("latency: global store", 20, 20, f"{_ASSUMED}: until the operands are read"),
    ("latency: copy", 650, 750, f"{_ASSUMED}: cp.async, issue to shared memory"),
    ("latency: tensor copy", 850, 850, f"{_ASSUMED}: TMA, issue to mbarrier; sm_80 has none"),
    ("latency: constant", 45, 45, f"{_ASSUMED}: a hit"),
    ("latency: xu", 24, 24, _ASSUMED),
    ("latency: shuffle", 26, 26, _ASSUMED),
    ("latency: special register", 30, 30, _ASSUMED),
    ("latency: uniform", 12, 12, _ASSUMED),
    ("latency: fp64", 16, 16, _ASSUMED),
    ("latency: mbarrier", 24, 24, _ASSUMED),
    ("latency: fence", 30, 30, _ASSUMED),
    ("latency: other", 6, 6, f"{_ASSUMED}: of instructions that set a barrier and are none of the above"),
    ("latency: barrier", 26, 26, f"{_ASSUMED}: last warp's arrival to the first one's going on"),
    ("read: registers", 12, 12, f"{_ASSUMED}: issue until operands may be overwritten"),
    # Bytes a cycle of one multiprocessor.
    ("bytes: shared", 128, 128, f"{_A100}; {_H100}: 32 banks of 4 bytes"),
    ("bytes: l2", 47, 39, f"{_A100} (5,120 bytes a cycle over 108); {_ASSUMED} for H100"),
    ("queue: memory", 24, 24, f"{_ASSUMED}: cycles of shared-memory work that may wait before issue stops"),
    ("queue: l2", 500, 500, f"{_ASSUMED}: cycles of work for L2 that may be in flight before issue stops"),
    ("memory: GB/s", 1555, 3350, "data sheets, A100 40 GB and H100 SXM"),
    ("start: stagger", 97, 97, f"{_ASSUMED}: cycles between the starts of programs that share a multiprocessor"),
)


class UnknownTarget(ValueError):  # noqa: N818  (a target that is meant, not a failure)
    """A target whose numbers are not in the table; the message lists those that are."""


@dataclass(frozen=True)
class Machine:
    """A kind of GPU: the numbers of its column, by name."""

    target: str
    numbers: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.numbers[name]

    def with_numbers(self, changed: Mapping[str, float]) -> "Machine":
        """The machine with other numbers. Raises KeyError for a name that the table does not have."""
        unknown = changed.keys() - self.numbers.keys()
        if unknown:
            raise KeyError(f"unknown number {min(unknown)!r}: expected one of {', '.join(self.numbers)}")
        return replace(self, numbers={**self.numbers, **changed})


SM_80 = Machine("sm_80", {name: number for name, number, _, _ in TABLE})
SM_90 = Machine("sm_90", {name: number for name, _, number, _ in TABLE})
MACHINES = (SM_80, SM_90)


def machine_named(target: str) -> Machine:
    """The machine called sm_80 or sm_90. Raises UnknownTarget for others."""
    for machine in MACHINES:
        if machine.target == target:
            return machine
    raise UnknownTarget(f"no cycle model of {target!r}: expected one of {', '.join(m.target for m in MACHINES)}")
