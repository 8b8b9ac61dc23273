"""Faults planted in compiled code: one place of a kernel's PTX changed by a rule, and what notices it.

A rule is a pattern and what it becomes. It is tried at the first and the last of its places in a kernel: on a layer of
small integers, under one schedule after the other, and once with an infinite weight, until the simulator raises or a
result differs. Where nothing does, `equivalent.toml` says why (`equivalence.py`).
"""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.kernels.exact import integer_inputs, outcome
from tests.kernels.shapes import Case
from tidepool import simulator
from tidepool.kernels import MaxPool, conv_relu_pool
from tidepool.kernels.oracle.reference import conv_act_pool_reference
from tidepool.simulator.devices import Device
from tidepool.simulator.ptx import Program, parse

SCHEDULES = ("late", "seeded:1", "eager")
Change = Callable[[re.Match[str]], str]


@dataclass(frozen=True)
class Rule:
    """What is changed: `pattern` becomes `change`."""

    name: str
    pattern: str
    change: Change

    def places(self, ptx: str) -> list[re.Match[str]]:
        """The first and the last place; one where there is one."""
        found = list(re.finditer(self.pattern, ptx))
        return found if len(found) < 3 else [found[0], found[-1]]

    def planted(self, ptx: str) -> Iterator[str]:
        """The kernel with the fault, at each of the places."""
        for match in self.places(ptx):
            yield ptx[: match.start()] + self.change(match) + ptx[match.end() :]


def _one_more(match: re.Match[str]) -> str:
    return f"{match[1]}{int(match[2]) + 1}"


def _pattern_of_64_bytes(match: re.Match[str]) -> str:
    """A matrix descriptor's swizzle, bits 62 and 63, from 128 to 64 bytes, of 32 or 64 to 128."""
    value = int(match[2]) & (2**64 - 1)
    kind = {1: 2, 2: 1, 3: 1, 0: 1}[value >> 62]
    return f"{match[1]}{_signed((value & ~(3 << 62)) | kind << 62)}"


def _stride_doubled(match: re.Match[str]) -> str:
    """The stride offset, bits 32 to 45."""
    value = int(match[2]) & (2**64 - 1)
    stride = value >> 32 & 0x3FFF
    return f"{match[1]}{_signed((value & ~(0x3FFF << 32)) | (2 * stride & 0x3FFF or 1) << 32)}"


def _signed(value: int) -> int:
    return value - 2**64 if value >> 63 else value


def _exchanged(match: re.Match[str]) -> str:
    return f"{match[1]}{match[3]}, {match[2]}"


