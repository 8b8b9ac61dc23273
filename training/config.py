"""The settings of one training run. Each field of `Config` is a flag of `train.py` of the same name, and so is each
option that the data set and the network have of their own."""

import ast
import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from tidepool.models import available_models
from tidepool.training.options import Option, data_options, network_options

LARGEST_COUNT = 2**31 - 1

Backend = Literal["auto", "triton", "cudnn", "compile"]
Dtype = Literal["fp32", "tf32", "bf16", "fp16"]

# Fields that change where a run is kept or shown, or how often it is saved, but nothing that it computes or records:
# a run may be resumed with others. All the rest must be as the run was started.
FREE_ON_RESUME = (
    frozenset({"run_dir", "resume", "progress", "track", "project", "group", "name", "tags", "artifact", "data_dir"})
    | {"histogram_every", "profile", "keep_checkpoints"}
    | {"checkpoint_every", "checkpoint_every_steps", "checkpoint_every_minutes"}
)


class ConfigError(ValueError):
    """The settings cannot be used. The message is one line: which field, what was found, what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True)
class Config:
    """One training run. Accuracies are fractions; an epoch is one pass over the whole batches of the training split, of
    which one sample in ten is held out for validation unless the data set has a validation split of its own."""

    data: str = "digits"
    """digits, cifar10, spoken_digits (audio), moving_digits (video), a folder (Hugging Face layout with images or
    audio, or images in train/<class>/ and test/<class>/), or a hub id. Its own options are flags as well."""
    data_dir: Path | None = None
    """Folder that holds cifar10, spoken_digits or a hub id's files."""
    model: str = "lenet5"
    """mlp, lenet5, convnet, vggish, c3d, ...: a name that build_model knows. What it takes decides what audio becomes:
    log-mel spectrograms for networks on images, waveforms for networks on those. Its own options are flags as well."""
    model_options: str | None = None
    """The network's own options in one text, as width=32,depth=1; each is also a flag by itself, such as --width=32,
    so that a sweep can vary them one by one."""
    options: tyro.conf.Suppress[Mapping[str, Any]] = field(default_factory=dict)
    """Options of the data set and of the network by name, those that are given; the others have their defaults."""
    backend: Backend = "auto"
    """What runs conv + bias + ReLU + pool: this project's triton kernels, cudnn (PyTorch's own), compile (the whole
    network on PyTorch's own under torch.compile), or auto."""
    dtype: Dtype = "fp32"
    """fp32 (IEEE, TF32 switched off), tf32 (needs a CUDA GPU), or autocast to bf16 or fp16."""
    epochs: int = 8
    """Epochs to train."""
    max_steps: int | None = None
    """Stop after so many optimizer steps if that is sooner; the learning-rate schedule ends there too."""
    batch_size: int = 64
    """Samples a step."""
    accumulate: int = 1
    """Parts that each batch is divided into, one after another, gradients added up: the same step in less memory, but
    that batch statistics are those of a part."""
    lr: float = 0.03
    """Learning rate: the highest one, after the warm-up."""
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    """SGD with Nesterov momentum, AdamW, or Muon for the weights within the network (filters as matrices) and AdamW for
    the classifier and vectors."""
    momentum: float = 0.9
    """SGD's and Muon's momentum, AdamW's beta1."""
    weight_decay: float = 5e-4
    """Of weights with two or more dimensions; biases and normalisation are left alone."""
    schedule: Literal["onecycle", "cosine", "step", "constant"] = "onecycle"
    """Learning rate over the run: up and down along cosines (torch's OneCycleLR); or after the warm-up down along a
    cosine, to a tenth at a half and at three quarters of the steps, or constant."""
    warmup: float = 0.25
    """Fraction of the steps in which the learning rate rises from 1/25 of --lr."""
    clip_norm: float | None = None
    """Gradients are scaled down to this Euclidean norm of them all where it is larger."""
    ema: bool = False
    """Evaluate and save an exponential moving average of the weights; training goes on from the weights themselves."""
    ema_decay: float = 0.999
    """How much of that average stays at each step, once there have been enough."""
    label_smoothing: float = 0.0
    """Share of each target spread evenly over all classes."""
    augment: bool = False
    """Random changes of training inputs that keep the label right: images are shifted by up to an eighth, and
    mirrored where they have colour; audio is shifted in time; videos are shifted, all frames alike, never
    mirrored."""
    cutout: int | None = None
    """Side in positions of a square that is blanked in each training input, at a random place."""
    mixup: float = 0.0
    """alpha of the Beta distribution that mixes each training input with another, labels alike; 0 is off."""
    cutmix: float = 0.0
    """The same for a rectangle of the input, whose share is the label's. With both, either at each step."""
    seed: int = 0
    """Decides weights, order of the data and augmentation, on every backend alike; never which samples validate or
    test."""
    deterministic: bool = False
    """Refuse algorithms that may give another result on the next run (slower on a GPU)."""
    eval_every: int = 1
    """Epochs between evaluations on the validation split; there is always one at the end."""
    patience: int | None = None
    """Stop early after so many evaluations in which the validation accuracy did not rise."""
    log_every: int = 10
    """Steps between rows of metrics.jsonl after the first hundred, which are all recorded."""
    checkpoint_every: int = 1
    """Epochs between checkpoints; there is always one at the end and when the run is interrupted."""
    checkpoint_every_steps: int | None = None
    """Save a checkpoint every so many steps as well."""
    checkpoint_every_minutes: float | None = None
    """Save a checkpoint every so many minutes as well."""
    keep_checkpoints: int = 2
    """How many of the latest checkpoints are kept, beside the best one."""
    device: Literal["auto", "cpu", "cuda", "sm_80", "sm_90"] = "auto"
    """auto is the GPU if there is one; on sm_80 and sm_90 backend triton's kernels are compiled, and run simulated."""
    channels_last: bool = False
    """Keep images and videos, and the filters on them, with the channels innermost in memory (NHWC)."""
    cuda_graph: bool = False
    """Replay the forward and the backward pass of the step as CUDA graphs (needs a CUDA GPU)."""
    init_from: Path | None = None
    """Start from the weights of a checkpoint: of train.py, torchvision's or safetensors. A classifier of another number
    of classes starts afresh."""
    track: Literal["offline", "online", "off"] = "offline"
    """Weights & Biases: on this disk only, on its server, or not at all. A run that a W&B agent starts goes online."""
    project: str | None = None
    """W&B project; by default WANDB_PROJECT from the environment, else tidepool."""
    group: str | None = None
    """Name that runs to be compared have in common."""
    tags: str | None = None
    """W&B's tags of the run, separated by commas, besides its data, model and backend."""
    artifact: bool = False
    """Keep best.pt in W&B as an artifact when the run is trained."""
    histogram_every: int | None = None
    """Steps between histograms of weights and gradients (media/histograms.jsonl, and W&B)."""
    profile: bool = False
    """Write a trace of five steps by torch.profiler (media/trace.json)."""
    name: str | None = None
    """Display name; by default the name of the run folder."""
    run_dir: Path | None = None
    """Folder for the run's records; by default a new one under runs/."""
    resume: str = "auto"
    """auto resumes the unfinished run in --run_dir, never refuses a used one; or a path: run or checkpoint."""
    progress: bool = True
    """Progress bar on a terminal; otherwise one line an epoch."""

    def validate(self) -> None:
        """Check every field's type and range.

        Raises:
            ConfigError: names the first field that is wrong, its value and what was expected.
        """
        hints = typing.get_type_hints(Config)
        for known in dataclasses.fields(self):
            _check_type(known.name, getattr(self, known.name), hints[known.name])
        for name in ("data", "model", "model_options", "project", "group", "tags", "name", "resume"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ConfigError(f"{name}={value!r}; expected some text")
        self._check_options()
        for name in (
            "epochs", "max_steps", "batch_size", "accumulate", "cutout", "eval_every", "log_every", "checkpoint_every",
            "checkpoint_every_steps", "keep_checkpoints", "patience", "histogram_every",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}; expected a whole number of at least 1")
            if value is not None and value > LARGEST_COUNT:
                raise ConfigError(f"{name}={value}; expected a whole number of at most {LARGEST_COUNT}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed}; expected a whole number from 0 to 2**63 - 1")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"lr={self.lr}; expected a finite number above 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigError(f"weight_decay={self.weight_decay}; expected a finite number of at least 0")
        for name in ("checkpoint_every_minutes", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}={value}; expected a finite number above 0")
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name}={value}; expected a finite number of at least 0")
        if self.accumulate > self.batch_size:
            raise ConfigError(f"accumulate={self.accumulate}; expected at most batch_size, which is {self.batch_size}")
        for name in ("momentum", "warmup", "label_smoothing", "ema_decay"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"{name}={value}; expected a number from 0 to below 1")

    def known_options(self) -> dict[str, Option]:
        """The options that this data set and this network have.

        Raises:
            DataError: there is no such data set.
            ConfigError: there is no such network, or one name means two things.
        """
        if self.model not in available_models():
            raise ConfigError(f"model={self.model!r}; expected one of: {', '.join(available_models())}")
        of_data, of_network = data_options(self.data), network_options(self.model)
        fields = {known.name for known in dataclasses.fields(Config)}
        for name in sorted(of_data.keys() & (of_network.keys() | fields) | of_network.keys() & fields):
            raise ConfigError(
                f"{name}: more than one of data {self.data!r}, model {self.model!r} and train.py calls an option so; "
                "expected a name of its own for each"
            )
        return of_data | of_network

    def options_text(self) -> str:
        """What options there are, for a message about one that there is not."""
        of_data, of_network = (", ".join(known(of)) or "none" for known, of in (
            (data_options, self.data), (network_options, self.model),
        ))  # fmt: skip
        return f"data {self.data!r} has the options: {of_data}; model {self.model!r}: {of_network}"

    def data_options(self) -> dict[str, Any]:
        """Those `options` that are the data set's."""
        known = data_options(self.data)
        return {name: value for name, value in self.options.items() if name in known}

    def network_options(self) -> dict[str, Any]:
        """Those `options` that are the network's, and what `model_options` says.

        Raises:
            ConfigError: `model_options` does not read as it should, or names an option that has its flag too.
        """
        options, known = parse_model_options(self.model_options), network_options(self.model)
        for name, value in self.options.items():
            if name in options:
                raise ConfigError(f"{name}={value!r} and model_options={self.model_options!r}; expected {name} once")
        for name in options:
            if name not in known:
                has = ", ".join(known) or "none"
                raise ConfigError(
                    f"model_options={self.model_options!r}: {self.model} has no option {name!r}; it has: {has}"
                )
        return options | {name: value for name, value in self.options.items() if name in known}

    def _check_options(self) -> None:
        known = self.known_options()
        for name, value in self.options.items():
            if name not in known:
                raise ConfigError(f"{name}={value!r}: no such option; {self.options_text()}")
            _check_type(name, value, known[name].kind)
        self.network_options()

    def as_record(self) -> dict[str, Any]:
        """The fields and the options given, side by side, as plain JSON values; without `schema_version`."""
        fields = {known.name: getattr(self, known.name) for known in dataclasses.fields(self)}
        options = fields.pop("options")
        return {name: _plain(value) for name, value in (fields | options).items()}

    def differences(self, record: dict[str, Any]) -> list[str]:
        """What of `record` has to be as asked for for the run to be resumed, and is not: `name: recorded, asked`."""
        # What the record lacks had its default: a field that is newer than the record, or an option not given.
        defaults = {name: _plain(option.default) for name, option in self.known_options().items()}
        recorded = {name: value for name, value in record.items() if name not in defaults or value is not None}
        there = Config().as_record() | defaults | recorded
        return [
            f"{name}: {there[name]!r} there, {value!r} asked"
            for name, value in (defaults | self.as_record()).items()
            if name not in FREE_ON_RESUME and there[name] != value
        ]


