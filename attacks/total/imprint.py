"""Robbing the Fed: a first layer that files each example away by one number, and hands them out of the sum.

Threat: a server that chooses the model, and gives all clients the same. It puts a block before the model: a layer whose
rows all measure the same of the inputs, each with a threshold of its own, a ReLU, and a layer back to the inputs whose
columns are all equal. So each example changes the rows whose threshold it exceeds, all of them alike. A row's gradients
minus those of the next higher one are what the examples between both thresholds contribute; where that is a single
example, the weights' part over the bias' part is this example, from the sum over all clients as from a single one.

Fowl et al., "Robbing the Fed", ICLR 2022, section 4: thresholds at quantiles of the normal distribution that fits what
is measured of data that the server knows. That is the mean of the inputs there, their brightness; here they are weighed
at random, since images of few grey levels are often equally bright, and then share a bin however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import stats
from torch import nn

from attacks.attack import Reconstruction, Threat
from attacks.update.quality import RECOGNISABLE, psnr
from protocols.training import cross_entropy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from protocols.training import Examples, Training

WEIGHT, BIAS = "rows.weight", "rows.bias"
"""Names of the crafted tensors in the model."""
FAINTEST = 1e-3
"""Differences of biases below this share of the largest are taken for rounding."""
WITHHELD = -1
"""Stands for the holders of a row that is not released."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What the server sees of the crafted layer: sums, in order of rising thresholds.

    Args:
        weight: Of the rows' changes, (rows, inputs).
        bias: Of their biases', (rows,).
        holders: Which clients are in a row's sum, as a number: equal where they are the same, ``WITHHELD`` where it is
            withheld, (rows,).
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    holders: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Measure:
    """The number that examples are filed by: their inputs, weighed.

    Args:
        weights: Of the inputs, (inputs,).
        mean: Of the number, over the server's own examples.
        spread: Its standard deviation.
    """

    weights: NDArray[np.float64]
    mean: float
    spread: float

    @classmethod
    def drawn(cls, known: Examples, rng: np.random.Generator) -> Measure:
        """One with random weights.

        Args:
            known: Examples of the server's own.
            rng: Of the weights.
        """
        inputs = known.inputs.flatten(1).numpy().astype(np.float64)
        weights = rng.normal(size=inputs.shape[1]) / np.sqrt(inputs.shape[1])
        numbers = inputs @ weights
        return cls(weights, float(numbers.mean()), float(numbers.std()))

    def thresholds(self, bins: int) -> NDArray[np.float64]:
        """Rising, so that between two neighbours lie equally many examples, (bins,)."""
        return np.asarray(stats.norm.ppf((np.arange(bins) + 0.5) / bins, self.mean, self.spread))


class Imprint(Reconstruction[Rows, "NDArray[np.float64]", "NDArray[np.float64]"]):
    """Reads examples off the differences of neighbouring rows.

    Args:
        bins: Rows of the crafted layer.
        peak: The range of the inputs.
    """

    name = "imprint"
    threat = Threat.CRAFTED_MODELS
    source = "Fowl et al., Robbing the Fed, ICLR 2022"
    unit = "dB"
    success = RECOGNISABLE

    def __init__(self, bins: int = 512, peak: float = 1.0) -> None:
        self.bins = bins
        self.peak = peak

    def craft(
        self, model: nn.Module, known: Examples, training: Training, reach: float, rng: np.random.Generator
    ) -> nn.Module:
        """The model with the block before it.

        Args:
            model: Of the deployment.
            known: Examples of the server's own, of the same kind as the clients'.
            training: What clients will do with it: one step.
            reach: The largest change of a weight that is wanted in such a step.
            rng: Of what is measured.
        """
        measure = Measure.drawn(known, rng)
        return block(model, measure, measure.thresholds(self.bins), known=known, training=training, reach=reach)

    def guess(self, view: Rows, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG002 - nothing is random
        """All examples that can be read, (guesses, inputs), mixtures of several among them."""
        weights, biases = [], []
        for holders in np.unique(view.holders[view.holders != WITHHELD]):
            rows = view.holders == holders
            weights.append(-np.diff(view.weight[rows], axis=0, append=0))
            biases.append(-np.diff(view.bias[rows], append=0))
        if not weights:
            return np.zeros((0, view.weight.shape[1]))
        weight, bias = np.concatenate(weights), np.concatenate(biases)
        told = np.abs(bias) > FAINTEST * np.abs(bias).max()
        return np.asarray(weight[told] / bias[told, None])

    def quality(self, guess: NDArray[np.float64], secret: NDArray[np.float64]) -> float:
        """Peak signal-to-noise ratio of the guess that comes nearest to one of the examples; 0 if there is none."""
        return float(psnr(np.mean((guess - secret) ** 2, axis=1), self.peak).max(initial=0.0))


def block(
    model: nn.Module,
    measure: Measure,
    thresholds: NDArray[np.float64],
    *,
    known: Examples,
    training: Training,
    reach: float,
) -> nn.Sequential:
    """A model behind a layer of rows with these thresholds.

    Changes of the crafted layer are as large as the weights behind it, and what goes on into the model is as large as
    their product with those before: so the first are chosen for the changes to be seen after rounding, and the others
    for the model to see inputs of about unit size.

    Args:
        model: What stands behind.
        measure: What the rows measure.
        thresholds: Of each row; infinite for one that is dead, whatever the example, (rows,).
        known: Examples of the server's own.
        training: As ``Imprint.craft``.
        reach: As ``Imprint.craft``.
    """
    shape = tuple(known.inputs.shape[1:])
    inputs, live = int(np.prod(shape)), np.isfinite(thresholds)
    rows, back = nn.Linear(inputs, len(thresholds)), nn.Linear(len(thresholds), inputs)
    layers = {"flat": nn.Flatten(), "rows": rows, "relu": nn.ReLU(), "back": back}
    if not isinstance(next(model.children(), None), nn.Flatten):
        layers["shape"] = nn.Unflatten(1, shape)
    crafted = nn.Sequential()
    for name, layer in (layers | {"model": model}).items():
        crafted.add_module(name, layer)
    scale = max(measure.spread, 1e-12) * max(int(live.sum()), 1)
    with torch.no_grad():
        rows.weight.copy_(torch.from_numpy(np.outer(live, measure.weights) / scale))
        rows.bias.copy_(torch.from_numpy(np.where(live, -thresholds / scale, -1.0)))
        back.weight.fill_(1.0)
        back.bias.zero_()
        louder = reach / _largest_change(crafted, known, training)
        back.weight.mul_(louder)
        rows.weight.div_(louder)
        rows.bias.div_(louder)
    return crafted


def _largest_change(crafted: nn.Sequential, known: Examples, training: Training) -> float:
    """Of the crafted rows, in one step on batches of the server's own, each as alike as clients' data may be."""
    order = known.labels.reshape(len(known), -1)[:, 0].argsort(stable=True)
    largest = 0.0
    rows = crafted.get_submodule("rows")
    with torch.enable_grad():
        for batch in order.split(training.batch_size):
            loss = cross_entropy(crafted(known.inputs[batch]), known.labels[batch])
            for gradient in torch.autograd.grad(loss, list(rows.parameters())):
                largest = max(largest, float(gradient.abs().max()) * training.learning_rate)
    return largest or 1.0
