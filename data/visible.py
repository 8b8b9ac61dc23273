"""What lies in a folder of data; hidden files are what file managers, editors and download caches left there."""

from pathlib import Path


def visible(folder: Path) -> list[Path]:
    """What lies in `folder`, in order, without what is hidden; nothing where there is no such folder."""
    return sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
