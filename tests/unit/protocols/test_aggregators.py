from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import secagg
from protocols.aggregators import Aggregator, Contributions, FixedPoint, FloatMean, MaskIndexed, Secure, Uniform
from pruning.masks import Mask
from secagg.errors import (
    CoverageError,
    InputError,
    LayoutMismatchError,
    NotFiniteError,
    OutOfRangeError,
    SecAggError,
    TooFewClientsError,
    UnknownClientError,
    WeightError,
)
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from collections.abc import Hashable

    from secagg.params import Mode

    Update = dict[str, torch.Tensor]

LAYOUT = Layout(
    (
        Tensor("hidden.weight", (4, 3), unit_axes={0: (0, 1, 2, 3)}),
        Tensor("hidden.bias", (4,), unit_axes={0: (0, 1, 2, 3)}),
        Tensor("out.weight", (2, 4), unit_axes={1: (0, 1, 2, 3)}),
    ),
    {"hidden": 4},
)
PARAMS = secagg.Params(min_cohort=3, max_dropouts=2, value_range=1.0, levels=2**12)
HALF = Mask.of_units(LAYOUT, np.array([True, True, False, False]))
STEP = PARAMS.range_of("hidden.bias") / PARAMS.magnitude


def updates(clients: int = 8) -> dict[Hashable, Update]:
    generator = torch.Generator().manual_seed(clients)
    return {
        f"client-{number}": {
            tensor.name: torch.empty(tensor.shape).uniform_(-1, 1, generator=generator) for tensor in LAYOUT.tensors
        }
        for number in range(clients)
    }


def pruned(clients: int = 2) -> dict[Hashable, secagg.Declaration | None]:
    return {f"client-{number}": HALF.declaration() for number in range(clients)}


def flat(values: Update) -> torch.Tensor:
    return torch.cat([values[tensor.name].reshape(-1).double() for tensor in LAYOUT.tensors])


