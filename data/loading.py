"""One function from a data set's name to its tensors."""

import re
from pathlib import Path

import torch

from data.dataset import DataError, Kind, LabelledData
from data.digits import load_digits
from data.hub import download
from data.moving_digits import load_moving_digits
from data.parquet_folder import find_parquet_folder, load_parquet_folder
from data.picture_folders import load_picture_folders
from data.reading import Reading

DATASET_NAMES = ("digits", "cifar10", "spoken_digits", "moving_digits")
HUB_IDS = {"cifar10": "uoft-cs/cifar10"}
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
EXPECTED = f"expected {', '.join(DATASET_NAMES)}, a folder, or a hub id owner/name"
LAYOUTS = "train-*.parquet and test-*.parquet, or train/<class>/ and test/<class>/ with pictures"


def load_data(
    name: str,
    *,
    data_dir: str | Path | None = None,
    kind: Kind = "image",
    image_size: int | None = None,
    held_out_speaker: str | None = None,
    shuffle_frames: bool = False,
    device: torch.device | str = "cpu",
) -> LabelledData:
    """Load a data set whole onto `device`: pixels as uint8, sounds as float32.

    `name` is `digits`, `moving_digits`, `cifar10`, `spoken_digits`, a folder (Hugging Face Parquet layout with
    pictures or WAV recordings, or class folders of pictures) or a hub id `owner/name`. `data_dir` is the folder that
    holds `cifar10`, `spoken_digits` or the hub id's files; without it cifar10 and hub ids are fetched from the hub.

    `kind` is what the network takes. Pictures are had as "image"; recordings as "image" (log-mel spectrograms, made on
    `device`) or "waveform"; moving_digits as "video". `image_size` brings pictures of folders and hub ids to that many
    pixels a side. `held_out_speaker` makes test of all that one speaker said and train of the others' recordings.
    `shuffle_frames` puts each clip's frames in a random order of its own, the same at every call.

    Raises:
        DataError: one line that says where, what was found and what was expected.
    """
    reading = Reading(kind, image_size, held_out_speaker, shuffle_frames, device)
    if name in ("digits", "moving_digits"):
        _refuse_data_dir(name, data_dir)
        if name == "digits":
            reading.require(name, "pictures", ("image",))
            return load_digits(device)
        reading.require(name, "videos", ("video",), ("shuffle_frames",))
        return load_moving_digits(shuffle_frames=shuffle_frames, device=device)
    if name == "spoken_digits" and data_dir is None:
        raise DataError(
            "data 'spoken_digits' need --data_dir: the folder of the Free Spoken Digit Dataset in Hugging Face layout "
            "(train-*.parquet and test-*.parquet with audio, label and speaker)"
        )
    if name in ("cifar10", "spoken_digits"):
        return _load_folder(Path(data_dir) if data_dir is not None else download(HUB_IDS[name]), name, reading)
    if name and _exists(Path(name)):
        _refuse_data_dir(name, data_dir)
        return _load_folder(Path(name), Path(name).resolve().name, reading)
    if HUB_ID.fullmatch(name):
        try:
            return _load_folder(Path(data_dir) if data_dir is not None else download(name), name, reading)
        except DataError as error:
            if data_dir is None:
                raise DataError(f"{error} (there is no folder {name} here, so it was taken as a hub id)") from error
            raise
    if "/" in name:
        raise DataError(f"{name}: no such folder; {EXPECTED}")
    raise DataError(f"unknown data {name!r}; {EXPECTED}")


def _load_folder(folder: Path, name: str, reading: Reading) -> LabelledData:
    folder = _expanded(folder)
    try:
        return _load_existing_folder(folder, name, reading)
    except OSError as error:  # no permission, a disk that fails
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from error


def _load_existing_folder(folder: Path, name: str, reading: Reading) -> LabelledData:
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {found}; expected a folder with {LAYOUTS}")
    parquet = find_parquet_folder(folder)
    if parquet is not None:
        return load_parquet_folder(parquet, name=name, reading=reading)
    if (folder / "train").is_dir():
        return load_picture_folders(folder, name=name, reading=reading)
    state = "has no data set in it" if any(folder.iterdir()) else "is empty"
    raise DataError(f"{folder}: folder {state}; expected {LAYOUTS}")


def _expanded(folder: Path) -> Path:
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise DataError(f"{folder}: no such user's home; expected a folder that exists") from error


def _exists(folder: Path) -> bool:
    try:
        return _expanded(folder).exists()
    except OSError as error:  # a name longer than the disk allows, a folder on the way without permission
        raise DataError(f"{folder}: cannot be read: {error.strerror or error}; {EXPECTED}") from error


def _refuse_data_dir(name: str, data_dir: str | Path | None) -> None:
    if data_dir is not None:
        raise DataError(
            f"data_dir={data_dir}: data {name!r} does not use it; it is for cifar10, spoken_digits and hub ids"
        )
