"""Digits and pictures as uint8 tensors on the training device, and the batches made of them."""

from data.dataset import DataError, ImageData, Split
from data.loading import DATASET_NAMES, load_data

__all__ = ["DATASET_NAMES", "DataError", "ImageData", "Split", "load_data"]
