"""The promises of sparse masking graphs, against many random rings.

    python tests/benchmarks/graph_simulation.py [--rings 100000] [--clients 1000] [--dropout 0.1] [--corrupt 0.05]

For the graph that `Params.for_cohort` finds nothing may happen in any number of rings that can be tried. So weaker
graphs follow, whose failures are frequent enough to count: the mean number of clients with too many corrupt, or too
few live, neighbours, and of windows that are gone whole, must be what the hypergeometric tails say, and a ring falls
apart no more often than such windows occur.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, replace

import numpy as np

from secagg.graph import Demands, Failures
from secagg.params import Params

BATCH = 1000
SLACK = 5.0
"""Standard deviations that a mean may be off; counts within one ring are correlated, so rings are the sample."""


@dataclass(frozen=True)
class Observed:
    """What happened in the rings: mean counts a ring with the error of the mean, and rings that fell apart."""

    means: Failures
    errors: Failures
    apart: int


def simulate(clients: int, degree: int, threshold: int, demands: Demands, rings: int) -> Observed:
    """Counts windows that are gone whole, clients with too many corrupt neighbours, and clients with too few live."""
    generator = np.random.default_rng(2017)
    counts: list[list[float]] = [[], [], []]
    apart = 0
    for start in range(0, rings, BATCH):
        order = generator.random((min(BATCH, rings - start), clients)).argsort(axis=1)
        lost, corrupt = order < demands.lost, (order >= demands.lost) & (order < demands.lost + demands.corrupt)
        whole = around(lost | corrupt, 1, degree // 2) == degree // 2
        counts[0] += whole.sum(axis=1).tolist()
        counts[1] += (neighbours(corrupt, degree) >= threshold).sum(axis=1).tolist()
        counts[2] += (neighbours(lost, degree) >= degree - threshold + 1).sum(axis=1).tolist()
        # Two gaps of degree / 2 on either side of survivors part them; every gap is one window that follows a survivor.
        gaps = (whole & ~(lost | corrupt)).sum(axis=1)
        apart += int((gaps >= 2).sum())
    means = Failures(*(float(np.mean(count)) for count in counts))
    errors = Failures(*(float(np.std(count) / math.sqrt(rings)) for count in counts))
    return Observed(means, errors, apart)


def around(marked: np.ndarray, first: int, width: int) -> np.ndarray:
    """How many of the ``width`` places from ``first`` on after each place are marked, around the ring."""
    rolled = np.concatenate([marked, marked[:, : first + width]], axis=1)
    sums = np.cumsum(np.pad(rolled, ((0, 0), (1, 0))), axis=1, dtype=np.int32)
    count = marked.shape[1]
    return sums[:, first + width : first + width + count] - sums[:, first : first + count]


def neighbours(marked: np.ndarray, degree: int) -> np.ndarray:
    """How many neighbours of each place are marked."""
    after = around(marked, 1, degree // 2)
    return after + np.roll(after, degree // 2 + 1, axis=1)


def main() -> int:
    """Prints a line for each graph; exit code 1 if any mean is off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rings", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--corrupt", type=float, default=0.05)
    arguments = parser.parse_args()
    off = 0
    say(f"{arguments.rings:,} rings of {arguments.clients:,} clients; a ring: predicted mean, observed mean")
    say(f"{'k':>4} {'t':>4} {'windows gone':>22} {'secrets open':>22} {'starved':>22} {'apart':>6}")
    params = Params.for_cohort(arguments.clients, arguments.dropout, arguments.corrupt)
    demands = Demands(lost=params.max_dropouts or 0, corrupt=params.corrupt)
    wired = params.topology(arguments.clients)
    for degree, threshold in [(wired.degree, wired.threshold), (8, 3), (12, 4), (16, 5)]:
        observed = simulate(arguments.clients, degree, threshold, demands, arguments.rings)
        cells = []
        for name in ("split", "opened", "starved"):
            expected = expected_mean(name, arguments.clients, degree, threshold, demands)
            mean, error = getattr(observed.means, name), getattr(observed.errors, name)
            wrong = abs(mean - expected) > SLACK * max(error, math.sqrt(expected / arguments.rings)) + 1e-12
            off += wrong
            cells.append(f"{expected:10.3g} {mean:9.3g}{' !' if wrong else '  '}")
        counts = " ".join(f"{cell:>22}" for cell in cells)
        say(f"{degree:4} {threshold:4} {counts} {observed.apart:6}")
    return 1 if off else 0


def expected_mean(name: str, clients: int, degree: int, threshold: int, demands: Demands) -> float:
    """Mean count in a ring, exactly: a client that is itself lost or corrupt has one such client less around it."""
    kind = {"split": "lost", "opened": "corrupt", "starved": "lost"}[name]
    marked = demands.lost + demands.corrupt if name == "split" else getattr(demands, kind)
    if not marked:
        return 0.0
    fewer = replace(demands, **{kind: getattr(demands, kind) - 1})
    others, own = (2 ** getattr(d.failures(clients, degree, threshold), name) for d in (demands, fewer))
    return (others * (clients - marked) + own * marked) / clients


def say(line: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
