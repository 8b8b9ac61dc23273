"""Data set names -> loaders: how a data set registers itself, and the one function that loads any of them."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tidepool.data.dataset import DataError, Holds, Kind, LabelledData, require_kind

Loader = Callable[..., LabelledData]


@dataclass(frozen=True)
class Request:
    """What every loader is asked for; its data set's own options follow as keywords."""

    name: str
    """As the caller gave it: for folders and hub ids it says which one."""
    kind: Kind
    """What the network takes."""
    data_dir: Path | None
    """Where the files are; None unless the data set is registered with `reads_data_dir`."""
    device: torch.device | str
    """Where the tensors go."""


@dataclass(frozen=True)
class _Entry:
    name: str
    load: Loader
    holds: Holds | None
    reads_data_dir: bool
    accepts: Callable[[str], bool] | None


_ENTRIES: dict[str, _Entry] = {}


def register(
    name: str,
    *,
    holds: Holds | None,
    reads_data_dir: bool = False,
    accepts: Callable[[str], bool] | None = None,
) -> Callable[[Loader], Loader]:
    """Decorator: offer `loader(request: Request, *, <options with defaults>) -> LabelledData` under `name`.

    The loader's keywords are options of this data set alone: flags of `train.py`, keywords of `load_data`. Each is
    annotated with its type and explained in the docstring as "`option`: what it does."

    `holds`: what is in it, and so which networks can train on it; None where the loader only knows when it has looked,
    and calls `require_kind` itself. `reads_data_dir`: the files are wherever `data_dir` says. `accepts`: for data sets
    without a name of their own, such as folders, whether a name that is not registered means this one; `name` is then
    how error messages call them.
    """

    def add(loader: Loader) -> Loader:
        if name in _ENTRIES:
            raise ValueError(f"data {name!r} is registered twice")
        _ENTRIES[name] = _Entry(name=name, load=loader, holds=holds, reads_data_dir=reads_data_dir, accepts=accepts)
        return loader

    return add


def available_data() -> tuple[str, ...]:
    """The names `load_data` knows, in alphabetical order, and then what else it takes: folders, hub ids."""
    return tuple(sorted(_ENTRIES, key=lambda name: (_ENTRIES[name].accepts is not None, name)))


def data_loader(name: str) -> Loader:
    """The loader that `name` means; its keyword-only parameters are the data set's options.

    Raises:
        DataError: there is no such data set.
    """
    return _entry(name).load


def load_data(
    name: str,
    *,
    kind: Kind = "image",
    data_dir: str | Path | None = None,
    device: torch.device | str = "cpu",
    **options: Any,
) -> LabelledData:
    """Load a data set whole onto `device`: pixels as uint8, audio as float32.

    `name` is a registered data set (`digits`, `cifar10`, …), a folder or a hub id `owner/name`. `kind` is what the
    network takes: images are loaded as "image"; audio as "image" (log-mel spectrograms, made on `device`) or
    "waveform"; videos as "video". `data_dir` is the folder that holds the data set's files, for data sets that have no
    fixed place. `options` are the data set's own.

    Raises:
        DataError: one line that says where, what was found and what was expected.
    """
    entry = _entry(name)
    known = inspect.signature(entry.load).parameters.values()
    options_of_it = [parameter.name for parameter in known if parameter.kind is parameter.KEYWORD_ONLY]
    for option in options:
        if option not in options_of_it:
            raise DataError(f"data {name!r} has no option {option!r}; it has: {', '.join(options_of_it) or 'none'}")
    if data_dir is not None and not entry.reads_data_dir:
        users = ", ".join(known for known in available_data() if _ENTRIES[known].reads_data_dir)
        raise DataError(f"data_dir={data_dir}: data {name!r} does not use it; it is for: {users}")
    if entry.holds is not None:
        require_kind(name, entry.holds, kind)
    request = Request(name=name, kind=kind, data_dir=None if data_dir is None else Path(data_dir), device=device)
    try:
        return entry.load(request, **options)
    except OSError as error:  # no permission, a disk that fails
        raise DataError(f"{error.filename or name}: cannot be read: {error.strerror or error}") from error


def _entry(name: str) -> _Entry:
    if name in _ENTRIES and _ENTRIES[name].accepts is None:
        return _ENTRIES[name]
    for entry in _ENTRIES.values():
        if entry.accepts is not None and entry.accepts(name):
            return entry
    raise DataError(f"unknown data {name!r}; expected {', '.join(available_data())}")