class Conformance(ABC):
    """What every aggregator promises; subclasses say which one."""

    tolerance = STEP / 2

    @abstractmethod
    def make(self, params: secagg.Params = PARAMS) -> Aggregator: ...

    def test_the_mean_of_whole_updates_is_the_mean_of_their_values(self) -> None:
        given = updates()
        mean = self.make().aggregate(given).mean
        expected = torch.stack([flat(update) for update in given.values()]).mean(dim=0)
        assert torch.allclose(flat(mean), expected, rtol=0, atol=self.tolerance + 1e-6)

    def test_the_mean_has_the_names_shapes_and_dtypes_of_the_layout(self) -> None:
        mean = self.make().aggregate(updates()).mean
        assert {name: (tuple(t.shape), t.dtype) for name, t in mean.items()} == {
            tensor.name: (tensor.shape, torch.float32) for tensor in LAYOUT.tensors
        }

    def test_weights_pull_the_mean(self) -> None:
        given = updates(8)
        weights: dict[Hashable, float] = {client: 1.0 if client == "client-0" else 0.25 for client in given}
        mean = self.make().aggregate(given, weights=weights).mean
        total = sum((flat(given[client]) * weight for client, weight in weights.items()), torch.zeros(LAYOUT.size))
        assert torch.allclose(flat(mean), total / 2.75, rtol=0, atol=8 * STEP)

    def test_a_client_that_drops_out_before_its_input_is_not_in_the_mean(self) -> None:
        given = updates()
        aggregated = self.make().aggregate(given, dropouts={"client-3": "ShareKeys"})
        expected = torch.stack([flat(u) for client, u in given.items() if client != "client-3"]).mean(dim=0)
        assert "client-3" not in aggregated.survivors
        assert torch.allclose(flat(aggregated.mean), expected, rtol=0, atol=self.tolerance + 1e-6)

    def test_a_client_that_drops_out_after_its_input_stays_in_the_mean(self) -> None:
        aggregated = self.make().aggregate(updates(), dropouts={"client-3": "MaskedInput"})
        assert "client-3" in aggregated.survivors

    def test_apply_adds_the_mean_to_the_start(self) -> None:
        aggregated = self.make().aggregate(updates())
        start = updates(1)["client-0"]
        after = aggregated.apply(start)
        assert torch.allclose(flat(after), flat(start) + flat(aggregated.mean), atol=1e-6)
        assert not any(tensor.any() for tensor in aggregated.withheld.values())

    def test_values_outside_a_mask_are_ignored(self) -> None:
        given = updates()
        aggregator = self.make()
        before = aggregator.aggregate(given, pruned())
        outside = ~torch.from_numpy(HALF.by_tensor()["hidden.bias"])
        given["client-0"]["hidden.bias"][outside] = 0.5
        assert torch.equal(flat(before.mean), flat(aggregator.aggregate(given, pruned()).mean))

    def test_the_upload_of_a_mask_is_within_what_is_really_sent(self) -> None:
        aggregator = self.make()
        aggregated = aggregator.aggregate(updates(), pruned())
        for client, mask in (("client-0", HALF), ("client-7", Mask.full(LAYOUT))):
            assert 0 < aggregator.upload_of(mask, 8) <= aggregated.upload_bytes[client]

    def test_a_vector_is_as_long_as_what_is_sent_of_a_mask(self) -> None:
        aggregator = self.make()
        whole = aggregator.mode == "uniform"
        assert aggregator.length_of(Mask.full(LAYOUT)) == LAYOUT.size == 24
        assert aggregator.length_of(HALF) == (24 if whole else 12)
        assert aggregator.counts_masks == whole
        per_coordinate = aggregator.upload_of(Mask.full(LAYOUT), 8) // 24
        assert aggregator.upload_of(HALF, 8) == aggregator.length_of(HALF) * per_coordinate

    def test_over_another_layout_it_is_the_same_kind_with_the_same_settings(self) -> None:
        aggregator, layout = self.make(), Layout((Tensor("one", (5,)),))
        other = aggregator.over(layout)
        assert other.layout == layout
        assert aggregator.layout == LAYOUT
        assert type(other) is type(aggregator)
        for name in ("mode", "params", "encrypted", "name", "counts_masks"):
            assert getattr(other, name) == getattr(aggregator, name)
        given: dict[Hashable, Update] = {number: {"one": torch.full((5,), number / 8)} for number in range(8)}
        assert torch.allclose(other.aggregate(given).mean["one"], torch.full((5,), 3.5 / 8), rtol=0, atol=STEP)

    def test_the_verdict_says_who_learns_what(self) -> None:
        aggregator = self.make()
        promises = "nothing else about any client" in aggregator.aggregate(updates()).verdict
        assert promises == isinstance(aggregator, Secure)

    def test_an_update_of_another_shape_is_refused_and_its_client_named(self) -> None:
        given = updates()
        given["client-5"]["hidden.bias"] = torch.zeros(5)
        with pytest.raises(LayoutMismatchError) as refused:
            self.make().aggregate(given)
        assert refused.value.culprits == ("client-5",)

    def test_no_update_at_all_is_refused(self) -> None:
        with pytest.raises(InputError):
            self.make().aggregate({})

    def test_a_mask_of_a_stranger_is_refused(self) -> None:
        with pytest.raises(UnknownClientError, match="stranger"):
            self.make().aggregate(updates(), {"stranger": HALF.declaration()})

    def test_weights_that_leave_a_client_out_are_refused(self) -> None:
        with pytest.raises(WeightError):
            self.make().aggregate(updates(), weights={"client-0": 1.0})

    def test_a_value_that_is_not_finite_is_refused_and_its_client_named(self) -> None:
        given = updates()
        given["client-2"]["hidden.bias"][0] = torch.nan
        with pytest.raises(NotFiniteError, match="client-2") as refused:
            self.make().aggregate(given)
        assert refused.value.culprits == ("client-2",)


class OnIntegers(Conformance):
    """What the aggregators promise beyond that which compute in fixed point."""

    def test_a_value_beyond_the_range_is_refused(self) -> None:
        given = updates()
        given["client-2"]["hidden.bias"][0] = 1.5
        with pytest.raises(OutOfRangeError, match="client-2") as refused:
            self.make().aggregate(given)
        assert refused.value.culprits == ("client-2",)

    def test_too_many_dropouts_end_the_round(self) -> None:
        gone: dict[Hashable, str] = {f"client-{number}": "ShareKeys" for number in range(3)}
        with pytest.raises(TooFewClientsError):
            self.make().aggregate(updates(), dropouts=gone)

    def test_too_few_clients_to_unmask_end_the_round(self) -> None:
        gone: dict[Hashable, str] = {f"client-{number}": "MaskedInput" for number in range(5)}
        with pytest.raises(TooFewClientsError):
            self.make().aggregate(updates(), dropouts=gone)

    def test_what_too_few_clients_hold_is_withheld_and_keeps_its_value(self) -> None:
        aggregated = self.make().aggregate(updates(), pruned(6))
        start = updates(1)["client-0"]
        held = torch.tensor(HALF.coordinates)
        assert torch.equal(flat(aggregated.withheld).bool(), ~held)
        assert torch.equal(flat(aggregated.apply(start))[~held], flat(start)[~held])
        assert flat(aggregated.mean)[~held].isnan().all()

    def test_a_round_in_which_nothing_can_be_released_is_refused(self) -> None:
        strict = secagg.Params(min_cohort=8, max_dropouts=0, value_range=1.0)
        nothing = Mask.of_units(LAYOUT, np.zeros(4, bool))
        with pytest.raises(CoverageError):
            self.make(strict).aggregate(updates(), {"client-0": nothing.declaration()})


