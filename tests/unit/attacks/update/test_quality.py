from __future__ import annotations

import numpy as np
import pytest

from attacks.update.first_layer import FirstLayer
from attacks.update.quality import HIGHEST, Originals, matching, psnr, ssim


def originals(count: int, seed: int = 0) -> Originals:
    return Originals(np.random.default_rng(seed).uniform(0, 255, (count, 1, 8, 8)), 0.0, 255.0)


def test_psnr_is_worked_out_by_hand() -> None:
    found = psnr(np.array([255.0**2, 255.0**2 / 100, 255.0**2 / 1000, 0.0]), 255.0)
    np.testing.assert_allclose(found, [0, 20, 30, HIGHEST])


@pytest.mark.parametrize(("guesses", "examples"), [(5, 5), (3, 5), (7, 5)])
def test_each_guess_is_matched_with_the_example_that_it_is_of(guesses: int, examples: int) -> None:
    true = originals(max(guesses, examples))
    rng = np.random.default_rng(1)
    order = rng.permutation(guesses)
    noisy = (
        true.examples + rng.normal(0, 1 + np.arange(len(true.examples)).reshape(-1, 1, 1, 1), true.examples.shape)
    )[order]
    held = Originals(true.examples[:examples], true.low, true.high)
    found = matching(noisy, held)
    assert len(found.psnr) == min(guesses, examples)
    assert (np.diff(found.psnr) <= 0).all()
    right = [order[guess] == example for guess, example in zip(found.guesses, found.examples, strict=True)]
    assert sum(right) == min(guesses, examples)


def test_the_quality_of_a_batch_is_that_of_its_best_guess() -> None:
    true = originals(3)
    guess = np.concatenate([np.zeros((2, 1, 8, 8)), true.examples[1:2]])
    assert FirstLayer().quality(guess, true) == HIGHEST


def test_ssim_is_one_of_the_same_image_and_falls_with_noise_and_with_contrast() -> None:
    image = originals(1).examples[0]
    noise = np.random.default_rng(2).normal(size=image.shape)
    values = [ssim(image + size * noise, image, 255.0) or 0.0 for size in (0.0, 10.0, 50.0, 200.0)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)
    assert (ssim(image.mean() + (image - image.mean()) / 10, image, 255.0) or 0.0) < 0.5


def test_ssim_of_flat_images_is_worked_out_by_hand() -> None:
    """Without any variance the structure counts as the same, and the formula is that of two means."""
    low, high, small = 50.0, 100.0, (0.01 * 255) ** 2
    wanted = (2 * low * high + small) / (low**2 + high**2 + small)
    assert ssim(np.full((9, 9), low), np.full((9, 9), high), 255.0) == pytest.approx(wanted)


def test_what_is_no_image_has_no_ssim() -> None:
    assert ssim(np.zeros(64), np.zeros(64), 1.0) is None
    assert ssim(np.zeros((9, 1, 128)), np.zeros((9, 1, 128)), 1.0) is None
