"""Flips and shifts against a loop over single images; normalisation against its formula."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tidepool.data.augmentation import NO_AUGMENTATION, Augmentation, augment, normalise


def _images(num: int = 40, channels: int = 3, height: int = 6, width: int = 9) -> torch.Tensor:
    shape = (num, channels, height, width)
    return torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _augment(images: torch.Tensor, seed: int = 1, **settings: Any) -> torch.Tensor:
    settings = {"flip": True, "translate": 2, **settings}
    policy = Augmentation((settings["translate"],) * 2, "reflect", settings["flip"])
    return augment(images, policy, torch.Generator().manual_seed(seed))


def _all_variants(image: torch.Tensor, translate: int) -> torch.Tensor:
    """Every mirrored and shifted version of one (C, H, W) image: padded, then cropped at every place."""
    variants: list[torch.Tensor] = []
    for mirrored in (image, image.flip(-1)):
        padded = F.pad(mirrored[None].float(), [translate] * 4, mode="reflect")[0].to(torch.uint8)
        variants += [
            padded[:, top : top + image.shape[1], left : left + image.shape[2]]
            for top in range(2 * translate + 1)
            for left in range(2 * translate + 1)
        ]
    return torch.stack(variants)


@pytest.mark.parametrize("translate", [1, 2, 4])
def test_each_image_is_one_of_its_padded_crops(translate: int) -> None:
    images = _images(width=11)  # some widths make a shifted image its own mirror image
    moved = _augment(images, translate=translate)
    used = set()
    for before, after in zip(images, moved, strict=True):
        matches = (_all_variants(before, translate) == after).flatten(1).all(1).nonzero()
        assert len(matches) == 1
        used.add(matches.item())
    assert len(used) > 12  # 40 images over 18 variants or more


def test_all_shifts_and_both_directions_are_equally_likely() -> None:
    image = _images(1, 1, 5, 5)
    moved = _augment(image.expand(18_000, -1, -1, -1), translate=1)
    variants = _all_variants(image[0], 1)
    counts = torch.stack([(moved == variant).flatten(1).all(1).sum() for variant in variants])
    assert counts.sum() == 18_000
    # 1,000 expected of each, standard deviation 31
    assert ((counts - 1000).abs() < 150).all()


def test_nothing_asked_for_changes_nothing() -> None:
    images = _images()
    assert torch.equal(_augment(images, flip=False, translate=0), images)


def test_flip_alone_mirrors_about_half() -> None:
    images = _images(400)
    moved = _augment(images, translate=0)
    mirrored = (moved == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(moved[~mirrored], images[~mirrored])
    assert 150 < mirrored.sum() < 250


def test_vertical_shifts_do_not_depend_on_flip() -> None:
    images = _images()

    def shifts(moved: torch.Tensor) -> list[int]:
        matches = [
            (_all_variants(before, 2) == after).flatten(1).all(1).nonzero().item()
            for before, after in zip(images, moved, strict=True)
        ]
        return [int(variant) % 25 // 5 for variant in matches]

    assert shifts(_augment(images)) == shifts(_augment(images, flip=False))


def test_the_generator_alone_decides() -> None:
    images = _images()
    first = _augment(images)
    torch.manual_seed(5)
    assert torch.equal(_augment(images), first)
    assert not torch.equal(_augment(images, seed=2), first)


def test_the_images_given_are_left_as_they_were() -> None:
    images = _images()
    before = images.clone()
    _augment(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("translate", [-1, 6])
def test_shift_out_of_range(translate: int) -> None:
    with pytest.raises(ValueError, match=rf"^shift={translate}; expected 0\.\.5 positions in a dimension of 6$"):
        _augment(_images(), translate=translate)


def test_clips_are_shifted_all_frames_alike() -> None:
    clips = torch.randint(1, 256, (30, 2, 3, 4, 5), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    moved = augment(clips, Augmentation((0, 1, 2), 0), torch.Generator().manual_seed(0))
    padded = F.pad(clips, (2, 2, 1, 1))
    seen = set()
    for before, after in zip(padded, moved, strict=True):
        places = [(top, left) for top in range(3) for left in range(5)]
        fitting = [
            (top, left) for top, left in places if torch.equal(before[..., top : top + 4, left : left + 5], after)
        ]
        assert len(fitting) == 1
        seen.update(fitting)
    assert len(seen) > 8  # of 15


def test_a_border_of_one_value_comes_into_view() -> None:
    waveforms = torch.arange(1.0, 41).view(8, 1, 5)
    moved = augment(waveforms, Augmentation((2,), -7.0), torch.Generator().manual_seed(0))
    padded = F.pad(waveforms, (2, 2), value=-7.0)
    places = [
        [start for start in range(5) if torch.equal(after, before[:, start : start + 5])]
        for before, after in zip(padded, moved, strict=True)
    ]
    assert all(len(fitting) == 1 for fitting in places)
    assert len({fitting[0] for fitting in places}) > 2


def test_a_policy_without_shifts_changes_nothing() -> None:
    clips = torch.rand(3, 1, 4, 5, 6)
    assert torch.equal(augment(clips, NO_AUGMENTATION, torch.Generator()), clips)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_normalise_is_its_formula(dtype: torch.dtype) -> None:
    images = _images()
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.25, 0.2, 0.1])
    result = normalise(images, mean, std, dtype)
    expected = (images.double() / 255 - mean.double()[:, None, None]) / std.double()[:, None, None]
    assert result.dtype == dtype
    # cancellation leaves an error on the scale of the larger term, here at most 10
    bound = 10 * (torch.finfo(torch.float32).eps * 4 if dtype != torch.float64 else 1e-15)
    bound += expected.abs().max().item() * (torch.finfo(dtype).eps if dtype.itemsize == 2 else 0)
    assert (result.double() - expected).abs().max() <= bound


def test_normalised_training_images_have_mean_0_and_variance_1() -> None:
    from tidepool.data import load_data

    digits = load_data("digits")
    x = normalise(digits.train.inputs, digits.mean, digits.std, torch.float64)
    assert x.mean().item() == pytest.approx(0, abs=1e-6)
    assert x.var(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_normalise_keeps_channels_last() -> None:
    images = _images().contiguous(memory_format=torch.channels_last)
    result = normalise(images, torch.zeros(3), torch.ones(3), torch.float32)
    assert result.is_contiguous(memory_format=torch.channels_last)
