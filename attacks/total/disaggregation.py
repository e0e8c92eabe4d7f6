"""Disaggregation: nobody knows who took part in which round, only how often each client did.

Threat: a server, or whoever is given its sums, that sees the sums of many rounds, and how many times each client took
part in each stretch of rounds, as the statistics say that platforms keep of their clients. The sums are P G, where P
says who took part (rounds x clients, zeros and ones) and G holds the clients' updates. So every column of P lies in the
space that the columns of the sums span: one column after another is searched there, among zeros and ones that add up to
the counts. That gives P, and least squares then give G.

Sums are never exactly in that space, since updates change from round to round: the column sought is the one whose part
outside the space is smallest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from attacks.attack import Reconstruction, Threat
from attacks.likeness import cosine

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_NODES = 100
"""Of the search tree for each column: those that are found at all are found early."""


@dataclass(frozen=True, eq=False)
class KnownCounts:
    """What the server sees.

    Args:
        sums: Of each round, (rounds, d).
        counts: How often each client took part in each stretch, (stretches, clients); all stretches have equally many
            rounds, in order.
        victim: The client that it is after.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    victim: int


class Disaggregation(Reconstruction[KnownCounts, "NDArray[np.float64]", "NDArray[np.float64]"]):
    """Finds out who took part, and then what they sent. Lam et al., ICML 2021, sections 3 and 4."""

    name = "disaggregation"
    threat = Threat.SEVERAL_ROUNDS
    source = "Lam, Wei, Brooks, Reddi and Mitzenmacher, Gradient Disaggregation, ICML 2021"
    unit = "cosine"
    success = 0.8

    def guess(self, view: KnownCounts, rng: np.random.Generator) -> NDArray[np.float64]:  # noqa: ARG002 - no chance
        """The victim's update, (d,); zero if no column was found for it."""
        took_part = self.participation(view)
        return np.asarray(np.linalg.pinv(took_part)[view.victim] @ view.sums)

    def participation(self, view: KnownCounts) -> NDArray[np.float64]:
        """Who took part in which round, (rounds, clients); a column of zeros where none was found."""
        clients = view.counts.shape[1]
        outside = _outside(view.sums, clients)
        return np.stack([_column(outside, view.counts[:, client]) for client in range(clients)], axis=1)

    def quality(self, guess: NDArray[np.float64], secret: NDArray[np.float64]) -> float:
        """Cosine with the victim's update, the mean of those that it sent."""
        return cosine(guess, secret)


def _outside(sums: NDArray[np.float64], clients: int) -> NDArray[np.float64]:
    """Orthonormal rows, (rounds - clients, rounds): what a column has outside the space that the sums span."""
    left, _, _ = np.linalg.svd(sums, full_matrices=len(sums) > sums.shape[1])
    return np.asarray(left[:, clients:].T)


def _column(outside: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The zeros and ones with these counts that have the least outside, in the sum of magnitudes."""
    beyond, rounds = outside.shape
    in_stretch = np.kron(np.eye(len(counts)), np.ones(rounds // len(counts)))
    slack = np.eye(beyond)
    found = milp(
        np.concatenate([np.zeros(rounds), np.ones(beyond)]),
        integrality=np.concatenate([np.ones(rounds), np.zeros(beyond)]),
        bounds=Bounds(0, np.concatenate([np.ones(rounds), np.full(beyond, np.inf)])),
        constraints=[
            LinearConstraint(np.hstack([in_stretch, np.zeros((len(counts), beyond))]), counts, counts),
            LinearConstraint(np.hstack([outside, -slack]), -np.inf, 0),
            LinearConstraint(np.hstack([outside, slack]), 0, np.inf),
        ],
        options={"node_limit": MOST_NODES},
    )
    return np.zeros(rounds) if found.x is None else np.rint(found.x[:rounds])
