"""A session in one call: what goes in, what comes out, and what is refused before it starts."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch

from secagg import Ledger, Privacy, PrivacyLedger, delta, simulate
from secagg.combining import Combined, costliest
from secagg.declaration import Provenance, of_units
from secagg.driver import Stage
from secagg.errors import (
    AbortError,
    InputError,
    LayoutMismatchError,
    NotFiniteError,
    OutOfRangeError,
    ParameterError,
    UnknownClientError,
    WeightError,
)
from secagg.layout import Layout, Tensor
from secagg.params import Adversary, Params
from secagg.privacy.calibrate import epsilon_after
from secagg.structure import ties_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from secagg.params import Mode

NAMES = ("ann", "bob", "cat", "dan")
VALUES = {name: {"w": np.full((2, 2), k + 1.0), "b": np.array([0.5 * k])} for k, name in enumerate(NAMES)}
NO_DROPOUTS = Params(max_dropouts=0)
STEP = 4 / Params().magnitude


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, atol=len(NAMES) * STEP)


def some_masks() -> dict[str, Any]:
    """Everybody holds the first row of ``w``; two hold the rest, which is too few."""
    return {
        name: {"w": np.array([[True, True], [k < 2, k < 2]]), "b": np.array([True])} for k, name in enumerate(NAMES)
    }


def test_the_mean_and_the_sum_have_the_form_of_the_updates() -> None:
    result = simulate(VALUES)
    close(result.mean["w"], [[2.5, 2.5], [2.5, 2.5]])
    close(result.sum["w"], [[10, 10], [10, 10]])
    close(result.mean["b"], [0.75])
    assert result.weight == 4
    assert result.survivors == NAMES
    assert not result.withheld["w"].any()
    assert result.coverage is None
    assert result.unchanged == ()
    assert repr(result) == f"Result({result.verdict!r})"


def test_weights_weigh() -> None:
    weights = {"ann": 1.0, "bob": 0.5, "cat": 0.25, "dan": 0.25}
    result = simulate(VALUES, weights=weights)
    close(result.mean["w"], np.full((2, 2), (1 + 1 + 0.75 + 1) / 2))
    assert result.weight == pytest.approx(2, abs=1e-5)


def test_masks_withhold_what_too_few_hold_and_divide_by_those_who_do() -> None:
    values = {name: {"w": update["w"] * [[1], [np.nan]], "b": update["b"]} for name, update in VALUES.items()}
    values |= {name: VALUES[name] for name in ("ann", "bob")}
    result = simulate(values, some_masks(), mode="mask-indexed", params=NO_DROPOUTS)
    close(result.mean["w"], [[2.5, 2.5], [np.nan, np.nan]])
    assert result.coverage["w"].tolist() == [[4, 4], [2, 2]]
    assert result.withheld["w"].tolist() == [[False, False], [True, True]]


def test_what_is_withheld_can_be_filled() -> None:
    result = simulate(VALUES, some_masks(), mode="mask-indexed", params=NO_DROPOUTS, fallback=0.0)
    close(result.mean["w"], [[2.5, 2.5], [0, 0]])
    close(result.sum["w"], [[10, 10], [0, 0]])


def test_a_uniform_session_of_pruned_updates_counts_first() -> None:
    result = simulate(VALUES, some_masks(), mode="uniform", params=Params(max_dropouts=0, min_cohort=2))
    assert result.coverage is None
    close(result.mean["w"], [[2.5, 2.5], [(1 + 2) / 4, (1 + 2) / 4]])
    assert {stage.partition(": ")[0] for stage in result.stats.seconds if ": " in stage} == {"counting"}


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
def test_against_an_active_server_the_same_sum_comes_out_and_the_verdict_says_so(mode: Mode) -> None:
    masks = some_masks() if mode == "mask-indexed" else None
    trusting = simulate(VALUES, masks, mode=mode, params=NO_DROPOUTS)
    active = simulate(VALUES, masks, mode=mode, params=replace(NO_DROPOUTS, adversary="active"))
    np.testing.assert_array_equal(active.sum["w"], trusting.sum["w"])
    assert "an active server that signatures hold to one story would learn" in active.verdict
    assert active.stats.upload_bytes["ann"] > trusting.stats.upload_bytes["ann"]


def test_counts_that_an_active_server_could_forge_are_refused_before_the_session() -> None:
    with pytest.raises(ParameterError, match="counts come from the server, and an active one could forge them: use m"):
        simulate(VALUES, some_masks(), mode="uniform", params=Params(adversary="active"))


def test_a_masked_session_has_to_say_its_mode() -> None:
    with pytest.raises(ParameterError, match=r"masks are given: set mode='uniform' .* or\s+mode='mask-indexed'"):
        simulate(VALUES, some_masks())


def test_units_of_a_layout_make_declarations_small() -> None:
    layout = Layout((Tensor("w", (2, 2), "float64", {0: (0, 1)}), Tensor("b", (1,), "float64")), {"rows": 2})
    masks = {name: of_units(layout, np.array([True, k < 3]), Provenance.DEVICE) for k, name in enumerate(NAMES)}
    result = simulate(VALUES, masks, mode="mask-indexed", params=NO_DROPOUTS, layout=layout)
    assert result.coverage["w"].tolist() == [[4, 4], [3, 3]]
    close(result.mean["w"], [[2.5, 2.5], [2, 2]])
    with pytest.raises(LayoutMismatchError, match="the layout given names other tensors"):
        simulate(VALUES, layout=Layout(layout.tensors[:1], {"rows": 2}))


def test_masks_count_as_made_of_data_unless_it_is_said_what_they_were_made_of() -> None:
    told = simulate(VALUES, some_masks(), mode="mask-indexed", params=NO_DROPOUTS)
    assert "of them computed from data" in told.verdict
    device = simulate(VALUES, some_masks(), mode="mask-indexed", params=NO_DROPOUTS, provenance=Provenance.DEVICE)
    assert "computed from data" not in device.verdict
    np.testing.assert_array_equal(device.sum["w"], told.sum["w"])


@pytest.mark.parametrize("stage", ["ShareKeys", "share_keys", Stage.SHARE_KEYS])
def test_dropouts_are_named_by_stage(stage: Stage | str) -> None:
    result = simulate(VALUES, dropouts={"dan": stage})
    assert result.survivors == ("ann", "bob", "cat")
    close(result.mean["w"], np.full((2, 2), 2.0))
    assert result.stats.dropouts == {"dan": Stage.SHARE_KEYS}


def test_a_client_that_completes_the_last_stage_is_no_dropout() -> None:
    assert simulate(VALUES, dropouts={"dan": "Unmask"}).stats.dropouts == {}


def test_a_seed_makes_the_wire_repeat_and_no_seed_does_not() -> None:
    def wire(seed: bytes | int | None) -> list[bytes]:
        seen: list[bytes] = []
        simulate(VALUES, some_masks(), mode="uniform", params=NO_DROPOUTS, seed=seed, observe=seen.append)
        return seen

    assert wire(1) == wire(1) == wire(b"1")
    assert wire(1)[0] != wire(2)[0]
    assert wire(None)[0] != wire(None)[0]


def test_the_cost_is_told_by_client_name() -> None:
    params = Params(out_of_range="saturate", value_range=2.0)
    stats = simulate(VALUES, params=params).stats
    assert set(stats.upload_bytes) == set(stats.download_bytes) == set(NAMES)
    assert min(stats.upload_bytes.values()) > 0
    assert stats.clipped_share == {"ann": 0.0, "bob": 0.0, "cat": 0.8, "dan": 0.8}


@pytest.mark.parametrize("name", ["masks", "weights", "dropouts"])
def test_a_client_without_an_update_is_named(name: str) -> None:
    entry = {"masks": None, "weights": 1.0, "dropouts": "Unmask"}
    given: dict[str, Any] = {name: {"eve": entry[name]}}
    with pytest.raises(UnknownClientError, match=rf"{name} names clients without an update: \['eve'\]") as error:
        simulate(VALUES, mode="uniform", **given)
    assert error.value.culprits == ("eve",)


def test_a_missing_weight_is_named() -> None:
    with pytest.raises(WeightError, match=r"weights leaves out clients: \['dan'\]"):
        simulate(VALUES, weights=dict.fromkeys(NAMES[:3], 1.0))


@pytest.mark.parametrize(
    ("update", "weight", "kind"),
    [
        ({"w": np.full((2, 2), np.nan), "b": np.zeros(1)}, 1.0, NotFiniteError),
        ({"w": np.full((2, 2), 4.5), "b": np.zeros(1)}, 1.0, OutOfRangeError),
        ({"w": np.zeros((2, 3)), "b": np.zeros(1)}, 1.0, LayoutMismatchError),
        ({"w": np.zeros((2, 2)), "b": np.zeros(1)}, 1.5, WeightError),
    ],
)
def test_what_a_client_would_refuse_is_refused_before_the_session_and_names_it(
    update: dict[str, Any], weight: float, kind: type[InputError]
) -> None:
    seen: list[bytes] = []
    with pytest.raises(kind, match="client cat") as error:
        simulate({**VALUES, "cat": update}, weights={**dict.fromkeys(NAMES, 1.0), "cat": weight}, observe=seen.append)
    assert error.value.culprits == ("cat",)
    assert seen == []


def test_no_update_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="deltas holds no client"):
        simulate({})


class Model(torch.nn.Module):
    """A linear layer, its tied twin, and buffers that are no floats."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(2, 1)
        self.twin = torch.nn.Linear(2, 1)
        self.twin.weight = self.body.weight
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("flags", torch.tensor([True, False]))


