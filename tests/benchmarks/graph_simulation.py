"""The promises of sparse masking graphs, against many random rings.

    python tests/benchmarks/graph_simulation.py [--rings 100000] [--clients 1000] [--dropout 0.1] [--corrupt 0.05]

For the graphs that `Params.for_cohort` finds nothing may happen in any number of rings that can be tried. So weaker
ones follow, whose failures are frequent enough to count. The mean number of bad windows, of clients with too many
corrupt neighbours, and of clients and windows with too few live ones must be what SciPy's hypergeometric tails say, and
the bounds that the project computes must not lie below.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import astuple, dataclass

import numpy as np
from scipy.stats import hypergeom

from secagg.graph import Demands, Failures
from secagg.params import Params

BATCH = 1000
SLACK = 5.0
"""Standard deviations that a mean may be off; counts within one ring are correlated, so rings are the sample."""


@dataclass(frozen=True)
class Event:
    """Something that may happen around a place: of ``drawn`` companions, ``least`` or more are ``marked``."""

    marked: str
    drawn: str
    least: int


@dataclass(frozen=True)
class Wiring:
    """A graph and what it has to bear."""

    degree: int
    threshold: int
    demands: Demands

    def events(self, clients: int) -> dict[str, tuple[Event, ...]]:
        """What each of the probabilities in ``Failures`` is about."""
        window, floor = self.degree // 2, self.demands.window_floor(clients, self.degree)
        dead = Event("lost", "neighbours", self.degree - self.threshold + 1)
        thin = Event("lost", "window", window - floor + 1)
        if self.demands.active:
            parted = Event("corrupt", "window", floor)
            told_twice = Event("corrupt", "neighbours", 2 * self.threshold - self.degree - 1)
            return {"split": (parted,), "opened": (told_twice,), "starved": (dead, thin)}
        whole = Event("gone", "window", window)
        return {"split": (whole,), "opened": (Event("corrupt", "neighbours", self.threshold),), "starved": (dead, thin)}


def simulate(clients: int, wiring: Wiring, rings: int) -> tuple[Failures, Failures]:
    """Mean counts a ring, and their standard errors."""
    generator = np.random.default_rng(2017)
    demands, degree = wiring.demands, wiring.degree
    counts: dict[str, list[float]] = {name: [] for name in wiring.events(clients)}
    for start in range(0, rings, BATCH):
        order = generator.random((min(BATCH, rings - start), clients)).argsort(axis=1)
        lost = order < demands.lost
        gone = order < demands.lost + demands.corrupt
        kinds = {"lost": lost, "gone": gone, "corrupt": gone & ~lost}
        for name, events in wiring.events(clients).items():
            hits = np.zeros(len(order), np.int64)
            for event in events:
                marked = kinds[event.marked]
                found = around(marked, degree // 2) if event.drawn == "window" else neighbours(marked, degree)
                hits += (found >= event.least).sum(axis=1)
            counts[name] += hits.tolist()
    means = Failures(**{name: float(np.mean(count)) for name, count in counts.items()})
    errors = Failures(**{name: float(np.std(count) / math.sqrt(rings)) for name, count in counts.items()})
    return means, errors


def around(marked: np.ndarray, width: int) -> np.ndarray:
    """How many of the ``width`` places after each place are marked, around the ring."""
    rolled = np.concatenate([marked, marked[:, : 1 + width]], axis=1)
    sums = np.cumsum(np.pad(rolled, ((0, 0), (1, 0))), axis=1, dtype=np.int32)
    count = marked.shape[1]
    return sums[:, 1 + width : 1 + width + count] - sums[:, 1 : 1 + count]


def neighbours(marked: np.ndarray, degree: int) -> np.ndarray:
    """How many neighbours of each place are marked."""
    after = around(marked, degree // 2)
    return after + np.roll(after, degree // 2 + 1, axis=1)


def predicted(clients: int, wiring: Wiring) -> Failures:
    """The mean counts, exactly."""
    demands = wiring.demands
    marked = {"lost": demands.lost, "corrupt": demands.corrupt, "gone": demands.lost + demands.corrupt}
    drawn = {"window": wiring.degree // 2, "neighbours": wiring.degree}
    means = {
        name: sum(clients * hypergeom.sf(e.least - 1, clients, marked[e.marked], drawn[e.drawn]) for e in events)
        for name, events in wiring.events(clients).items()
    }
    return Failures(**{name: float(mean) for name, mean in means.items()})


def main() -> int:
    """Prints a line for each graph; exit code 1 if any mean is off, or any bound too low."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rings", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--corrupt", type=float, default=0.05)
    arguments = parser.parse_args()
    clients, rings = arguments.clients, arguments.rings
    off = 0
    say(f"{rings:,} rings of {clients:,} clients; mean count a ring: predicted, observed (! where they contradict)")
    say(f"{'server':>12} {'k':>4} {'t':>4} {'split':>22} {'opened':>22} {'starved':>22}")
    for adversary, weaker in (("semi-honest", [(8, 3), (12, 4), (16, 5)]), ("active", [(16, 12), (24, 16), (40, 26)])):
        params = Params.for_cohort(clients, arguments.dropout, arguments.corrupt, adversary=adversary)
        found = params.topology(clients)
        lost = params.dropouts_tolerated(clients, params.quorum(clients))
        chosen = Demands(lost=lost, corrupt=params.corrupt, active=params.active)
        lax = Demands(lost=lost, corrupt=params.corrupt, active=params.active, security_bits=-55)  # 2^-5 if active
        wirings = [Wiring(found.degree, found.threshold, chosen)] + [Wiring(k, t, lax) for k, t in weaker]
        for wiring in wirings:
            cells = []
            means, errors = simulate(clients, wiring, rings)
            bounds = wiring.demands.failures(clients, wiring.degree, wiring.threshold)
            for expected, mean, error, bound in zip(
                *map(astuple, (predicted(clients, wiring), means, errors, bounds)), strict=True
            ):
                wrong = abs(mean - expected) > SLACK * max(error, math.sqrt(expected / rings)) + 1e-12
                wrong |= expected > 2**bound * (1 + 1e-9)
                off += wrong
                cells.append(f"{expected:10.3g} {mean:9.3g}{' !' if wrong else '  '}")
            say(f"{adversary:>12} {wiring.degree:4} {wiring.threshold:4} " + " ".join(f"{cell:>22}" for cell in cells))
    return 1 if off else 0


def say(line: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
