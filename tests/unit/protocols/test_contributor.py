from __future__ import annotations

import numpy as np
import pytest

from protocols.aggregators import FixedPoint, MaskIndexed
from protocols.arrivals.contributor import Agreement, Contributor
from pruning.masks import Mask
from secagg.declaration import Provenance
from secagg.errors import (
    InputError,
    LayoutMismatchError,
    LocalProtocolError,
    NotFiniteError,
    OutOfRangeError,
    ParameterError,
)
from secagg.layout import Layout, Tensor
from secagg.params import Params

LAYOUT = Layout((Tensor("fc.weight", (2, 3)), Tensor("fc.bias", (2,))))
PARAMS = Params(min_cohort=2, max_dropouts=1, value_range={"fc.bias": 0.1, "*": 0.3}, levels=2**10)
UNIT = np.array([0.3] * 6 + [0.1] * 2) / PARAMS.magnitude
ALL = np.ones(8, bool)
FULL = Mask.full(LAYOUT)
FRONT = Mask.of_coordinates(LAYOUT, np.arange(8) < 4, Provenance.PUBLIC)
BACK = Mask.of_coordinates(LAYOUT, np.arange(8) >= 3, Provenance.PUBLIC)


def agreement(params: Params = PARAMS, decay: float = 0.5) -> Agreement:
    return Agreement(layout=LAYOUT, params=params, decay=decay)


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5, float("nan")])
def test_a_decay_outside_its_domain_is_refused(decay: float) -> None:
    with pytest.raises(ParameterError, match=r"decay must be in \(0, 1\]"):
        agreement(decay=decay)


@pytest.mark.parametrize("value_range", [0.7, {"fc.bias": 0.1, "*": 0.3}])
@pytest.mark.parametrize("levels", [4, 5, 2**10, 2**40 + 1])
def test_a_session_reaches_twice_as_far_on_the_same_grid(levels: int, value_range: float | dict[str, float]) -> None:
    params = Params(levels=levels, value_range=value_range, out_of_range="saturate")
    session = agreement(params).session
    assert session.magnitude == 2 * params.magnitude
    for tensor in LAYOUT.tensors:
        assert session.range_of(tensor.name) == 2 * params.range_of(tensor.name)
    assert session.out_of_range == "refuse"


def test_levels_without_room_for_another_bit_are_refused() -> None:
    with pytest.raises(ParameterError, match="levels"):
        agreement(Params(levels=2**48))


@pytest.mark.parametrize(
    ("settings", "smallest"),
    [
        ({"min_cohort": 3, "max_dropouts": 2}, 5),
        ({"min_cohort": 3, "max_dropouts": 0, "corrupt": 1}, 4),
        ({"min_cohort": 3}, 4),
        ({"min_cohort": 4, "corrupt": 2}, 8),
    ],
)
def test_a_batch_must_leave_a_cohort_when_as_many_drop_out_as_may(settings: dict[str, int], smallest: int) -> None:
    agreed = agreement(Params(**settings))  # type: ignore[arg-type]
    agreed.check_batch(smallest)
    with pytest.raises(ParameterError, match=rf"a flush of {smallest - 1} clients .*min_cohort .* max_dropouts"):
        agreed.check_batch(smallest - 1)


def test_flushes_go_through_mask_indexed_sessions_or_their_twin() -> None:
    agreed = agreement()
    secure, plain = agreed.aggregator(), agreed.aggregator(encrypted=False)
    assert isinstance(secure, MaskIndexed)
    assert isinstance(plain, FixedPoint)
    assert plain.mode == "mask-indexed"
    assert secure.params == plain.params == agreed.session


def test_a_first_offer_is_the_update_on_the_grid_and_changes_nothing() -> None:
    client, steps = Contributor(agreement()), np.array([3.0, -2, 0, 5, 1, 1, 7, 511])
    offer = client.offer((steps + 0.4) * UNIT - 0.4 * UNIT, BACK, flush=4)
    assert offer.notice.mask is BACK
    assert offer.steps.tolist() == [0, 0, 0, 5, 1, 1, 7, 511]
    assert np.allclose(offer.update["fc.bias"].numpy(), [7 * UNIT[6], 511 * UNIT[7]], rtol=1e-15)
    assert not client.contribution.any()


def test_a_second_offer_takes_out_what_has_aged_and_leaves_what_is_no_longer_held() -> None:
    """Front of 8 units at flush 1; at flush 3 a quarter of it, 2 units, is left."""
    client = Contributor(agreement())
    client.settle(client.offer(8 * UNIT, FRONT, flush=1), ALL)
    offer = client.offer(10 * UNIT, BACK, flush=3)
    assert offer.notice.mask is BACK
    assert offer.steps.tolist() == [0, 0, 0, 8, 10, 10, 10, 10]
    client.settle(offer, ALL)
    assert np.allclose(client.contribution / UNIT, [2, 2, 2, 10, 10, 10, 10, 10])


def test_an_update_that_started_from_an_older_model_has_aged_when_it_arrives() -> None:
    client = Contributor(agreement())
    client.settle(client.offer(8 * UNIT, FULL, flush=5, start=3), ALL)
    assert np.allclose(client.contribution, 2 * UNIT)


