"""Systems in clusters: clients whose updates point the same way share a model, and every cluster is a federation.

The first round finds the clusters (``protocols.sessions.clustering``): by the updates themselves where the server sees
them, by secure sums where it does not. From then on every cluster plays its own rounds of an inner system, side by
side.

Clusters are for good: nobody changes from one sum into another. The server knows who is in which, as it has to.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Literal, TypeAlias, final, get_args

import numpy as np

from protocols.baselines.fedavg import FedAvg
from protocols.federation import Checkpoint
from protocols.fetch import Served
from protocols.measuring import SILENCE, Talk
from protocols.randomness import number as number_of
from protocols.randomness import session_seed
from protocols.results import LostRound, RoundResult
from protocols.round import RoundContext, work_of
from protocols.sessions.clustering import ITERATIONS, agglomerative, secure_clusters, sketch
from protocols.simulation.clock import client_time
from protocols.stages import Delta, Fetch, LocalTraining
from protocols.system import System
from protocols.training import Examples, accuracy
from protocols.vectors import vector_of
from secagg.errors import ParameterError, TooFewClientsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from protocols.aggregators import Aggregator, Client, Dropouts, Ledgers
    from protocols.federation import Federation, Memory
    from protocols.results import ClientRound, Outcome
    from protocols.round import Work
    from protocols.simulation.calibration import Calibration
    from protocols.synchronous import SynchronousSystem
    from protocols.training import State
    from pruning.masks import Mask

Method: TypeAlias = Literal["agglomerative", "secure"]
"""How clusters are found; see ``ClusterSettings``."""


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """How clients are clustered.

    Args:
        clusters: Most clusters.
        clustering: ``"agglomerative"``, by everybody's updates; ``"secure"``, by secure sums; None: whichever the
            aggregator stands for.
        smallest: Fewest clients of a cluster; None for as few as a sum needs that has borne all dropouts of a session
            over everybody, or in floating point for one.
        iterations: Of the secure clustering.

    Raises:
        ParameterError: A setting outside its domain.
    """

    clusters: int = 3
    clustering: Method | None = None
    smallest: int | None = None
    iterations: int = ITERATIONS

    def __post_init__(self) -> None:
        if self.clusters < 1 or self.iterations < 1 or not (self.smallest is None or self.smallest >= 1):
            raise ParameterError("clusters, iterations and smallest must be at least 1")
        if self.clustering not in {None, *get_args(Method)}:
            raise ParameterError(f"clustering must be {' or '.join(get_args(Method))}, not {self.clustering!r}")


class Clustered(System):
    """A system in clusters; subclasses say which.

    Args:
        federation: As ``System``. Where participants are drawn, each cluster draws its share of them.
        aggregator: As the inner system.
        settings: How clients are clustered.
        twin: As ``System``.
        calibration: As ``System``.

    Raises:
        ParameterError: Clusters by everybody's updates under encryption, or clusters so small that a session's dropouts
            could leave too small a sum.
        TooFewClientsError: Fewer clients than one session needs.
    """

    settings: ClusterSettings

    def __init__(
        self,
        federation: Federation,
        aggregator: Aggregator,
        settings: ClusterSettings | None = None,
        *,
        twin: Aggregator | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(federation, aggregator, twin=twin, calibration=calibration)
        self.settings = settings or ClusterSettings()
        if self.settings.clustering == "agglomerative" and aggregator.encrypted:
            raise ParameterError("clustering 'agglomerative' reads every update: use 'secure', or aggregation 'float'")
        if self.settings.clustering == "secure" and aggregator.params is None:
            raise ParameterError(
                "clustering 'secure' takes sums: use 'agglomerative', or another aggregation than 'float'"
            )
        if aggregator.params is not None and aggregator.params.active:
            raise ParameterError(
                "clusters follow counts that an active server could forge: set adversary='semi-honest'"
            )
        if self._smallest > len(federation.examples):
            raise TooFewClientsError(
                f"{len(federation.examples)} clients are fewer than the smallest cluster, {self._smallest}: lower "
                "smallest, or take more clients"
            )
        self.membership: Mapping[Client, int] = {}
        self.inner: tuple[SynchronousSystem, ...] = ()
        self._checkpoints: tuple[Checkpoint, ...] = ()

    @abstractmethod
    def inner_of(self, federation: Federation) -> SynchronousSystem:
        """The system of one cluster."""

    def step(self, checkpoint: Checkpoint, dropouts: Dropouts, ledgers: Ledgers | None) -> tuple[Outcome, Checkpoint]:
        """Finds the clusters, of which nobody drops out, or plays one round in each; see ``System.step``."""
        if ledgers:
            raise ParameterError("ledgers know clients by their place in one cohort: leave them out with clusters")
        if not self.membership:
            return self._find(checkpoint)
        played = [
            one.step(own, _among(dropouts, one.federation), None)
            for one, own in zip(self.inner, self._checkpoints, strict=True)
        ]
        self._checkpoints = tuple(own for _, own in played)
        told = self._together(checkpoint, [outcome for outcome, _ in played])
        after = replace(
            checkpoint,
            number=checkpoint.number + 1,
            seconds=checkpoint.seconds + told.seconds,
            memory=self.remember(),
        )
        return told, after

    def model_of(self, client: Client, checkpoint: Checkpoint) -> tuple[State, Mask]:
        """That of the client's cluster."""
        if not self.membership:
            return super().model_of(client, checkpoint)
        cluster = self.membership[client]
        return self.inner[cluster].model_of(client, self._checkpoints[cluster])

    def remember(self) -> Memory:
        """Who is in which cluster, and where each of them stands."""
        return {
            "membership": {str(client): cluster for client, cluster in self.membership.items()},
            "clusters": [
                {
                    "number": one.number,
                    "state": dict(one.state),
                    "previous": None if one.previous is None else dict(one.previous),
                    "seconds": one.seconds,
                    "memory": one.memory,
                }
                for one in self._checkpoints
            ],
        }

    def recall(self, memory: Memory) -> None:
        """Takes up where ``remember`` left off."""
        self.membership = dict(memory.get("membership", {}))
        self._checkpoints = tuple(Checkpoint(**one) for one in memory.get("clusters", ()))
        self.inner = self._systems() if self.membership else ()
        for one, checkpoint in zip(self.inner, self._checkpoints, strict=True):
            one.recall(checkpoint.memory)

    def find(self, checkpoint: Checkpoint) -> tuple[Mapping[Client, int], Mapping[Client, ClientRound], str]:
        """Client to cluster, what it took everybody, and who learned what."""
        if self._clustering == "agglomerative":
            work = self._trained(checkpoint, 0)
            vectors = {client: self._change(one) for client, one in work.items()}
            found = agglomerative(vectors, self.settings.clusters, self._smallest)
            verdict = "no encryption: the server sees every client's update, and clusters them by it."
            return found, self.measuring.clients(work, None, SILENCE), verdict
        return self._find_in_secret(checkpoint)

    def part(self, clients: Sequence[Client], cluster: int) -> Federation:
        """The federation of one cluster, judged on its clients' own test examples where they are known."""
        whole = self.federation
        devices = tuple(replace(whole.fleet.device(client), straggler=False) for client in clients)
        own = [whole.tests[client] for client in clients if client in whole.tests]
        share = len(clients)  # as if drawn: a cluster may lose its round without taking back those of the others
        if whole.participants is not None:
            drawn = round(whole.participants * len(clients) / len(whole.examples))
            share = min(len(clients), max(drawn, self._least_cohort))
        return replace(
            whole,
            fleet=replace(whole.fleet, devices=devices),
            examples={client: whole.examples[client] for client in clients},
            tests={client: whole.tests[client] for client in clients if client in whole.tests},
            test=Examples.joined(own) if own else whole.test,
            participants=share,
            seed=number_of(whole.seed, "cluster", cluster),
        )

    @property
    def _clustering(self) -> Method:
        return self.settings.clustering or ("agglomerative" if self.aggregator.params is None else "secure")

    @property
    def _least_cohort(self) -> int:
        """Fewest clients in a sum: so many that enough are left after all dropouts of a session over everybody."""
        params, clients = self.aggregator.params, len(self.federation.examples)
        if params is None:
            return 1
        return params.privacy_floor + params.dropouts_tolerated(clients, params.topology(clients).needed)

    @property
    def _smallest(self) -> int:
        """Fewest clients of a cluster."""
        least, wanted = self._least_cohort, self.settings.smallest
        if wanted is not None and wanted < least:
            raise ParameterError(f"smallest must be at least {least}, not {wanted}: raise it, or lower max_dropouts")
        return wanted or least

    def _find(self, checkpoint: Checkpoint) -> tuple[Outcome, Checkpoint]:
        """The round in which clusters are found; no model moves."""
        self.membership, clients, verdict = self.find(checkpoint)
        seconds = self.measuring.round_seconds(clients)
        start = replace(checkpoint, number=checkpoint.number + 1, seconds=checkpoint.seconds + seconds, memory={})
        self.inner = self._systems()
        self._checkpoints = tuple(start for _ in self.inner)
        sizes = [len(one.federation.examples) for one in self.inner]
        result = RoundResult(
            number=checkpoint.number,
            accuracy=_judged(self.federation, checkpoint),
            finished_at=start.seconds,
            seconds=seconds,
            clients={str(client): one for client, one in clients.items()},
            survivors=tuple(map(str, clients)),
            withheld_share=0.0,
            difference=None,
            verdict=verdict,
            details={"clusters": float(len(sizes)), "smallest cluster": float(min(sizes))},
        )
        return result, replace(start, memory=self.remember())

    def _find_in_secret(self, checkpoint: Checkpoint) -> tuple[Mapping[Client, int], Mapping[Client, ClientRound], str]:
        """By secure sums of sketches, each of a training of its own."""
        setup, iterations = self.federation, self.settings.iterations

        @lru_cache(maxsize=1)
        def trained(iteration: int) -> Mapping[Client, Work]:
            return self._trained(checkpoint, iteration)

        found = secure_clusters(
            setup.fleet.names,
            lambda client, iteration: sketch(self._change(trained(iteration)[client]), public_seed=setup.seed),
            clusters=self.settings.clusters,
            smallest=self._smallest,
            params=self.aggregator.params,
            iterations=iterations,
            public_seed=setup.seed,
            seed=session_seed(setup.seed, "clusters", self.name, self.settings),
            encrypted=self.aggregator.encrypted,
        )
        clients = self._cost(trained(iterations + 1), Talk(found.sessions), iterations + 2)
        said = dict.fromkeys(session.verdict for session in found.sessions)
        verdict = (
            f"the server learns who is in which cluster and, in {len(found.sessions)} sessions, how many chose each "
            f"centroid, and sums of sketches over at least {self._smallest} clients, of which two that differ by one "
            f"client show its sketch. Of the sessions: {' '.join(said)}"
        )
        return found.membership, clients, verdict

    def _cost(self, work: Mapping[Client, Work], talk: Talk, trainings: int) -> dict[Client, ClientRound]:
        """What clustering took: several trainings of one model, and no update on the wire, only what was said."""
        fleet = self.federation.fleet
        silent, all_in = (self.measuring.clients(work, None, one) for one in (SILENCE, talk))
        server = fleet.server.seconds(sum(one.download_bytes for one in all_in.values()), sum(map(talk.uploaded, work)))
        clients = {}
        for client, one in all_in.items():
            sent, flops = talk.uploaded(client), trainings * one.flops
            seconds = client_time(
                fleet.device(client),
                flops=flops,
                download_bytes=one.download_bytes,
                upload_bytes=sent,
                secure_seconds=one.seconds.secure - silent[client].seconds.secure,
                server_seconds=server,
            )
            joules = trainings * one.joules
            clients[client] = replace(one, flops=flops, upload_bytes=sent, seconds=seconds, joules=joules)
        return clients

    def _trained(self, checkpoint: Checkpoint, iteration: int) -> Mapping[Client, Work]:
        """Everybody's training of the model as it is, other batches in each iteration."""
        setup = self.federation
        served = Served(setup.units.layout, checkpoint.state)
        context = RoundContext(checkpoint.number, setup.model_at(checkpoint), checkpoint.state, served)
        training = LocalTraining(setup.examples, setup.training, number_of(setup.seed, "clustering", iteration))
        return work_of((Fetch(), training, Delta()), context, setup.fleet.names, setup.units.layout)

    def _change(self, work: Work) -> NDArray[np.float64]:
        return vector_of(self.federation.units.layout, work.update).astype(np.float64)

    def _systems(self) -> tuple[SynchronousSystem, ...]:
        clusters = range(max(self.membership.values()) + 1)
        members = [
            [client for client in self.federation.fleet.names if self.membership[client] == one] for one in clusters
        ]
        return tuple(self.inner_of(self.part(clients, one)) for one, clients in zip(clusters, members, strict=True))

    def _together(self, checkpoint: Checkpoint, outcomes: Sequence[Outcome]) -> Outcome:
        """The rounds of all clusters as one; a cluster whose round was lost keeps its model."""
        rounds = [one for one in outcomes if isinstance(one, RoundResult)]
        lost = [one for one in outcomes if isinstance(one, LostRound)]
        longest = max(one.seconds for one in outcomes)
        if not rounds:
            reason = "; ".join(one.reason for one in lost)
            return LostRound(number=checkpoint.number, reason=reason, seconds=longest)
        clients = self._served_by_one({name: client for one in rounds for name, client in one.clients.items()})
        seconds = max(longest, self.measuring.round_seconds(clients))
        details = {
            name: fmean(one.details[name] for one in rounds if name in one.details)
            for name in sorted({name for one in rounds for name in one.details})
        }
        differences = [one.difference for one in rounds if one.difference is not None]
        said = [one.verdict if isinstance(one, RoundResult) else f"lost: {one.reason}" for one in outcomes]
        return RoundResult(
            number=checkpoint.number,
            accuracy=self._accuracy(outcomes),
            finished_at=checkpoint.seconds + seconds,
            seconds=seconds,
            clients=clients,
            survivors=tuple(name for one in rounds for name in one.survivors),
            withheld_share=fmean([one.withheld_share for one in rounds], [len(one.clients) for one in rounds]),
            difference=max(differences) if differences else None,
            verdict=f"the server knows who is in which of {len(said)} clusters. "
            + " ".join(f"Cluster {cluster}: {one}" for cluster, one in enumerate(said)),
            details={**details, "clusters": float(len(outcomes)), "clusters lost": float(len(lost))},
        )

    def _served_by_one(self, clients: Mapping[str, ClientRound]) -> Mapping[str, ClientRound]:
        """All clusters share the server's links: nobody is done before they have carried everybody's bytes."""
        to_all, from_all = self.federation.fleet.server.seconds(
            sum(one.download_bytes for one in clients.values()),
            sum(one.upload_bytes for one in clients.values() if not one.late),
        )
        times = {
            name: replace(
                one.seconds,
                download=max(one.seconds.download, to_all),
                upload=max(one.seconds.upload, from_all),
            )
            for name, one in clients.items()
        }
        return {name: replace(one, seconds=times[name]) for name, one in clients.items()}

    def _accuracy(self, outcomes: Sequence[Outcome]) -> float:
        """Over all clusters, by their clients' test examples or, where none has its own, by their clients."""
        found, weights = [], []
        for one, own, outcome in zip(self.inner, self._checkpoints, outcomes, strict=True):
            setup = one.federation
            found.append(_judged(setup, own) if isinstance(outcome, LostRound) else outcome.accuracy)
            tested = sum(map(len, setup.tests.values()))
            weights.append(tested if self.federation.tests else len(setup.examples))
        return fmean(found, weights)


@final
class ClusteredFedAvg(Clustered):
    """Dense clustered learning: federated averaging in each cluster."""

    @property
    def name(self) -> str:
        """The system and its aggregator."""
        return f"clustered FedAvg {self.aggregator.name}"

    def inner_of(self, federation: Federation) -> FedAvg:
        """See ``Clustered.inner_of``."""
        return FedAvg(federation, self.aggregator, twin=self.twin, calibration=self.measuring.calibration)


def _among(dropouts: Dropouts, federation: Federation) -> Dropouts:
    """Those of one cluster."""
    return {client: stage for client, stage in dropouts.items() if client in federation.examples}


def _judged(setup: Federation, checkpoint: Checkpoint) -> float:
    return accuracy(setup.model_at(checkpoint), setup.test, setup.training.precision)
