"""How near guessed examples come to the true ones: PSNR, SSIM, and which guess belongs to which example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

from attacks.attack import Reconstruction, Threat
from attacks.update.upload import Upload

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECOGNISABLE = 20.0
"""PSNR in dB from which on people recognise the example in the guess."""
EXACT = 30.0
"""PSNR in dB from which on they see no difference."""
HIGHEST = 150.0
"""PSNR in dB of a guess that is right to the last bit of a float32: beyond it there is nothing to tell apart."""

_SMALLEST_IMAGE = 7
"""Pixels a side from which on SSIM means something: its window is about as wide."""


@dataclass(frozen=True, eq=False)
class Originals:
    """The examples of one client.

    Args:
        examples: (n, ...) float64.
        low: Least value that an example has anywhere.
        high: Largest.
    """

    examples: NDArray[np.float64]
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Matching:
    """Guesses beside the examples that they come nearest to, each used once; the best pair first.

    Args:
        examples: Places of the examples, (pairs,).
        guesses: Places of the guesses, (pairs,).
        psnr: Of each pair in dB.
    """

    examples: NDArray[np.int64]
    guesses: NDArray[np.int64]
    psnr: NDArray[np.float64]


def psnr(error: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB, at most ``HIGHEST``.

    Args:
        error: Mean squared errors.
        width: Of the range that data are in.
    """
    return -10 * np.log10(np.maximum(error / width**2, 10 ** (-HIGHEST / 10)))


def matching(guesses: NDArray[np.float64], originals: Originals) -> Matching:
    """Pairs guesses and examples so that the PSNRs of all pairs add up to the most.

    Args:
        guesses: (m, ...) of the shape of examples.
        originals: (n, ...) of them.
    """
    flat, true = (part.reshape(len(part), -1) for part in (guesses, originals.examples))
    errors = np.array([((true - one) ** 2).mean(axis=1) for one in flat])
    qualities = psnr(errors, originals.high - originals.low)
    rows, columns = linear_sum_assignment(qualities, maximize=True)
    found = qualities[rows, columns]
    order = np.argsort(-found, kind="stable")
    return Matching(columns[order], rows[order], found[order])


def ssim(one: NDArray[np.float64], other: NDArray[np.float64], width: float) -> float | None:
    """Structural similarity of two images, in [-1, 1]; None of what is no image.

    Z. Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE Transactions on
    Image Processing 13 (2004), equation 13, with its Gaussian window of 1.5 pixels and its constants; channels are
    averaged.

    Args:
        one: (height, width) or (channels, height, width).
        other: Of the same shape.
        width: Of the range that pixels are in.
    """
    if one.ndim not in {2, 3} or min(one.shape[-2:]) < _SMALLEST_IMAGE:
        return None

    def blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
        smooth: NDArray[np.float64] = gaussian_filter(image, (0,) * (image.ndim - 2) + (1.5, 1.5), truncate=3.5)
        return smooth

    small, tiny = (0.01 * width) ** 2, (0.03 * width) ** 2
    mean, mean_other = blurred(one), blurred(other)
    spread, spread_other = blurred(one**2) - mean**2, blurred(other**2) - mean_other**2
    together = blurred(one * other) - mean * mean_other
    likeness = (2 * mean * mean_other + small) * (2 * together + tiny)
    likeness /= (mean**2 + mean_other**2 + small) * (spread + spread_other + tiny)
    return float(likeness.mean())


class ExampleReconstruction(Reconstruction[Upload, "NDArray[np.float64]", Originals]):
    """An attack on one upload that makes up the examples; it succeeds if one of them is recognised."""

    threat: ClassVar[Threat] = Threat.ONE_UPLOAD
    unit: ClassVar[str] = "dB"
    success: ClassVar[float] = RECOGNISABLE

    def quality(self, guess: NDArray[np.float64], secret: Originals) -> float:
        """PSNR of the guess that comes nearest to an example: at least 0, since guesses are in the data's range."""
        return float(matching(guess, secret).psnr[0])
