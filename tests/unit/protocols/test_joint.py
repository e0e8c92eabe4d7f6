"""Vectors beside updates, in one session: over the same clients, within bounds of their own, at their own cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from protocols.aggregators import Aggregator, FixedPoint, FloatMean, MaskIndexed, Uniform
from protocols.aggregators.central_noise import CentralNoise
from protocols.aggregators.joint import Joint
from protocols.aggregators.one_mask import OneMask
from protocols.sessions.averaging import LEVELS
from pruning.masks import Mask
from secagg.errors import OutOfRangeError, ParameterError
from secagg.layout import Layout, Tensor
from secagg.ledger import Ledger
from secagg.params import Params
from secagg.privacy.settings import Privacy

if TYPE_CHECKING:
    from collections.abc import Hashable
    from inspect import BoundArguments

LAYOUT = Layout((Tensor("weight", (5, 4)), Tensor("bias", (5,))))
PARAMS = Params(min_cohort=3, max_dropouts=2, value_range=1.0, levels=2**12)
RANGES = {"small": 1e-4, "large": 50.0}
SIZE = 7


def given(clients: int = 6) -> dict[Hashable, dict[str, torch.Tensor]]:
    draws = torch.Generator().manual_seed(clients)
    return {
        f"client-{number}": {
            **{one.name: torch.empty(one.shape).uniform_(-1, 1, generator=draws) for one in LAYOUT.tensors},
            **{
                name: torch.empty(SIZE, dtype=torch.float64).uniform_(-bound, bound, generator=draws)
                for name, bound in RANGES.items()
            },
        }
        for number in range(clients)
    }


def joint(kind: Aggregator, **settings: Any) -> Joint:
    return Joint(kind, lambda: {name: (SIZE, bound) for name, bound in RANGES.items()}, **settings)


@pytest.mark.parametrize("dropouts", [{}, {"client-1": "ShareKeys", "client-5": "MaskedInput"}])
def test_everything_is_averaged_over_the_same_clients_each_within_a_step_of_its_own_range(
    dropouts: dict[Hashable, str],
) -> None:
    updates = given()
    secure, plain = (
        joint(kind).aggregate(updates, None, None, dropouts, seed=b"one")
        for kind in (Uniform(LAYOUT, PARAMS), FixedPoint(LAYOUT, PARAMS))
    )
    there = [own for client, own in updates.items() if dropouts.get(client) != "ShareKeys"]
    assert len(secure.survivors) == len(there)
    assert np.array_equal(secure.integers, plain.integers)  # type: ignore[arg-type]
    for name, bound in {"weight": 1.0, "bias": 1.0, **RANGES}.items():
        mean = torch.stack([own[name].double() for own in there]).mean(dim=0)
        assert torch.equal(secure.step[name], plain.step[name])
        assert (secure.step[name] - mean).abs().max() <= 2 * bound / LEVELS
    assert secure.step["small"].dtype == torch.float64


def test_it_is_one_session(sessions: list[BoundArguments]) -> None:
    joint(Uniform(LAYOUT, PARAMS)).aggregate(given(), seed=b"one")
    layouts = [session.arguments["layout"] for session in sessions]
    assert [[one.name for one in layout.tensors] for layout in layouts] == [["weight", "bias", "small", "large"]]


def test_what_the_session_is_bound_to_and_what_clients_weigh_reaches_it(sessions: list[BoundArguments]) -> None:
    ledgers = {client: Ledger() for client in given()}
    weights: dict[Hashable, float] = {client: (1 + place) / 8 for place, client in enumerate(given())}
    found = joint(Uniform(LAYOUT, PARAMS)).aggregate(
        given(), None, weights, {"client-1": "ShareKeys"}, model_root=bytes(32), ledgers=ledgers, seed=b"one"
    )
    (session,) = sessions
    seen = session.arguments
    assert seen["model_root"] == bytes(32)
    assert seen["ledgers"] is ledgers
    assert seen["weights"] == weights
    assert seen["dropouts"] == {"client-1": "ShareKeys"}
    assert seen["seed"] == b"one"
    assert [seen["params"].range_of(name) for name in ("weight", "small", "large")] == [1.0, 1e-4, 50.0]
    there = {client: own for client, own in given().items() if client != "client-1"}
    shares = torch.tensor([weights[client] for client in there], dtype=torch.float64)
    mean = shares @ torch.stack([own["large"] for own in there.values()]) / shares.sum()
    assert torch.allclose(found.step["large"], mean, rtol=0, atol=1e-2)


def test_the_settings_of_the_session_are_those_that_it_is_played_with(sessions: list[BoundArguments]) -> None:
    for one in (joint(Uniform(LAYOUT, PARAMS)), OneMask(joint(Uniform(LAYOUT, PARAMS)), lambda: Mask.full(LAYOUT))):
        one.aggregate(given(), seed=b"one")
        assert one.session == sessions[-1].arguments["params"] != one.params == PARAMS
    assert Joint(Uniform(LAYOUT, PARAMS), dict).session == PARAMS
    assert joint(FloatMean(LAYOUT)).session is None


@pytest.mark.parametrize("kind", [Uniform(LAYOUT, PARAMS), FloatMean(LAYOUT)])
def test_vectors_may_differ_in_length(kind: Aggregator) -> None:
    one = Joint(kind, lambda: {"small": (2, 1e-4), "large": (SIZE, 50.0)}, derived={"small"})
    updates = {client: {**own, "small": own["small"][:2]} for client, own in given().items()}
    found = one.aggregate(updates, seed=b"one")
    assert (found.step["small"].shape, found.step["large"].shape) == ((2,), (SIZE,))
    assert one.length_of(Mask.full(LAYOUT)) == LAYOUT.size + SIZE + 2 * one.encrypted


def test_over_another_layout_it_takes_other_settings_too() -> None:
    other = joint(Uniform(LAYOUT, PARAMS)).over(Layout((Tensor("any", (3,)),)), Params(min_cohort=5))
    assert other.params == Params(min_cohort=5)
    assert other.length_of(Mask.full(other.layout)) == 3 + 2 * SIZE


def test_the_privacy_is_that_of_what_it_stands_for() -> None:
    private = CentralNoise(LAYOUT, Privacy(clip=1.0, noise_multiplier=1.0))
    assert joint(private).privacy == OneMask(joint(private), lambda: Mask.full(LAYOUT)).privacy == private.privacy


@pytest.mark.parametrize("kind", [FixedPoint(LAYOUT, PARAMS), FloatMean(LAYOUT)])
def test_what_a_server_in_the_clear_computes_itself_is_sent_by_nobody_else(kind: Aggregator) -> None:
    one, length = joint(kind, derived={"small"}), LAYOUT.size + 2 * SIZE
    if kind.params is None:
        length -= SIZE
    assert one.length_of(Mask.full(LAYOUT)) == length
    assert one.upload_of(Mask.full(LAYOUT), 6) == 4 * length
    found = one.aggregate(given())
    assert set(found.upload_bytes.values()) == {4 * length}
    assert set(found.step) == {"weight", "bias", "small", "large"}


@pytest.mark.parametrize("kind", [Uniform(LAYOUT, PARAMS), FixedPoint(LAYOUT, PARAMS), FloatMean(LAYOUT)])
def test_where_nothing_is_due_it_is_what_it_stands_for(kind: Aggregator) -> None:
    one = Joint(kind, dict, derived={"small"})
    for name in ("name", "mode", "params", "encrypted", "layout"):
        assert getattr(one, name) == getattr(kind, name)
    updates = {client: {name: own[name] for name in ("weight", "bias")} for client, own in given().items()}
    found, wanted = (each.aggregate(updates, seed=b"one") for each in (one, kind))
    assert np.array_equal(found.vector, wanted.vector)
    assert (found.verdict, found.upload_bytes) == (wanted.verdict, wanted.upload_bytes)
    whole = Mask.full(LAYOUT)
    assert one.length_of(whole) == kind.length_of(whole)
    assert one.upload_of(whole, 6) == kind.upload_of(whole, 6)


def test_the_verdict_says_what_is_summed_besides() -> None:
    verdict = joint(FixedPoint(LAYOUT, PARAMS)).aggregate(given()).verdict
    assert "It sums small, large beside the updates: together they say more than each does." in verdict


def test_ranges_by_tensor_stay_and_a_finer_grid_stays_fine() -> None:
    params = Params(min_cohort=3, value_range={"weight": 1.0, "*": 2.0}, levels=2**26)
    found = joint(FixedPoint(LAYOUT, params)).aggregate(given())
    mean = torch.stack([own["weight"].double() for own in given().values()]).mean(dim=0)
    assert (found.step["weight"] - mean).abs().max() <= 1 / 2**26


def test_what_is_beyond_its_range_is_refused_like_any_update() -> None:
    updates = given()
    updates["client-2"]["small"] = torch.full((SIZE,), 1e-3, dtype=torch.float64)
    with pytest.raises(OutOfRangeError, match="client-2"):
        joint(FixedPoint(LAYOUT, PARAMS)).aggregate(updates)


def test_masks_that_are_declared_have_no_place_for_it() -> None:
    with pytest.raises(ParameterError, match="uniform mode"):
        joint(MaskIndexed(LAYOUT, PARAMS))