def trained(start: Model, by: float) -> Model:
    model = copy.deepcopy(start)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by)
        model.get_buffer("steps").add_(1)
    return model


def test_a_module_is_trained_aggregated_and_written_back() -> None:
    start = Model()
    before = copy.deepcopy(start.state_dict())
    deltas = {name: delta(trained(start, 0.1 * k), before) for k, name in enumerate(NAMES)}
    result = simulate(deltas)
    assert result.unchanged == ("steps", "flags")
    assert [tensor.name for tensor in result.aggregate.plan.session.layout.tensors] == [
        "body.weight",
        "body.bias",
        "twin.bias",
    ]
    assert result.apply(start) is start
    for name in ("body.weight", "body.bias", "twin.weight", "twin.bias"):
        close(start.state_dict()[name], before[name].numpy() + 0.15)
    assert start.twin.weight is start.body.weight
    assert int(start.steps) == 3


def test_a_state_is_not_changed_but_copied() -> None:
    state = Model().state_dict()
    before = copy.deepcopy(state)
    after = simulate({name: {key: torch.ones_like(value) for key, value in state.items()} for name in NAMES}).apply(
        state
    )
    assert all(torch.equal(state[key], before[key]) for key in state)
    close(after["body.weight"], before["body.weight"].numpy() + 1)
    assert torch.equal(after["flags"], before["flags"])
    assert after["flags"] is not state["flags"]


