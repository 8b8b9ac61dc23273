"""What is counted of a launch, against counting by hand."""

import numpy as np
import pytest

from tests.simulator.ptx_kernels import execute
from tidepool.simulator.counters import Counters
from tidepool.simulator.schedule import Schedule
from tidepool.simulator.tensor_map import TensorMap

COUNT = Schedule(count=True)


@pytest.mark.parametrize("stride", [1, 2, 3, 9])
def test_sectors_and_touched_bytes_of_a_strided_load(stride: int) -> None:
    words = np.arange(32 * stride, dtype=np.uint32)
    out = np.zeros(32, np.uint32)
    report = execute(
        f"mad.wide.u32 %rd10, %r0, {4 * stride}, %rd1; ld.global.b32 %r1, [%rd10];"
        "mad.wide.u32 %rd11, %r0, 4, %rd2; st.global.b32 [%rd11], %r1;",
        words, out, schedule=COUNT,
    )  # fmt: skip
    first = words.ctypes.data % 32
    sectors = len({(first + 4 * stride * lane) // 32 for lane in range(32)})
    total = report.counters.total
    assert (total["global load requests"], total["global load bytes"]) == (1, 128)
    assert total["global load sectors"] == sectors
    read, written = report.footprints
    assert (read.read, read.read_sectors, read.written) == (128, 32 * sectors, 0)
    assert (written.written, written.read, written.size) == (128, 0, 128)


def test_what_is_touched_twice_counts_once() -> None:
    words = np.arange(32, dtype=np.uint32)
    twice = "mad.wide.u32 %rd10, %r0, 4, %rd1; ld.global.b32 %r1, [%rd10]; ld.global.b32 %r2, [%rd10];"
    report = execute(twice, words, programs=3, schedule=COUNT)
    assert report.counters.total["global load bytes"] == 3 * 2 * 128
    assert report.footprints[0].read == 128


def test_what_a_tensor_copy_stores_is_written_and_not_read() -> None:
    out = np.zeros(128, np.uint32)
    tensor_map = TensorMap(address=0, element=4, sizes=(128,), strides=(4,), box=(64,), swizzle=0)
    body = """shl.b32 %r1, %r0, 3; st.shared.v2.b32 [%r1], {%r0, %r0}; fence.proxy.async.shared::cta; bar.sync 0;
    cvta.param.u64 %rd20, k_map_0; mov.b32 %r2, 0; mov.b32 %r3, 32; setp.eq.u32 %p1, %r0, 0;
    @%p1 cp.async.bulk.tensor.1d.global.shared::cta.bulk_group [%rd20, {%r3}], [%r2];
    cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;"""
    report = execute(body, out, shared=256, maps=(tensor_map,), schedule=COUNT)
    assert (report.footprints[0].read, report.footprints[0].written) == (0, 256)
    assert report.counters.total["tensor copy global bytes"] == 256


@pytest.mark.parametrize("size", [4, 8, 16])
@pytest.mark.parametrize("spread", [1, 2, 8, 33])
def test_wavefronts_are_the_most_words_in_a_bank(size: int, spread: int) -> None:
    lanes = np.arange(64)
    addresses = lanes * size * spread % 4096
    counters = Counters(detailed=True)
    counters.shared_access("line", "load", addresses, size, lanes)
    together = {4: 32, 8: 16, 16: 8}[size]
    wavefronts = 0
    for first in range(0, 64, together):
        wanted = {(a // 4 + word) for a in addresses[first : first + together].tolist() for word in range(size // 4)}
        wavefronts += max(sum(1 for word in wanted if word % 32 == bank) for bank in range(32))
    assert counters.total["shared load wavefronts"] == wavefronts
    assert counters.total["shared load least wavefronts"] == 64 // together


def test_a_schedule_without_values_is_eager_and_unchecked() -> None:
    with pytest.raises(ValueError, match="without values"):
        Schedule(values=False)
    with pytest.raises(ValueError, match="without values"):
        Schedule(kind="late", checks=False, values=False)
    assert not Schedule(checks=False, values=False).values
