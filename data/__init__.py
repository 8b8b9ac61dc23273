"""Digits, pictures, recordings and videos as tensors on the training device, and the batches made of them."""

from data.dataset import DataError, LabelledData, Split
from data.loading import DATASET_NAMES, load_data

__all__ = ["DATASET_NAMES", "DataError", "LabelledData", "Split", "load_data"]
