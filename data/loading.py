"""One function from a data set's name to its tensors."""

import re
from pathlib import Path

import torch

from data.dataset import DataError, ImageData
from data.digits import load_digits
from data.hub import download
from data.parquet_folder import find_parquet_folder, load_parquet_folder
from data.picture_folders import load_picture_folders

DATASET_NAMES = ("digits", "cifar10")
HUB_IDS = {"cifar10": "uoft-cs/cifar10"}
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
EXPECTED = f"expected {', '.join(DATASET_NAMES)}, a folder, or a hub id owner/name"
LAYOUTS = "train-*.parquet and test-*.parquet, or train/<class>/ and test/<class>/ with pictures"


def load_data(name: str, *, data_dir: str | Path | None = None, device: torch.device | str = "cpu") -> ImageData:
    """Load a data set whole onto `device`, as uint8.

    `name` is `digits`, `cifar10`, a folder (Hugging Face Parquet layout, or class folders of pictures) or a hub id
    `owner/name`. `data_dir` is the folder that holds `cifar10` or the hub id's files; without it they are fetched
    from the hub.

    Raises:
        DataError: one line that says where, what was found and what was expected.
    """
    if name == "digits":
        _refuse_data_dir(name, data_dir)
        return load_digits(device)
    if name in HUB_IDS:
        return _load_folder(Path(data_dir) if data_dir is not None else download(HUB_IDS[name]), name, device)
    if name and _exists(Path(name)):
        _refuse_data_dir(name, data_dir)
        return _load_folder(Path(name), Path(name).resolve().name, device)
    if HUB_ID.fullmatch(name):
        try:
            return _load_folder(Path(data_dir) if data_dir is not None else download(name), name, device)
        except DataError as error:
            if data_dir is None:
                raise DataError(f"{error} (there is no folder {name} here, so it was taken as a hub id)") from error
            raise
    if "/" in name:
        raise DataError(f"{name}: no such folder; {EXPECTED}")
    raise DataError(f"unknown data {name!r}; {EXPECTED}")


def _load_folder(folder: Path, name: str, device: torch.device | str) -> ImageData:
    folder = _expanded(folder)
    try:
        return _load_existing_folder(folder, name, device)
    except OSError as error:  # no permission, a disk that fails
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from error


def _load_existing_folder(folder: Path, name: str, device: torch.device | str) -> ImageData:
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {found}; expected a folder with {LAYOUTS}")
    parquet = find_parquet_folder(folder)
    if parquet is not None:
        return load_parquet_folder(parquet, name=name, device=device)
    if (folder / "train").is_dir():
        return load_picture_folders(folder, name=name, device=device)
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
        raise DataError(f"data_dir={data_dir}: data {name!r} does not use it; it is for cifar10 and hub ids")
