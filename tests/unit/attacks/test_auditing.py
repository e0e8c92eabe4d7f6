from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from attacks import auditing, wire
from attacks.attack import Threat
from attacks.auditing import GROUPS, audit
from attacks.digits import deployment
from attacks.finding import Effort, Finding
from attacks.measurement import Detection, Exposure
from attacks.wire import ATTACKS
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from attacks.deployment import Deployment


def noisy(deployment: Deployment, effort: Effort, rng: np.random.Generator) -> Iterator[Finding]:
    """Promises nothing where updates travel in the clear, and keeps its promise elsewhere."""
    leak = 3.0 if deployment.mode == "plain" else 0.0
    scores = rng.normal(leak, 1, effort.decisions), rng.normal(0, 1, effort.decisions)
    yield Finding(
        attack="scoring",
        question="Can it be told?",
        threat=Threat.ONE_UPLOAD,
        deployment=deployment.name,
        measurement=Detection("answers", *scores),
        claimed=deployment.claims(Threat.ONE_UPLOAD),
    )


def lying(deployment: Deployment, _effort: Effort, _rng: np.random.Generator) -> Iterator[Finding]:
    yield Finding(
        attack="counting",
        question="Is anybody alone?",
        threat=Threat.THE_MASKS,
        deployment=deployment.name,
        measurement=Exposure("alone", 1, 2),
        claimed=True,
    )


def test_an_audit_runs_every_group_on_every_deployment_and_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "PROBES", {"update": noisy, "total": noisy})
    plain, told = deployment(4), list[tuple[str, str]]()
    both = plain, plain.variant("uniform", mode="uniform")
    found = audit(both, effort=Effort(decisions=40), groups=("update", "total"), tell=lambda *one: told.append(one))
    assert told == [(name, group) for name in ("plain", "uniform") for group in ("update", "total")]
    assert [one.leaks() for one in found.findings] == [True, True, False, False]
    assert found.passed
    again = audit(both, effort=Effort(decisions=40), groups=("update", "total"))
    assert [one.to_json() for one in again.findings] == [one.to_json() for one in found.findings]
    values = [one.measurement.value for one in found.findings if one.measurement]
    assert values[0] != values[1]  # each group draws for itself
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["passed"]


def test_a_broken_promise_fails_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "PROBES", {"masks": lying})
    found = audit([deployment(4)], groups=["masks"])
    assert not found.passed
    assert found.broken == list(found.findings)


def test_every_attack_on_the_protocol_is_tried_with_and_without_what_stops_it() -> None:
    found = audit([deployment(4)], groups=["wire"])
    assert len(found.scenarios) == len(ATTACKS)
    assert all(one.held and one.proven for one in found.scenarios)
    assert found.passed


def test_an_attack_on_the_protocol_that_gets_through_fails_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ATTACKS[0]
    for weakness in first.weakness:
        monkeypatch.setattr(weakness.owner, weakness.name, weakness.instead)
    monkeypatch.setattr(wire, "ATTACKS", (first,))
    found = audit([deployment(4)], groups=["wire"])
    assert not found.scenarios[0].held
    assert not found.passed


def test_what_cannot_be_audited_is_refused() -> None:
    plain = deployment(4)
    with pytest.raises(ParameterError, match="own name"):
        audit([plain, plain])
    with pytest.raises(ParameterError, match="own name"):
        audit([])
    with pytest.raises(ParameterError, match=", ".join(GROUPS)):
        audit([plain], groups=["update", "stars"])