def test_a_withheld_coordinate_keeps_its_value() -> None:
    result = simulate(VALUES, some_masks(), mode="mask-indexed", params=NO_DROPOUTS, fallback=9.0)
    start = {"w": np.full((2, 2), 7.0), "b": np.zeros(1)}
    close(result.apply(start)["w"], [[9.5, 9.5], [7, 7]])
    with pytest.raises(LayoutMismatchError):
        result.apply({"w": start["w"]})


@pytest.mark.parametrize("form", [dict, OrderedDict])
def test_a_delta_is_what_training_changed(form: type[dict[str, Any]]) -> None:
    after = form({"w": np.array([3.0, 5.0]), "steps": np.array(4), "flags": np.array([True])})
    before = {"w": np.array([1.0, 1.0]), "steps": np.array(1), "flags": np.array([False])}
    changed = delta(after, before)
    assert changed["w"].tolist() == [2, 4]
    assert list(changed) == list(after)
    changed["flags"][0] = False
    assert after["flags"][0]


def test_a_delta_keeps_tied_parameters_tied() -> None:
    start = Model()
    changed = delta(trained(start, 0.5), copy.deepcopy(start.state_dict()))
    assert ties_in(changed) == {"twin.weight": "body.weight"}


def test_a_delta_to_itself_is_refused() -> None:
    model = Model()
    with pytest.raises(InputError, match=r"start shares its memory with the model: copy\.deepcopy"):
        delta(model, model.state_dict())
    array = np.ones(2)
    with pytest.raises(InputError, match="start shares its memory"):
        delta(array, array)


