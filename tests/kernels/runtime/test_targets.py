"""A card is found by its capability, an unknown one by the nearest that fits it; what no kernel runs on is refused."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from tidepool.kernels.auto import plan
from tidepool.kernels.runtime import mode, targets
from tidepool.kernels.runtime.targets import (
    GFX90A,
    GFX942,
    GFX1100,
    SM_80,
    SM_86,
    SM_89,
    SM_90,
    SM_100,
    SM_103,
    SM_120,
    TARGETS,
    Target,
    UnsupportedTarget,
    target_named,
    target_of,
    target_of_device,
)

KIB = 1024


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_known_card_is_its_own_target(target: Target) -> None:
    assert target_of(target.backend, target.arch) is target
    assert target_of(target.backend, target.arch, target.shared_block, target.registers) is target
    assert target_named(target.name) is target
    assert target_named(f"{target.backend}:{target.arch}") is target


@pytest.mark.parametrize(
    ("backend", "arch", "shared_block", "expected"),
    [
        ("cuda", 88, 99 * KIB, SM_89),
        ("cuda", 101, 227 * KIB, SM_100),
        ("cuda", 110, 227 * KIB, SM_120),
        ("cuda", 121, 99 * KIB, SM_120),
        ("cuda", 130, None, SM_120),
        ("hip", "gfx90c", 64 * KIB, GFX90A),
        ("hip", "gfx941", 64 * KIB, GFX942),
        ("hip", "gfx1150", 64 * KIB, GFX1100),
        ("hip", "gfx1201", 64 * KIB, GFX1100),
    ],
)
def test_an_unknown_card_takes_the_nearest_target(
    backend: str, arch: int | str, shared_block: int | None, expected: Target
) -> None:
    assert target_of(backend, arch, shared_block) is expected


@pytest.mark.parametrize("arch", [80, 81, 88, 90, 95, 100, 105, 110, 121, 130])
@pytest.mark.parametrize("shared_block", [64 * KIB, 99 * KIB, 128 * KIB, 163 * KIB, 227 * KIB])
@pytest.mark.parametrize("registers", [32768, 65536, 131072])
def test_no_card_is_taken_for_one_with_more_shared_memory_or_registers(
    arch: int, shared_block: int, registers: int
) -> None:
    try:
        found = target_of("cuda", arch, shared_block, registers)
    except UnsupportedTarget:
        assert shared_block < 99 * KIB or registers < 65536 or (90 <= arch < 110 and shared_block < 227 * KIB)
        return
    assert found.shared_block <= shared_block
    assert found.registers <= registers


@pytest.mark.parametrize(("backend", "arch"), [("cuda", 75), ("cuda", 61), ("hip", "gfx906"), ("hip", "gfx1030")])
def test_a_card_without_the_instructions_is_refused_in_one_line(backend: str, arch: int | str) -> None:
    with pytest.raises(UnsupportedTarget, match=r"compute capability 8\.0 or more") as refused:
        target_of(backend, arch)
    assert "\n" not in str(refused.value)
    assert (f"{int(arch) // 10}.{int(arch) % 10}" if backend == "cuda" else str(arch)) in str(refused.value)


@pytest.mark.parametrize("name", ["sm_42", "cuda:42", "cuda:gfx942", "hip:90", "H100", ""])
def test_an_unknown_name_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(ValueError, match=r"sm_80, .*gfx1100$"):
        target_named(name)


def test_a_cards_own_limits_are_read_off_it(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(
        major=8, minor=9, shared_memory_per_block_optin=99 * KIB, regs_per_multiprocessor=65536
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.version, "hip", None)
    assert target_of_device.__wrapped__(torch.device("cuda", 0)) is SM_89
    properties.minor, properties.shared_memory_per_block_optin = 0, 99 * KIB
    assert target_of_device.__wrapped__(torch.device("cuda", 0)) is SM_86
    properties.major, properties.minor = 7, 5
    with pytest.raises(UnsupportedTarget, match=r"capability 7\.5"):
        target_of_device.__wrapped__(torch.device("cuda", 0))


def test_records_are_consistent() -> None:
    assert len({target.name for target in TARGETS}) == len(TARGETS)
    for target in TARGETS:
        assert target.shared_block + target.reserved_shared <= target.shared
        assert target.threads % target.warp == 0
    assert (SM_80.shared_block, SM_90.shared_block, SM_103.shared_block) == (166912, 232448, 232448)
    assert targets.having("wgmma") == (SM_90,)


def test_triton_on_an_old_card_is_refused_and_auto_says_once_that_it_runs_eagerly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = SimpleNamespace(major=7, minor=5, shared_memory_per_block_optin=64 * KIB, regs_per_multiprocessor=65536)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: old)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(mode, "_known", {})
    monkeypatch.setattr(mode, "interpreting_asked", lambda: None)
    target_of_device.cache_clear()
    plan.kernels_run_on.cache_clear()
    device = torch.device("cuda", 0)
    try:
        with pytest.raises(UnsupportedTarget, match=r"capability 7\.5"):
            mode.mode_of(device)
        with pytest.warns(RuntimeWarning, match='backend="auto" runs PyTorch\'s own kernels here: .*7\\.5'):
            assert not plan.kernels_run_on(device)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not plan.kernels_run_on(device)
    finally:
        target_of_device.cache_clear()
        plan.kernels_run_on.cache_clear()
