"""CIFAR-10: 50,000 and 10,000 colour images of 32x32 in ten classes, from a folder or from the Hugging Face hub."""

from tidepool.data.dataset import LabelledData
from tidepool.data.folders import load_folder
from tidepool.data.registry import Request, register
from tidepool.data.sets.hub import download

ON_THE_HUB = "uoft-cs/cifar10"


@register("cifar10", holds="images", reads_data_dir=True)
def cifar10(request: Request, *, image_size: int | None = None) -> LabelledData:
    """`image_size`: bring each image to so many pixels a side; 32 as they are."""
    folder = download(ON_THE_HUB) if request.data_dir is None else request.data_dir
    return load_folder(folder, request, name=request.name, image_size=image_size)
