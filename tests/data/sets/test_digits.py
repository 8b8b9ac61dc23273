"""scikit-learn's digits: the split is fixed, stratified and complete."""

import hashlib

import torch

from tidepool.data import load_data


def test_shapes_types_and_names() -> None:
    digits = load_data("digits")
    assert digits.train.inputs.shape == (1437, 1, 8, 8)
    assert digits.test.inputs.shape == (360, 1, 8, 8)
    assert digits.train.inputs.dtype == torch.uint8
    assert digits.train.labels.dtype == torch.int64
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert (digits.num_classes, digits.in_channels, digits.input_size) == (10, 1, (8, 8))
    assert digits.class_names == tuple("0123456789")


def test_values_are_stretched_from_16_to_255() -> None:
    from sklearn.datasets import load_digits

    levels = torch.cat([load_data("digits").train.inputs.flatten(), load_data("digits").test.inputs.flatten()])
    expected = sorted({round(value * 255 / 16) for value in load_digits().data.ravel().tolist()})
    assert levels.unique().tolist() == expected
    assert (expected[0], expected[-1]) == (0, 255)


def test_every_image_is_in_exactly_one_split() -> None:
    from sklearn.datasets import load_digits

    digits = load_data("digits")
    ours = torch.cat([digits.train.inputs, digits.test.inputs]).flatten(1).tolist()
    theirs = torch.from_numpy(load_digits().data * 255 / 16).round().to(torch.uint8).tolist()
    assert sorted(ours) == sorted(theirs)


def test_test_split_is_stratified_to_within_one_image() -> None:
    digits = load_data("digits")
    in_test = torch.bincount(digits.test.labels, minlength=10)
    in_all = in_test + torch.bincount(digits.train.labels, minlength=10)
    assert ((in_test - in_all / 5).abs() < 1).all()


def test_split_does_not_depend_on_any_seed_and_is_the_same_in_every_version() -> None:
    torch.manual_seed(7)
    first = load_data("digits").test
    torch.manual_seed(8)
    second = load_data("digits").test
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.labels, second.labels)
    digest = hashlib.sha256(first.inputs.numpy().tobytes() + first.labels.numpy().tobytes()).hexdigest()
    assert digest[:16] == "83c99461e31a2576"
