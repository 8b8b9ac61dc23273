"""What is mutated, and in which order a seed takes it."""

import ast
from collections import Counter

import pytest

from tests.faults.generated.mutants import (
    LEAST_A_FUNCTION,
    LEAST_A_RULE,
    Mutant,
    all_mutants,
    functions,
    in_order,
    mutants_of,
)
from tests.faults.generated.rules import RULES
from tests.faults.harness import ROOT

SOURCE = '''\
"""1 + 1"""
LIMIT = 1 + 1


def host(a):
    return a + 1


@device_function
def device(a, b: tl.constexpr = 1 + 1):
    """1 + 1"""
    if INTERPRETING:
        return a + 1
    else:
        return a + 2


@device_function
def compiled(a):
    if a == 1 and not INTERPRETING:
        c: tl.constexpr = a + 3
    return a
'''


@pytest.fixture(scope="module")
def mutants() -> list[Mutant]:
    return all_mutants(ROOT)


def test_only_what_the_interpreter_runs_of_kernels_and_device_functions() -> None:
    made = mutants_of(SOURCE, "kernels/x.py")
    assert {(m.function, m.line) for m in made} == {
        ("device", 12),
        ("device", 13),
        ("compiled", 20),
        ("compiled", 22),
    }
    assert all(m.applied(SOURCE) != SOURCE for m in made)


def test_lines_are_those_of_the_statement_or_of_its_head() -> None:
    source = "@kernel\ndef k(a, b):\n    if (a\n        + b):\n        a = (a +\n             b)\n"
    lines = {m.old: m.lines for m in mutants_of(source, "k.py") if m.rule in ("branch_changed", "statement_removed")}
    assert lines == {"a + b": (3, 4), "a = a + b": (5, 6)}


def test_names_say_nothing_of_lines_and_differ() -> None:
    source = "@kernel\ndef k(a, b):\n    a += b + b\n    a += b + b\n"
    names = [mutant.name for mutant in mutants_of(source, "k.py")]
    assert len(set(names)) == len(names)
    assert [mutant.name for mutant in mutants_of(f"X = 1\n\n{source}", "k.py")] == names


def test_every_kernel_and_device_function_has_mutants(mutants: list[Mutant]) -> None:
    paths = sorted((ROOT / "kernels").rglob("*.py"))
    everything = {(str(p.relative_to(ROOT)), f.name) for p in paths for f in functions(p.read_text("utf-8"))}
    assert len(everything) > 100
    assert {(mutant.file, mutant.function) for mutant in mutants} == everything
    assert len({mutant.name for mutant in mutants}) == len(mutants)


@pytest.mark.full
def test_every_mutant_of_a_sample_parses_and_changes_one_function(mutants: list[Mutant]) -> None:
    for mutant in in_order(mutants, 1)[:100]:
        before = (ROOT / mutant.file).read_text("utf-8")
        pairs = zip(ast.parse(before).body, ast.parse(mutant.applied(before)).body, strict=True)
        changed = [old for old, new in pairs if ast.dump(old) != ast.dump(new)]
        assert [getattr(old, "name", "") for old in changed] == [mutant.function]


def test_a_sample_is_the_seeds_and_begins_with_the_smaller_one(mutants: list[Mutant]) -> None:
    order = in_order(mutants, 0)
    assert sorted(m.name for m in order) == sorted(m.name for m in mutants)
    assert order == in_order(reversed(mutants), 0)
    assert order[:100] != in_order(mutants, 1)[:100]


def test_a_thousand_hold_every_rule_and_every_function(mutants: list[Mutant]) -> None:
    sample = in_order(mutants, 0)[:1000]
    taken, places = Counter(m.rule for m in sample), Counter(m.rule for m in mutants)
    assert all(taken[rule] >= min(LEAST_A_RULE, places[rule]) > 0 for rule in RULES)
    functions_taken = Counter((m.file, m.function) for m in sample)
    functions_of_all = Counter((m.file, m.function) for m in mutants)
    assert all(functions_taken[key] >= min(LEAST_A_FUNCTION, number) for key, number in functions_of_all.items())
