"""What a run asks of its data beside the name, and the refusal of what a kind of data has no use for."""

from dataclasses import dataclass, fields

import torch

from data.dataset import DataError, Kind

MODELS_OF = {"image": "pictures or spectrograms", "waveform": "waveforms", "video": "videos"}
USED_BY = {
    "image_size": "pictures in folders and from the hub",
    "held_out_speaker": "recordings with a column of speakers",
    "shuffle_frames": "moving_digits",
}


@dataclass(frozen=True)
class Reading:
    """How data are to be read; `load_data` says what each field means."""

    kind: Kind = "image"
    image_size: int | None = None
    held_out_speaker: str | None = None
    shuffle_frames: bool = False
    device: torch.device | str = "cpu"

    def require(self, name: str, what: str, kinds: tuple[Kind, ...], uses: tuple[str, ...] = ()) -> None:
        """Check that data `name`, which are `what`, can be had as `kind`, and that no option would be ignored.

        Raises:
            DataError: `kind` is not among `kinds`, or an option is set that is not in `uses`.
        """
        if self.kind not in kinds:
            wanted = " or ".join(MODELS_OF[kind] for kind in kinds)
            raise DataError(
                f"data {name!r} are {what}, but the model takes {MODELS_OF[self.kind]}; expected a model for {wanted}"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in USED_BY and field.name not in uses and value not in (None, False):
                raise DataError(
                    f"{field.name}={value}: data {name!r} ({what}) do not use it; it is for {USED_BY[field.name]}"
                )