class TestFloatMean(Conformance):
    tolerance = 0.0

    def make(self, params: secagg.Params = PARAMS) -> Aggregator:  # noqa: ARG002 - floats need none
        return FloatMean(LAYOUT)

    def test_without_any_survivor_there_is_no_mean(self) -> None:
        given = updates()
        with pytest.raises(TooFewClientsError):
            self.make().aggregate(given, dropouts=dict.fromkeys(given, "None"))

    def test_where_nobody_holds_a_coordinate_the_indexed_mean_is_withheld(self) -> None:
        given = updates()
        aggregated = FloatMean(LAYOUT, "mask-indexed").aggregate(given, pruned(8))
        assert np.array_equal(np.isnan(aggregated.vector), ~HALF.coordinates)

    @pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
    @pytest.mark.parametrize("lacking", range(7))
    def test_what_too_small_a_share_holds_is_withheld_as_in_a_session(self, mode: Mode, lacking: int) -> None:
        """Half of the clients have to hold a coordinate; privacy alone would ask for two of them."""
        params = secagg.Params(min_cohort=2, max_dropouts=0, value_range=1.0, participation=0.5)
        floats = FloatMean(LAYOUT, mode, participation=0.5).aggregate(updates(), pruned(lacking))
        session = FixedPoint(LAYOUT, params, mode).aggregate(updates(), pruned(lacking))
        assert np.array_equal(np.isnan(floats.vector), np.isnan(session.vector))
        expected = ~HALF.coordinates if lacking > 4 else np.zeros(LAYOUT.size, bool)
        assert np.array_equal(np.isnan(floats.vector), expected)


def test_over_another_layout_floats_keep_the_threshold_of_the_learning_rule() -> None:
    half = FloatMean(Layout((Tensor("any", (1,)),)), "mask-indexed", participation=0.5).over(LAYOUT)
    withheld = np.isnan(half.aggregate(updates(), pruned(5)).vector)
    assert np.array_equal(withheld, ~HALF.coordinates)


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
def test_an_aggregator_says_whether_it_encrypts_and_which_session_it_stands_for(mode: Mode) -> None:
    secure = Uniform(LAYOUT, PARAMS) if mode == "uniform" else MaskIndexed(LAYOUT, PARAMS)
    assert (secure.encrypted, secure.mode, secure.params) == (True, mode, PARAMS)
    assert (secure.twin.encrypted, secure.twin.mode, secure.twin.params) == (False, mode, PARAMS)
    floats = FloatMean(LAYOUT, mode)
    assert (floats.encrypted, floats.mode, floats.params) == (False, mode, None)


class TestFixedPointUniform(OnIntegers):
    def make(self, params: secagg.Params = PARAMS) -> Aggregator:
        return FixedPoint(LAYOUT, params, "uniform")


class TestFixedPointMaskIndexed(OnIntegers):
    def make(self, params: secagg.Params = PARAMS) -> Aggregator:
        return FixedPoint(LAYOUT, params, "mask-indexed")


class TestUniform(OnIntegers):
    def make(self, params: secagg.Params = PARAMS) -> Aggregator:
        return Uniform(LAYOUT, params)


class TestMaskIndexed(OnIntegers):
    def make(self, params: secagg.Params = PARAMS) -> Aggregator:
        return MaskIndexed(LAYOUT, params)

    def test_a_pruned_client_sends_less(self) -> None:
        # Large enough that the vector outweighs keys and shares.
        layout = Layout((Tensor("wide.weight", (40, 200), unit_axes={0: tuple(range(40))}),), {"wide": 40})
        half = Mask.of_units(layout, np.arange(40) < 20)
        given: dict[Hashable, Update] = {number: {"wide.weight": torch.zeros(40, 200)} for number in range(6)}
        sent = MaskIndexed(layout, PARAMS).aggregate(given, {0: half.declaration()}).upload_bytes
        saved = MaskIndexed(layout, PARAMS).upload_of(Mask.full(layout), 6) // 2
        assert sent[1] - sent[0] == pytest.approx(saved, abs=20)


