"""A layer's settings, and the text in which they pass through the dispatcher."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from tidepool.kernels import AvgPool, MaxPool
from tidepool.kernels.activations import as_activation
from tidepool.kernels.layer.arguments import parse_layer
from tidepool.kernels.layer.settings import LAYER_FIELDS, Layer, layer_from_text
from tidepool.kernels.runtime.errors import ArgumentError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_layer_is_read_back_from_its_text(rank: int) -> None:
    layer = parse_layer((3,) * rank, 1, "same", 2, 2, "gelu", AvgPool(3, 2, 1, ceil_mode=True, count_include_pad=False))
    found = layer_from_text(layer.text())
    assert isinstance(found, Layer)
    assert [getattr(found, name) for name in LAYER_FIELDS] == [getattr(layer, name) for name in LAYER_FIELDS]
    assert found == layer
    assert hash(found) == hash(layer)
    assert layer_from_text(layer.text()) is found


@pytest.mark.parametrize("name", LAYER_FIELDS)
def test_a_layer_with_one_setting_changed_is_another_and_writes_another_text(name: str) -> None:
    layer = parse_layer((3, 3), 1, 1, 1, 1, "relu", MaxPool(2))
    value = getattr(layer, name)
    other = {"activation": as_activation("silu"), "pool": "avg"}.get(name)
    if other is None:
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else (7, *value[1:])
    layer.text()  # what is written once is not taken over
    changed = replace(layer, **{name: other})
    assert changed != layer
    assert changed.text() != layer.text()
    assert getattr(layer_from_text(changed.text()), name) == other


def test_text_is_parsed_where_operators_are_registered_and_nowhere_else() -> None:
    """Inside, a layer's settings are an object: who wants them as text is `torch.library`, or a file."""
    reads, writes = set(), set()
    for file in [file for folder in ("kernels", "models") for file in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = file.relative_to(ROOT).as_posix()
            if isinstance(node, ast.Name) and node.id in ("layer_from_text", "norm_settings_from_text"):
                reads.add(name)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "text":
                writes.add(name)
    operators = {
        f"kernels/{name}.py"
        for name in ("auto/operator", "operators/conv_autograd", "operators/norm_autograd")
    }  # fmt: skip
    by_text = "kernels/operators/call.py"  # `geometry_of`, the cached entry of the gradients
    registered = {f"kernels/operators/{name}.py" for name in ("conv_implementations", "norm_operators", "flops")} | {
        by_text
    }
    itself = {"kernels/layer/settings.py", "kernels/layer/norm_settings.py"}
    assert reads == operators | registered | {"kernels/layer/norm_settings.py"}
    public, table = {"kernels/ops/conv.py"}, {"kernels/auto/plan.py"}
    assert writes == operators | itself | public | table | {by_text}


def test_a_text_that_no_layer_wrote_is_refused() -> None:
    with pytest.raises(ArgumentError, match="expected layer"):
        layer_from_text("stride=1,1")
