"""One kernel, four senses: images, spectrograms and videos, read from the sweeps recorded in results/."""

from collections.abc import Hashable, Iterator

import pandas as pd
from matplotlib.figure import Figure as Canvas

from tidepool.analysis.claims.frame.claim import Claim, Measurement, MissingDataError, Verdict
from tidepool.analysis.claims.frame.plotting import BLUE, GREY, panels
from tidepool.analysis.claims.frame.samples import percent
from tidepool.records import SOURCE

IMAGES, SPOKEN, VIDEO = "images: digits", "spectrograms: spoken digits", "video: moving digits"
COLOUR, SHUFFLED, SPEAKER = "images: CIFAR-10, one epoch", "video: frames shuffled", "spectrograms: a new speaker"
RECORDS = {
    IMAGES: ("senses_digits", "model", "convnet"),
    COLOUR: ("senses_cifar10_convnet", "model", "convnet"),
    SPOKEN: ("senses_spoken_digits", "model", "vggish"),
    SPEAKER: ("senses_held_out_speaker", "model", "vggish"),
    VIDEO: ("senses_moving_digits", "settings", "shuffle_frames=false"),
    SHUFFLED: ("senses_moving_digits", "settings", "shuffle_frames=true"),
}
"""Case -> the folder of the record, and the column and value of its runs."""
CHANCE = {IMAGES: 0.1, COLOUR: 0.1, SPOKEN: 0.1, SPEAKER: 0.1, VIDEO: 0.025, SHUFFLED: 0.025}
ACCURACY = "test_accuracy"


def measure(case: str, seed: int) -> Iterator[Measurement]:
    """All recorded runs of a sense in one cell; `at` is the run's place in its record, since a speaker is no seed."""
    name, column, value = RECORDS[case]
    path = SOURCE / "results" / name / "runs.csv"
    if not path.is_file():
        raise MissingDataError(f"needs the record {name} in {path.parent.parent}; run it from a clone")
    runs = pd.read_csv(path)
    chosen = runs[(runs[column] == value) & (runs["status"] == "finished")]
    for place, right in enumerate(chosen["test_accuracy_percent"]):
        yield Measurement(ACCURACY, float(right) / 100, place)


def _runs(table: pd.DataFrame, case: str) -> dict[Hashable, float]:
    rows = table[table["case"] == case]
    return dict(zip(rows["at"], rows["value"], strict=True))


def conclude(table: pd.DataFrame) -> Verdict:
    here = {case: _runs(table, case) for case in RECORDS}
    learned = all(min(here[case].values(), default=0) > 2 * CHANCE[case] for case in (IMAGES, COLOUR, SPOKEN, VIDEO))
    said = {case: f"{percent(runs)} ({len(runs)} runs)" for case, runs in here.items()}
    return Verdict(
        "holds in part" if learned else "does not hold",
        f"Recorded test accuracies: {said[IMAGES]} on grey digits, {said[COLOUR]} on CIFAR-10 after one epoch, "
        f"{said[SPOKEN]} on spectrograms of spoken digits, {said[VIDEO]} on videos of 40 classes. The "
        "controls say what "
        f"the numbers rest on: a speaker never heard takes the spoken digits to {said[SPEAKER]}, one run a "
        "speaker, and "
        f"shuffled frames the videos to {said[SHUFFLED]}, where the digit is still read and its direction guessed. Raw "
        "waveforms have no record yet, so of the four senses three are shown.",
    )


def draw(table: pd.DataFrame) -> Canvas:
    canvas, (axes,) = panels(1, width=9.5, height=3.8)
    for place, case in enumerate(reversed(RECORDS)):
        values = [100 * v for v in _runs(table, case).values()]
        control = case in (SPEAKER, SHUFFLED)
        axes.barh(place, sum(values) / len(values), color=GREY if control else BLUE, alpha=0.7, height=0.65)
        axes.plot(values, [place] * len(values), "o", color="#1d2733", markersize=4)
        axes.plot([100 * CHANCE[case]] * 2, [place - 0.4, place + 0.4], color="#e8963e", lw=3)
    axes.set_yticks(range(len(RECORDS)), list(reversed(RECORDS)))
    axes.set(xlabel="test accuracy, % (orange: chance; grey: controls; a dot a run)", xlim=(0, 101))
    axes.grid(axis="y", visible=False)
    return canvas


CLAIM = Claim(
    place=9,
    title="One idea, and one kernel, for images, audio and video.",
    question="What do convolutional networks on the same op reach on images, spectrograms and videos?",
    control="a speaker held out of training; the frames of every clip in a random order, in training and in test.",
    anchor="97 to 99 % on the random split of the spoken digits.",
    limits="that one network serves all: each sense has its own. The runs were recorded with eager PyTorch (`cudnn`, "
    "which is oneDNN on this CPU) by the sweeps senses_*.yaml, some with three runs; nothing is measured anew here.",
    seconds=5,
    cases=tuple(RECORDS),
    measure=measure,
    conclude=conclude,
    draw=draw,
    caption="Recorded sweeps of results/: the mean of the runs of each sense, and of the controls.",
    fewer_seeds=dict.fromkeys(RECORDS, 1),
)
