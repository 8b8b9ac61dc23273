"""What train.py's parser says of a sweep's arguments before anything starts."""

from __future__ import annotations

import pytest

from tidepool.training.argument_check import closest_flag, complaint, flags


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--learnrate=0.1"], "train.py has no learnrate; did you mean lr?"),
        (["--batchsize=8"], "train.py has no batchsize; did you mean batch_size?"),
        (["--model=convnet", "--widht=4"], "train.py has no widht; did you mean width?"),
        (["--depth=2"], "train.py has no depth; data 'digits' has the options: none; model 'lenet5': "),
        (["--backend=tritn"], "invalid choice 'tritn' for argument '--backend'"),
        (["--lr=fast"], "Error parsing --lr: could not convert string to float: 'fast'"),
        (["--model=lenet55"], "model='lenet55'; expected one of: alexnet"),
    ],
)
def test_names_types_and_choices_that_are_none_of_train_pys(arguments, said):
    assert complaint(arguments).startswith(said)


@pytest.mark.parametrize("arguments", [[], ["--batch_size=0"], ["--model=searchable", "--depth=2", "--skips=False"]])
def test_what_only_a_run_refuses_passes(arguments):
    assert complaint(arguments) is None


def test_every_flag_is_known_with_its_help():
    assert flags()["lr"].startswith("Learning rate")
    assert "options" not in flags()
    assert closest_flag("nothing_like_it") is None