def test_a_delta_of_other_shapes_is_refused() -> None:
    with pytest.raises(LayoutMismatchError):
        delta(np.ones(2), np.ones(3))


def test_narrow_results_overflow_to_infinity_without_a_warning() -> None:
    updates = {name: np.full(2, 3, np.float16) for name in NAMES}
    result = simulate(updates, weights=dict.fromkeys(NAMES, 1e5), params=Params(max_weight=1e5))
    assert result.sum.dtype == np.float16
    assert np.isposinf(result.sum).all()
    np.testing.assert_allclose(result.mean, 3, atol=1e-2)


COHORT = {f"client-{k}": {"w": np.full((2, 2), k / 8), "b": np.array([-k / 16])} for k in range(22)}


def in_cohort(survivors: Iterable[Any]) -> float:
    """The mean of ``w`` over these clients."""
    return float(np.mean([COHORT[name]["w"][0, 0] for name in survivors]))


def test_shards_come_to_the_mean_of_the_whole_cohort() -> None:
    result = simulate(COHORT, shards=3)
    close(result.mean["w"], np.full((2, 2), in_cohort(COHORT)))
    close(result.mean["b"], [-in_cohort(COHORT) / 2])
    close(result.sum["w"], np.full((2, 2), 22 * in_cohort(COHORT)))
    assert result.weight == 22
    assert result.survivors == tuple(COHORT)
    assert result.lost_shards == ()
    assert result.coverage is None
    assert result.event is None
    assert not result.withheld["w"].any()
    assert "would learn of each of 3 random shards the uniform sum over its survivors, 7 in the" in result.verdict
    close(result.apply({"w": np.ones((2, 2)), "b": np.zeros(1)})["w"], np.full((2, 2), 1 + in_cohort(COHORT)))


def test_a_client_of_a_shard_has_its_shard_to_talk_to_and_no_one_else() -> None:
    upload = {shards: simulate(COHORT, shards=shards).stats.upload_bytes for shards in (None, 1, 3)}
    assert set(upload[3]) == set(COHORT)
    assert max(upload[3].values()) < min(upload[None].values())
    assert upload[1].keys() == upload[None].keys()


def test_the_seconds_of_every_shard_are_told_apart() -> None:
    stages = simulate(COHORT, shards=2).stats.seconds
    assert {stage.partition(": ")[0] for stage in stages} == {"shard 0", "shard 1"}
    assert "shard 1: server unmask" in stages


def test_a_seed_repeats_the_division_and_no_seed_does_not() -> None:
    def division(seed: int | None) -> list[tuple[int, ...]]:
        outcome = simulate(COHORT, shards=2, seed=seed).outcome
        assert isinstance(outcome, Combined)
        return [shard.survivors for shard in outcome.shards]

    assert division(1) == division(1)
    assert division(2) != division(1)
    assert division(None) != division(None)


@pytest.mark.parametrize("mode", ["uniform", "mask-indexed"])
def test_masks_weights_and_dropouts_go_into_the_shards(mode: Mode) -> None:
    masks = {
        name: {"w": np.array([[True, True], [k > 0, True]]), "b": np.array([True])} for k, name in enumerate(COHORT)
    }
    weights = {name: 1 + k % 2 for k, name in enumerate(COHORT)}
    result = simulate(
        COHORT,
        masks,
        weights,
        mode,
        Params(max_weight=2, weighting="average" if mode == "mask-indexed" else "hidden"),
        {"client-3": "ShareKeys", "client-8": "AdvertiseKeys"},
        shards=2,
    )
    left = [name for name in COHORT if name not in {"client-3", "client-8"}]
    total = sum(weights[name] for name in left)
    assert result.survivors == tuple(left)
    assert result.weight == pytest.approx(total, rel=1e-4)
    mean = sum(weights[name] * COHORT[name]["w"][0, 0] for name in left) / total
    np.testing.assert_allclose(result.mean["w"][0], mean, atol=1e-4)
    assert result.stats.dropouts == {"client-3": Stage.SHARE_KEYS, "client-8": Stage.ADVERTISE_KEYS}
    if mode == "mask-indexed":
        assert result.coverage["w"].tolist() == [[21, 21], [20, 21]]
    else:
        assert {"shard 0: counting: server unmask", "shard 1: client unmask"} <= set(result.stats.seconds)


