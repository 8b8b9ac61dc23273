"""Digits, images, audio and video as tensors on the training device, and the batches made of them."""

from tidepool.data import sets  # noqa: F401  registers the data sets
from tidepool.data.dataset import DataError, LabelledData, Split
from tidepool.data.registry import Request, available_data, data_loader, load_data, register
from tidepool.data.validation import with_validation

__all__ = [
    "DataError",
    "LabelledData",
    "Request",
    "Split",
    "available_data",
    "data_loader",
    "load_data",
    "register",
    "with_validation",
]
