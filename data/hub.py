"""Data sets from the Hugging Face hub, through huggingface_hub where it is installed."""

import importlib
from pathlib import Path

from data.dataset import DataError


def download(hub_id: str) -> Path:
    """Fetch the Parquet files of data set `owner/name` into the hub's own cache and return their folder.

    Raises:
        DataError: huggingface_hub is not installed, or the data set cannot be had (no network, no such id, no access).
    """
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise DataError(
            f"hub id {hub_id}: needs huggingface_hub (pip install huggingface_hub), or --data_dir with a folder that "
            "holds its Parquet files"
        ) from error
    try:
        return Path(hub.snapshot_download(hub_id, repo_type="dataset", allow_patterns="*.parquet"))
    except Exception as error:  # the hub's own errors, those of its HTTP client (which changed once) and OSError
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"hub id {hub_id}: download failed: {reason}; --data_dir takes a folder that holds its Parquet files"
        ) from error
