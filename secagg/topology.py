"""How a cohort is wired: the degree of the masking graph, the share threshold, and how likely chance defeats them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secagg import graph
from secagg.errors import ParameterError, TooFewClientsError

if TYPE_CHECKING:
    from secagg.graph import Failures
    from secagg.params import Mode, Params


@dataclass(frozen=True)
class Topology:
    """What follows from settings and the size of a cohort.

    Args:
        degree: Neighbours of each client, k.
        threshold: Shares that rebuild a secret, t.
        failures: How likely a sparse graph fails; None for the complete graph, which leaves nothing to chance.
    """

    degree: int
    threshold: int
    failures: Failures | None


def topology(params: Params, mode: Mode, clients: int) -> Topology:
    """The wiring of the clients that advertised keys.

    Raises:
        ParameterError: ``neighbours`` or ``share_threshold`` do not fit this cohort.
        TooFewClientsError: Fewer clients than ``min_cohort + corrupt``.
    """
    if clients < params.privacy_floor:
        reason = f"(min_cohort {params.min_cohort} + corrupt {params.corrupt})"
        raise TooFewClientsError(
            f"{clients} clients < {params.privacy_floor} {reason}: wait for more clients or lower min_cohort"
        )
    demands = graph.Demands(
        lost=params.dropouts_tolerated(clients, threshold=0),
        corrupt=params.corrupt,
        security_bits=params.security_bits,
    )
    degree = clients - 1
    if params.neighbours is not None:
        degree = min(params.neighbours, degree)
    elif clients > graph.COMPLETE_UP_TO and mode == "uniform" and not params.active:
        degree = graph.smallest_degree(clients, demands)[0]
    if degree == clients - 1:
        return Topology(degree, _complete_threshold(params, clients, demands), None)
    if mode == "mask-indexed" or params.active:
        # A server that lies chooses its dropouts, and what it tells each client, after it has seen the ring.
        needs = "an active server calls for" if params.active else "a mask-indexed session needs"
        raise ParameterError(f"{needs} the complete graph: leave neighbours unset, or shard the cohort")
    return _sparse(params, degree, clients, demands)


def _complete_threshold(params: Params, clients: int, demands: graph.Demands) -> int:
    # With an active server, holders that were shown different survivors must not open both secrets of a client.
    least = params.quorum(clients) if params.active else max(2, params.corrupt + 1)
    threshold = params.share_threshold or max(least, min(graph.majority(clients), clients - demands.lost))
    if threshold < least:
        raise ParameterError(
            f"share_threshold {threshold} < {least}: {params.corrupt} corrupt clients and a lying server could do "
            "with as many; raise it or leave it unset"
            if params.active
            else f"share_threshold {threshold} must exceed corrupt {params.corrupt}: raise it or leave it unset"
        )
    if threshold > clients:
        raise ParameterError(f"share_threshold {threshold} exceeds the {clients} share holders of a client")
    return threshold


def _sparse(params: Params, degree: int, clients: int, demands: graph.Demands) -> Topology:
    derived = graph.threshold_for(degree, clients, demands)
    borne = f"{demands.lost} dropouts and {demands.corrupt} corrupt clients"
    if derived is None:
        raise ParameterError(
            f"neighbours {degree} of {clients} clients is too few for {borne}: raise it or leave it unset"
        )
    threshold = params.share_threshold or derived
    failures = demands.failures(clients, degree, threshold)
    if not demands.met_by(failures):
        raise ParameterError(
            f"share_threshold {threshold} does not suit {degree} neighbours, {borne}: set {derived}, or leave it unset"
        )
    return Topology(degree, threshold, failures)
