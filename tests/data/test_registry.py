"""Names, folders and hub ids: which is which, whose option is whose, and one line for what is none of them."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.data.image_files import features, image, png, write_parquet_folder, write_shard
from tidepool.data import DataError, LabelledData, Request, available_data, load_data, register, registry
from tidepool.data.dataset import ArraySplit, assemble


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


@pytest.mark.parametrize("name", ["imagenet", "spoken digits", ""])
def test_unknown_names_list_what_exists(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _refusal(name) == (
        f"unknown data {name!r}; expected cifar10, digits, moving_digits, spoken_digits, a folder, a hub id owner/name"
    )


def test_a_missing_folder(tmp_path: Path) -> None:
    assert _refusal(f"{tmp_path}/nowhere").startswith(f"{tmp_path}/nowhere: no such folder; expected cifar10, digits")
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
    assert _refusal(name).startswith(f"{name}: cannot be read: File name too long; expected cifar10, digits")
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


def test_what_is_not_in_parquet_on_the_hub_comes_from_its_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet_folder(tmp_path / "converted" / "default")
    revisions: list[str | None] = []

    def snapshot_download(_: str, *, revision: str | None = None, **others: str) -> str:
        revisions.append(revision)
        return str(tmp_path / ("converted" if revision else "original"))

    _hub(monkeypatch, tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert len(load_data("someone/pets").train) == 6
    assert revisions == [None, "refs/convert/parquet"]


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


def test_spoken_digits_need_a_folder() -> None:
    assert _refusal("spoken_digits").startswith("data 'spoken_digits' needs --data_dir: the folder of the Free Spoken")


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("digits", "video", "data 'digits' holds images, but the model takes videos; expected a model for images"),
        ("digits", "waveform", "data 'digits' holds images, but the model takes waveforms; expected a model for"),
        ("moving_digits", "image", "data 'moving_digits' holds videos, but the model takes images or spectrograms;"),
    ],
)
def test_a_model_for_something_else(name: str, kind: str, found: str) -> None:
    assert _refusal(name, kind=kind).startswith(found)


def test_a_model_for_something_else_is_refused_before_images_are_decoded(tmp_path: Path) -> None:
    write_parquet_folder(tmp_path)
    assert "holds images, but the model takes waveforms" in _refusal(str(tmp_path), kind="waveform")
    for split in ("train", "test"):
        (tmp_path / "folders" / split / "cat").mkdir(parents=True)
    assert "holds images, but the model takes videos" in _refusal(str(tmp_path / "folders"), kind="video")


@pytest.mark.parametrize(
    ("name", "kind", "option", "has"),
    [
        ("digits", "image", {"image_size": 16}, "none"),
        ("moving_digits", "video", {"image_size": 16}, "shuffle_frames"),
        ("digits", "image", {"held_out_speaker": "theo"}, "none"),
        ("spoken_digits", "image", {"shuffle_frames": False}, "held_out_speaker"),
        ("someone/pets", "image", {"held_out_speaker": None}, "image_size"),
    ],
)
def test_an_option_of_another_data_set_lists_what_this_one_has(
    name: str, kind: str, option: dict[str, Any], has: str
) -> None:
    (field,) = option
    assert _refusal(name, kind=kind, **option) == f"data {name!r} has no option {field!r}; it has: {has}"


def test_a_data_set_registers_itself_and_a_name_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    @register("stripes", holds="images")
    def stripes(request: Request, *, shades: int = 2) -> LabelledData:
        assert (request.name, request.data_dir) == ("stripes", None)
        split = ArraySplit(np.zeros((shades, 1, 4, 4), np.uint8), np.arange(shades))
        return assemble(request.name, split, split, tuple("abcd"[:shades]), request.device)

    assert load_data("stripes", shades=3).num_classes == 3
    assert available_data()[-3] == "stripes"
    assert _refusal("stripes", shade=3) == "data 'stripes' has no option 'shade'; it has: shades"
    with pytest.raises(ValueError, match=r"^data 'digits' is registered twice$"):
        register("digits", holds="images")(stripes)


@pytest.mark.parametrize("size", [0, -1])
def test_image_sizes_below_one_are_refused(tmp_path: Path, size: int) -> None:
    expected = f"image_size={size}; expected a whole number of at least 1"
    assert _refusal(str(write_parquet_folder(tmp_path)), image_size=size) == expected


def test_images_of_mixed_sizes_are_brought_to_one(tmp_path: Path) -> None:
    for split in ("train", "test"):
        images = [png(image(0, 12, 8)), png(image(1, 8, 20))]
        write_shard(tmp_path / f"{split}.parquet", images, [0, 1], metadata=features())
    assert "expected 12x8 like" in _refusal(str(tmp_path))
    loaded = load_data(str(tmp_path), image_size=4)
    assert loaded.train.inputs.shape == (2, 3, 4, 4)
    middle = image(0, 12, 8)[2:10].astype(float).transpose(2, 0, 1)  # half the size: means of 2x2, weighted
    error = loaded.train.inputs[0].numpy() - middle.reshape(3, 4, 2, 4, 2).mean((2, 4))
    assert abs(error).mean() < 25  # another crop or image is off by 45 or more
