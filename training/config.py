"""The settings of one training run. Each field of `Config` is a flag of `train.py` of the same name."""

import ast
import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SCHEMA_VERSION = 1
LARGEST_COUNT = 2**31 - 1

Backend = Literal["auto", "triton", "cudnn", "compile"]
Dtype = Literal["fp32", "tf32", "bf16", "fp16"]

# Fields that change where a run is kept or shown, or how often it is saved, but nothing that it computes or records:
# a run may be resumed with others. All the rest must be as the run was started.
FREE_ON_RESUME = frozenset(
    {"run_dir", "resume", "progress", "track", "project", "group", "name", "data_dir", "checkpoint_every"}
)


OPTION_FLAGS = ("width", "depth", "kernel_size", "skips")
"""Options of networks that have a flag each."""


class ConfigError(ValueError):
    """The settings cannot be used. The message is one line: which field, what was found, what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True)
class Config:
    """One training run. Accuracies are fractions; an epoch is one pass over the whole batches of the training split."""

    data: str = "digits"
    """digits, cifar10, spoken_digits (recordings), moving_digits (videos), a folder (Hugging Face layout with pictures
    or WAV recordings, or pictures in train/<class>/ and test/<class>/), or a hub id."""
    data_dir: Path | None = None
    """Folder that holds cifar10, spoken_digits or a hub id's files."""
    image_size: int | None = None
    """Bring each picture of a folder or hub id to so many pixels a side: the shorter side scaled, the middle kept. By
    default pictures stay as they are and must share one size."""
    held_out_speaker: str | None = None
    """Of recordings: test on all that this speaker said, in either split, and train on all the others said."""
    shuffle_frames: bool = False
    """Of moving_digits: put each clip's frames, in train and test, in a random order of its own that --seed does not
    change. A control: what the order of frames tells is gone, what each frame shows is left."""
    model: str = "lenet5"
    """mlp, lenet5, convnet, vggish, c3d, ...: a name that models.build_model knows. What it takes decides what
    recordings become: log-mel spectrograms for networks on pictures, waveforms for networks on those."""
    model_options: str | None = None
    """The network's own options, as width=32,depth=1; by default the network's defaults."""
    width: int | None = None
    """The network's option of this name by a flag of its own, so that a sweep can vary each apart. depth, kernel_size
    and skips likewise."""
    depth: int | None = None
    """See --width."""
    kernel_size: int | None = None
    """See --width."""
    skips: bool | None = None
    """See --width."""
    backend: Backend = "auto"
    """What runs conv + bias + ReLU + pool: this project's triton kernels, cudnn (PyTorch's own), compile, or auto."""
    dtype: Dtype = "fp32"
    """fp32 (IEEE, TF32 switched off), tf32 (needs a CUDA GPU), or autocast to bf16 or fp16."""
    epochs: int = 8
    """Epochs to train."""
    max_steps: int | None = None
    """Stop after so many optimizer steps if that is sooner; the learning-rate schedule ends there too."""
    batch_size: int = 64
    """Samples a step."""
    lr: float = 0.03
    """Learning rate: the peak of onecycle, or the constant."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW."""
    momentum: float = 0.9
    """SGD's momentum, AdamW's beta1."""
    weight_decay: float = 5e-4
    """Of weights with two or more dimensions; biases and normalisation are left alone."""
    schedule: Literal["onecycle", "constant"] = "onecycle"
    """Learning rate over the run: up and down along cosines (torch's OneCycleLR), or constant after the warm-up."""
    warmup: float = 0.25
    """Fraction of the steps in which the learning rate rises from 1/25 of --lr."""
    label_smoothing: float = 0.0
    """Share of each target spread evenly over all classes."""
    augment: bool = False
    """Random changes of training inputs that keep the label right: pictures are shifted by up to an eighth, and
    mirrored where they have colour; recordings are shifted in time; videos are shifted, all frames alike, never
    mirrored."""
    seed: int = 0
    """Decides weights, order of the data and augmentation, on every backend alike; never the test split."""
    deterministic: bool = False
    """Refuse algorithms that may give another result on the next run (slower on a GPU)."""
    eval_every: int = 1
    """Epochs between evaluations on the test split; there is always one at the end."""
    log_every: int = 10
    """Steps between rows of metrics.jsonl after the first hundred, which are all recorded."""
    checkpoint_every: int = 1
    """Epochs between checkpoints; there is always one at the end and when the run is interrupted."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is the GPU if there is one."""
    track: Literal["offline", "online", "off"] = "offline"
    """Weights & Biases: on this disk only, on its server, or not at all. A run that a W&B agent starts goes online."""
    project: str | None = None
    """W&B project; by default WANDB_PROJECT from the environment, else tidepool."""
    group: str | None = None
    """Name that runs to be compared have in common."""
    name: str | None = None
    """Display name; by default the name of the run folder."""
    run_dir: Path | None = None
    """Folder for the run's records; by default a new one under runs/."""
    resume: str = "auto"
    """auto goes on with the unfinished run in --run_dir, never refuses a used one; or a path: run or checkpoint."""
    progress: bool = True
    """Progress bar on a terminal; otherwise one line an epoch."""

    def validate(self) -> None:
        """Check every field's type and range.

        Raises:
            ConfigError: names the first field that is wrong, its value and what was expected.
        """
        hints = typing.get_type_hints(Config)
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), hints[field.name])
        for name in (
            "data", "held_out_speaker", "model", "model_options", "project", "group", "name", "resume",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ConfigError(f"{name}={value!r}; expected some text")
        self.network_options()
        for name in ("image_size", "epochs", "max_steps", "batch_size", "eval_every", "log_every", "checkpoint_every"):
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
        for name in ("momentum", "warmup", "label_smoothing"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"{name}={value}; expected a number from 0 to below 1")

    def network_options(self) -> dict[str, Any]:
        """What `model_options` and the flags of single options say together.

        Raises:
            ConfigError: `model_options` does not read as it should, or names an option that has its flag too.
        """
        options = parse_model_options(self.model_options)
        for name in OPTION_FLAGS:
            value = getattr(self, name)
            if value is not None and name in options:
                raise ConfigError(f"{name}={value!r} and model_options={self.model_options!r}; expected {name} once")
            if value is not None:
                options[name] = value
        return options

    def as_record(self) -> dict[str, Any]:
        """The fields as plain JSON values, paths as text, without `schema_version`."""
        fields = dataclasses.asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}

    def differences(self, record: dict[str, Any]) -> list[str]:
        """`field: recorded -> asked` for each field that has to be as in `record` for a run to go on, and is not."""
        # A field that is newer than the record has in it what it has by default: runs did as that says before it came.
        there = Config().as_record() | record
        return [
            f"{name}: {there[name]!r} there, {value!r} asked"
            for name, value in self.as_record().items()
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


def _check_type(name: str, value: Any, hint: Any) -> None:
    """ConfigError unless `value` is of the field's annotated type; a whole number passes for a float."""
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{name}={value!r}; expected one of: {', '.join(typing.get_args(hint))}")
        return
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, bool):
        right = bool in allowed
    elif isinstance(value, int):
        right = int in allowed or float in allowed
    else:
        right = isinstance(value, allowed)
    if not right:
        expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in allowed)
        raise ConfigError(f"{name}={value!r}; expected {expected}")
