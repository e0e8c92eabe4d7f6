"""How often the auditor of differential privacy is wrong, and what it finds out: many simulated audits.

    python tests/benchmarks/dp_auditor.py [--runs 1000] [--trials 1000] [--delta 1e-5] [--seed 0] [--format json]

Each line is one bound at one noise, over so many audits of so many trials:

    flagged     share of audits of noise exactly as claimed that say it is not; at most 5 %
    mean        mean of these bounds, beside the true epsilon
    caught      share of audits of half of the claimed noise that say so; the Gaussian bound has to

The noise is Gaussian, of a standard deviation in clip norms, or integer: "skellam s/v" shifts noise of variance v by s,
and the true epsilon is computed from its law. The Gaussian bound is not for noise of few steps, and is left out there.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from attacks.dp import clopper_pearson, gaussian, one_run, oracle
from attacks.dp.bound import ALPHA, Claim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ROOM = 4096
GAUSSIAN = (0.5, 1.0, 2.0, 5.0)
SKELLAM = ((1, 1.0), (2, 3.0), (100, 1e4), (300, 1e4))


@dataclass(frozen=True)
class Noise:
    """Noise in a sum, in units of the canary; ``law`` is that of integer noise."""

    name: str
    mu: float
    epsilon: float
    law: NDArray[np.float64] | None = None
    shift: float = 1.0

    def drawn(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Independent values, (count,)."""
        if self.law is None:
            return rng.normal(0, 1 / self.mu, count)
        numbers = (np.arange(ROOM) + ROOM // 2) % ROOM - ROOM // 2
        return rng.choice(numbers, count, p=self.law / self.law.sum()) / self.shift


@dataclass(frozen=True)
class Line:
    """What came of all audits of one noise by one bound."""

    noise: str
    bound: str
    epsilon: float
    flagged: float
    mean: float
    caught: float


def integer(shift: int, variance: float, delta: float) -> Noise:
    """Skellam noise, and its exact epsilon."""
    law = oracle.share_law("skellam", variance, ROOM)
    mu = shift / math.sqrt(variance)
    return Noise(f"skellam {shift}/{variance:g}", mu, oracle.epsilon_at(delta, law, shift), law, shift)


def halved(noise: Noise) -> Noise:
    """The same with half the standard deviation."""
    law = None
    if noise.law is not None:
        law = oracle.share_law("skellam", (noise.shift / noise.mu) ** 2 / 4, ROOM)
    return Noise(noise.name, 2 * noise.mu, math.inf, law, noise.shift)


def audits(noise: Noise, claim: Claim, trials: int, guesses: int, rng: np.random.Generator) -> dict[str, float]:
    """Bound to the epsilon that one audit rules out."""
    drawn = noise.drawn(trials, rng)
    yes, no, inside = drawn[::2] + 1, drawn[1::2], rng.random(trials) < 0.5
    return {
        "Clopper-Pearson": clopper_pearson.epsilon(*clopper_pearson.errors(yes, no, claim.delta), claim.delta),
        "one run": one_run.bound(drawn + inside, inside, 0.5, guesses, claim).epsilon,
        "Gaussian": gaussian.bound(yes, no, 0.5, claim).epsilon,
    }


def measured(noise: Noise, runs: int, trials: int, delta: float, rng: np.random.Generator) -> list[Line]:
    """All bounds at one noise."""
    claim, guesses = Claim(noise.epsilon, delta), one_run.best_guesses(trials, noise.mu, delta)
    honest = [audits(noise, claim, trials, guesses, rng) for _ in range(runs)]
    broken = [audits(halved(noise), claim, trials, guesses, rng) for _ in range(runs)]
    lines = []
    for bound in honest[0]:
        if bound == "Gaussian" and noise.law is not None and noise.shift / noise.mu < gaussian.LEAST_STD:
            continue
        kept, less = (np.array([one[bound] for one in found]) for found in (honest, broken))
        flagged, caught = ((found > claim.epsilon).mean() for found in (kept, less))
        lines.append(Line(noise.name, bound, claim.epsilon, float(flagged), float(kept.mean()), float(caught)))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each noise and bound; fails where more audits are wrong than may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    chosen = parser.parse_args(arguments)
    rng = np.random.default_rng(chosen.seed)
    noises = [Noise(f"gaussian {std:g}", 1 / std, gaussian.epsilon_at(1 / std, chosen.delta)) for std in GAUSSIAN]
    noises += [integer(shift, variance, chosen.delta) for shift, variance in SKELLAM]
    found: list[Line] = []
    if chosen.format == "table":
        say(f"{chosen.runs} audits of {chosen.trials} trials, delta {chosen.delta:g}")
        say(f"{'noise':<16} {'bound':<16} {'epsilon':>8} {'flagged':>8} {'mean':>7} {'caught':>7}")
    for noise in noises:
        for line in measured(noise, chosen.runs, chosen.trials, chosen.delta, rng):
            found.append(line)
            if chosen.format == "table":
                say(
                    f"{line.noise:<16} {line.bound:<16} {line.epsilon:8.2f} {line.flagged:8.1%} {line.mean:7.2f} "
                    f"{line.caught:7.1%}"
                )
    if chosen.format == "json":
        say(json.dumps([asdict(one) for one in found], indent=2))
    room = 3 * math.sqrt(ALPHA * (1 - ALPHA) / chosen.runs)
    return int(any(one.flagged > ALPHA + room for one in found))


def say(line: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
