from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from attacks.attack import Threat
from attacks.deployment import Deployment, Mode
from attacks.digits import deployment
from attacks.protections import PROTECTIONS, private, side_by_side
from attacks.rules import RULES, changed_units, largest_coordinates, rule, units_at_random
from protocols.training import Examples, Training
from secagg import PrivacyBudget
from secagg.errors import InputError, ParameterError

CLIENTS = 8


@cache
def plain() -> Deployment:
    return deployment(CLIENTS)


@cache
def updates() -> dict[int, dict[str, torch.Tensor]]:
    model = plain().model()
    return {client: dict(plain().update(model, plain().clients[client], client)) for client in range(CLIENTS)}


def of_mode(mode: Mode) -> Deployment:
    return plain().variant(mode, mode=mode, mask=changed_units(0.5), pruned=0.25)


def test_in_the_clear_the_server_sees_the_updates_themselves() -> None:
    seen = plain().exchange(updates())
    for client, update in updates().items():
        np.testing.assert_array_equal(plain().vector(seen.uploads[client]), plain().vector(update))
    mean = np.mean([plain().vector(update) for update in updates().values()], axis=0)
    np.testing.assert_allclose(plain().vector(seen.mean), mean, atol=1e-6)


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
def test_a_masked_upload_is_spread_evenly_over_the_ring_and_says_nothing_of_the_update(mode: Mode) -> None:
    secure, client = of_mode(mode), CLIENTS - 1
    upload = secure.vector(secure.exchange(updates(), seed=3).uploads[client])
    reach = 2 ** (secure.params.ring(CLIENTS).bits - 1) * secure.params.range_of("fc1.weight") / secure.params.magnitude
    assert stats.kstest(upload / reach, "uniform", (-1, 2)).pvalue > 0.01
    assert stats.pearsonr(upload, plain().vector(updates()[client])).pvalue > 0.01


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
def test_the_sum_is_that_of_the_submodels_encrypted_or_not(mode: Mode) -> None:
    secure, model = of_mode(mode), plain().model()
    masks = secure.masks(model, updates(), np.random.default_rng(0))
    assert list(masks) == [0, 1]
    sent = updates() | {
        client: dict(secure.update(model, secure.clients[client], client, mask=mask)) for client, mask in masks.items()
    }
    for client, mask in masks.items():
        assert not secure.vector(sent[client])[~mask.coordinates].any()
    seen, clear = secure.exchange(sent, masks), secure.exchange(sent, masks, encrypted=False)
    np.testing.assert_array_equal(secure.vector(seen.mean), secure.vector(clear.mean))
    np.testing.assert_array_equal(seen.holders, clear.holders)
    if mode == "uniform":
        assert seen.declared == {}
        assert set(seen.holders) == {CLIENTS}
    else:
        np.testing.assert_array_equal(seen.declared[0], masks[0].coordinates)
        held = np.sum([masks[client].coordinates for client in masks], axis=0) + CLIENTS - 2
        np.testing.assert_array_equal(seen.holders, held)


def test_a_private_sum_has_the_noise_of_its_budget() -> None:
    noisy = private(plain(), PrivacyBudget(epsilon=8.0, clip=0.1))
    privacy = noisy.params.privacy
    assert privacy is not None
    nothing = {client: noisy.state(np.zeros(noisy.layout.size)) for client in range(CLIENTS)}
    for encrypted in (True, False):
        noise = noisy.vector(noisy.exchange(nothing, encrypted=encrypted).mean) * CLIENTS
        survivors = CLIENTS - noisy.params.max_dropouts if noisy.params.max_dropouts is not None else CLIENTS
        wanted = privacy.noise_multiplier * privacy.clip * np.sqrt(CLIENTS / survivors)  # sized for one dropout
        assert noise.std() == pytest.approx(wanted, rel=0.05)


def test_only_sessions_promise_anything() -> None:
    assert not any(plain().claims(threat) for threat in Threat)
    assert of_mode("uniform").claims(Threat.ONE_UPLOAD)
    assert not of_mode("uniform").claims(Threat.THE_SUM)


def test_all_rules_keep_what_they_are_asked_to() -> None:
    model, rng = plain().model(), np.random.default_rng(0)
    for name in RULES:
        one = rule(name, 0.25)
        masks = plain().variant("pruned", mask=one, pruned=1.0).masks(model, updates(), rng)
        assert len(masks) == CLIENTS
        assert all(0.05 < mask.density < 0.3 for mask in masks.values()), name
    top = largest_coordinates(0.1)(plain(), model, updates()[0], rng).coordinates
    size = np.abs(plain().vector(updates()[0]))
    assert size[top].min() >= size[~top].max()
    first, second = (units_at_random(0.5)(plain(), model, updates()[0], rng) for _ in range(2))
    assert first != second
    with pytest.raises(ParameterError, match="changed-units"):
        rule("no-such-rule", 0.5)
    with pytest.raises(ParameterError, match="keep"):
        rule("changed-units", 0)


def test_a_model_without_units_can_be_audited_but_not_pruned_by_units() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 3))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.sin(inputs) @ self.weight

    data = [Examples(torch.rand(8, 4), torch.arange(8) % 3) for _ in range(3)]
    odd = Deployment(
        name="odd", model=Odd, clients=data, test=data[0], training=Training(steps=1, batch_size=4), mode="plain"
    )
    assert odd.layout.size == 12
    update = odd.update(Odd(), data[0], 0)
    with pytest.raises(ParameterError, match="largest-coordinates"):
        changed_units(0.5)(odd, Odd(), update, np.random.default_rng(0))


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="two clients"):
        plain().variant("alone", clients=plain().clients[:1])
    with pytest.raises(ParameterError, match="pruned"):
        plain().variant("pruned", pruned=0.5)
    noisy = private(plain(), PrivacyBudget(epsilon=8.0))
    with pytest.raises(ParameterError, match="noise"):
        replace(noisy, mode="plain")


def test_a_federation_stands_under_all_protections_side_by_side() -> None:
    found = side_by_side(plain())
    assert [one.name for one in found] == list(PROTECTIONS)
    assert [one.mode for one in found] == ["plain", "uniform", "mask-indexed", "uniform"]
    norms = [np.linalg.norm(plain().vector(update)) for update in updates().values()]
    privacy = found[-1].params.privacy
    assert privacy is not None
    assert privacy.clip == pytest.approx(np.median(norms))
    with pytest.raises(ParameterError, match="mask-indexed"):
        side_by_side(plain(), ["rot13"])  # type: ignore[list-item]
