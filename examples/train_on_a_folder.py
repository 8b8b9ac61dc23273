"""Training on a folder of images: `python examples/train_on_a_folder.py`. The images are made here, in a temp folder.

The folder holds `train/<class>/*.png` and `test/<class>/*.png`; `tidepool train --data <folder>` takes any such folder.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("horizontal", "vertical")


def make_images(folder: Path) -> None:
    """Striped images of 16x16 with noise, in class folders."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 64), ("test", 16)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                stripes = np.tile((np.arange(16) + draw.integers(4)) // 2 % 2 * 160, (16, 1))
                image = stripes.T if name == "horizontal" else stripes
                noisy = np.clip(image + draw.integers(0, 80, (16, 16)), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(folder / split / name / f"{index:03}.png")


def main(folder: Path) -> Path:
    """Make the images and train LeNet-5 on them; returns the run's folder."""
    make_images(folder / "stripes")
    run = folder / "run"
    flags = {"data": folder / "stripes", "model": "lenet5", "backend": "cudnn", "epochs": 4, "batch_size": 16}
    flags |= {"track": "off", "run_dir": run, "progress": False}
    command = [sys.executable, "-m", "tidepool", "train", *(f"--{name}={value}" for name, value in flags.items())]
    subprocess.run(command, check=True)
    return run


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