_DESCRIPTOR = r"(or\.b64\s+%rd\d+, %rd\d+, )(-?\d{15,});"
_LINE = r"\n[^\n;]*"
RULES = (
    Rule("barrier_lost", r"\tbar\.sync\s+0;", lambda m: "\t"),
    Rule("copies_waited_for_too_late", r"(cp\.async\.wait_group\s+)(\d+)", _one_more),
    Rule("copies_never_committed", r"cp\.async\.commit_group;", lambda m: ""),
    Rule(
        "copy_reads_what_its_mask_forbids",
        r"(cp\.async\.c[ag]\.[^;]*, )(0x[0-9a-f]+), %r\d+;",
        lambda m: f"{m[1]}{m[2]};",
    ),
    Rule(
        "copy_to_the_next_place", r"(cp\.async\.c[ag]\.shared\.global \[ %r\d+ \+ )0( \])", lambda m: f"{m[1]}32{m[2]}"
    ),
    Rule("products_waited_for_too_late", r"(wgmma\.wait_group\.sync\.aligned )(\d+)", _one_more),
    Rule("product_adds_to_nothing", r"(wgmma\.mma_async[^;]*%rd\d+, )%p\d+,", lambda m: f"{m[1]}0,"),
    Rule("descriptor_of_another_swizzle", _DESCRIPTOR, lambda m: _pattern_of_64_bytes(m) + ";"),
    Rule("descriptor_of_another_stride", _DESCRIPTOR, lambda m: _stride_doubled(m) + ";"),
    Rule("phase_of_another_parity", r"(try_wait\.parity[^;]*, \[%r\d+\], )(%r\d+);", lambda m: f"{m[1]}1;"),
    Rule("half_the_bytes_expected", r"(expect_tx[^;]*, )(\d+);", lambda m: f"{m[1]}{int(m[2]) // 2};"),
    Rule("twice_the_arrivals_expected", r"(mbarrier\.init[^;]*, )1;", lambda m: f"{m[1]}2;"),
    Rule("arrival_lost", _LINE + r"mbarrier\.arrive[^;]*;", lambda m: ""),
    Rule("box_lost", _LINE + r"cp\.async\.bulk\.tensor[^;]*;", lambda m: ""),
    Rule("coordinates_exchanged", r"(cp\.async\.bulk\.tensor[^{]*\{)(%r\d+), (%r\d+)", _exchanged),
    Rule("fence_lost", r"fence\.proxy\.async[^;]*;", lambda m: ""),
    Rule("matrix_rows_of_the_neighbour", r"(ldmatrix[^;]*\[%r\d+)(?:\+\d+)?\];", lambda m: f"{m[1]}+16];"),
    Rule("matrix_not_turned", r"ldmatrix([^;]*)\.trans", lambda m: f"ldmatrix{m[1]}"),
    Rule("matrix_stored_elsewhere", r"(stmatrix[^;]*\[%r\d+)(?:\+\d+)?\]", lambda m: f"{m[1]}+16]"),
    Rule("shared_store_lost", _LINE + r"st\.shared[^;]*;", lambda m: "\n"),
    Rule(
        "shared_load_of_the_neighbour",
        r"(ld\.shared\.b32\s+[^;]*\[\s*%r\d+)(?:\+\d+)?(?: \+ 0 )?\];",
        lambda m: f"{m[1]}+4];",
    ),
    Rule("rows_of_a_product_exchanged", r"(mma\.sync[^{]*\{[^}]*\}, \{ )(%r\d+), (%r\d+)", _exchanged),
    Rule(
        "accumulator_forgotten",
        r"(mma\.sync[^{]*\{ )(%r\d+)(, [^}]*\}, \{[^}]*\}, \{[^}]*\}, \{ )\2",
        lambda m: f"{m[1]}{m[2]}{m[3]}0",
    ),
    Rule(
        "shuffle_from_another_lane",  # one of another step of a sum over lanes: its part is added twice
        r"(shfl\.sync\.bfly\.b32\s+%r\d+, %r\d+, )(\d+)",
        lambda m: f"{m[1]}{int(m[2]) // 2 or 2}",
    ),
    Rule("store_without_its_mask", r"@%p\d+ (st\.global)", lambda m: m[1]),
    Rule("store_with_the_other_mask", r"@(%p\d+) (st\.global)", lambda m: f"@!{m[1]} {m[2]}"),
    Rule("load_without_its_mask", r"@%p\d+ (ld\.global)", lambda m: m[1]),
    Rule("halves_exchanged", r"(cvt\.rn\.b?f16x2\.f32\s+%r\d+, )(%r\d+), (%r\d+)", _exchanged),
    Rule(
        "comparison_the_other_way",
        r"setp\.gt\.f32(\s+%p\d+, )(%r\d+), (%r\d+)",
        lambda m: f"setp.lt.f32{m[1]}{m[2]}, {m[3]}",
    ),
)


@dataclass(frozen=True)
class Subject:
    """A kernel that faults are planted in: where it runs, and the layer it computes a part of."""

    kernel: str
    device: str
    case: Case
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """As the record has it."""
        return f"{self.kernel} {self.device} {self.case.name}"


