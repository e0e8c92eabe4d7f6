"""Which labels a client's examples have, read off the last layer of its update."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

from attacks.update.upload import last_dense

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attacks.update.upload import Upload


def labels(view: Upload, rng: np.random.Generator) -> NDArray[np.int64]:
    """As many labels as there are examples, in no order that means anything.

    The gradient at a logit is what the model gives that class less the share of examples that have it. Of one example
    it is negative at its own label alone (B. Zhao et al., "iDLG: Improved Deep Leakage from Gradients", 2020). Of more,
    the shares are those gradients turned round, with what the model gives to noise added back: exact for a model that
    has learnt nothing yet. Without a bias the rows of the weights stand for the logits, whose scale is not known.

    Args:
        view: What the server sees.
        rng: Of the noise and of the order.
    """
    name = last_dense(view)
    if name is None:
        return rng.integers(0, view.classes, view.examples)
    biased = f"{name}.bias" in view.update
    slope = view.gradient(f"{name}.bias") if biased else view.gradient(f"{name}.weight").sum(axis=1)
    if view.examples == 1:
        return np.array([slope.argmin()])
    share = (_given(view, rng) if biased else 0.0) - slope
    return rng.permutation(_rounded(np.maximum(share, 0.0), view.examples))


def _given(view: Upload, rng: np.random.Generator) -> NDArray[np.float64]:
    """What the model gives each class of examples that are nothing but noise."""
    noise = torch.from_numpy(rng.uniform(view.low, view.high, (64, *view.shape)))
    with torch.no_grad():
        given: NDArray[np.float64] = (
            copy.deepcopy(view.model).double().train()(noise).softmax(dim=1).mean(dim=0).numpy()
        )
    return given


def _rounded(share: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """So many labels in these proportions, what is left over to the largest remainders."""
    share = share / share.sum() if share.sum() > 0 else np.full(len(share), 1 / len(share))
    whole = np.floor(share * count).astype(np.int64)
    whole[np.argsort(whole - share * count, kind="stable")[: count - whole.sum()]] += 1
    return np.repeat(np.arange(len(share)), whole)
