"""Pictures of what attacks made of examples, beside the examples, as PNG inside the page."""

from __future__ import annotations

import base64
import io
import math
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.image import imsave

from attacks.measurement import Recovery
from attacks.report.markup import Child, Markup, element, grid
from attacks.report.text import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from attacks.finding import Finding, Picture

MOST = 6
"""Examples that a grid shows."""


def pictures(findings: Sequence[Finding]) -> Markup:
    """Examples down, deployments across: the original, and what the attack made of it.

    Deployments that were attacked on the same examples share the column of originals.

    Args:
        findings: Of one attack.
    """
    shown = [one for one in findings if one.pictures]
    if not shown:
        return Markup()
    examples = list(zip_longest(*(one.pictures[:MOST] for one in shown)))
    shared = all(_alike(row) for row in examples)
    rows = [
        (str(place), _row(row, place, [one.deployment for one in shown], shared=shared))
        for place, row in enumerate(examples, 1)
    ]
    pairs = (
        ""
        if shared
        else " Left the original, right the guess: the attack did not come to the same examples everywhere."
    )
    table = grid(
        "What the attack made of examples",
        ["Example", *(["original"] if shared else []), *(one.deployment for one in shown)],
        rows,
        class_="pictures" if shared else "pictures pairs",
        foot=[(header, [*([""] if shared else []), *cells]) for header, cells in _medians(shown)],
    )
    scroll = element("div", table, class_="scroll", tabindex="0", role="region", aria_label="Pictures, side by side")
    said = (
        f"{pairs} Below each guess is how near it comes to the original: from a PSNR of about 20 dB, or an SSIM near "
        "1, one recognises it. The guess baseline is what the same guesses come to about somebody else's example."
    )
    return element("figure", scroll, element("figcaption", said.lstrip()))


def _alike(row: Sequence[Picture | None]) -> bool:
    first, *others = (one.original for one in row if one is not None)
    return all(np.array_equal(first, one) for one in others)


def _row(row: Sequence[Picture | None], place: int, names: Sequence[str], *, shared: bool) -> list[Child]:
    cells: list[Child] = []
    if shared:
        original = next(one.original for one in row if one is not None)
        cells.append(_image(original, original, f"Example {place}"))
    for one, name in zip(row, names, strict=True):
        before = [] if one is None or shared else [_image(one.original, one.original, f"Example {place} in {name}")]
        cells.append("-" if one is None else [*before, *_guess(one, f"example {place} in {name}")])
    return cells


def _medians(shown: Sequence[Finding]) -> list[tuple[str, list[str]]]:
    found = [one.measurement for one in shown]
    if not all(isinstance(one, Recovery) for one in found):
        return []
    whole = [one for one in found if isinstance(one, Recovery)]
    return [
        ("Median", [f"{number(one.median)} {one.unit}" for one in whole]),
        (
            "Guess baseline",
            [f"{number(float(np.median(one.elsewhere)))} {one.unit}" for one in whole],
        ),
    ]


def _guess(one: Picture, name: str) -> list[Markup]:
    psnr = "exact" if math.isinf(one.psnr) and one.psnr > 0 else f"{number(round(one.psnr, 1))} dB"
    said = psnr if one.ssim is None else f"{psnr}, SSIM {one.ssim:.2f}"
    return [_image(one.guess, one.original, f"Guess about {name}: {said}"), element("span", said)]


def _image(values: NDArray[np.float64], original: NDArray[np.float64], says: str) -> Markup:
    """An image on the scale of the original."""
    low, high = float(np.min(original)), float(np.max(original))
    levels = np.clip((np.nan_to_num(np.asarray(values, np.float64)) - low) / ((high - low) or 1.0), 0, 1)
    buffer = io.BytesIO()
    imsave(buffer, _as_rgb(levels), format="png")
    return element("img", src=f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}", alt=says)


def _as_rgb(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Any array as an image: grey unless it has three channels; a vector as a square if it can be one, else a row."""
    shape = tuple(size for size in values.shape if size > 1)
    values = values.reshape(shape)
    if values.ndim == 3 and 3 in {shape[0], shape[-1]}:
        colour = values if shape[-1] == 3 else values.transpose(1, 2, 0)
    else:
        if values.ndim != 2:
            side = math.isqrt(values.size)
            values = values.reshape(side, -1) if side * side == values.size else values.reshape(1, -1)
        colour = np.repeat(values[..., None], 3, axis=2)
    return np.rint(255 * colour).astype(np.uint8)
