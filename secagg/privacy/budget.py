"""From what may be spent to how much noise that takes, for all the sessions of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secagg.errors import ParameterError
from secagg.privacy import calibrate
from secagg.privacy.events import Gaussian
from secagg.privacy.noisy_sum import Mechanism, NoisySum
from secagg.privacy.rotation import padded
from secagg.privacy.settings import Privacy

if TYPE_CHECKING:
    from secagg.params import Mode, Params

COARSENING = 1.25
"""How much more variance than it needs a share may have where coverage has many classes (``shares.CLASS_BITS``)."""


@dataclass(frozen=True, kw_only=True)
class PrivacyBudget:
    """What a client that takes part in every session of a run may lose of its privacy.

    Args:
        epsilon: At most so much, positive.
        delta: In (0, 1): well below one over the number of clients that there are.
        clip: As ``Privacy``.
        mechanism: As ``Privacy``.
        ring_bits: As ``Privacy``.
        rotate: As ``Privacy``.
        remove_surplus: As ``Privacy``.

    Raises:
        ParameterError: A setting outside its domain; the message names it.
    """

    epsilon: float
    delta: float = 1e-5
    clip: float = 1.0
    mechanism: Mechanism = "skellam"
    ring_bits: int = 24
    rotate: bool = False
    remove_surplus: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ParameterError(f"epsilon must be positive and finite, not {self.epsilon}")
        self._with(1.0)  # refuses all else that is no setting of ``Privacy``

    def privacy(
        self, params: Params, *, rounds: int, clients: int, coordinates: int, mode: Mode = "uniform"
    ) -> Privacy:
        """The least noise that keeps to the budget.

        Every round is counted as the worst that the settings tolerate; with those who did not drop out it costs less,
        and a ``PrivacyLedger`` tells how much. That a round takes only some of the clients amplifies nothing here: the
        server draws them, and the noise is meant for it.

        Args:
            params: The settings of every session, without ``privacy``.
            rounds: How many sessions there will be.
            clients: Clients that take part in each.
            coordinates: Length of the updates.
            mode: Of the sessions.

        Raises:
            ParameterError: A setting outside its domain, or no noise is enough; the message names the knob.
            TooFewClientsError: Fewer clients than ``min_cohort + corrupt``.
        """
        lost = params.dropouts_tolerated(clients, params.topology(clients, mode).needed)
        # Of those who hold a coordinate; where few do, shares and surplus are largest.
        least = clients if mode == "uniform" else min(clients, params.coverage_required(clients, lost))
        honest, coarsening = least - lost - params.corrupt, 1.0 if mode == "uniform" else COARSENING
        total = NoisySum(
            clients=clients,
            dimension=padded(coordinates) if self.rotate else coordinates,
            clip=self.clip,
            ring_bits=self.ring_bits,
            mechanism=self.mechanism,
            min_survivors=clients - lost,
            colluders=params.corrupt,
            rotated=self.rotate,
            smallest_class=max(1, math.floor(honest / coarsening)),
            surplus=coarsening * least / honest,
        )
        return self._with(total.noise_for(self.epsilon, self.delta, rounds))

    def central(self, rounds: int) -> Privacy:
        """The least Gaussian noise on the sum that keeps to the budget, where a trusted server adds it.

        Args:
            rounds: How many sums there will be.

        Raises:
            ParameterError: No noise is enough.
        """
        return self._with(calibrate.noise_for(self.epsilon, self.delta, rounds, lambda z: Gaussian(noise_multiplier=z)))

    def _with(self, noise_multiplier: float) -> Privacy:
        return Privacy(
            clip=self.clip,
            noise_multiplier=noise_multiplier,
            delta=self.delta,
            mechanism=self.mechanism,
            ring_bits=self.ring_bits,
            rotate=self.rotate,
            remove_surplus=self.remove_surplus,
        )
