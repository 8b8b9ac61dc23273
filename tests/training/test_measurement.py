"""Step times are counted, not judged: no test depends on how long anything took."""

from pathlib import Path

import pytest
import torch

from tidepool.training import measurement
from tidepool.training.measurement import KEPT_STEPS, WARMUP_STEPS, StepTimes, peak_memory_bytes


def with_clock(monkeypatch, seconds_per_step: list[float]) -> StepTimes:
    readings = [0.0]
    for seconds in seconds_per_step:
        readings += [readings[-1] + seconds, readings[-1] + seconds]
    clock = iter(readings)
    monkeypatch.setattr(measurement.time, "perf_counter", lambda: next(clock))
    times = StepTimes(torch.device("cpu"))
    for _ in seconds_per_step:
        with times.step(32):
            pass
    times.collect()
    return times


def test_nothing_is_measured_before_the_first_step():
    times = StepTimes(torch.device("cpu"))
    assert times.median_ms() is None
    assert times.samples_per_second() is None


def test_median_is_over_all_steps_and_throughput_without_the_warmup(monkeypatch):
    times = with_clock(monkeypatch, [100.0] * WARMUP_STEPS + [0.25] * 30)
    assert times.median_ms() == 250
    assert times.samples_per_second() == 32 / 0.25


def test_a_resumed_run_keeps_its_times_and_warms_up_anew(monkeypatch):
    before = with_clock(monkeypatch, [0.25] * (WARMUP_STEPS + 4))
    after = with_clock(monkeypatch, [5.0] * WARMUP_STEPS + [0.25] * 2)
    after.restore(before.as_record())
    assert after.samples_per_second() == 32 / 0.25
    assert len(after.as_record()["milliseconds"]) == 2 * WARMUP_STEPS + 6


def test_the_times_kept_are_bounded(monkeypatch):
    times = with_clock(monkeypatch, [0.5] * 10 + [0.25] * KEPT_STEPS)
    assert set(times.as_record()["milliseconds"]) == {250.0}


def test_peak_memory_on_a_cpu_is_the_most_the_process_had_resident():
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    assert peak_memory_bytes(torch.device("cpu")) == pytest.approx(kilobytes * 1024, rel=0.01)
