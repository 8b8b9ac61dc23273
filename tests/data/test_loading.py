"""Names, folders and hub ids: which is which, and one line for what is none of them."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from data import DataError, load_data
from tests.data.picture_files import write_parquet_folder


def _refusal(name: str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_data(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _hub(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> list[tuple[Any, ...]]:
    """Stands in for huggingface_hub, which tests must neither need nor call over the network."""
    calls: list[tuple[Any, ...]] = []

    def snapshot_download(repo_id: str, *, repo_type: str, allow_patterns: str) -> str:
        calls.append((repo_id, repo_type, allow_patterns))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    module = ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


@pytest.mark.parametrize("name", ["imagenet", "spoken_digits", "moving_digits", ""])
def test_unknown_names_list_what_exists(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _refusal(name) == f"unknown data {name!r}; expected digits, cifar10, a folder, or a hub id owner/name"


def test_a_missing_folder(tmp_path: Path) -> None:
    assert _refusal(f"{tmp_path}/nowhere").startswith(f"{tmp_path}/nowhere: no such folder; expected digits, cifar10")
    assert _refusal("cifar10", data_dir=tmp_path / "nowhere").startswith(
        f"{tmp_path}/nowhere: no such folder; expected a folder with train-*.parquet"
    )


def test_a_file_where_a_folder_was_expected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert _refusal(f"{tmp_path}/file").startswith(f"{tmp_path}/file: is a file; expected a folder with")


def test_an_empty_folder_and_one_with_other_things(tmp_path: Path) -> None:
    assert _refusal(str(tmp_path)).startswith(f"{tmp_path}: folder is empty; expected train-*.parquet")
    (tmp_path / "notes.txt").touch()
    assert _refusal(str(tmp_path)).startswith(f"{tmp_path}: folder has no data set in it; expected train-*.parquet")


def test_an_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert _refusal(str(tmp_path)) == f"{tmp_path}: cannot be read: Permission denied"


def test_the_home_of_nobody() -> None:
    expected = "~nosuchuser/x: no such user's home; expected a folder that exists"
    assert _refusal("~nosuchuser/x") == expected
    assert _refusal("cifar10", data_dir="~nosuchuser/x") == expected


def test_a_name_longer_than_the_disk_allows() -> None:
    name = "a" * 300
    assert _refusal(name).startswith(f"{name}: cannot be read: File name too long; expected digits, cifar10, a folder")
    assert _refusal("cifar10", data_dir=name).endswith("cannot be read: File name too long")


def test_cifar10_is_read_from_data_dir(tmp_path: Path) -> None:
    loaded = load_data("cifar10", data_dir=str(write_parquet_folder(tmp_path)))
    assert loaded.name == "cifar10"
    assert len(loaded.train) == 6


def test_data_dir_is_refused_where_it_would_be_ignored(tmp_path: Path) -> None:
    assert _refusal("digits", data_dir=tmp_path).startswith(f"data_dir={tmp_path}: data 'digits' does not use it")
    assert "does not use it" in _refusal(str(tmp_path), data_dir=tmp_path)


def test_cifar10_without_data_dir_comes_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _hub(monkeypatch, write_parquet_folder(tmp_path / "plain_text").parent)
    assert len(load_data("cifar10").test) == 3
    assert calls == [("uoft-cs/cifar10", "dataset", "*.parquet")]


def test_a_hub_id_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _hub(monkeypatch, write_parquet_folder(tmp_path))
    assert load_data("someone/pets").name == "someone/pets"
    assert calls[0][0] == "someone/pets"


def test_a_hub_id_with_data_dir_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _hub(monkeypatch, RuntimeError("not to be called"))
    assert load_data("someone/pets", data_dir=write_parquet_folder(tmp_path)).name == "someone/pets"
    assert calls == []


def test_without_the_hub_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = _refusal("cifar10")
    assert "pip install huggingface_hub" in message
    assert "--data_dir" in message
    assert "there is no folder someone/pets here" in _refusal("someone/pets")


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    _hub(monkeypatch, ConnectionError("no route to host\nlong advice"))
    assert _refusal("cifar10").startswith("hub id uoft-cs/cifar10: download failed: no route to host; --data_dir takes")
