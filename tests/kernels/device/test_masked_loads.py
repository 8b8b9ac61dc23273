"""What the interpreter cannot show: it fills masked elements with zeros, a GPU leaves whatever is in the register."""

import ast
from pathlib import Path

import pytest

KERNELS = sorted(Path(__file__).parents[3].joinpath("kernels").rglob("*.py"))


def unfilled_loads(source: str) -> list[int]:
    """Lines of masked `tl.load`s that do not say what masked elements are."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    loads = [call for call in calls if ast.unparse(call.func) == "tl.load"]
    return [
        load.lineno
        for load in loads
        if (len(load.args) > 1 or any(word.arg == "mask" for word in load.keywords))
        and not (len(load.args) > 2 or any(word.arg == "other" for word in load.keywords))
    ]


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_masked_loads_say_what_masked_elements_are(path: Path) -> None:
    assert unfilled_loads(path.read_text(encoding="utf-8")) == []


def test_a_load_without_is_found() -> None:
    source = "a = tl.load(p)\nb = tl.load(p, mask=m)\nc = tl.load(p, m)\nd = tl.load(p, mask=m, other=0.0)"
    assert unfilled_loads(source) == [2, 3]
