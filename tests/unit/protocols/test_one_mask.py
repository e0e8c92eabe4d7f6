from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from protocols.aggregators import Aggregator, FixedPoint, FloatMean, MaskIndexed, Uniform
from protocols.aggregators.joint import Joint
from protocols.aggregators.one_mask import OneMask
from pruning.masks import Mask
from secagg.declaration import Provenance
from secagg.errors import InputError, LayoutMismatchError, OutOfRangeError, ParameterError, TooFewClientsError
from secagg.layout import Layout, Tensor
from secagg.params import Params

if TYPE_CHECKING:
    from collections.abc import Hashable
    from inspect import BoundArguments

    from numpy.typing import NDArray

LAYOUT = Layout((Tensor("fc.weight", (20, 30)), Tensor("fc.bias", (20,))))
PARAMS = Params(min_cohort=3, max_dropouts=2, value_range=1.0, levels=2**12)
STEP = 1.0 / PARAMS.magnitude


def mask(seed: int, count: int = 150) -> Mask:
    """So many of the 600 weights, and all biases."""
    held = np.ones(LAYOUT.size, bool)
    held[:600] = np.random.default_rng(seed).permutation(600) < count
    return Mask.of_coordinates(LAYOUT, held, Provenance.PUBLIC)


HELD = mask(0)


def updates(clients: int = 8) -> dict[Hashable, dict[str, torch.Tensor]]:
    draws = torch.Generator().manual_seed(clients)
    return {
        f"client-{number}": {
            one.name: torch.empty(one.shape).uniform_(-1, 1, generator=draws) for one in LAYOUT.tensors
        }
        for number in range(clients)
    }


def matrix(given: dict[Hashable, dict[str, torch.Tensor]]) -> NDArray[np.float64]:
    """A row for each client."""
    return np.stack([torch.cat([one["fc.weight"].reshape(-1), one["fc.bias"]]).double() for one in given.values()])


def under(held: Mask, kind: Aggregator) -> OneMask:
    return OneMask(kind, lambda: held)


