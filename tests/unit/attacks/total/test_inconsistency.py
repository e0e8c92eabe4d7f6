"""Dead models for everybody else make the sum the victim's update, unless clients compare the roots of their models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from attacks.attack import Trial
from attacks.total.inconsistency import Inconsistency, Silenced
from attacks.wire.hostile import HostileServer
from secagg import Params, Session, merkle
from secagg.driver import Contribution
from secagg.errors import SecAggError, ShareError, SignatureError
from tests.unit.attacks.conformance import ReconstructionContract
from tests.unit.attacks.total.federation import CLIENTS, federation, played, private

Cases = list[Trial[Silenced, "np.typing.NDArray[np.float64]"]]

VICTIM = 1


def models(victim: int) -> list[nn.Module]:
    live, attack = federation().model(), Inconsistency()
    dead = attack.craft(live)
    assert dead is not None
    return [live if client == victim else dead for client in range(CLIENTS)]


def case(number: int, rng: np.random.Generator, live: int, sought: int, *, noisy: bool = False) -> Cases:
    """One round with one live model, and one client whose update is sought."""
    deployment = private() if noisy else federation()
    one = played(deployment, models(live), number, rng)
    before = Inconsistency().before(deployment.model(), deployment.layout)
    secret = np.where(before, deployment.vector(one.updates[sought]), 0.0)
    return [Trial(Silenced(one.sum.values, before), secret)]


class TestContract(ReconstructionContract):
    def attack(self) -> Inconsistency:
        return Inconsistency()

    def leaking(self, rng: np.random.Generator) -> Cases:
        return [one for number in range(8) for one in case(number, rng, number % CLIENTS, number % CLIENTS)]

    def silent(self, rng: np.random.Generator) -> Cases:
        """Noise hides the update that is sought."""
        return [one for number in range(8) for one in case(number, rng, 0, 0, noisy=True)]


def test_the_sum_is_the_victims_update_up_to_rounding() -> None:
    rng = np.random.default_rng(1)
    (one,) = case(0, rng, VICTIM, VICTIM)
    np.testing.assert_allclose(Inconsistency().guess(one.view, rng), one.secret, atol=1e-4)
    assert np.abs(one.secret).max() > 1e-2


def test_only_the_last_layer_of_a_dead_model_learns() -> None:
    deployment = federation(mode="plain")
    one = played(deployment, models(VICTIM), 0, np.random.default_rng(2))
    update = one.updates[0]
    assert not update["fc1.weight"].any()
    assert not update["fc1.bias"].any()
    assert update["fc2.bias"].any()


def test_a_model_without_a_dense_layer_cannot_be_silenced() -> None:
    assert Inconsistency().craft(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())) is None


def test_the_live_model_is_left_as_it_is() -> None:
    live = federation().model()
    before = {name: tensor.clone() for name, tensor in live.state_dict().items()}
    Inconsistency().craft(live)
    assert all(torch.equal(tensor, before[name]) for name, tensor in live.state_dict().items())


@pytest.mark.parametrize(("adversary", "error"), [("active", SignatureError), ("semi-honest", ShareError)])
def test_clients_that_hold_the_roots_of_different_models_refuse(adversary: str, error: type[SecAggError]) -> None:
    deployment = federation()
    params = Params(min_cohort=3, max_dropouts=0, adversary=adversary)  # type: ignore[arg-type]  # one of two
    one = played(deployment, models(VICTIM), 0, np.random.default_rng(3))
    roots = [
        merkle.root(merkle.model_leaves(deployment.layout, {name: t.numpy() for name, t in model.state_dict().items()}))
        for model in models(VICTIM)
    ]
    agreed = Session(id=bytes(16), params=params, layout=deployment.layout, mode="uniform", model_root=roots[VICTIM])
    brings = {
        client: Contribution({name: tensor.numpy() for name, tensor in update.items()})
        for client, update in enumerate(one.updates)
    }
    honest = HostileServer(agreed, brings)
    everybody = honest.collect()
    honest.finish(everybody, everybody)
    assert len(honest.sums(everybody)) == deployment.layout.size
    sessions = {client: replace(agreed, model_root=root) for client, root in enumerate(roots)}
    with pytest.raises(error):
        HostileServer(agreed, brings, sessions=sessions).collect()
