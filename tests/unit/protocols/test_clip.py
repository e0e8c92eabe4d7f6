"""What tells CLIP which units are invariant, and who learns what of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from protocols import clip as clip_module
from protocols.baselines.fedavg import FedAvg
from protocols.clip import SCORES, Clip, ClipSettings
from protocols.sessions.vote import Vote, vote, voted_mask
from pruning.clip import invariant_mask, largest_relative_change, relative_norm
from secagg.declaration import Provenance
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregators import Aggregator, Client, FixedPoint, MaskIndexed, Uniform
    from protocols.budget import Budget
    from protocols.clip import ScoreName, Statistic
    from protocols.federation import Checkpoint, Federation
    from protocols.results import RunResult
    from protocols.simulation.calibration import Calibration
    from protocols.synchronous import SynchronousSystem
    from pruning.masks import Mask
    from tests.unit.protocols.conftest import WorkAt

DATA = "computed from data"
STRAGGLERS = ("straggler-01", "straggler-02")
STATISTICS: tuple[Statistic, ...] = ("vote", "global", "local")


@pytest.fixture(scope="module")
def warm(federation: Federation, plain: FixedPoint, instant: Calibration) -> Checkpoint:
    """After two rounds of full training."""
    return FedAvg(federation, plain, calibration=instant).run(2)[1]


def masks_at(system: SynchronousSystem, start: Checkpoint, work_at: WorkAt) -> dict[Client, Mask]:
    return {client: one.mask for client, one in work_at(system, start).items() if one.mask.kind != "full"}


def keeps(result: RunResult, client: str = "straggler-01") -> list[float]:
    return [one.clients[client].keep for one in result.rounds]


# ---------------------------------------------------------------------------------- budgets and bytes


@pytest.mark.parametrize("budget", ["compute", "round"])
def test_a_straggler_trains_a_module_with_fewer_parameters_and_keeps_up(
    federation: Federation, plain: FixedPoint, warm: Checkpoint, instant: Calibration, budget: Budget
) -> None:
    result, _ = Clip(federation, plain, ClipSettings(budget=budget), calibration=instant).run(2, warm)
    for one in result.rounds[1:]:  # the first is charged the identification too
        slow, fast = one.clients["straggler-02"], one.clients["fast-02"]
        assert slow.parameters < fast.parameters
        assert slow.keep < fast.keep == 1
        assert slow.flops < fast.flops
        assert slow.seconds.compute <= fast.seconds.compute
        assert budget == "compute" or slow.seconds.total <= fast.seconds.total


def test_only_mask_indexed_shrinks_a_stragglers_upload(
    federation: Federation, uniform: Uniform, indexed: MaskIndexed, warm: Checkpoint, instant: Calibration
) -> None:
    sent = {}
    for aggregator in (uniform, indexed):
        (one,) = Clip(federation, aggregator, calibration=instant).run(1, warm)[0].rounds
        sent[aggregator.name] = (one.clients["straggler-01"].upload_bytes, one.clients["fast-01"].upload_bytes)
    assert sent["uniform"][0] == sent["uniform"][1]
    assert sent["mask-indexed"][0] < sent["mask-indexed"][1]


# ---------------------------------------------------------------------------------- two global models


def test_the_global_statistic_needs_two_models_and_declares_nothing_about_data(
    federation: Federation, indexed: MaskIndexed, instant: Calibration
) -> None:
    result, _ = Clip(federation, indexed, calibration=instant).run(2)
    first, second = ([one.clients[name].keep for name in result.stragglers] for one in result.rounds)
    assert first == [1, 1]
    assert max(second) < 1
    assert DATA not in result.verdict


@pytest.mark.parametrize(("score", "rule"), [("norm", relative_norm), ("largest-change", largest_relative_change)])
def test_the_global_mask_is_what_anybody_computes_from_two_models(
    federation: Federation, plain: FixedPoint, warm: Checkpoint, work_at: WorkAt, *, score: ScoreName, rule: object
) -> None:
    assert SCORES[score] is rule
    system = Clip(federation, plain, ClipSettings(score=score, keep=0.6))
    assert warm.previous is not None
    expected = invariant_mask(
        federation.units,
        warm.previous,
        warm.state,
        system.keep["straggler-01"],
        statistic="global",
        score=SCORES[score],
    )
    assert masks_at(system, warm, work_at) == dict.fromkeys(STRAGGLERS, expected)
    assert expected.provenance is Provenance.PUBLIC


# ---------------------------------------------------------------------------------- one's own update


def test_the_local_statistic_trains_fully_now_and_then(
    federation: Federation, indexed: MaskIndexed, instant: Calibration
) -> None:
    settings = ClipSettings(statistic="local", refresh_every=2)
    result, _ = Clip(federation, indexed, settings, calibration=instant).run(4)
    assert (keeps(result)[0], keeps(result)[2]) == (1, 1)
    assert max(keeps(result)[1], keeps(result)[3]) < 1
    assert f"2 of them {DATA}" in result.verdict


def test_the_local_mask_is_that_of_the_clients_own_last_full_update(
    federation: Federation, plain: FixedPoint, instant: Calibration, work_at: WorkAt
) -> None:
    settings = ClipSettings(statistic="local", refresh_every=3)
    system = Clip(federation, plain, settings, calibration=instant)
    (_, after_full), (_, after_pruned) = system.play(2)
    whole = work_at(Clip(federation, plain, settings), federation.start())
    expected = {
        client: invariant_mask(
            federation.units,
            whole[client].start,
            whole[client].model.state_dict(),
            system.keep[client],
            statistic="local",
            score=relative_norm,
        )
        for client in STRAGGLERS
    }
    assert masks_at(system, after_full, work_at) == expected
    assert masks_at(system, after_pruned, work_at) == expected
    assert expected["straggler-01"] != expected["straggler-02"]
    assert expected["straggler-01"].provenance is Provenance.DATA


def test_a_straggler_that_has_seen_no_full_training_yet_trains_fully(
    federation: Federation, plain: FixedPoint, warm: Checkpoint, work_at: WorkAt
) -> None:
    system = Clip(federation, plain, ClipSettings(statistic="local"))
    assert warm.number % 5 != 0
    assert masks_at(system, warm, work_at) == {}
    assert set(system.scores) == set(STRAGGLERS)


# ---------------------------------------------------------------------------------- the others' vote


@pytest.fixture
def votes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Mapping[Client, object], Vote]]:
    """Who voted, and every vote as it ended."""
    held = []

    def watched(layout: object, bits: Mapping[Client, object], **options: object) -> Vote:
        ended = vote(layout, bits, **options)  # type: ignore[arg-type]
        held.append((bits, ended))
        return ended

    monkeypatch.setattr(clip_module, "vote", watched)
    return held


def test_the_vote_gives_all_stragglers_one_public_mask(
    federation: Federation,
    plain: FixedPoint,
    instant: Calibration,
    work_at: WorkAt,
    votes: list[tuple[Mapping[Client, object], Vote]],
) -> None:
    system = Clip(federation, plain, ClipSettings(statistic="vote", keep=0.5), calibration=instant)
    seen = set()
    for outcome, checkpoint in system.play(5):
        masks = masks_at(system, checkpoint, work_at)
        voters, ended = votes[outcome.number]
        assert set(voters) == {device.name for device in federation.fleet.rest}
        expected = voted_mask(federation.units.layout, ended.tally.counts, 0.5)
        assert masks == dict.fromkeys(STRAGGLERS, expected)
        assert expected.provenance is Provenance.PUBLIC
        seen.add(expected)
    assert len(seen) > 1


def test_before_the_first_vote_stragglers_train_fully_and_nothing_is_declared_about_data(
    federation: Federation, indexed: MaskIndexed, instant: Calibration
) -> None:
    result, _ = Clip(federation, indexed, ClipSettings(statistic="vote"), calibration=instant).run(2)
    assert keeps(result)[0] == 1 > keeps(result)[1]
    assert DATA not in result.verdict


def test_an_encrypted_vote_and_a_clear_one_move_thresholds_alike(
    federation: Federation, indexed: MaskIndexed, instant: Calibration
) -> None:
    ends = [
        Clip(federation, aggregator, ClipSettings(statistic="vote"), calibration=instant).run(3)[1]
        for aggregator in (indexed, indexed.twin)
    ]
    encrypted, clear = (end.memory for end in ends)
    assert encrypted["thresholds"] == clear["thresholds"]
    assert np.array_equal(encrypted["counts"], clear["counts"])
    assert set(encrypted["thresholds"]) == set(federation.units.layout.unit_groups)


@pytest.mark.parametrize("encrypted", [True, False])
def test_the_bytes_of_the_vote_are_in_what_voters_send_and_receive(
    federation: Federation,
    indexed: MaskIndexed,
    instant: Calibration,
    votes: list[tuple[Mapping[Client, object], Vote]],
    *,
    encrypted: bool,
) -> None:
    """In the first round everybody trains the whole model, so nothing but the vote tells two statistics apart."""
    aggregator: Aggregator = indexed if encrypted else indexed.twin
    one, other = (
        Clip(federation, aggregator, ClipSettings(statistic=statistic), calibration=instant).run(1)[0].rounds[0]
        for statistic in STATISTICS[:2]
    )
    ((_, ended),) = votes
    for client in federation.fleet.names:
        more_sent = one.clients[client].upload_bytes - other.clients[client].upload_bytes
        more_received = one.clients[client].download_bytes - other.clients[client].download_bytes
        assert more_sent == ended.tally.upload_bytes.get(client, 0)
        assert more_received == ended.tally.download_bytes.get(client, 0)
        assert (more_sent > 0) == (client not in STRAGGLERS)
        assert (one.clients[client].seconds.total > other.clients[client].seconds.total) == (more_sent > 0)


# ---------------------------------------------------------------------------------- settings


def test_a_keep_ratio_of_one_prunes_nobody(federation: Federation, plain: FixedPoint, instant: Calibration) -> None:
    for statistic in STATISTICS:
        settings = ClipSettings(statistic=statistic, keep=1.0)
        result, _ = Clip(federation, plain, settings, calibration=instant).run(2)
        assert {client.keep for client in result.of_stragglers()} == {1.0}


def test_the_name_says_the_statistic_and_the_aggregator(federation: Federation, plain: FixedPoint) -> None:
    assert Clip(federation, plain, ClipSettings(statistic="vote")).name == "CLIP vote plain"


@pytest.mark.parametrize(
    "wrong",
    [{"statistic": "guess"}, {"score": "guess"}, {"budget": "money"}, {"least_keep": 0.0}, {"refresh_every": 0}],
)
def test_settings_outside_their_domain_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        ClipSettings(**wrong)  # type: ignore[arg-type]
