"""A round in shards against plain arithmetic: each shard's sum or error, and over all shards the sum of the sums."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import combining, driver
from secagg.combining import Combined, LostShard, combine
from secagg.driver import Contribution
from secagg.errors import AbortError
from secagg.layout import Layout, Tensor
from secagg.params import Params
from secagg.session import CountedCoverage, Session
from secagg.shards import split
from tests.properties.plain import Plain
from tests.strategies import MODES, Mask, Scenario, scenarios

if TYPE_CHECKING:
    from collections.abc import Iterator

    from secagg.aggregate import Aggregate
    from secagg.params import Mode


@st.composite
def rounds(draw: st.DrawFn, mode: Mode) -> list[Scenario]:
    """A cohort in shards: what each of them plays."""
    settings: dict[str, Any] = {
        "min_cohort": 2,
        "max_dropouts": draw(st.sampled_from([None, None, 0, 1])),
        "share_threshold": None,
    }
    whole = draw(scenarios(mode, (12, 18), **settings))
    counted = whole.session.counted is not None
    cohort = list(whole.contributions)
    drawn = split(
        replace(whole.session, counted=None),
        cohort,
        draw(st.sampled_from([1, 2, 2, 3])),
        draw(st.binary(min_size=32, max_size=32)),
    )
    parts = []
    for shard in drawn:
        masks = {client: whole.masks[client] for client in shard.clients}
        least = np.sum([mask.held for mask in masks.values()], axis=0).astype(np.int32)
        coverage = CountedCoverage(frozenset(masks), least) if counted else None
        contributions = {client: whole.contributions[client] for client in masks}
        last_stage = {client: stage for client, stage in whole.last_stage.items() if client in masks}
        parts.append(Scenario(replace(shard.session, counted=coverage), contributions, masks, last_stage, whole.seed))
    return parts


def ends(parts: list[Scenario]) -> Iterator[Aggregate | LostShard]:
    """How each shard ends, checked against its plain account."""
    for number, part in enumerate(parts):
        failure = Plain(part).failure
        if failure is None:
            yield driver.run(part.session, part.contributions, part.last_stage, entropy_of=part.entropy_of).aggregate
            continue
        with pytest.raises(AbortError) as raised:
            driver.run(part.session, part.contributions, part.last_stage, entropy_of=part.entropy_of)
        assert type(raised.value) is failure
        yield LostShard(number, tuple(part.contributions), str(raised.value))


def check(combined: Combined, parts: list[Scenario]) -> None:
    """Refuses what is not the sum of the plain sums, integer by integer, over the plain sum of the weights."""
    plain = [one for one in map(Plain, parts) if one.failure is None]
    assert combined.survivors == tuple(sorted(client for one in plain for client in one.survivors))
    assert len(combined.lost) == len(parts) - len(plain)
    session = plain[0].scenario.session
    unit = session.params.max_weight if session.weighted else 1.0
    summed = [dict(zip(np.flatnonzero(one.released).tolist(), one.integers, strict=False)) for one in plain]
    for place, limit in enumerate(plain[0].limits):
        releasing = [one for one in plain if one.released[place]]
        assert combined.released_by[place] == len(releasing)
        assert combined.released[place] == bool(releasing)
        if not releasing:
            assert np.isnan(combined.sum[place])
            assert np.isnan(combined.mean[place])
            assert combined.weight[place] == 0
            continue
        total = sum(integers.get(place, 0) for integers in summed)
        step = limit / plain[0].magnitude * unit
        assert round(combined.sum[place] / step) == total
        weight = sum((one.weight(place) for one in releasing), Fraction(0)) * Fraction(unit)
        assert combined.weight[place] == pytest.approx(float(weight), rel=1e-9)
        if weight:
            mean = Fraction(total) * Fraction(step) / weight
            assert combined.mean[place] == pytest.approx(float(mean), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
def test_shards_come_to_the_sum_of_their_plain_sums_whoever_drops_out(mode: Mode, data: st.DataObject) -> None:
    parts = data.draw(rounds(mode))
    if all(Plain(part).failure for part in parts):
        with pytest.raises(AbortError, match="no shard released anything: shard 0: "):
            combine(ends(parts))
    else:
        check(combine(ends(parts)), parts)


def uneven_shards() -> list[Scenario]:
    """Seven clients in a shard of four and one of three, of whom the later ones have larger values."""
    layout = Layout((Tensor("w", (3,)),))
    session = Session(id=bytes(16), params=Params(levels=2**9), layout=layout, mode="uniform")
    return [
        Scenario(
            shard.session,
            {client: Contribution({"w": np.full(3, client / 2)}) for client in shard.clients},
            dict.fromkeys(shard.clients, Mask(None, np.ones(3, bool))),
            {},
            0,
        )
        for shard in split(session, range(7), 2, bytes(32))
    ]


def test_a_mean_of_means_does_not_pass_for_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above, on a combination that forgets how many are in each shard."""

    def forgetful(total: combining._Total, shard: Aggregate) -> None:
        total.sum += np.nan_to_num(shard.mean)
        total.weight += shard.weight > 0
        total.released_by += shard.released
        total.shards.append(combining.SummedShard(shard.survivors, shard.smallest_group, None))

    parts = uneven_shards()
    check(combine(ends(parts)), parts)
    monkeypatch.setattr(combining._Total, "add", forgetful)
    with pytest.raises(AssertionError):
        check(combine(ends(parts)), parts)