def parse_model_options(text: str | None) -> dict[str, Any]:
    """`width=32, hidden=(64, 32)` -> the options by name; the values are Python's numbers, tuples, strings and so on.

    Raises:
        ConfigError: it does not read like that, or names an option twice.
    """
    try:
        call = ast.parse(f"options({text or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        pairs = [(str(keyword.arg), ast.literal_eval(keyword.value)) for keyword in call.keywords if keyword.arg]
        options = dict(pairs)
        if len(options) != len(call.keywords):
            raise ValueError
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ConfigError(f"model_options={text!r}; expected each option once, as width=32,depth=1") from error
    return options


def _plain(value: Any) -> Any:
    """`value` as JSON holds it; a path is its text."""
    return json.loads(json.dumps(value, default=str))


def _check_type(name: str, value: Any, hint: Any) -> None:
    """ConfigError unless `value` is of the annotated type; a whole number passes for a float."""
    hint = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{name}={value!r}; expected one of: {', '.join(typing.get_args(hint))}")
        return
    alternatives = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    allowed = tuple(typing.get_origin(kind) or kind for kind in alternatives)
    if isinstance(value, bool):
        right = bool in allowed
    elif isinstance(value, int):
        right = int in allowed or float in allowed
    else:
        right = isinstance(value, allowed)
    if not right:
        expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in allowed)
        raise ConfigError(f"{name}={value!r}; expected {expected}")
