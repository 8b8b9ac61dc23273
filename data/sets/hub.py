"""Data sets from the Hugging Face hub by their id, `owner/name`, through huggingface_hub where it is installed."""

import importlib
import re
from functools import partial
from pathlib import Path

from tidepool.data.dataset import DataError, LabelledData
from tidepool.data.folders import load_folder
from tidepool.data.registry import Request, register

CONVERTED = "refs/convert/parquet"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether `name` means a data set of the hub: it is written like one, and no folder here is called that."""
    return HUB_ID.fullmatch(name) is not None and not Path(name).exists()


@register("a hub id owner/name", holds=None, reads_data_dir=True, accepts=is_hub_id)
def hub(request: Request, *, image_size: int | None = None) -> LabelledData:
    """`image_size`: bring each image to so many pixels a side: the shorter side scaled, the middle kept. Without it
    images stay as they are and must share one size."""
    if request.data_dir is not None:
        return load_folder(request.data_dir, request, name=request.name, image_size=image_size)
    try:
        folder = download(request.name)
    except DataError as error:
        raise DataError(f"{error} (there is no folder {request.name} here, so it was taken as a hub id)") from error
    return load_folder(folder, request, name=request.name, image_size=image_size)


def download(hub_id: str) -> Path:
    """Fetch the Parquet files of data set `owner/name` into the hub's own cache and return their folder.

    Where it has none, those of the hub's conversion are fetched.

    Raises:
        DataError: huggingface_hub is not installed, or the download fails (no network, no such id, no access).
    """
    try:
        hub_library = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise DataError(
            f"hub id {hub_id}: needs huggingface_hub (pip install huggingface_hub), or --data_dir with a folder that "
            "holds its Parquet files"
        ) from error
    download_files = partial(hub_library.snapshot_download, hub_id, repo_type="dataset", allow_patterns="*.parquet")
    try:
        folder = Path(download_files())
        if not any(folder.rglob("*.parquet")):  # in another format, of which the hub keeps a conversion to Parquet
            folder = Path(download_files(revision=CONVERTED))
        return folder
    except Exception as error:  # the hub's own errors, those of its HTTP client (which changed once) and OSError
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"hub id {hub_id}: download failed: {reason}; --data_dir takes a folder that holds its Parquet files"
        ) from error
