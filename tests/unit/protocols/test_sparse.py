"""Rounds on one public mask: what it drops is zero everywhere, and it changes after good rounds only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import pytest
import torch

from protocols.aggregators import FixedPoint, FloatMean, MaskIndexed, Uniform
from protocols.aggregators.central_noise import CentralNoise
from protocols.fetch import Served
from protocols.results import LostRound, RoundResult
from protocols.round import RoundContext, Work
from protocols.sessions.averaging import LEVELS
from protocols.sparse import SparseSystem
from protocols.stages import Delta, Fetch, LocalTraining, Sparse, fetched_bytes
from pruning.masks import Mask
from secagg.declaration import Provenance
from secagg.errors import ParameterError
from secagg.privacy.settings import Privacy

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from inspect import BoundArguments

    from protocols.federation import Federation
    from protocols.simulation.calibration import Calibration, SecureTime
    from pruning.kernels import Vector
    from secagg.params import Mode, Params
    from tests.unit.protocols.conftest import WorkAt

SIZE, BIASES = 32 * 16 + 16 * 32 + 4 * 16, 32 + 16 + 4


class Largest(SparseSystem):
    """After every second good round half of the weights go: those that the clients' mean says."""

    @property
    def name(self) -> str:
        return "largest"

    def ranges(self) -> Mapping[str, float]:
        return {"noise": 1.0, "known": 1.0} if self.played % 2 else {}

    def contribution(self, context: RoundContext, own: Work) -> Mapping[str, Vector]:
        draws = np.random.default_rng([context.number, self.federation.fleet.number(own.client)])
        noise, known = draws.uniform(-1, 1, (2, self.kernels.size))
        return {"noise": noise, "known": known}

    def renewed(self, means: Mapping[str, torch.Tensor], before: Vector, after: Vector) -> Mask:  # noqa: ARG002
        active, noise = self.kernels.active(self.mask), means["noise"].numpy()
        return self.kernels.mask(active & (noise > np.median(noise[active])))


@final
class Deriving(Largest):
    """Of the two means a server in the clear knows one."""

    derived = frozenset({"known"})


def dropped(system: SparseSystem) -> dict[str, torch.Tensor]:
    return {name: ~torch.from_numpy(held) for name, held in system.mask.by_tensor().items()}


def half(federation: Federation) -> Mask:
    """Every other weight of every kernel."""
    layout = federation.units.layout
    parts = [
        np.arange(tensor.size) % 2 == 0 if len(tensor.shape) > 1 else np.ones(tensor.size, bool)
        for tensor in layout.tensors
    ]
    return Mask.of_coordinates(layout, np.concatenate(parts), Provenance.PUBLIC)


def context_of(federation: Federation) -> RoundContext:
    start = federation.start()
    return RoundContext(0, federation.model_at(start), start.state, Served(federation.units.layout, start.state))


def worked(federation: Federation, mask: Mask) -> Work:
    """What one client makes of a round under a mask."""
    context = context_of(federation)
    work = Work("fast-01", context.model, Mask.full(federation.units.layout))
    training = LocalTraining(federation.examples, federation.training, 0)
    for stage in (Fetch(), Sparse(lambda *_: mask), training, Delta()):
        work = stage.on_client(context, work)
    return work


