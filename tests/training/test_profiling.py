"""`--profile` leaves a trace, of short runs as well."""

import json

import pytest


@pytest.mark.parametrize("steps", [5, 8])
def test_a_trace_of_some_steps_is_left(small, quietly, tmp_path, steps: int) -> None:
    assert quietly(small(profile=True, max_steps=steps)).exit_code == 0
    trace = json.loads((tmp_path / "run" / "media" / "trace.json").read_text())
    names = [event.get("name", "") for event in trace["traceEvents"]]
    assert names.count("aten::log_softmax") >= 2
    assert any(name.startswith("Optimizer.step") for name in names)
