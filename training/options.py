"""The options that a data set or a network has of its own: read off the function that it registered."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tidepool.data import data_loader
from tidepool.models import model_builder

_EXPLAINED = re.compile(r"((?:`\w+`, )*`\w+`): ")


@dataclass(frozen=True)
class Option:
    """One keyword of a loader or builder."""

    name: str
    owner: str
    """The data set or network that has it."""
    kind: Any
    """Its annotation."""
    default: Any
    help: str


def data_options(name: str) -> dict[str, Option]:
    """The options of data set `name`. DataError for an unknown name."""
    return _options(name, data_loader(name))


def network_options(name: str) -> dict[str, Option]:
    """The options of network `name`. ValueError for an unknown name."""
    return _options(name, model_builder(name))


def _options(owner: str, function: Callable[..., Any]) -> dict[str, Option]:
    written = function.func if isinstance(function, partial) else function
    help_of = _explanations(inspect.getdoc(written) or "")
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return {
        parameter.name: Option(
            name=parameter.name,
            owner=owner,
            kind=parameter.annotation,
            default=parameter.default,
            help=help_of.get(parameter.name, ""),
        )
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def _explanations(docstring: str) -> dict[str, str]:
    """What stands behind "`name`: " in a docstring, up to the next such name."""
    _, *pieces = _EXPLAINED.split(" ".join(docstring.split()))
    return {
        name: text.strip()
        for names, text in zip(pieces[::2], pieces[1::2], strict=True)
        for name in re.findall(r"\w+", names)
    }
