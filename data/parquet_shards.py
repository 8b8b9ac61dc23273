"""Which Parquet files make up the splits of a folder, found by their names and checked as a set.

| where it comes from | names |
|---|---|
| data sets of the hub | `train-00000-of-00002.parquet`, also with a fingerprint: `train-00000-of-00002-6f33.parquet` |
| the hub's conversions of other data sets | `train/0000.parquet`, `train/0001.parquet` |
| one's own | `train.parquet`, or `train-0.parquet`, `train-1.parquet` |

The files lie in the folder that is given or in one of its folders: `data/`, or one named after a configuration of the
data set, such as `default/`.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tidepool.data.dataset import VALIDATION_NAMES, DataError
from tidepool.data.visible import visible

SPLITS = ("train", "test")
SUFFIX = ".parquet"
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<index>\d+)(?:-of-(?P<count>\d+)(?:[-_.].*)?)?")


@dataclass(frozen=True)
class Shard:
    """A file and what its name says of it. Shards of one set have `group` and `count` in common."""

    path: Path
    group: str
    index: int | None = None
    count: int | None = None


def find_parquet_folder(folder: Path) -> Path | None:
    """Where under `folder` the shards lie: in it, or in its data/, or in its only folder that holds any; None without
    shards.

    Raises:
        DataError: several folders hold shards, so that it is not clear which one is meant.
    """
    below = [place for place in visible(folder) if place.is_dir() and not _is_split(place)]
    holding = [place for place in (folder, *below) if _holds_shards(place)]
    if not holding and not (folder / "train").is_dir():
        holding = [place for place in (folder, *below) if _parquet_files(place)]  # an error will list what is there
    if folder in holding or folder / "data" in holding:
        return folder if folder in holding else folder / "data"
    if len(holding) > 1:
        names = ", ".join(place.name for place in holding)
        raise DataError(f"{folder}: several data sets in one folder ({names}); give the one that is meant")
    return holding[0] if holding else None


def shards_of(folder: Path, split: str) -> list[Path]:
    """The shards of `split` in `folder`, in the order of their numbers.

    Raises:
        DataError: there are none, or only a part of the split; one is missing, or there twice, or of another set.
    """
    shards = _shards(folder, split)
    if not shards:
        raise _missing_split(folder, split)
    _require_one_set(folder, split, shards)
    numbers = {shard.index for shard in shards if shard.index is not None}
    count = shards[0].count
    start = 0 if count is not None or shards[0].path.stem.isdecimal() else min(numbers, default=0)
    for number in range(start, max(numbers, default=-1) + 1 if count is None else count):
        if number not in numbers:
            missing = _name_of(shards[0], number)
            raise DataError(f"{shards[0].path.parent}: expected {missing}; that shard is missing")
    return [shard.path for shard in shards]


def validation_shards_of(folder: Path) -> list[Path]:
    """The shards of the validation split that the data set has of its own, under whichever of its names; none without.

    Raises:
        DataError: as `shards_of`.
    """
    name = next((name for name in VALIDATION_NAMES if _shards(folder, name)), None)
    return [] if name is None else shards_of(folder, name)


def _require_one_set(folder: Path, split: str, shards: list[Shard]) -> None:
    """DataError if the shards are of several sets, or one of them is there twice or past their count."""
    counts = sorted({shard.count for shard in shards if shard.count is not None})
    if len(counts) > 1:
        raise DataError(f"{folder}: {split} shards disagree on how many there are: {counts}; expected one count")
    first = shards[0]
    for shard in shards:
        if (shard.group, shard.count) != (first.group, first.count):
            both = _names([first, shard], folder)
            raise DataError(f"{folder}: {both} belong to different sets; expected the shards of one {split} split")
    for index, times in Counter(shard.index for shard in shards).items():
        if times > 1:
            same = _names([shard for shard in shards if shard.index == index], folder)
            raise DataError(f"{folder}: {same} are one shard of {split}, {times} times; expected it once")
        if index is not None and first.count is not None and index >= first.count:
            past = _names([shard for shard in shards if shard.index == index], folder)
            raise DataError(f"{folder}: {past} is past the count; expected shards 0..{first.count - 1}")


def _names(shards: list[Shard], folder: Path) -> str:
    return " and ".join(str(shard.path.relative_to(folder)) for shard in shards)


def _name_of(like: Shard, index: int) -> str:
    """What shard `index` is called in the set that `like` is of; without a fingerprint, which is not known."""
    match = _NUMBERED.fullmatch(like.path.stem)
    assert match is not None
    count = "" if match["count"] is None else f"-of-{match['count']}"
    return f"{match['before']}{index:0{len(match['index'])}d}{count}{SUFFIX}"


def _missing_split(folder: Path, split: str) -> DataError:
    part = _part(folder, split)
    if part is not None:
        return DataError(
            f"{part}: holds the first part of {split}, which is all that the hub converted; expected the whole split "
            f"in {folder / split}, or the part there if that is meant"
        )
    converted = any(_shards(folder, other) and (folder / other).is_dir() for other in SPLITS)
    expected = f"{split}/0000{SUFFIX}" if converted else f"{split}-00000-of-00001{SUFFIX}"
    places = [folder, *(place for place in visible(folder) if place.is_dir())]
    present = [str(path.relative_to(folder)) for place in places for path in _parquet_files(place)]
    return DataError(f"{folder}: no {split} split; expected {expected}, found {', '.join(present)}")


def _shards(folder: Path, split: str) -> list[Shard]:
    """The files of `folder`, and of its folder `split`, whose names are those of the split's shards, in order."""
    of_split = re.compile(rf"{split}(?:[-_.].*)?")
    beside = [_shard(path, "") for path in _parquet_files(folder) if of_split.fullmatch(path.stem)]
    files = _parquet_files(folder / split)
    inside = [path for path in files if path.stem.isdecimal() or of_split.fullmatch(path.stem)]
    shards = [*beside, *(_shard(path, f"{split}/") for path in inside)]
    return sorted(shards, key=lambda shard: (shard.group, shard.index or 0, shard.path))


def _shard(path: Path, place: str) -> Shard:
    match = _NUMBERED.fullmatch(path.stem)
    if match is None:
        return Shard(path, f"{place}{path.stem}")
    count = match["count"]
    return Shard(path, f"{place}{match['before']}", int(match["index"]), None if count is None else int(count))


def _part(folder: Path, split: str) -> Path | None:
    """The folder in which the hub puts what it converts of a split that is too large for it."""
    part = folder / f"partial-{split}"
    return part if _parquet_files(part) else None


def _holds_shards(place: Path) -> bool:
    return any(_shards(place, split) or _part(place, split) is not None for split in SPLITS)


def _is_split(place: Path) -> bool:
    return place.name.removeprefix("partial-") in (*SPLITS, *VALIDATION_NAMES)


def _parquet_files(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.suffix.lower() == SUFFIX and not path.is_dir()]
