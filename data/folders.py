"""A folder of images or audio -> a data set, whichever layout the folder has."""

from pathlib import Path

from tidepool.data.audio import assemble_audio
from tidepool.data.dataset import DataError, LabelledData, assemble, require_kind
from tidepool.data.image_folders import read_class_folders
from tidepool.data.parquet_folder import read_parquet_folder
from tidepool.data.parquet_shards import find_parquet_folder
from tidepool.data.registry import Request

PARQUET_LAYOUT = "train-*.parquet and test-*.parquet"
LAYOUTS = f"{PARQUET_LAYOUT}, train/0000.parquet and test/0000.parquet, or train/<class>/ and test/<class>/ with images"


def load_folder(folder: Path, request: Request, *, name: str, image_size: int | None) -> LabelledData:
    """The data set in `folder`, to be called `name`: images in class folders, or images or audio in Parquet shards.

    `image_size` brings every image to that many pixels a side (`decode_image`).

    Raises:
        DataError: no such folder, nothing of the kind in it, something else than the model takes, an `image_size` for
            audio or below 1, or a file that cannot be read.
    """
    folder = existing_folder(folder, LAYOUTS)
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size={image_size}; expected a whole number of at least 1")
    shards = find_parquet_folder(folder)
    if shards is None and not (folder / "train").is_dir():
        raise no_data_set(folder, LAYOUTS)
    parquet = None if shards is None else read_parquet_folder(shards)
    holds = "images" if parquet is None else parquet.holds
    require_kind(name, holds, request.kind)
    if parquet is not None and parquet.holds == "audio":
        if image_size is not None:
            raise DataError(f"image_size={image_size}: data {name!r} holds audio; it is for images")
        heard, test_clips, more = parquet.audio(name)
        return assemble_audio(
            name, heard, test_clips, parquet.class_names, request.device, kind=request.kind, validation=more
        )
    if parquet is not None:
        train, test, validation = parquet.images(name, image_size)
        return assemble(name, train, test, parquet.class_names, request.device, validation=validation)
    train, test, validation, class_names = read_class_folders(folder, name, image_size)
    return assemble(name, train, test, class_names, request.device, validation=validation)


def existing_folder(folder: Path, layouts: str) -> Path:
    """`folder` with `~` expanded. DataError unless it is a folder that exists."""
    try:
        folder = folder.expanduser()
    except RuntimeError as error:
        raise DataError(f"{folder}: no such user's home; expected a folder that exists") from error
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {found}; expected a folder with {layouts}")
    return folder


def no_data_set(folder: Path, layouts: str) -> DataError:
    """What to raise for a folder that holds nothing in the expected layouts."""
    state = "has no data set in it" if any(folder.iterdir()) else "is empty"
    return DataError(f"{folder}: folder {state}; expected {layouts}")