def test_against_an_active_server_shards_come_to_the_same_sum() -> None:
    trusting, active = (simulate(COHORT, params=Params(adversary=who), shards=2) for who in get_args(Adversary))
    np.testing.assert_array_equal(active.sum["w"], trusting.sum["w"])
    assert "an active server that signatures hold to one story would learn of each of 2 random shards" in active.verdict


def test_a_shard_that_aborts_is_left_out_and_the_others_count() -> None:
    outcome = simulate(COHORT, shards=3, seed=4).outcome
    assert isinstance(outcome, Combined)
    gone = [f"client-{id_}" for id_ in outcome.shards[1].survivors]
    result = simulate(COHORT, shards=3, seed=4, dropouts=dict.fromkeys(gone[1:], "ShareKeys"), fallback=0.0)
    (lost,) = result.lost_shards
    assert lost.number == 1
    assert lost.clients == tuple(gone)
    assert "clients sent their input < " in lost.reason
    assert result.survivors == tuple(name for name in COHORT if name not in gone)
    close(result.mean["w"], np.full((2, 2), in_cohort(result.survivors)))
    assert "of each of 2 random shards (1 more aborted)" in result.verdict


def test_what_a_shard_cost_that_broke_off_when_its_sum_was_out_is_in_the_event() -> None:
    noise = Privacy(clip=1, noise_multiplier=1)
    params = Params(min_cohort=2, max_dropouts=4, share_threshold=5, privacy=noise)
    first = simulate(COHORT, params=params, shards=2, seed=4).outcome
    assert isinstance(first, Combined)
    gone = [f"client-{id_}" for id_ in first.shards[1].survivors]
    # One drops out before it masks, so that this shard has less noise; and then too few reveal shares.
    dropouts = {gone[0]: "ShareKeys"} | dict.fromkeys(gone[1:8], "MaskedInput")
    result = simulate(COHORT, params=params, shards=2, seed=4, dropouts=dropouts)
    (lost,) = result.lost_shards
    assert lost.opened
    assert lost.event is not None
    assert result.event is not None
    assert epsilon_after(1, result.event, 1e-5) >= epsilon_after(1, lost.event, 1e-5)
    assert "1 of them when the server may have seen the sum" in result.verdict


def test_where_every_shard_aborts_so_does_the_round() -> None:
    with pytest.raises(AbortError, match="no shard released anything: shard 0: "):
        simulate(COHORT, shards=2, dropouts=dict.fromkeys(COHORT, "ShareKeys"))


def test_with_noise_the_round_is_one_event() -> None:
    ledger = PrivacyLedger()
    privacy = Privacy(clip=1, noise_multiplier=2)
    result = simulate(COHORT, privacy=privacy, shards=2, dropouts={"client-3": "ShareKeys"})
    assert isinstance(result.outcome, Combined)
    alone = [shard.event for shard in result.outcome.shards]
    assert result.event == costliest([event for event in alone if event is not None])
    assert result.event is not None
    ledger.record(result.event)
    assert f"of epsilon {ledger.epsilon(1e-5):.3g} at delta 1e-05 for this round" in result.verdict
    single = simulate(COHORT, privacy=privacy)
    assert single.event == single.aggregate.event


def test_shards_that_cannot_be_and_ledgers_across_shards_are_refused_before_anything_is_sent() -> None:
    seen: list[bytes] = []
    with pytest.raises(ParameterError, match="the largest number of shards that works is 7"):
        simulate(COHORT, shards=8, observe=seen.append)
    with pytest.raises(ParameterError, match="leave ledgers out, and start each round from a new model"):
        simulate(COHORT, ledgers={"client-0": Ledger()}, shards=2, observe=seen.append)
    assert seen == []


def test_the_plan_of_a_round_in_shards_is_nowhere() -> None:
    result = simulate(COHORT, shards=2)
    with pytest.raises(ParameterError, match=r"with shards there is no one plan: take result\.outcome"):
        _ = result.aggregate
    single = simulate(COHORT)
    assert single.aggregate is single.outcome
