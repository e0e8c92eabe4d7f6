"""Examples read off the gradient of a first dense layer, without any search."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attacks.update.quality import ExampleReconstruction
from attacks.update.upload import first_dense

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attacks.update.upload import Upload

_SAME = 0.02
"""Root mean squared difference, as a share of the data's range, below which two candidates are one example."""
_FAINTEST = 1e-6
"""Gradients of a bias below this share of the largest one are rounding."""


class FirstLayer(ExampleReconstruction):
    """Divides the gradient of a neuron's weights by that of its bias.

    Neuron i has the gradient Σ_n δ_ni x_n at its weights and Σ_n δ_ni at its bias, where δ_ni is zero for an example
    that does not activate it. Of a neuron that one example alone activates, the quotient is that example, exactly. Of
    another it is a mixture; so candidates are preferred that lie in the data's range, that several neurons agree on,
    and that have the most contrast.
    """

    name: ClassVar[str] = "first-layer inversion"
    source: ClassVar[str] = (
        "L. T. Phong et al., Privacy-Preserving Deep Learning via Additively Homomorphic Encryption, IEEE TIFS 2018"
    )

    def guess(self, view: Upload, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG002 - nothing is random
        """The likeliest candidates, as many as there are examples; gray where there are fewer.

        Args:
            view: What the server sees.
            rng: Not used.
        """
        name = first_dense(view)
        if name is None:
            return view.gray
        candidates = _candidates(view, name)
        kept, agreeing = _merged(candidates, _SAME * (view.high - view.low))
        found = view.boxed(kept)[_ranked(kept, agreeing, view)[: view.examples]]
        return np.concatenate([found, view.gray[len(found) :]])


def _candidates(view: Upload, layer: str) -> NDArray[np.float64]:
    """The quotient of every neuron that has one, (neurons, values), those with the largest divisors first.

    Those are the exactest: what rounding does to an update weighs least in them.
    """
    weight, bias = view.gradient(f"{layer}.weight"), view.gradient(f"{layer}.bias")
    order = np.argsort(-np.abs(bias), kind="stable")
    order = order[np.abs(bias[order]) > _FAINTEST * np.abs(bias).max()]
    quotients: NDArray[np.float64] = weight[order] / bias[order, None]
    return quotients


def _merged(candidates: NDArray[np.float64], apart: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The first of all candidates that are the same, and how many they are."""
    kept: list[int] = []
    agreeing: list[int] = []
    for place, one in enumerate(candidates):
        away = np.sqrt(((candidates[kept] - one) ** 2).mean(axis=1)) if kept else np.empty(0)
        if away.size and away.min() < apart:
            agreeing[int(away.argmin())] += 1
        else:
            kept.append(place)
            agreeing.append(1)
    return candidates[kept], np.array(agreeing, np.int64)


def _ranked(candidates: NDArray[np.float64], agreeing: NDArray[np.int64], view: Upload) -> NDArray[np.int64]:
    """Places of the candidates, the likeliest first."""
    width = view.high - view.low
    outside = np.sqrt(((candidates - candidates.clip(view.low, view.high)) ** 2).mean(axis=1))
    return np.lexsort((-candidates.std(axis=1), -agreeing, outside > _SAME * width))
