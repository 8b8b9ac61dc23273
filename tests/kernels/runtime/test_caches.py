"""`clear_caches` clears what is kept between calls, and kernels/CACHES.md names all of it."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.kernels.exact import DEVICE
from tidepool import simulator
from tidepool.kernels import MaxPool, clear_caches, conv_norm_act, conv_relu_pool, kernel_mode
from tidepool.kernels.auto import table
from tidepool.kernels.operators import norm_call
from tidepool.kernels.operators.call import KNOWN
from tidepool.kernels.runtime import caches, mode

KERNELS = Path(caches.__file__).resolve().parents[1]
PAGE = KERNELS / "CACHES.md"
MUTABLE = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
MAKERS = {
    "dict",
    "list",
    "set",
    "defaultdict",
    "OrderedDict",
    "deque",
    "Remembered",
    "WeakKeyDictionary",
    "WeakValueDictionary",
}
CHANGES = {"add", "append", "clear", "extend", "insert", "pop", "popitem", "remember", "remove", "setdefault", "update"}
Place = tuple[str, str]


def name_of(node: ast.expr) -> str:
    """The last name of `name`, `module.name` or a call of either; empty for anything else."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def decorated(tree: ast.AST, *decorators: str) -> set[str]:
    """Functions, wherever they stand, under one of these decorators, called or not."""
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and {name_of(one) for one in node.decorator_list} & set(decorators)
    }


def containers(tree: ast.Module) -> set[str]:
    """Names that a module binds to a dictionary, list or set of its own."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            made = isinstance(node.value, ast.Call) and name_of(node.value) in MAKERS
            if made or isinstance(node.value, MUTABLE):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def changed(tree: ast.Module) -> set[str]:
    """Names that some statement changes in place: by a key, or by a method that does."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            found.add(name_of(node.value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
            found.add(name_of(node.func.value))
    return found


def rebound(tree: ast.AST) -> set[str]:
    """Names that functions declare global."""
    return {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}


def kept(sources: dict[str, str]) -> tuple[set[Place], set[Place], set[Place]]:
    """(functions with a cache, properties with one, other state of modules) of sources by file."""
    trees = {file: ast.parse(source) for file, source in sources.items()}
    changes: set[str] = set().union(*(changed(tree) for tree in trees.values()))
    functions, properties, others = set(), set(), set()
    for file, tree in trees.items():
        functions |= {(file, name) for name in decorated(tree, "cache", "lru_cache")}
        properties |= {(file, name) for name in decorated(tree, "cached_property")}
        others |= {(file, name) for name in (containers(tree) & changes) | rebound(tree)}
    return functions, properties, others


def own() -> tuple[set[Place], set[Place], set[Place]]:
    files = sorted(KERNELS.rglob("*.py"))
    return kept({file.relative_to(KERNELS).as_posix(): file.read_text(encoding="utf-8") for file in files})