def test_what_is_withheld_stays_and_ages() -> None:
    client, released = Contributor(agreement()), np.arange(8) != 1
    client.settle(client.offer(8 * UNIT, FULL, flush=0), ALL)
    client.settle(client.offer(100 * UNIT, FULL, flush=1), released)
    assert np.allclose(client.contribution / UNIT, [100, 4, 100, 100, 100, 100, 100, 100])
    assert client.offer(100 * UNIT, FULL, flush=2).steps.tolist() == [50, 98, 50, 50, 50, 50, 50, 50]


def test_rounding_does_not_accumulate() -> None:
    client, generator = Contributor(agreement(decay=0.9)), np.random.default_rng(1)
    for flush in range(200):
        update = generator.uniform(-0.1, 0.1, 8)
        client.settle(client.offer(update, FULL, flush), ALL)
        assert (np.abs(client.contribution - update) / UNIT).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("levels", [4, 2**10, 2**20, 2**46])
@pytest.mark.parametrize("limit", [0.1, 0.3, 1.7, 4.0])
def test_a_difference_from_one_end_of_the_range_to_the_other_is_sent_exactly(limit: float, levels: int) -> None:
    agreed = agreement(Params(min_cohort=2, max_dropouts=0, value_range=limit, levels=levels), decay=1.0)
    clients, plain = [Contributor(agreed) for _ in range(2)], agreed.aggregator(encrypted=False)
    for flush, end in enumerate((limit, -limit, limit)):
        offers = [client.offer(np.full(8, end), FULL, flush) for client in clients]
        aggregated = plain.aggregate({number: offer.update for number, offer in enumerate(offers)})
        assert aggregated.integers is not None
        assert np.array_equal(aggregated.integers, sum(offer.steps for offer in offers))
        for client, offer in zip(clients, offers, strict=True):
            client.settle(offer, ALL)


def test_values_beyond_the_range_are_refused_or_clipped_before_the_difference() -> None:
    with pytest.raises(OutOfRangeError, match=r"fc\.bias .* value_range"):
        Contributor(agreement()).offer(np.full(8, 0.2), FULL, flush=0)
    client = Contributor(agreement(Params(value_range=0.1, levels=2**10, out_of_range="saturate"), decay=1.0))
    client.settle(client.offer(np.full(8, -0.05), FULL, flush=0), ALL)
    client.settle(client.offer(np.full(8, 1e300), FULL, flush=1), ALL)
    assert np.allclose(client.contribution, 0.1)


def test_values_outside_the_mask_are_ignored() -> None:
    update = np.where(FRONT.coordinates, 0.1, np.nan)
    offer = Contributor(agreement()).offer(update, FRONT, flush=0)
    assert not offer.steps[~FRONT.coordinates].any()
    with pytest.raises(NotFiniteError):
        Contributor(agreement()).offer(update, FULL, flush=0)


def test_an_offer_that_is_not_settled_leaves_no_trace() -> None:
    one, other = (Contributor(agreement()) for _ in range(2))
    for client in (one, other):
        client.settle(client.offer(0.1 * np.ones(8), FRONT, flush=0), ALL)
    one.offer(-0.1 * np.ones(8), BACK, flush=1)
    offers = [client.offer(0.05 * np.ones(8), FULL, flush=2) for client in (one, other)]
    assert np.array_equal(offers[0].steps, offers[1].steps)


def test_an_offer_is_settled_once_and_only_from_the_state_that_it_was_made_in() -> None:
    client = Contributor(agreement())
    lost, kept = client.offer(UNIT, FULL, flush=0), client.offer(3 * UNIT, FULL, flush=0)
    client.settle(kept, ALL)
    for offer in (kept, lost):
        with pytest.raises(LocalProtocolError, match="make another"):
            client.settle(offer, ALL)
    with pytest.raises(LocalProtocolError, match="flush 0 does not come after flush 0"):
        client.offer(UNIT, FULL, flush=0)
    assert np.allclose(client.contribution, 3 * UNIT)


@pytest.mark.parametrize("start", [-1, 3])
def test_an_update_starts_from_a_model_that_was_there(start: int) -> None:
    with pytest.raises(InputError, match="start must be from 0"):
        Contributor(agreement()).offer(UNIT, FULL, flush=2, start=start)


def test_what_belongs_to_another_layout_is_refused() -> None:
    client, other = Contributor(agreement()), Layout((Tensor("other", (8,)),))
    with pytest.raises(LayoutMismatchError, match="8 coordinates"):
        client.offer(np.zeros(7), FULL, flush=0)
    with pytest.raises(LayoutMismatchError, match="another layout"):
        client.offer(np.zeros(8), Mask.full(other), flush=0)
    with pytest.raises(LayoutMismatchError, match="8 bools"):
        client.settle(client.offer(np.zeros(8), FULL, flush=0), np.ones(7, bool))


def test_an_offer_does_not_show_its_values() -> None:
    offer = Contributor(agreement()).offer(np.full(8, 0.0731), FULL, flush=0)
    assert "steps" not in repr(offer)
    assert "update" not in repr(offer)