def test_the_mean_is_the_plain_one_where_the_mask_holds_and_zero_elsewhere() -> None:
    found = under(HELD, Uniform(LAYOUT, PARAMS)).aggregate(updates(), seed=b"one")
    held, mean = HELD.coordinates, matrix(updates()).mean(axis=0)
    assert found.layout == LAYOUT
    assert np.abs(found.vector - mean)[held].max() <= STEP / 2 + 1e-9
    assert not found.vector[~held].any()
    assert not any(kept.any() for kept in found.withheld.values())
    exact = under(HELD, FloatMean(LAYOUT)).aggregate(updates()).vector
    assert np.array_equal(exact, np.where(held, exact, 0))
    assert np.allclose(exact[held], mean[held], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dropouts", [{}, {"client-1": "ShareKeys", "client-7": "MaskedInput"}])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_twin_in_the_clear_agrees_bit_for_bit(dropouts: dict[Hashable, str], *, weighted: bool) -> None:
    given = updates()
    weights: dict[Hashable, float] | None = None
    if weighted:
        weights = {client: (1 + number) / 8 for number, client in enumerate(given)}
    secure = Uniform(LAYOUT, PARAMS)
    one = under(HELD, secure).aggregate(given, None, weights, dropouts, seed=b"twin")
    twin = under(HELD, secure.twin).aggregate(given, None, weights, dropouts)
    assert one.survivors == twin.survivors == tuple(client for client in given if dropouts.get(client) != "ShareKeys")
    assert one.integers is not None
    assert np.array_equal(one.integers, twin.integers)  # type: ignore[arg-type]
    assert len(one.integers) == 170 + weighted
    assert np.array_equal(one.vector, twin.vector)


def test_it_rounds_as_a_session_over_everything_does() -> None:
    whole = FixedPoint(LAYOUT, PARAMS).aggregate(updates()).vector
    found = under(HELD, FixedPoint(LAYOUT, PARAMS)).aggregate(updates()).vector
    assert np.array_equal(found, np.where(HELD.coordinates, whole, 0))


def test_masks_that_are_given_are_not_declared_and_change_nothing() -> None:
    given = updates()
    declared = {client: HELD.declaration() for client in given}
    one = under(HELD, Uniform(LAYOUT, PARAMS))
    with_masks, without = (one.aggregate(given, masks, seed=b"one") for masks in (declared, None))
    assert np.array_equal(with_masks.vector, without.vector)
    assert with_masks.upload_bytes == without.upload_bytes
    assert "no mask" in with_masks.verdict


@pytest.mark.parametrize("kind", [Uniform(LAYOUT, PARAMS), FixedPoint(LAYOUT, PARAMS), FloatMean(LAYOUT)])
def test_only_what_the_mask_holds_is_sent(kind: Aggregator) -> None:
    few, many = (under(mask(1, count), kind) for count in (100, 500))
    width = 4 if isinstance(kind, FloatMean) else 2  # 8 clients times 2**12 levels fit 16 bits
    for one, length in ((few, 120), (many, 520)):
        assert one.length_of(HELD) == length
        assert one.upload_of(HELD, 8) == width * length
    sent = [one.aggregate(updates(), seed=b"one").upload_bytes for one in (few, many)]
    # Numbers on the wire take a byte more or less to say how long they are.
    assert all(abs(sent[1][client] - sent[0][client] - 400 * width) <= 4 for client in updates())


def layouts(sessions: list[BoundArguments], *masks: Mask) -> list[Layout]:
    """The layouts of the sessions that clients with these masks would have."""
    for one in masks:
        under(one, Uniform(LAYOUT, PARAMS)).aggregate(updates(), seed=b"one")
    return [session.arguments["layout"] for session in sessions]


def test_clients_with_different_masks_have_no_session_in_common(sessions: list[BoundArguments]) -> None:
    again = Mask.of_coordinates(LAYOUT, HELD.coordinates, Provenance.DATA)
    first, second, third, whole = layouts(sessions, HELD, mask(1), again, Mask.full(LAYOUT))
    assert len({layout.digest for layout in (first, second, whole)}) == 3
    assert first.size == second.size == 170
    assert third.digest == first.digest
    assert whole == LAYOUT


def test_a_full_mask_is_the_session_over_everything() -> None:
    one, kind = under(Mask.full(LAYOUT), Uniform(LAYOUT, PARAMS)), Uniform(LAYOUT, PARAMS)
    found, wanted = (each.aggregate(updates(), seed=b"one") for each in (one, kind))
    assert np.array_equal(found.vector, wanted.vector)
    assert found.upload_bytes == wanted.upload_bytes
    assert one.length_of(Mask.full(LAYOUT)) == LAYOUT.size


def test_the_mask_is_that_of_the_round() -> None:
    masks = [mask(1), mask(2)]
    one = OneMask(FixedPoint(LAYOUT, PARAMS), lambda: masks[0])
    for held in list(masks):
        assert np.array_equal(one.aggregate(updates()).vector != 0, held.coordinates)
        masks.pop(0)


@pytest.mark.parametrize("held", [HELD, Mask.full(LAYOUT)])
def test_tensors_beside_the_layout_are_aggregated_whole(held: Mask) -> None:
    more = {client: torch.arange(4.0) / (4 + place) for place, client in enumerate(updates())}
    given = {client: {**own, "more": more[client]} for client, own in updates().items()}
    mean = torch.stack([own.double() for own in more.values()]).mean(dim=0)
    joint = Joint(FixedPoint(LAYOUT, PARAMS), lambda: {"more": (4, 1.0)})
    one, alone = under(held, joint), under(held, FixedPoint(LAYOUT, PARAMS))
    found = one.aggregate(given)
    assert list(found.step) == ["fc.weight", "fc.bias", "more"]
    assert torch.allclose(found.step["more"], mean, rtol=0, atol=1e-6)
    assert np.array_equal(found.vector[: LAYOUT.size] != 0, alone.aggregate(updates()).vector != 0)
    assert np.allclose(found.vector[: LAYOUT.size], alone.aggregate(updates()).vector, rtol=0, atol=STEP)
    assert one.length_of(held) == alone.length_of(held) + 4
    assert set(found.upload_bytes.values()) == {one.upload_of(held, 8)} == {4 * one.length_of(held)}


def test_it_is_called_and_set_as_what_it_stands_for() -> None:
    for kind in (Uniform(LAYOUT, PARAMS), FixedPoint(LAYOUT, PARAMS), FloatMean(LAYOUT)):
        one = under(HELD, kind)
        for name in ("name", "mode", "params", "encrypted", "layout"):
            assert getattr(one, name) == getattr(kind, name)
        assert not one.counts_masks
        other = one.over(Layout((Tensor("any", (3,)),)))
        assert type(other) is type(kind)
        assert other.length_of(Mask.full(other.layout)) == 3
        if kind.params is not None:
            assert one.over(LAYOUT, Params(min_cohort=5)).params == Params(min_cohort=5)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ParameterError, match="uniform mode"):
        under(HELD, MaskIndexed(LAYOUT, PARAMS))
    with pytest.raises(ParameterError, match="value_range"):
        under(HELD, FixedPoint(LAYOUT, Params(value_range={"*": 1.0})))


def test_what_a_session_refuses_is_refused() -> None:
    one = under(HELD, FixedPoint(LAYOUT, PARAMS))
    with pytest.raises(InputError, match="no update"):
        one.aggregate({})
    with pytest.raises(LayoutMismatchError) as refused:
        one.aggregate(updates() | {"client-5": {"fc.weight": torch.zeros(20, 30), "fc.bias": torch.zeros(21)}})
    assert refused.value.culprits == ("client-5",)
    far = updates()
    far["client-2"]["fc.bias"][0] = 1.5
    with pytest.raises(OutOfRangeError, match="client-2"):
        one.aggregate(far)
    with pytest.raises(TooFewClientsError):
        one.aggregate(updates(2))


def test_what_is_outside_the_mask_does_not_matter_however_large() -> None:
    given = updates()
    before = under(HELD, FixedPoint(LAYOUT, PARAMS)).aggregate(given).vector
    outside = ~torch.tensor(HELD.coordinates[:600]).reshape(20, 30)
    given["client-3"]["fc.weight"][outside] = 9.0
    assert np.array_equal(under(HELD, FixedPoint(LAYOUT, PARAMS)).aggregate(given).vector, before)
