from __future__ import annotations

from pathlib import Path

import pytest

from tidepool.sweeping.errors import SweepError
from tidepool.sweeping.yaml_text import load_sweep_file


def load(tmp_path: Path, text: str) -> dict[str, object]:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return load_sweep_file(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(SweepError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(tmp_path / "sweep.yaml"))
    return message.removeprefix(f"{tmp_path / 'sweep.yaml'}: ")


def test_values_that_mean_what_they_say_are_kept_in_file_order(tmp_path):
    text = "b: 1.0e-3\na: [1, -2.5, true, null, text, '1e-3', 'no', '010']\nc: 0\nd: 0x10\n"
    content = load(tmp_path, text)
    assert content == {"b": 0.001, "a": [1, -2.5, True, None, "text", "1e-3", "no", "010"], "c": 0, "d": 16}
    assert list(content) == ["b", "a", "c", "d"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1e-3", "YAML reads 1e-3 as text; write 1.0e-3 or 0.001"),
        ("3E2", "YAML reads 3E2 as text; write 3.0e+2 or 300.0"),
        ("-2.5e4", "YAML reads -2.5e4 as text; write -2.5e+4 or -25000.0"),
        ("1e-12", "YAML reads 1e-12 as text; write 1.0e-12"),
        ("no", "YAML reads no as False; write false, or 'no' in quotes for the word"),
        ("Yes", "YAML reads Yes as True; write true, or 'Yes' in quotes for the word"),
        ("010", "YAML reads 010 as octal 8; write it without the leading zero"),
        ("1:30", "YAML reads 1:30 as a number in base 60; put it in quotes"),
        ("2024-01-31", "YAML reads 2024-01-31 as a date; put it in quotes"),
        (".nan", ".nan is not a finite number, or larger than 1.8e+308"),
        ("-.inf", "-.inf is not a finite number, or larger than 1.8e+308"),
        ("1.0e+400", "1.0e+400 is not a finite number, or larger than 1.8e+308"),
        ("9" * 400, f"{'9' * 20}… (400 characters) is not a finite number, or larger than 1.8e+308"),
        ("!!float '1.0e+400'", "1.0e+400 is not a finite number, or larger than 1.8e+308"),
        ("", "is empty; expected a value (write null for None)"),
        ("''", "is empty; expected a value"),
    ],
)
def test_values_that_yaml_would_change_are_refused_with_their_key(tmp_path, text, reason):
    assert refusal(tmp_path, f"parameters:\n  opt.lr:\n    value: {text}\n") == f"parameters.opt.lr.value: {reason}"


def test_a_value_inside_a_list_is_named_by_its_place(tmp_path):
    assert refusal(tmp_path, "parameters: {lr: {values: [0.1, 1e-2]}}\n").startswith(
        "parameters.lr.values[1]: YAML reads"
    )


def test_the_numbers_proposed_are_numbers_to_yaml(tmp_path):
    for text in ("1e-3", "3E2", "-2.5e4", "+1.e5", ".5e2", "1e-12"):
        proposals = refusal(tmp_path, f"a: {text}\n").partition("write ")[2].split(" or ")
        for proposal in proposals:
            assert load(tmp_path, f"a: {proposal}\n") == {"a": float(text)}


def test_a_repeated_key_is_refused_with_both_lines(tmp_path):
    assert refusal(tmp_path, "a:\n  x: 1\n  y: 2\n  x: 3\n") == "a.x: stands twice, on lines 2 and 4"


def test_keys_that_are_not_text_are_refused(tmp_path):
    assert "reads this key (line 1) as bool, not text" in refusal(tmp_path, "on: 1\n")
    assert "reads this key (line 2) as int, not text" in refusal(tmp_path, "a:\n  7: 1\n")


def test_what_is_not_a_mapping_is_refused(tmp_path):
    assert "is empty" in refusal(tmp_path, "# nothing\n")
    assert "found a list" in refusal(tmp_path, "- a\n")
    assert "found a single value" in refusal(tmp_path, "text\n")


def test_broken_yaml_is_refused_with_its_line(tmp_path):
    assert refusal(tmp_path, "a: [1, 2\nb: 3\n").startswith("is not valid YAML (line 2")
    assert "refers to itself" in refusal(tmp_path, "a: &x [*x]\n")
    assert "is not valid YAML" in refusal(tmp_path, "a: !!python/object:os.system {}\n")


def test_what_is_nested_too_deeply_is_refused(tmp_path):
    assert "nested too deeply" in refusal(tmp_path, "a: " + "[" * 2000)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(SweepError, match="no such sweep file"):
        load_sweep_file(tmp_path / "absent.yaml")
    with pytest.raises(SweepError, match="cannot be read"):
        load_sweep_file(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SweepError, match="not UTF-8"):
        load_sweep_file(tmp_path / "binary.yaml")