SETTINGS = {
    "equal weights": (PARAMS, False),
    "weights, average": (secagg.Params(max_dropouts=2, value_range=1.0, weighting="average"), True),
    "weights, public": (secagg.Params(max_dropouts=2, value_range=1.0, weighting="public"), True),
    "exact denominators": (secagg.Params(max_dropouts=2, value_range=1.0, exact_denominators=True), True),
    "saturating": (secagg.Params(max_dropouts=2, value_range=0.5, out_of_range="saturate"), False),
}
IMPOSSIBLE = {("uniform", "weights, public"), ("mask-indexed", "exact denominators")}


@pytest.mark.parametrize("secure", [Uniform, MaskIndexed])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("masked", [0, 2, 6])
@pytest.mark.parametrize(
    "dropouts", [{}, {"client-1": "ShareKeys", "client-7": "MaskedInput"}, {"client-0": "AdvertiseKeys"}]
)
def test_the_twin_in_the_clear_agrees_bit_for_bit(
    secure: type[Secure], setting: str, masked: int, dropouts: dict[Hashable, str]
) -> None:
    params, weighted = SETTINGS[setting]
    if (secure.mode, setting) in IMPOSSIBLE:
        pytest.skip("this mode refuses the setting")
    given = updates()
    weights: dict[Hashable, float] | None = None
    if weighted:
        weights = {client: (1 + number) / 8 for number, client in enumerate(given)}
    aggregator = secure(LAYOUT, params)
    encrypted = aggregator.aggregate(given, pruned(masked) or None, weights, dropouts, seed=b"twin")
    clear = aggregator.twin.aggregate(given, pruned(masked) or None, weights, dropouts)
    assert encrypted.survivors == clear.survivors
    assert encrypted.integers is not None
    assert clear.integers is not None
    assert np.array_equal(encrypted.integers, clear.integers)
    assert np.array_equal(encrypted.vector, clear.vector, equal_nan=True)
    start = given["client-0"]
    assert torch.equal(flat(encrypted.apply(start)), flat(clear.apply(start)))


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
def test_fixed_point_stays_within_its_bound_of_the_float_mean(mode: Mode) -> None:
    given = updates()
    clear = FixedPoint(LAYOUT, PARAMS, mode).aggregate(given, pruned())
    exact = FloatMean(LAYOUT, mode).aggregate(given, pruned())
    differences = np.abs(clear.vector - exact.vector)
    assert 0 < differences.max() <= STEP / 2 + 1e-12


@pytest.mark.parametrize("name", ["masks", "weights", "dropouts", "ledgers"])
@pytest.mark.parametrize("kind", [Uniform, FixedPoint, FloatMean])
def test_strangers_are_refused_by_all_alike(kind: Any, name: str) -> None:
    given: Any = {"weights": dict.fromkeys(updates(), 1.0)}.get(name, {}) | {"stranger": None}
    with pytest.raises(UnknownClientError, match=rf"{name} names clients without an update: \['stranger'\]"):
        kind(LAYOUT).aggregate(updates(), **{name: given})


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
@pytest.mark.parametrize(
    "wrong", [{"model_root": b"x"}, {"weights": dict.fromkeys([f"client-{k}" for k in range(8)], -1.0)}]
)
def test_the_twin_refuses_in_the_same_words(mode: Mode, wrong: dict[str, Any]) -> None:
    secure = {"uniform": Uniform, "mask-indexed": MaskIndexed}[mode](LAYOUT, PARAMS)
    said = []
    for one in (secure, secure.twin):
        with pytest.raises(SecAggError) as refused:
            one.aggregate(updates(), **wrong)
        said.append((type(refused.value), str(refused.value)))
    assert said[0] == said[1]


def test_what_an_aggregation_is_given_shows_no_update_and_no_seed() -> None:
    given = Contributions(updates(), pruned(), dict.fromkeys(updates(), 0.75), seed=b"not to be seen")
    assert repr(given) == "Contributions(dropouts=None, model_root=b'')"


def test_apply_is_what_a_session_itself_applies() -> None:
    given, start = updates(), updates(1)["client-0"]
    ours = MaskIndexed(LAYOUT, PARAMS).aggregate(given, pruned(6)).apply(start)
    theirs = secagg.simulate(given, pruned(6), mode="mask-indexed", params=PARAMS, layout=LAYOUT).apply(start)
    assert torch.equal(flat(ours), flat(theirs))
