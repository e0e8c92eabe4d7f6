"""Examples found by search: those whose update points the same way as the one that was uploaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch.nn import functional

from attacks.update.labels import labels
from attacks.update.quality import ExampleReconstruction
from attacks.update.upload import Replay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from attacks.update.upload import Upload

_SLOWER = (3 / 8, 5 / 8, 7 / 8)
"""Shares of the iterations after which steps get ten times shorter."""


class Cosine(ExampleReconstruction):
    """Adam on the signs of the slope of one less the cosine plus total variation, within the data's range (section 4).

    The update is that of all local steps, unrolled; labels are read off the last layer.

    Args:
        iterations: Of Adam, from each start.
        starts: How many; the end with the lowest loss is the guess.
        variation: Weight of the total variation, the mean difference between neighbouring pixels over the data's range.
            Only images have one.
        pace: Length of the first steps, as a share of the data's range.
    """

    name: ClassVar[str] = "cosine and total variation"
    source: ClassVar[str] = (
        "J. Geiping et al., Inverting Gradients: How Easy Is It to Break Privacy in Federated Learning?, NeurIPS 2020"
    )

    def __init__(self, *, iterations: int = 200, starts: int = 1, variation: float = 1e-3, pace: float = 0.1) -> None:
        self.iterations = iterations
        self.starts = starts
        self.variation = variation
        self.pace = pace

    def guess(self, view: Upload, rng: np.random.Generator) -> NDArray[np.float64]:
        """The examples of the start that ended lowest.

        Args:
            view: What the server sees.
            rng: Of the starts, and of which labels are in which batch.
        """
        replay = Replay(view)
        wanted = functional.one_hot(torch.from_numpy(labels(view, rng)), view.classes).double()
        ends = [self._searched(replay, view, wanted, rng) for _ in range(self.starts)]
        return view.boxed(min(ends, key=lambda pair: pair[0])[1])

    def _searched(
        self, replay: Replay, view: Upload, wanted: torch.Tensor, rng: np.random.Generator
    ) -> tuple[float, NDArray[np.float64]]:
        width = view.high - view.low
        inputs = torch.from_numpy(rng.uniform(view.low, view.high, (view.examples, *view.shape))).requires_grad_()
        optimiser = torch.optim.Adam([inputs], lr=self.pace * width)
        steps = torch.optim.lr_scheduler.MultiStepLR(optimiser, [int(one * self.iterations) for one in _SLOWER])
        for _ in range(self.iterations):
            (slope,) = torch.autograd.grad(self._loss(replay, view, inputs, wanted), [inputs])
            inputs.grad = torch.nan_to_num(slope).sign()
            optimiser.step()
            steps.step()
            with torch.no_grad():
                inputs.clamp_(view.low, view.high)
        end = float(self._loss(replay, view, inputs, wanted).detach())
        return (end if np.isfinite(end) else float("inf")), inputs.detach().numpy()

    def _loss(self, replay: Replay, view: Upload, inputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        apart = 1 - functional.cosine_similarity(replay.update(inputs, wanted), replay.target, dim=0, eps=1e-30)
        if len(view.shape) < 2:
            return apart
        down, right = inputs.diff(dim=-2).abs().mean(), inputs.diff(dim=-1).abs().mean()
        return apart + self.variation * (down + right) / (view.high - view.low)
