"""What sample-level privacy costs a client over all its rounds, and how much noise a budget needs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from secagg.errors import ParameterError
from secagg.privacy import calibrate
from secagg.privacy.events import Event, SampledGaussian
from secagg.privacy.ledger import PrivacyLedger
from secagg.privacy.pld import steps_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

Accountant = Literal["rdp", "prv", "pld"]

MOST_BY_PRV = 50.0
"""Beyond this epsilon by RDP, PRV is not asked: it would need gigabytes."""


def epsilon(events: Iterable[Event], delta: float, accountant: Accountant = "rdp") -> float:
    """What training cost one client, all rounds and submodels together; 0 before the first.

    Args:
        events: What ``PrivateTraining.train`` returned, such as the ``events`` of the ``PrivacyLedger`` of a client.
        delta: In (0, 1).
        accountant: ``"rdp"`` and ``"pld"`` as ``PrivacyLedger``. ``"prv"`` composes distributions of the privacy loss
            too, to a hundredth (S. Gopi, Y. T. Lee, L. Wutschitz, "Numerical Composition of Differential Privacy",
            NeurIPS 2021), by opacus, which needs no other extra and looks at one direction: how much likelier a release
            is with an example than without. All bound epsilon, so where RDP's bound is less, as where epsilon is tiny,
            or is beyond ``MOST_BY_PRV``, that one is returned.

    Raises:
        ParameterError: A setting outside its domain, an event that the accountant cannot count, its package is not
            installed, or opacus finds no number.
        InputError: An event that no accountant knows.
    """
    if accountant not in get_args(Accountant):
        raise ParameterError(f"accountant must be one of {get_args(Accountant)}, not {accountant!r}")
    ledger = PrivacyLedger()
    for event in events:
        ledger.record(event)
    if accountant != "prv":
        return ledger.epsilon(delta, accountant)
    bound = ledger.epsilon(delta)
    steps = steps_of(ledger.events)
    return min(bound, _prv(steps, delta)) if 0 < bound <= MOST_BY_PRV else bound


def noise_for(epsilon: float, delta: float, rounds: int, *, sample_rate: float, steps: int) -> float:
    """The smallest noise multiplier at which a client's rounds cost at most (epsilon, delta), by RDP.

    Args:
        epsilon: What may be spent, positive.
        delta: In (0, 1).
        rounds: How often a client trains, at least 1.
        sample_rate: As ``PrivateTraining.event``; of several clients, the one with the fewest examples has the largest.
        steps: A round.

    Returns:
        The multiplier, at least ``LEAST_SAMPLED_MULTIPLIER``.

    Raises:
        ParameterError: A setting outside its domain, or no noise is enough.
    """

    def event(noise_multiplier: float) -> Event:
        return SampledGaussian(sample_rate=sample_rate, noise_multiplier=noise_multiplier, steps=steps)

    return calibrate.noise_for(epsilon, delta, rounds, event)


def _prv(steps: Counter[tuple[float, float]], delta: float) -> float:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(multiplier, rate, count) for (multiplier, rate), count in steps.items()]
    try:
        with np.errstate(divide="ignore"), warnings.catch_warnings():  # log(0) where all examples are in every step
            # It chooses the width of its grid by RDP at too few orders: then the grid is wider than it had to be.
            warnings.filterwarnings("ignore", "Optimal order is the", UserWarning)
            return float(accountant.get_epsilon(delta))
    except (RuntimeError, ValueError) as error:
        raise ParameterError(f"no epsilon by PRV at delta {delta:g}: set accountant='rdp' ({error})") from error
