"""Tables of plans: what is read, what is refused, how they are written, and that ranks agree."""

import ast
import dataclasses
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tidepool.kernels.auto import table as plan_table
from tidepool.kernels.auto.plan import EAGER, LayerPlan
from tidepool.kernels.auto.table import (
    Entry,
    Machine,
    Problem,
    TableError,
    find,
    forget,
    kernel_sources,
    kernels_hash,
    key_of,
    machine_of,
    make_entry,
    read_table,
    table_name,
    user_folder,
    with_entry,
    write_table,
)

MACHINE = Machine("Test GPU 9000", 99, "2.13.0", "3.7.1", "0123456789ab")
PROBLEM = Problem("conv_relu_pool", "stride=1", (2, 3, 8, 8), (4, 3, 3, 3), True, "bfloat16", "channels_last")


def entry(machine: Machine = MACHINE, problem: Problem = PROBLEM, plan: LayerPlan = EAGER) -> Entry:
    return make_entry(machine, problem, plan.to_json(), [{"pass": "train", "way": "eager", "median": 1.0}])


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's tables in a fresh folder, the shipped ones in another."""
    monkeypatch.setenv(plan_table.ENVIRONMENT_VARIABLE, str(tmp_path / "own"))
    monkeypatch.setattr(plan_table, "SHIPPED", tmp_path / "shipped")
    forget()
    plan_table.warn_once.cache_clear()
    yield tmp_path
    forget()


def own(folder: Path) -> Path:
    return folder / "own" / table_name(MACHINE.gpu)


def test_a_table_comes_back_as_it_was_written_and_nothing_stays_beside_it(folders: Path) -> None:
    write_table(own(folders), [entry()])
    (read,) = read_table(own(folders))
    assert read == entry()
    assert key_of(read) == (MACHINE, PROBLEM)
    assert [path.name for path in own(folders).parent.iterdir()] == ["test_gpu_9000.json"]
    assert read_table(folders / "no such table.json") == []


def test_a_write_that_fails_leaves_the_old_table(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(own(folders), [entry()])

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_table(own(folders), [])
    assert read_table(own(folders)) == [entry()]
    assert len([*own(folders).parent.iterdir()]) == 1


def test_an_entry_takes_the_place_of_the_one_for_the_same_machine_and_problem() -> None:
    other = dataclasses.replace(PROBLEM, dtype="float16")
    table = with_entry([entry(), entry(problem=other)], entry(plan=LayerPlan()))
    assert [key_of(e)[1].dtype for e in table] == ["float16", "bfloat16"]
    assert table[1]["plan"] == LayerPlan().to_json()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "cannot be read as JSON"),
        ("[]", "expected one JSON object, found a list"),
        ('{"schema_version": 2, "entries": []}', "schema_version 2, expected 1"),
        ('{"schema_version": 1, "entries": {}}', "a list of entries, found dict"),
        ('{"schema_version": 1, "entries": [7]}', "entry 0: expected an object with machine"),
        (json.dumps({"schema_version": 1, "entries": [{**entry(), "machine": {}}]}), "machine to have the fields"),
        (json.dumps({"schema_version": 1, "entries": [{**entry(), "plan": []}]}), "plan to be an object"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line_and_ignored_with_one_warning(
    content: str, message: str, folders: Path
) -> None:
    own(folders).parent.mkdir()
    own(folders).write_text(content)
    with pytest.raises(TableError, match=r"test_gpu_9000\.json") as refusal:
        read_table(own(folders))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    with pytest.warns(RuntimeWarning, match="the table is ignored"):
        assert find(MACHINE, PROBLEM) == (None, False)
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find(MACHINE, PROBLEM) == (None, False)


def test_exact_entries_come_first_the_users_before_the_shipped_and_stale_ones_last(folders: Path) -> None:
    older = dataclasses.replace(MACHINE, triton="3.6.0")
    write_table(folders / "shipped" / table_name(MACHINE.gpu), [entry()])
    write_table(own(folders), [entry(older, plan=LayerPlan())])
    assert find(MACHINE, PROBLEM) == (entry(), True)
    newer = dataclasses.replace(MACHINE, kernels="ba9876543210")
    assert find(newer, PROBLEM) == (entry(older, plan=LayerPlan()), False)
    write_table(own(folders), [entry(plan=LayerPlan())])
    assert find(MACHINE, PROBLEM) == (entry(), True)  # read once, until told to forget
    forget()
    assert find(MACHINE, PROBLEM) == (entry(plan=LayerPlan()), True)


def test_another_gpu_layer_or_size_finds_nothing(folders: Path) -> None:
    write_table(own(folders), [entry()])
    assert find(dataclasses.replace(MACHINE, multiprocessors=98), PROBLEM) == (None, False)
    assert find(dataclasses.replace(MACHINE, gpu="Test GPU"), PROBLEM) == (None, False)
    for change in ({"x": (3, 3, 8, 8)}, {"dtype": "float16"}, {"memory_format": "contiguous"}, {"bias": False}):
        assert find(MACHINE, dataclasses.replace(PROBLEM, **change)) == (None, False)


def test_where_tables_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "own"
    monkeypatch.delenv(plan_table.ENVIRONMENT_VARIABLE)
    assert user_folder() == tmp_path / "tidepool"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_folder() == tmp_path / ".cache" / "tidepool"
    assert table_name("NVIDIA H100 80GB HBM3") == "nvidia_h100_80gb_hbm3.json"


def test_a_machine_is_described_by_what_times_depend_on() -> None:
    machine = machine_of(torch.device("cpu"))
    assert (machine.gpu, machine.multiprocessors, machine.torch) == ("cpu", 1, torch.__version__)
    assert machine.kernels == kernels_hash()
    assert len(kernels_hash()) == 12


def test_the_hash_covers_all_that_kernels_import_of_this_package() -> None:
    kernels = Path(plan_table.__file__).resolve().parents[1]
    met, left = set(), sorted((kernels / "conv").glob("*.py"))
    while left:
        file = left.pop()
        met.add(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tidepool.kernels."):
                parts = str(node.module).split(".")[2:]
                for path in (kernels.joinpath(*parts, "__init__"), kernels.joinpath(*parts)):
                    found = path.with_suffix(".py")
                    left += [found] if found.exists() and found not in met else []
    assert kernels / "device" / "windows.py" in met
    hashed = {path.resolve() for path in kernel_sources()}
    assert met <= hashed
    assert {path.name for path in hashed if not path.is_relative_to(kernels)} == {"targets.py"}


class _Ranks:
    """A job of two ranks: one store, and which rank is asking."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store = torch.distributed.HashStore()
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
        monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: store)
        monkeypatch.setattr(plan_table, "_generation", 10**6)


def test_ranks_with_the_same_tables_go_on_and_with_others_are_told(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Ranks(monkeypatch)
    write_table(own(folders), [entry()])
    assert find(MACHINE, PROBLEM) == (entry(), True)
    plan_table._loaded.cache_clear()  # the next rank, same files
    assert find(MACHINE, PROBLEM) == (entry(), True)
    plan_table._loaded.cache_clear()
    write_table(own(folders), [entry(plan=LayerPlan())])
    with pytest.raises(RuntimeError, match="would run differently on rank 1") as refusal:
        find(MACHINE, PROBLEM)
    assert "same tuning tables" in str(refusal.value)
