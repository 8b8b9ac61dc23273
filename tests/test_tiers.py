"""Plain `pytest` keeps every value of every parameter, and notices a kernel or a refusal that no test of it meets."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
from _pytest.config import _prepareconfig

from tests.met import KERNELS, expected, missing, runs_the_default_tier
from tests.tiers import COLLECTED, diagonal, slow_tests


def test_a_diagonal_takes_each_value_of_the_longest_parameter_once() -> None:
    grid = list(itertools.product(range(33), "abc"))
    kept = [pair for pair, stays in zip(grid, diagonal(grid), strict=True) if stays]
    assert [case for case, _ in kept] == list(range(33))
    assert Counter(dtype for _, dtype in kept) == {"a": 11, "b": 11, "c": 11}


def test_every_name_of_a_slow_test_is_a_tests(pytestconfig: pytest.Config) -> None:
    """In the files that were collected whole; a name that nothing has any more would let its test back in unseen."""
    files = {name.partition("::")[0] for name in slow_tests()}
    assert all((pytestconfig.rootpath / file).is_file() for file in files)
    if any("::" in argument for argument in pytestconfig.args):
        return
    collected = pytestconfig.stash[COLLECTED]
    looked_at = {name.partition("::")[0] for name in collected}
    assert {name for name in slow_tests() if name.partition("::")[0] in looked_at} <= collected


def test_a_single_parameter_stays_whole() -> None:
    assert all(diagonal([(case,) for case in range(9)]))


def test_every_value_stays_where_combinations_are_missing() -> None:
    grid = [(a, b) for a in range(5) for b in range(5) if a != b]
    kept = [pair for pair, stays in zip(grid, diagonal(grid), strict=True) if stays]
    assert {a for a, _ in kept} == {b for _, b in kept} == set(range(5))


SOURCE = """\
@jit
def add_kernel(x):
    pass


def add(x):
    if x is None:
        raise ArgumentError(
            "no x"
        )
"""


def test_what_was_not_met_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "add.py").write_text(SOURCE)
    wanted = expected(tmp_path)
    assert missing(set(), wanted) == [
        "default tier: no launch of add_kernel (kernels/add.py:1)",
        "default tier: no refusal by 'no x' (kernels/add.py:8)",
    ]
    assert missing({("launch", "add.py", 1), ("refusal", "add.py", 9)}, wanted) == []
    assert len(missing({("launch", "add.py", 9), ("refusal", "sub.py", 8)}, wanted)) == 2


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ([], True),
        (["-m", ""], True),
        (["-m", "full"], False),
        (["-m", "not full and not gpu"], False),
        (["tests/kernels"], False),
        (["-k", "pool"], False),
        (["--collect-only"], False),
    ],
)
def test_what_was_met_is_asked_of_whole_runs_of_the_default_tier(given: list[str], whole: bool) -> None:
    root = KERNELS.parent
    config = _prepareconfig(["--rootdir", str(root), "-c", str(root / "pyproject.toml"), *given])
    try:
        assert runs_the_default_tier(config) is whole
    finally:
        config._ensure_unconfigure()


def test_kernels_and_refusals_are_found() -> None:
    kinds = Counter(kind for kind, *_ in expected(KERNELS))
    assert kinds["launch"] >= 23
    assert kinds["refusal"] >= 50
