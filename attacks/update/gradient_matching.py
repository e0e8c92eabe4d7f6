"""Examples found by search: those whose gradient is the one that was uploaded."""

from __future__ import annotations

from abc import abstractmethod
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


class _Matching(ExampleReconstruction):
    """L-BFGS on the squared distance between two updates, from several starts; the nearest end is the guess.

    Args:
        iterations: Of L-BFGS, from each start.
        starts: How many.
        near: Squared distance, over the squared length of the upload, below which no further start is tried.
        far: The same above which none is: no example explains such an upload.
    """

    def __init__(self, *, iterations: int = 100, starts: int = 4, near: float = 1e-6, far: float = 0.9) -> None:
        self.iterations = iterations
        self.starts = starts
        self.near = near
        self.far = far

    def guess(self, view: Upload, rng: np.random.Generator) -> NDArray[np.float64]:
        """The examples, moved into the data's range at the end.

        Args:
            view: What the server sees.
            rng: Of the starts.
        """
        replay, best = Replay(view), (float("inf"), view.gray)
        for _ in range(self.starts):
            inputs = torch.from_numpy(rng.uniform(view.low, view.high, (view.examples, *view.shape)))
            found = self._searched(replay, inputs.requires_grad_(), self._labels(view, rng))
            best = min(best, found, key=lambda pair: pair[0])
            if best[0] < self.near or found[0] > self.far:
                break
        return view.boxed(best[1])

    @abstractmethod
    def _labels(self, view: Upload, rng: np.random.Generator) -> torch.Tensor:
        """Logits of the labels; searched for as well if they require a gradient."""

    def _searched(
        self, replay: Replay, inputs: torch.Tensor, logits: torch.Tensor
    ) -> tuple[float, NDArray[np.float64]]:
        length = replay.target.square().sum().clamp(min=1e-30)
        wanted = [one for one in (inputs, logits) if one.requires_grad]
        optimiser = torch.optim.LBFGS(
            wanted,
            max_iter=self.iterations,
            max_eval=2 * self.iterations,
            tolerance_grad=1e-14,
            tolerance_change=1e-16,
            history_size=50,
            line_search_fn="strong_wolfe",
        )

        def distance() -> torch.Tensor:
            return (replay.update(inputs, logits.softmax(dim=1)) - replay.target).square().sum() / length

        def closure() -> torch.Tensor:
            found = distance()
            for one, slope in zip(wanted, torch.autograd.grad(found, wanted), strict=True):
                one.grad = slope
            return found.detach()

        optimiser.step(closure)
        end = float(distance().detach())
        return (end if np.isfinite(end) else float("inf")), inputs.detach().numpy()


class DLG(_Matching):
    """Searches for examples and labels together."""

    name: ClassVar[str] = "DLG"
    source: ClassVar[str] = "L. Zhu, Z. Liu and S. Han, Deep Leakage from Gradients, NeurIPS 2019"

    def _labels(self, view: Upload, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=(view.examples, view.classes))).requires_grad_()


class IDLG(_Matching):
    """Reads the label off the last layer, and searches for the example alone."""

    name: ClassVar[str] = "iDLG"
    source: ClassVar[str] = "B. Zhao, K. R. Mopuri and H. Bilen, iDLG: Improved Deep Leakage from Gradients, 2020"

    def _labels(self, view: Upload, rng: np.random.Generator) -> torch.Tensor:
        sure = functional.one_hot(torch.from_numpy(labels(view, rng)), view.classes).double()
        return torch.where(sure > 0, 0.0, -torch.inf)