_WIDE = Case("wide", (1, 64, 9, 11), (64, 64, 3, 3), {"padding": 1}, channels_last=True)
_BOXES = Case("boxes", (1, 64, 14, 18), (80, 64, 3, 3), {"padding": 1}, channels_last=True)
_OVERLAPPING = Case("overlapping", (1, 24, 9, 8), (32, 24, 3, 3), {"padding": 1, "pool": MaxPool(3, 2, 1)})
_SMALL = Case("small", (2, 6, 9, 7), (9, 6, 3, 3), {"padding": 1})
_GROUPS = Case("depthwise", (2, 30, 8, 7), (30, 1, 3, 3), {"groups": 30, "padding": 1})
_VIDEO = Case("video", (2, 32, 4, 8, 12), (16, 32, 2, 3, 3), {"padding": 1})
SUBJECTS = (
    Subject("conv_act_pool_hopper_kernel", "sm_90", _BOXES, torch.bfloat16),
    Subject("conv_act_pool_windowed_dgrad_kernel", "sm_90", _WIDE, torch.bfloat16),
    Subject("conv_act_pool_windowed_dgrad_kernel", "sm_80", _WIDE, torch.float16),
    Subject("conv_act_pool_forward_kernel", "sm_80", _WIDE, torch.float16),
    Subject("conv_act_pool_forward_kernel", "sm_80", _VIDEO, torch.float16),
    Subject("conv_act_pool_dgrad_kernel", "sm_80", _SMALL, torch.float32),
    Subject("conv_act_pool_wgrad_kernel", "sm_80", _OVERLAPPING, torch.float16),
    Subject("conv_act_pool_wgrad_reduce_kernel", "sm_80", _SMALL, torch.float32),
    Subject("conv_act_pool_depthwise_forward_kernel", "sm_80", _GROUPS, torch.float32),
)


def expected_of(subject: Subject) -> tuple[tuple[Tensor, Tensor, Tensor | None], dict[str, Tensor]]:
    """The layer's tensors, and PyTorch's results of them. No channel's first pixel is 0, which is what a masked load
    fetches without its mask."""
    x, weight, bias = integer_inputs(subject.case, subject.dtype, seed=5)
    first = x[(0, slice(None), *(0,) * (x.dim() - 2))]
    first[first == 0] = 1
    return (x, weight, bias), outcome(conv_act_pool_reference, x, weight, bias, None, "cpu", subject.case.options)[0]


def launched_program(subject: Subject) -> Program:
    """The kernel as it is compiled for the subject's layer; the last one launched where there are several."""
    seen: list[Program] = []
    inputs, _ = expected_of(subject)
    _run(subject, inputs, "eager", lambda program: seen.append(program) or program)  # type: ignore[func-returns-value]
    return next(program for program in reversed(seen) if program.name == subject.kernel)


def notices(subject: Subject, original: Program, ptx: str) -> str:
    """What notices the fault, first of all schedules: a kind of `Fault`, or `values`; empty where nothing does."""
    planted = parse(ptx)
    inputs, expected = expected_of(subject)
    tried = [(schedule, inputs, expected) for schedule in SCHEDULES]
    for schedule, given, wanted in [*tried, ("eager", *_with_infinity(subject.name))]:
        try:
            found = _run(subject, given, schedule, lambda program: planted if program is original else program)
        except simulator.Fault as fault:
            return fault.kind
        if not all(_same(found[name], tensor) for name, tensor in wanted.items()):
            return "values"
    return ""


@functools.cache
def _with_infinity(name: str) -> tuple[tuple[Tensor, Tensor, Tensor | None], dict[str, Tensor]]:
    """A subject's tensors with an infinite weight, its first, and the results without a fault.

    Masked loads fetch zeros; without the mask they fetch what lies at offset 0, and where that is multiplied by a zero
    only infinity tells. PyTorch is no reference: it leaves out products with the padding, or not, as it chooses.
    """
    subject = next(one for one in SUBJECTS if one.name == name)
    (x, weight, bias), _ = expected_of(subject)
    weight = weight.clone()
    weight[:1, :, *(slice(1),) * (weight.dim() - 2)] = float("inf")
    return (x, weight, bias), _run(subject, (x, weight, bias), "eager", lambda program: program)


def _same(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True)


def _run(
    subject: Subject,
    inputs: tuple[Tensor, Tensor, Tensor | None],
    schedule: str,
    exchanged: Callable[[Program], Program],
) -> dict[str, Tensor]:
    launch = Device.launch

    def exchanging(device: Device, program: Program, *others: object) -> None:
        launch(device, exchanged(program), *others)  # type: ignore[arg-type]

    options = {**subject.case.options, "backend": "triton"}
    Device.launch = exchanging  # type: ignore[method-assign, assignment]
    try:
        with simulator.device(subject.device, schedule):
            return outcome(conv_relu_pool, *inputs, None, "cpu", options)[0]
    finally:
        Device.launch = launch  # type: ignore[method-assign]