# ---------------------------------------------------------------------------------- stages


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_what_the_mask_drops_is_zero_before_training_and_after(federation: Federation, optimiser: Any) -> None:
    training = replace(federation.training, optimiser=optimiser, learning_rate=0.01, momentum=0.9, steps=4)
    mask = half(federation)
    work = worked(replace(federation, training=training), mask)
    trained = work.model.state_dict()
    for name, held in mask.by_tensor().items():
        kept = torch.from_numpy(held)
        for tensor in (work.start[name], trained[name], work.update[name]):
            assert not tensor[~kept].any()
        assert torch.equal(work.start[name][kept], federation.start().state[name][kept])
        assert work.update[name][kept].any()
    assert work.keep == mask.density == (SIZE // 2 + BIASES) / (SIZE + BIASES)


def test_a_full_mask_leaves_the_model_and_its_bytes_as_they_are(federation: Federation) -> None:
    layout = federation.units.layout
    context = context_of(federation)
    fetched = Fetch().on_client(context, Work("fast-01", context.model, Mask.full(layout)))
    work = Sparse(lambda *_: Mask.full(layout)).on_client(context, fetched)
    assert (work.mask.kind, work.fetched_bytes, work.keep) == ("full", fetched.fetched_bytes, 1)
    assert work.model is fetched.model


@pytest.mark.parametrize("kind", ["units", "layers"])
def test_coordinates_that_happen_to_be_whole_units_or_layers_are_held_like_any_others(
    federation: Federation, kind: str
) -> None:
    layout = federation.units.layout
    some = np.arange(layout.unit_count) % 3 > 0
    mask = Mask.of_units(layout, some) if kind == "units" else Mask.of_layers(layout, np.array([True, False, True]))
    assert mask.kind == kind
    work = worked(federation, mask)
    for name, held in mask.by_tensor().items():
        assert work.model.state_dict()[name].shape == held.shape
        assert not work.model.state_dict()[name][~torch.from_numpy(held)].any()
        assert not work.update[name][~torch.from_numpy(held)].any()


def test_a_client_fetches_the_values_that_a_mask_leaves_and_which_they_are(federation: Federation) -> None:
    mask = half(federation)
    # Half of the coordinates are best told by a bit each.
    assert fetched_bytes(mask) == 4 * (SIZE // 2 + BIASES) + -(-(SIZE + BIASES) // 8)
    assert worked(federation, mask).fetched_bytes == fetched_bytes(mask)


# ---------------------------------------------------------------------------------- rounds


@pytest.mark.parametrize("kind", [FixedPoint, FloatMean])
def test_the_server_has_zeros_outside_the_mask_after_every_round_and_so_has_every_client(
    federation: Federation, instant: Calibration, work_at: WorkAt, kind: type[FixedPoint | FloatMean]
) -> None:
    system = Largest(federation, kind(federation.units.layout), calibration=instant)
    densities = []
    for outcome, end in system.play(5):
        assert isinstance(outcome, RoundResult)
        densities.append(outcome.details["density"])
        for name, gone in dropped(system).items():
            assert not end.state[name][gone].any()
            assert end.state[name][~gone].all() or name.endswith("bias")
        assert {client.keep for client in outcome.clients.values()} == {
            1 if outcome.number < 2 else (SIZE * densities[outcome.number - 1] + BIASES) / (SIZE + BIASES)
        }
    assert densities == [1, 0.5, 0.5, 0.25, 0.25]
    for work in work_at(system, end).values():
        for name, gone in dropped(system).items():
            assert not work.model.state_dict()[name][gone].any()
            assert not work.update[name][gone].any()


def test_dropped_weights_leave_the_model_in_the_round_that_drops_them_and_the_others_move_by_the_mean(
    federation: Federation, instant: Calibration, work_at: WorkAt
) -> None:
    system = Largest(federation, FloatMean(federation.units.layout), calibration=instant)
    (_, first), (_, second) = system.play(2)
    work = work_at(Largest(federation, FloatMean(federation.units.layout), calibration=instant), first)
    for name, gone in dropped(system).items():
        moved = torch.stack([one.update[name] for one in work.values()]).mean(dim=0)
        assert torch.allclose(second.state[name], (first.state[name] + moved) * ~gone, atol=1e-6)
        assert first.state[name][gone].any() or not gone.any()


# ---------------------------------------------------------------------------------- means


def test_in_floating_point_only_what_the_server_does_not_know_is_sent(
    federation: Federation, instant: Calibration
) -> None:
    floats, whole = FloatMean(federation.units.layout), 4 * (SIZE + BIASES)
    system = Largest(federation, floats, calibration=instant)
    sent = [one.clients["fast-01"].upload_bytes for one in system.run(2)[0].rounds]
    assert sent == [whole, whole + 2 * 4 * SIZE]
    system = Deriving(federation, floats, calibration=instant)
    assert [one.clients["fast-01"].upload_bytes for one in system.run(2)[0].rounds] == [whole, whole + 4 * SIZE]


def test_what_is_summed_besides_is_in_the_verdict(
    federation: Federation, uniform: Uniform, instant: Calibration
) -> None:
    first, second = Largest(federation, uniform, calibration=instant).run(2)[0].rounds
    assert "beside the updates" not in first.verdict
    assert "It sums noise, known beside the updates" in second.verdict


def lossy(federation: Federation) -> Federation:
    """One whose rounds can be lost: everybody is drawn."""
    return replace(federation, participants=8)


GONE: dict[Hashable, str] = dict.fromkeys(("fast-01", "fast-02", "fast-03"), "ShareKeys")
"""One more than a session tolerates."""


def test_a_lost_round_leaves_the_mask_and_what_was_to_be_summed_in_it_is_summed_in_the_next(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    system = Largest(lossy(federation), plain, calibration=instant)
    played = system.play(5, dropouts={1: GONE, 2: GONE})
    (_, start), (lost, at_loss), (again, _), (good, _), (after, _) = [
        (outcome, replace(at, memory=dict(at.memory))) for outcome, at in played
    ]
    assert isinstance(lost, LostRound)
    assert isinstance(again, LostRound)
    assert isinstance(good, RoundResult)
    assert isinstance(after, RoundResult)
    assert all(torch.equal(tensor, at_loss.state[name]) for name, tensor in start.state.items())
    assert at_loss.memory["held"].all()
    assert system.played == 3
    assert (good.details["density"], after.details["density"]) == (0.5, 0.5)
    assert good.clients["fast-01"].upload_bytes == 4 * (SIZE + BIASES + 2 * SIZE)


def test_a_run_goes_on_from_a_lost_round_as_if_it_had_not_stopped(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    def system() -> Largest:
        return Largest(lossy(federation), plain, calibration=instant)

    def told(played: Any) -> list[tuple[object, list[Any]]]:
        return [(outcome, [tensor.tolist() for tensor in end.state.values()]) for outcome, end in played]

    dropouts = {1: GONE}
    whole = list(system().play(4, dropouts=dropouts))
    for stop in (1, 2, 3):
        assert told(system().play(4 - stop, whole[stop - 1][1], dropouts=dropouts)) == told(whole[stop:])


@pytest.mark.parametrize("kind", [FixedPoint, FloatMean])
def test_a_round_in_which_nobody_is_in_time_is_lost(
    federation: Federation, plain: FixedPoint, instant: Calibration, kind: type[FixedPoint | FloatMean]
) -> None:
    system = Largest(federation, plain, calibration=instant)
    _, due = system.run(1)
    hurried = replace(federation, deadline=1e-3)
    system = Largest(hurried, kind(plain.layout), calibration=instant)
    ((outcome, end),) = system.play(1, due)
    assert isinstance(outcome, LostRound)
    assert end.memory["played"] == 1


def test_a_round_in_which_means_are_due_is_charged_its_finer_grid(
    federation: Federation, uniform: Uniform, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def noted(mode: Mode, clients: int, params: Params) -> SecureTime:
        asked.append(params.levels)
        return time(mode, clients, params)

    time = instant.time
    monkeypatch.setattr(instant, "time", noted)
    Largest(federation, uniform, calibration=instant).run(4)
    assert asked == [uniform.params.levels, LEVELS] * 2


def test_a_round_has_one_session_and_every_session_secrets_of_its_own(
    federation: Federation, uniform: Uniform, instant: Calibration, sessions: list[BoundArguments]
) -> None:
    for seed in (3, 4):
        Largest(replace(federation, seed=seed), uniform, calibration=instant).run(4)
    seeds = [session.arguments["seed"] for session in sessions]
    assert len(seeds) == 2 * 4
    assert None not in seeds
    assert len(set(seeds)) == len(seeds)


# ---------------------------------------------------------------------------------- the rest


def test_a_gradient_is_of_all_weights_and_another_batch_in_every_round(
    federation: Federation, plain: FixedPoint
) -> None:
    system = Largest(federation, plain)
    context, state = context_of(federation), torch.random.get_rng_state()
    one, again = (system.gradient(context, "fast-01") for _ in range(2))
    other = system.gradient(replace(context, number=1), "fast-01")
    assert one.shape == (SIZE,)
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)
    assert not np.allclose(one, system.gradient(context, "fast-02"))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in context.model.parameters())


def test_clients_with_equal_examples_draw_batches_of_their_own(federation: Federation, plain: FixedPoint) -> None:
    one = federation.examples["fast-01"]
    system = Largest(replace(federation, examples=dict.fromkeys(federation.examples, one)), plain)
    context = context_of(federation)
    first, second = (system.gradient(context, client) for client in ("fast-01", "fast-02"))
    assert not np.allclose(first, second)


def test_a_client_ends_with_the_global_model_under_its_mask(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    system = Largest(federation, plain, calibration=instant)
    _, end = system.run(2)
    state, mask = system.model_of("fast-01", end)
    assert state is end.state
    assert mask == system.mask
    assert mask.provenance is Provenance.PUBLIC


def test_a_tensor_of_the_model_cannot_be_called_as_a_mean_is(federation: Federation, plain: FixedPoint) -> None:
    class Clashing(Largest):
        def contribution(self, context: RoundContext, own: Work) -> Mapping[str, Vector]:
            return {"fc1.weight": super().contribution(context, own)["noise"]}

        def ranges(self) -> Mapping[str, float]:
            return {"fc1.weight": 1.0}

    with pytest.raises(ParameterError, match=r"fc1\.weight"):
        Clashing(federation, plain).run(1)


def test_what_gradients_are_summed_without_noise_is_not_called_private(federation: Federation) -> None:
    noisy = CentralNoise(federation.units.layout, Privacy(clip=1.0, noise_multiplier=1.0))
    with pytest.raises(ParameterError, match="leave out epsilon"):
        Largest(federation, noisy)


def test_one_that_begins_anew_has_forgotten_its_mask(
    federation: Federation, plain: FixedPoint, instant: Calibration
) -> None:
    system = Largest(federation, plain, calibration=instant)
    first, second = (system.run(3)[0] for _ in range(2))
    assert first == second


def test_masks_are_not_declared_so_the_aggregator_must_be_uniform(federation: Federation, indexed: MaskIndexed) -> None:
    with pytest.raises(ParameterError, match="uniform"):
        Largest(federation, indexed)
