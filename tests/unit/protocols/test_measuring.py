"""What a round is charged: secure aggregation by what is really masked, and the small sessions beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from protocols.aggregators import Aggregator, FixedPoint, FloatMean
from protocols.measuring import SILENCE, Measuring, Talk
from protocols.round import Work
from protocols.sessions.averaging import Averages
from protocols.sessions.tally import Tally
from protocols.simulation.calibration import Calibration, SecureTime
from protocols.simulation.devices import ServerLinks
from pruning.masks import Mask, ordered_units
from secagg.counts import counting_layout

if TYPE_CHECKING:
    from collections.abc import Hashable

    from protocols.federation import Federation
    from secagg.params import Mode, Params


class Even(Calibration):
    """Powers of two, so that sums are exact."""

    def time(self, mode: Mode, clients: int, params: Params) -> SecureTime:
        return SecureTime(
            mode=mode,
            clients=clients,
            settings=params.digest.hex(),
            client=2.0,
            client_per_coordinate=2.0**-10,
            server=1.0,
            server_per_coordinate=2.0**-14,
        )


def charged(length: int, total: int) -> float:
    return 3 + length * 2.0**-10 + total * 2.0**-14


@pytest.fixture
def work(federation: Federation) -> dict[Hashable, Work]:
    """Everybody's, pruned for the stragglers."""
    layout = federation.units.layout
    return {
        device.name: Work(
            device.name, federation.model, ordered_units(layout, 0.5) if device.straggler else Mask.full(layout)
        )
        for device in federation.fleet.devices
    }


def measured(
    federation: Federation, aggregator: Aggregator, work: dict[Hashable, Work], talk: Talk
) -> dict[str, float]:
    rounds = Measuring(federation, aggregator, Even()).clients(work, None, talk)
    return {str(client): one.seconds.secure for client, one in rounds.items()}


def test_a_mask_indexed_client_is_charged_what_it_holds(federation: Federation, work: dict[Hashable, Work]) -> None:
    layout = federation.units.layout
    held = {str(client): int(one.mask.coordinates.sum()) for client, one in work.items()}
    assert held["straggler-01"] < held["fast-01"] == layout.size
    seconds = measured(federation, FixedPoint(layout, mode="mask-indexed"), work, SILENCE)
    assert seconds == {client: charged(own, sum(held.values())) for client, own in held.items()}


def test_a_uniform_client_masks_everything_and_pruned_updates_are_counted_before(
    federation: Federation, work: dict[Hashable, Work]
) -> None:
    layout, clients = federation.units.layout, len(work)
    counting = counting_layout(layout).size
    both = charged(layout.size, clients * layout.size) + charged(counting, clients * counting)
    assert set(measured(federation, FixedPoint(layout), work, SILENCE).values()) == {both}
    whole = {client: replace(one, mask=Mask.full(layout)) for client, one in work.items()}
    once = charged(layout.size, clients * layout.size)
    assert set(measured(federation, FixedPoint(layout), whole, SILENCE).values()) == {once}


def test_what_is_said_besides_takes_bytes_and_time(federation: Federation, work: dict[Hashable, Work]) -> None:
    layout, clients = federation.units.layout, len(work)
    sent, received = dict.fromkeys(work, 40), dict.fromkeys(work, 70)
    counted = Tally(np.zeros(100, np.int64), tuple(work), sent, received, {}, "")
    averaged = Averages({}, tuple(work), sent, received, {}, "", length=100, vector_bytes=400)
    measuring = Measuring(federation, FixedPoint(layout, mode="mask-indexed"), Even())
    before, after = (measuring.clients(work, None, talk) for talk in (SILENCE, Talk((counted, averaged))))
    for client, one in after.items():
        assert one.upload_bytes == before[client].upload_bytes + 80
        assert one.download_bytes == before[client].download_bytes + 140
        assert one.seconds.secure == before[client].seconds.secure + 2 * charged(100, 100 * clients)


def behind(federation: Federation, server: ServerLinks) -> Federation:
    return replace(federation, fleet=replace(federation.fleet, server=server))


def test_nobody_is_done_before_the_server_has_sent_to_and_received_from_everybody(
    federation: Federation, work: dict[Hashable, Work]
) -> None:
    aggregator = FloatMean(federation.units.layout, "mask-indexed")
    loaded = {client: replace(one, fetched_bytes=1000 + place) for place, (client, one) in enumerate(work.items())}
    alone = Measuring(federation, aggregator, Even()).clients(loaded, None, SILENCE)
    sent, received = (sum(getattr(one, name) for one in alone.values()) for name in ("download_bytes", "upload_bytes"))
    # Twice the time of the slowest uplink, and half of that of the slowest downlink.
    slowest = max(one.seconds.upload for one in alone.values())
    longest = max(one.seconds.download for one in alone.values())
    server = ServerLinks(upload_bytes_per_second=2 * sent / longest, download_bytes_per_second=received / (2 * slowest))
    bound = Measuring(behind(federation, server), aggregator, Even()).clients(loaded, None, SILENCE)
    for client, one in bound.items():
        assert one.seconds.upload == pytest.approx(2 * slowest)
        assert one.seconds.download == pytest.approx(max(alone[client].seconds.download, longest / 2))
        assert one.seconds.compute == alone[client].seconds.compute
    assert min(one.seconds.download for one in alone.values()) < longest / 2


def test_the_server_sends_to_those_who_will_be_late_too_but_receives_nothing_from_them(
    federation: Federation, work: dict[Hashable, Work]
) -> None:
    server = ServerLinks(upload_bytes_per_second=100, download_bytes_per_second=100)
    measuring = Measuring(behind(federation, server), FloatMean(federation.units.layout, "mask-indexed"), Even())
    loaded = {client: replace(one, fetched_bytes=1000) for client, one in work.items()}
    late = ["straggler-01", "fast-03"]
    before, after = (measuring.clients(loaded, None, SILENCE, own) for own in ((), late))
    assert before["fast-01"].seconds.download == after["fast-01"].seconds.download == 10 * len(work)
    kept = sum(one.upload_bytes for client, one in before.items() if client not in late)
    assert after["fast-01"].seconds.upload == pytest.approx(kept / 100)
    assert before["fast-01"].seconds.upload == pytest.approx(sum(one.upload_bytes for one in before.values()) / 100)


def test_floating_point_takes_no_time(federation: Federation, work: dict[Hashable, Work]) -> None:
    assert set(measured(federation, FloatMean(federation.units.layout), work, SILENCE).values()) == {0.0}
