from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from attacks import digits
from attacks.attack import Threat
from attacks.finding import Effort
from attacks.measurement import Recovery
from attacks.rules import changed_units
from attacks.update.cosine import Cosine
from attacks.update.gradient_matching import DLG, IDLG
from attacks.update.probe import probe
from attacks.update.rounds import fewest, one_step, play
from protocols.models import digits_cnn, mlp
from protocols.training import Examples, Training
from secagg import Params

if TYPE_CHECKING:
    from attacks.deployment import Deployment
    from attacks.finding import Finding

FEW = Effort(reconstructions=2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches that are cut short: how far they get is tested beside them."""
    module = importlib.import_module("attacks.update.probe")  # the package has a function of that name
    monkeypatch.setattr(module, "DLG", lambda: DLG(iterations=5, starts=1))
    monkeypatch.setattr(module, "IDLG", lambda: IDLG(iterations=5, starts=1))
    monkeypatch.setattr(module, "Cosine", lambda **_: Cosine(iterations=40))


@pytest.fixture(scope="module")
def plain() -> Deployment:
    return digits.deployment(clients=5).variant("plain", training=Training(steps=2, batch_size=4, learning_rate=0.1))


def findings(deployment: Deployment) -> dict[str, Finding]:
    found = {one.attack: one for one in probe(deployment, FEW, np.random.default_rng(0))}
    assert all(one.deployment == deployment.name and one.note for one in found.values())
    return found


def figure(finding: Finding) -> Recovery:
    assert isinstance(finding.measurement, Recovery)
    return finding.measurement


def test_in_the_clear_examples_are_exact_and_nothing_is_promised(plain: Deployment) -> None:
    found = findings(plain)
    one = found["first-layer inversion, 1 example"]
    assert figure(one).median > 60
    assert figure(one).chance == 0
    assert not one.claimed
    assert one.cures
    assert [picture.original.shape for picture in one.pictures] == [(1, 8, 8)] * 2
    assert min(picture.psnr for picture in one.pictures) > 60
    assert not found["cosine and total variation, 1 example, 10% of the coordinates"].claimed
    assert {one.threat for one in found.values()} == {Threat.ONE_UPLOAD, Threat.THE_SUM}


def test_in_a_session_uploads_say_nothing_and_the_sum_is_judged_apart(plain: Deployment) -> None:
    secure = plain.variant("indexed", mode="mask-indexed", mask=changed_units(0.5), pruned=0.2)
    for name, one in findings(secure).items():
        if one.threat is Threat.ONE_UPLOAD:
            assert one.claimed, name
            assert figure(one).value == 0, name
        else:
            assert not one.claimed, name


def test_the_sum_is_tried_with_as_many_clients_as_the_settings_allow(plain: Deployment) -> None:
    more = plain.variant("ten", clients=[*plain.clients, *plain.clients])
    name = "first-layer inversion, 1 example, from the sum"
    sizes, shares = findings(more)[name].curves["clients in the sum"]
    assert sizes.tolist() == [2, 5, 10]
    assert shares[0] >= shares[-1]
    secure = more.variant("uniform", mode="uniform")
    assert findings(secure)[name].curves["clients in the sum"][0].tolist() == [5, 10]
    assert not findings(secure.variant("many shares", params=Params(share_threshold=8)))[name].curves


def test_the_victim_prunes_and_what_it_lacks_is_zero_where_it_starts(plain: Deployment) -> None:
    secure = plain.variant("indexed", mode="mask-indexed", mask=changed_units(0.5), pruned=0.2)
    (played,) = play(secure, one_step(secure.training, 1), 1, [7])
    view = played.upload.view
    assert view.held is not None
    assert 0.2 < float(torch.cat([one.flatten() for one in view.held.values()]).float().mean()) < 0.8
    start = view.model.state_dict()
    assert all((start[name][~held] == 0).all() for name, held in view.held.items())
    assert played.total.view.held is None
    assert played.total.view.examples == 5


def test_the_same_seeds_make_the_same_victims_of_every_deployment(plain: Deployment) -> None:
    rounds = [play(one, one_step(one.training, 1), 1, [1, 2]) for one in (plain, plain.variant("u", mode="uniform"))]
    for left, right in zip(*rounds, strict=True):
        np.testing.assert_array_equal(left.upload.secret.examples, right.upload.secret.examples)


def test_a_model_without_a_dense_first_layer_is_searched_instead(plain: Deployment) -> None:
    clients = [one.subset(range(8)) for one in plain.clients[:3]]
    found = findings(plain.variant("cnn", model=small_cnn, clients=clients))
    assert found["first-layer inversion, 1 example"].measurement is None
    assert "dense" in found["first-layer inversion, 1 example"].note
    assert found["cosine and total variation, 1 example, from the sum"].threat is Threat.THE_SUM


def small_cnn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Sigmoid(), nn.Flatten(), nn.Linear(36, 10))


def test_sequences_of_tokens_are_said_not_to_fit(plain: Deployment) -> None:
    tokens = Examples(torch.zeros(4, 5, dtype=torch.int64), torch.zeros(4, 5, dtype=torch.int64))
    found = findings(plain.variant("text", clients=[tokens, tokens], test=tokens))
    assert {one.measurement for one in found.values()} == {None}
    assert {one.attack for one in found.values()} >= {"DLG", "iDLG"}


def test_batch_normalisation_without_places_needs_two_examples(plain: Deployment) -> None:
    def normalised() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))

    assert fewest(plain.variant("dense", model=lambda: mlp(64, (4,)))) == 1
    assert fewest(plain.variant("convolutions", model=digits_cnn)) == 1
    assert fewest(plain.variant("normalised", model=normalised)) == 2
