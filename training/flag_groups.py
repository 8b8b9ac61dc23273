"""The flags of a run in groups, as `--help` shows them: a dataclass a group, made of the fields of `Config`."""

import ast
import dataclasses
import inspect
import textwrap
import typing
from typing import Annotated, Any

import tyro

from tidepool.training.config import Config

GROUPS = {
    "data": "data data_dir augment cutout mixup cutmix",
    "network": "model model_options init_from",
    "machine": "backend dtype device channels_last cuda_graph deterministic",
    "length": "epochs max_steps eval_every patience",
    "step": "batch_size accumulate optimizer lr momentum weight_decay schedule warmup clip_norm label_smoothing ema "
    "ema_decay seed",
    "record": "run_dir resume log_every checkpoint_every checkpoint_every_steps checkpoint_every_minutes "
    "keep_checkpoints histogram_every profile progress",
    "tracking": "track project group name tags artifact",
}
"""Every field of `Config` but `options`, once."""


def flags_type(chosen: Config) -> Any:
    """A dataclass with a field for each group, and one more for the options of the data set and the network chosen."""
    hints, helps = typing.get_type_hints(Config, include_extras=True), explanations()
    defaults = {known.name: known.default for known in dataclasses.fields(Config)}
    groups = {
        title: [_flag(name, hints[name], helps[name], defaults[name]) for name in names.split()]
        for title, names in GROUPS.items()
    }
    options = chosen.known_options().values()
    groups["own"] = [
        _flag(option.name, option.kind, f"Of {option.owner}: {option.help}", option.default) for option in options
    ]
    made = []
    for title, fields in groups.items():
        group = dataclasses.make_dataclass(title.capitalize(), fields, frozen=True)
        made.append((title, group, dataclasses.field(default_factory=group)))
    return dataclasses.make_dataclass("Flags", made, frozen=True)


def _flag(name: str, kind: Any, text: str, default: Any) -> tuple[str, Any, Any]:
    return name, Annotated[kind, tyro.conf.arg(help=text)], dataclasses.field(default=default)


def explanations() -> dict[str, str]:
    """What stands below each field of `Config` in its source."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(Config))).body
    assert isinstance(made, ast.ClassDef)
    found = {}
    for field, below in zip(made.body, made.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def values_of(flags: Any) -> dict[str, Any]:
    """Every flag's value by its name, of all groups."""
    return {
        flag.name: getattr(getattr(flags, group.name), flag.name)
        for group in dataclasses.fields(flags)
        for flag in dataclasses.fields(getattr(flags, group.name))
    }
