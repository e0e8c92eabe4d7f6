from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from attacks.attack import Threat
from attacks.digits import deployment
from attacks.finding import Effort, broken
from attacks.masks import clients, cures, probe_labels, probe_rounds
from attacks.masks import probe as probe_module
from attacks.masks.probe import probe
from attacks.masks.probe_counts import masks_from_counts, weights_from_denominators
from attacks.masks.probe_rounds import round_findings
from attacks.protections import side_by_side
from attacks.rules import largest_coordinates
from protocols.training import Examples, one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attacks.deployment import Deployment
    from attacks.finding import Finding

PLAIN, UNIFORM, MASKED, PRIVATE = side_by_side(deployment(6))
EFFORT = Effort(reconstructions=2, decisions=40)


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched, one_thread():
        patched.setattr(cures, "ROUNDS", 1)
        patched.setattr(clients, "REPEATS", 1)
        patched.setattr(probe_labels, "EPSILONS", (1.0,))
        patched.setattr(probe_rounds, "ROUNDS", 3)
        patched.setattr(probe_rounds, "LOOKED_AT", 300)
        yield


@pytest.fixture(scope="module")
def of_masked() -> list[Finding]:
    return found(MASKED)


def found(one: Deployment) -> list[Finding]:
    return list(probe(one, EFFORT, np.random.default_rng(0)))


def value(finding: Finding) -> float:
    assert finding.measurement is not None
    return finding.measurement.value


def named(findings: list[Finding], attack: str) -> list[Finding]:
    return [one for one in findings if one.attack == attack]


def test_declared_masks_leak_labels_and_single_clients_out_over_rounds(of_masked: list[Finding]) -> None:
    findings = of_masked
    assert {one.deployment for one in findings} == {"mask-indexed"}
    one, two, own, top_one, top_two = named(findings, "label inference")
    assert min(value(top_one), value(one)) == 1
    assert min(value(top_two), value(two)) > 0.7
    assert value(own) >= 0.5
    for finding in (one, two):
        assert [cure.after is not None and cure.after.p_value > 0.01 for cure in finding.cures[1::2]] == [True, True]
        assert finding.curves
    assert not one.claimed
    assert [value(rounds) for rounds in named(findings, "cross-round intersection")[::2]] == [1 / 3, 1 / 3]
    for rounds in named(findings, "cross-round intersection")[::2]:
        assert [cure.after and cure.after.value for cure in rounds.cures] == [0, 0]


def test_the_release_rule_keeps_what_it_promises(of_masked: list[Finding]) -> None:
    findings = of_masked
    own, alone = named(findings, "coverage report")
    assert own.claimed
    assert value(own) == 0
    assert set(own.curves) == {f"holders of a coordinate, {part}" for part in ("all layers", "fc1", "fc2", "fc3")}
    assert all(share.sum() == pytest.approx(1) for _, share in own.curves.values())
    assert 0.3 < value(alone) < 0.6
    assert alone.cures[0].after is not None
    assert alone.cures[0].after.value == 0
    (weights,) = named(findings, "weights from denominators")
    assert weights.claimed
    assert value(weights) == 0
    assert "would open the weights of 2 of 6" in weights.note
    (masks,) = named(findings, "masks from denominators")
    assert value(masks) == 1
    assert masks.cures[0].after is not None
    assert masks.cures[0].after.value == 0
    assert broken(findings) == []


@pytest.mark.parametrize("one", [UNIFORM, PRIVATE], ids=["uniform", "private"])
def test_where_nobody_prunes_nothing_leaks(one: Deployment) -> None:
    findings = found(one)
    assert [finding.attack for finding in findings if finding.leaks(0.01)] == []
    assert len(named(findings, "label inference")) == 3
    assert [finding.attack for finding in findings if finding.measurement is None] == ["masks from denominators"]


def test_in_the_clear_weights_are_seen_and_nothing_is_claimed() -> None:
    findings = found(PLAIN)
    assert [one.attack for one in findings if one.claimed] == []
    assert value(named(findings, "weights from denominators")[0]) == 1


def test_a_uniform_session_of_pruned_clients_hides_their_masks() -> None:
    secret, rng = MASKED.variant("secret", mode="uniform"), np.random.default_rng(0)
    assert value(masks_from_counts(secret, EFFORT, rng)) == 0
    assert [value(one) for one in list(round_findings(secret, rng))[::2]] == [0, 0]
    exact = secret.variant("exact", params=replace(secret.params, exact_denominators=True))
    assert value(masks_from_counts(exact, EFFORT, rng)) == 1


def test_public_weights_are_counted_as_what_they_are() -> None:
    public = MASKED.variant("public", params=replace(MASKED.params, weighting="public"))
    finding = weights_from_denominators(public, np.random.default_rng(0))
    assert value(finding) == 1
    assert not finding.claimed


def test_two_classes_are_too_few_to_tell_apart() -> None:
    few = [Examples(one.inputs, one.labels % 2) for one in [*PLAIN.clients, PLAIN.test]]
    findings = found(PLAIN.variant("two classes", clients=few[:-1], test=few[-1]))
    (label,) = named(findings, "label inference")
    assert (label.measurement, label.threat) == (None, Threat.THE_MASKS)
    assert "fewer than three classes" in label.note


def test_masks_that_leave_nothing_to_release_are_reported_as_withheld() -> None:
    lonely = MASKED.variant(
        "lonely", params=replace(MASKED.params, min_cohort=5), pruned=1.0, mask=largest_coordinates(0.01)
    )
    own = probe_module._coverage(lonely, np.random.default_rng(0))
    assert value(own) == 0
    assert "100% of the coordinates are withheld" in own.note
    assert next(value(one) for one in round_findings(lonely, np.random.default_rng(0))) == 0
