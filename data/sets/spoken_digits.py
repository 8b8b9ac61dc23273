"""The Free Spoken Digit Dataset: 3,000 clips of the ten digits by six speakers, in the Hugging Face layout."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tidepool.data.audio import AudioSplit, assemble_audio
from tidepool.data.dataset import DataError, LabelledData
from tidepool.data.folders import PARQUET_LAYOUT, existing_folder, no_data_set
from tidepool.data.parquet_folder import ParquetFolder, read_parquet_folder
from tidepool.data.parquet_shards import find_parquet_folder
from tidepool.data.registry import Request, register

SPEAKER_COLUMN = "speaker"


@register("spoken_digits", holds="audio", reads_data_dir=True)
def spoken_digits(request: Request, *, held_out_speaker: str | None = None) -> LabelledData:
    """`held_out_speaker`: test on everything this speaker said, in either split, and train on everything the others
    said, but one more speaker, the last by name, on whom the run is validated."""
    if request.data_dir is None:
        raise DataError(
            "data 'spoken_digits' needs --data_dir: the folder of the Free Spoken Digit Dataset in Hugging Face layout "
            f"({PARQUET_LAYOUT} with audio, label and speaker)"
        )
    folder = existing_folder(request.data_dir, PARQUET_LAYOUT)
    shards = find_parquet_folder(folder)
    if shards is None:
        raise no_data_set(folder, PARQUET_LAYOUT)
    parquet = read_parquet_folder(shards)
    if parquet.holds != "audio":
        raise DataError(f"{shards}: holds images; data 'spoken_digits' is audio")
    train, test, validation = parquet.audio(request.name)
    groups = None
    if held_out_speaker is not None:
        train, test, groups = _hold_out(held_out_speaker, parquet, [train, test, *([validation] if validation else [])])
        validation = None
    return assemble_audio(
        request.name,
        train,
        test,
        parquet.class_names,
        request.device,
        kind=request.kind,
        validation=validation,
        groups=groups,
    )


def _hold_out(
    speaker: str, parquet: ParquetFolder, splits: Sequence[AudioSplit]
) -> tuple[AudioSplit, AudioSplit, npt.NDArray[np.int64] | None]:
    """The splits divided again: `speaker`'s audio is the test split, everybody else's the training split. The third
    says who speaks in each of the latter, by number in the order of names; None where there is one speaker left."""
    speakers = np.concatenate(
        [parquet.texts(split, SPEAKER_COLUMN, "to hold a speaker out") for split in parquet.shards]
    )
    waveforms = np.concatenate([split.waveforms for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    held_out = speakers == speaker
    if not held_out.any() or held_out.all():
        found = "no such speaker" if not held_out.any() else "the only speaker"
        raise DataError(
            f"held_out_speaker={speaker}: {found} in {parquet.folder}; expected one of: "
            f"{', '.join(np.unique(speakers))}"
        )
    names, groups = np.unique(speakers[~held_out], return_inverse=True)
    return (
        AudioSplit(waveforms[~held_out], labels[~held_out]),
        AudioSplit(waveforms[held_out], labels[held_out]),
        groups.astype(np.int64) if len(names) > 1 else None,
    )
