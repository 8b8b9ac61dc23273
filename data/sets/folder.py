"""Any folder of images or audio: Parquet shards in the Hugging Face layout, or class folders of images."""

from pathlib import Path

from tidepool.data.dataset import DataError, LabelledData
from tidepool.data.folders import load_folder
from tidepool.data.registry import Request, available_data, register
from tidepool.data.sets.hub import HUB_ID


def is_folder(name: str) -> bool:
    """Whether `name` means a folder: it exists, or it is written as a path and is no hub id."""
    if not name:
        return False
    try:
        return Path(name).expanduser().exists() or ("/" in name and not HUB_ID.fullmatch(name))
    except RuntimeError as error:
        raise DataError(f"{name}: no such user's home; expected a folder that exists") from error
    except OSError as error:  # a name longer than the disk allows, a folder on the way without permission
        reason = error.strerror or error
        raise DataError(f"{name}: cannot be read: {reason}; expected {', '.join(available_data())}") from error


@register("a folder", holds=None, accepts=is_folder)
def folder(request: Request, *, image_size: int | None = None) -> LabelledData:
    """`image_size`: bring each image to so many pixels a side: the shorter side scaled, the middle kept. Without it
    images stay as they are and must share one size."""
    path = Path(request.name)
    if not path.expanduser().exists():
        raise DataError(f"{path}: no such folder; expected {', '.join(available_data())}")
    return load_folder(path, request, name=path.expanduser().resolve().name, image_size=image_size)
