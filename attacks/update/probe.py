"""What a server makes of one client's upload, and of the sum, on a deployment: the examples themselves, at worst."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from attacks.attack import Threat
from attacks.finding import Cure, Finding, Picture
from attacks.measurement import judged, measure_reconstruction
from attacks.rules import largest_coordinates
from attacks.update.cosine import Cosine
from attacks.update.first_layer import FirstLayer
from attacks.update.gradient_matching import DLG, IDLG
from attacks.update.quality import EXACT, RECOGNISABLE, ExampleReconstruction, matching, ssim
from attacks.update.rounds import fewest, one_step, play
from attacks.update.upload import first_dense
from secagg.errors import ParameterError, TooFewClientsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from attacks.attack import Trial
    from attacks.deployment import Deployment
    from attacks.finding import Effort
    from attacks.update.quality import Originals
    from attacks.update.rounds import Played
    from attacks.update.upload import Upload
    from protocols.training import Training

    Curves = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

MANY = 8
"""Examples of the larger batch."""
KEPT = 0.1
"""Density of the pruned upload."""

_PICTURES = 4
_SAYS = f"clients of whom an example is recognised (PSNR {RECOGNISABLE:g} dB or more)"
_UPLOAD = "Can the server see a client's examples in what that client uploads?"
_SUM = "Can whoever has the sum see one client's examples in it?"
_NO_DENSE = "The model does not start with a dense layer that has a bias, so there is nothing to divide."
_NOT_FOR = "These attacks need examples of real numbers and one label each; this deployment's are of another kind."


def probe(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Iterator[Finding]:
    """Tries to see examples: in uploads, in a pruned one where nothing is protected, and in sums.

    Args:
        deployment: What to attack.
        effort: How many victims.
        rng: Of who trains on what, and of the attacks.
    """
    seeds = [int(seed) for seed in rng.integers(2**31, size=max(2, effort.reconstructions))]
    bench = _Bench(deployment, rng)
    if not deployment.test.inputs.is_floating_point() or deployment.test.labels.ndim != 1:
        for attack in (FirstLayer(), DLG(), IDLG(), Cosine()):
            yield bench.unfit(attack, "", _NOT_FOR)
        return
    least = fewest(deployment)
    few, many = f"{least} example{'s' * (least > 1)}", f"{MANY} examples"
    own = f"{deployment.training.steps} steps of {deployment.training.batch_size} examples"
    single = play(deployment, one_step(deployment.training, least), least, seeds)
    batch = play(deployment, one_step(deployment.training, MANY), MANY, seeds)
    local = play(deployment, deployment.training, None, seeds)
    direct = first_dense(single[0].upload.view) is not None
    for said, played in {few: single, many: batch, own: local}.items():
        yield bench.upload(FirstLayer(), said, played) if direct else bench.unfit(FirstLayer(), said, _NO_DENSE)
    for attack in (DLG(), IDLG(), Cosine()):
        yield bench.upload(attack, few, single)
    yield bench.upload(Cosine(iterations=100), own, local)
    if deployment.mode == "plain":
        pruned = deployment.variant(deployment.name, mask=largest_coordinates(KEPT), pruned=1 / len(deployment.clients))
        played = play(pruned, one_step(deployment.training, least), least, seeds)
        yield bench.upload(Cosine(), f"{few}, {KEPT:.0%} of the coordinates", played)
    reader = FirstLayer() if direct else Cosine()
    yield replace(
        bench.total(reader, few, single),
        curves=bench.by_cohort(reader, one_step(deployment.training, least), least, seeds),
    )
    if direct:
        yield bench.total(FirstLayer(), own, local)


@dataclass(frozen=True, eq=False)
class _Bench:
    """Makes findings of attacks on one deployment."""

    deployment: Deployment
    rng: np.random.Generator

    def upload(self, attack: ExampleReconstruction, said: str, played: Sequence[Played]) -> Finding:
        """What comes out of uploads."""
        finding = self._found(attack, said, [one.upload for one in played])
        if self.deployment.mode != "plain":
            return finding
        bits = self.deployment.params.ring(len(self.deployment.clients)).bits
        return replace(
            finding, cures=(Cure("mode='uniform'", f"{bits} bits a coordinate in the upload instead of 32"),)
        )

    def total(self, attack: ExampleReconstruction, said: str, played: Sequence[Played]) -> Finding:
        """What comes out of sums, read as if one client had trained on everybody's examples."""
        finding = self._found(attack, said, [one.total for one in played])
        return replace(
            finding,
            attack=f"{finding.attack}, from the sum",
            question=_SUM,
            threat=Threat.THE_SUM,
            claimed=self.deployment.claims(Threat.THE_SUM),
            cures=(
                Cure("params.privacy=PrivacyBudget(epsilon=8.0).privacy(...)", "accuracy, by the noise on the mean"),
                Cure("a larger batch_size", "time on the devices; more examples have to share each neuron"),
            ),
        )

    def by_cohort(self, attack: ExampleReconstruction, training: Training, examples: int, seeds: list[int]) -> Curves:
        """What comes out of the sums of smaller cohorts, as far as the settings allow them.

        None where noise is made for one size of cohort, or where masks decide what is in a sum.
        """
        everyone = len(self.deployment.clients)
        sizes = [size for size in (everyone // 4, everyone // 2, everyone) if self._allows(size)]
        if self.deployment.params.privacy is not None or self.deployment.mode == "mask-indexed" or len(sizes) < 2:
            return {}
        shares = []
        for size in sizes:
            trials = [one.total for one in play(self.deployment, training, examples, seeds, size)]
            shares.append(measure_reconstruction(attack, trials, self.rng, _SAYS).value)
        return {"clients in the sum": (np.array(sizes, np.float64), np.array(shares))}

    def _allows(self, size: int) -> bool:
        if self.deployment.mode == "plain":
            return size > 1
        try:
            self.deployment.params.topology(size)
        except (ParameterError, TooFewClientsError):
            return False
        return True

    def unfit(self, attack: ExampleReconstruction, said: str, why: str) -> Finding:
        """That an attack does not apply."""
        finding = Finding.of(attack, self.deployment, question=_UPLOAD, note=why)
        return replace(finding, attack=", ".join(filter(None, (attack.name, said))))

    def _found(self, attack: ExampleReconstruction, said: str, trials: Sequence[Trial[Upload, Originals]]) -> Finding:
        guesses = [attack.guess(trial.view, self.rng) for trial in trials]
        return replace(
            self.unfit(attack, said, _note(guesses, trials, len(self.deployment.clients))),
            measurement=judged(attack, trials, guesses, _SAYS),
            pictures=tuple(map(_picture, guesses[:_PICTURES], trials)),
        )


def _note(guesses: Sequence[NDArray[np.float64]], trials: Sequence[Trial[Upload, Originals]], clients: int) -> str:
    pairs = [matching(guess, trial.secret).psnr for guess, trial in zip(guesses, trials, strict=True)]
    seen, exact = (float(np.mean([(one >= bar).mean() for one in pairs])) for bar in (RECOGNISABLE, EXACT))
    best = float(np.median([one[0] for one in pairs]))
    return (
        f"{clients} clients a round, {len(trials)} victims. {seen:.0%} of the guesses are recognised and {exact:.0%} "
        f"exact (PSNR {EXACT:g} dB or more), each held against a different example of its victim; the best about each "
        f"victim has a median PSNR of {best:.0f} dB."
    )


def _picture(guess: NDArray[np.float64], trial: Trial[Upload, Originals]) -> Picture:
    """The guess that comes nearest to an example."""
    best, width = matching(guess, trial.secret), trial.secret.high - trial.secret.low
    original, made = trial.secret.examples[best.examples[0]], guess[best.guesses[0]]
    return Picture(original, made, float(best.psnr[0]), ssim(original, made, width))
