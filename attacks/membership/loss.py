"""Membership by the loss: a model fits what it learnt better than what it did not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from scipy import special

from attacks.attack import Distinguisher, Threat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Asked:
    """What the model says of one example.

    Args:
        logits: (classes,).
        label: That the example has.
    """

    logits: NDArray[np.float64]
    label: int


class LossThreshold(Distinguisher[Asked]):
    """The smaller the cross entropy, the likelier the example was learnt."""

    name: ClassVar[str] = "loss threshold"
    threat: ClassVar[Threat] = Threat.THE_MODEL
    source: ClassVar[str] = "Yeom et al., 'Privacy Risk in Machine Learning', CSF 2018"

    def guess(self, view: Asked, rng: np.random.Generator) -> float:  # noqa: ARG002 - nothing is random
        """Minus the cross entropy, in nats."""
        return float(special.log_softmax(view.logits)[view.label])
