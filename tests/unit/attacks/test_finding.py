from __future__ import annotations

import json

import numpy as np
import pytest

from attacks.attack import Threat
from attacks.finding import Cure, Effort, Finding, broken
from attacks.measurement import Bound, Exposure
from secagg.errors import ParameterError


def finding(p_value: float, *, claimed: bool = True) -> Finding:
    return Finding(
        attack="guessing",
        question="Can it be guessed?",
        threat=Threat.THE_SUM,
        deployment="uniform",
        measurement=Bound("epsilon", 1.0, 2.0, 5.0, 1e-5, 100, p_value),
        claimed=claimed,
        cures=(Cure("privacy=...", "noise", Exposure("alone", 0, 3)),),
        curves={"clients": (np.arange(3.0), np.ones(3))},
    )


def test_promises_are_called_broken_by_holms_steps() -> None:
    """Of four, the least has to be at or below a quarter of alpha, the next a third of it, and the first miss ends."""
    findings = [finding(p) for p in (0.0125, 0.016, 0.026, 0.04)]
    assert [one.measurement.p_value for one in broken(findings) if one.measurement] == [0.0125, 0.016]
    assert broken([finding(p) for p in (0.013, 0.013, 0.013, 0.013)]) == []


def test_what_nobody_promised_breaks_nothing() -> None:
    one = finding(0.0, claimed=False)
    assert one.leaks()
    assert broken([one]) == []


def test_deployments_that_keep_their_promises_are_accused_no_oftener_than_alpha() -> None:
    rng = np.random.default_rng(0)
    accused = [bool(broken([finding(p) for p in rng.random(20)])) for _ in range(2000)]
    assert np.mean(accused) <= 0.06


def test_a_finding_is_json() -> None:
    written = json.loads(json.dumps(finding(0.5).to_json(), allow_nan=False))
    assert written["cures"][0]["after"]["value"] == 0
    assert written["sees"] == Threat.THE_SUM.value


def test_effort_scales_and_never_below_what_a_figure_takes() -> None:
    assert Effort().times(2) == Effort(reconstructions=16, decisions=400, noise_trials=2000, shadows=16)
    assert Effort().times(1e-6) == Effort(reconstructions=2, decisions=20, noise_trials=50, shadows=4)
    with pytest.raises(ParameterError, match="effort"):
        Effort().times(0)