def listed(heading: str) -> set[Place]:
    """(file, name) in the table under a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w/]+\.py)` \| ([^|]+) \|", section, re.MULTILINE)
    return {(file, name) for file, names in rows for name in re.findall(r"`(\w+)`", names)}


def test_the_page_lists_what_the_sources_keep_and_nothing_else() -> None:
    functions, properties, others = own()
    assert listed("Functions") == functions
    assert listed("In objects") == properties
    assert listed("Dictionaries") | listed("What is no cache and stays") == others
    assert not listed("Dictionaries") & listed("What is no cache and stays")


def test_every_function_cache_is_found_to_be_cleared() -> None:
    functions, _, _ = own()
    for file, _ in functions:
        importlib.import_module("tidepool.kernels." + file.removesuffix(".py").replace("/", "."))
    assert set(caches.function_caches()) == functions


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import functools\n@functools.cache\ndef f(): ...", ({"f"}, set(), set())),
        ("from functools import lru_cache\n@lru_cache(maxsize=3)\ndef f(): ...", ({"f"}, set(), set())),
        ("class A:\n @lru_cache\n def f(self): ...\n @cached_property\n def p(self): ...", ({"f"}, {"p"}, set())),
        ("A: dict[int, int] = {}\ndef f(x):\n A[x] = x", (set(), set(), {"A"})),
        ("A = set()\nB = {1}\ndef f(x):\n A.add(x)\n return x in B", (set(), set(), {"A"})),
        ("A = collections.defaultdict(list)\ndef f(x):\n del A[x]", (set(), set(), {"A"})),
        ("A = [1, 2]\ndef f(x):\n A = []\n return x[1]", (set(), set(), set())),
        ("A = None\ndef f():\n global A\n A = 1", (set(), set(), {"A"})),
    ],
)
def test_what_a_source_keeps_is_found(source: str, found: tuple[set[str], set[str], set[str]]) -> None:
    assert tuple({name for _, name in part} for part in kept({"a.py": source})) == found


def test_what_another_module_keeps_in_a_dictionary_is_found() -> None:
    sources = {"a.py": "A = {}", "b.py": "import a\ndef f(x):\n a.A.setdefault(x, 1)"}
    assert kept(sources)[2] == {("a.py", "A")}


@pytest.fixture
def tensors() -> Iterator[tuple[Tensor, Tensor]]:
    """x and weight; what is cleared in the test is made anew in the next."""
    yield torch.arange(32.0, device=DEVICE).reshape(1, 2, 4, 4), torch.ones(3, 2, 3, 3, device=DEVICE)
    clear_caches()


def step(x: Tensor, weight: Tensor) -> list[Tensor]:
    """Results and gradients of both ops."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    statistics = [torch.full((3,), value, device=DEVICE) for value in (1.0, 0.0, 0.0, 1.0)]
    y = conv_relu_pool(x, weight, pool=MaxPool(2), backend="triton")
    z = conv_norm_act(x, weight, *statistics, training=False, backend="triton")
    return [y, z, *torch.autograd.grad(y.sum() + z.sum(), (x, weight))]


def test_a_full_dictionary_forgets_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_clears", [])
    remembered: caches.Remembered[str] = caches.Remembered()
    monkeypatch.setattr(remembered, "MOST", 2)
    assert [remembered.remember(number, "abc"[number]) for number in range(3)] == ["a", "b", "c"]
    assert remembered == {2: "c"}
    clear_caches()
    assert remembered == {}


def test_clearing_empties_every_cache_and_changes_no_result(tensors: tuple[Tensor, Tensor]) -> None:
    before = step(*tensors)
    full = {place for place, cache in caches.function_caches().items() if cache.cache_info().currsize}
    assert {("operators/call.py", "_layer_call"), ("conv/forward.py", "_prepare")} <= full
    assert KNOWN
    assert norm_call.KNOWN
    assert mode._known or mode.forced
    generation = table.generation()
    clear_caches()
    assert not {place for place, cache in caches.function_caches().items() if cache.cache_info().currsize}
    assert not KNOWN
    assert not norm_call.KNOWN
    assert not mode._known
    assert table.generation() == generation + 1
    for ours, expected in zip(step(*tensors), before, strict=True):
        assert torch.equal(ours, expected)


def test_a_simulated_device_stays_and_compiles_anew(tensors: tuple[Tensor, Tensor]) -> None:
    from tidepool.kernels.conv.forward import conv_act_pool_forward_kernel

    if DEVICE == "cuda":
        pytest.skip("simulated launches are of CPU tensors")
    x, weight = tensors
    with simulator.device("sm_80") as device:
        before = conv_relu_pool(x, weight, backend="triton")
        assert conv_act_pool_forward_kernel.device_caches
        clear_caches()
        assert not conv_act_pool_forward_kernel.device_caches
        assert kernel_mode("triton") == "simulated"
        assert mode.compiled_on == {-1}
        launches = len(device.reports)
        assert torch.equal(conv_relu_pool(x, weight, backend="triton"), before)
        assert len(device.reports) == launches + 1
    with simulator.device("sm_80") as again:
        assert again is device
    clear_caches()
    with simulator.device("sm_80") as other:
        assert other is not device
