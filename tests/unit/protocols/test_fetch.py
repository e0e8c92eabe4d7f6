"""A client trains what it fetched and nothing else, and a forged part of the model ends its round before it trains."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from protocols.aggregators import FixedPoint
from protocols.budget import KeepRatios
from protocols.clip import Clip, ClipSettings
from protocols.fetch import Fetched, Served, leaves_for
from protocols.round import RoundContext, Stage, Work, play
from protocols.stages import Delta, Fetch, Submodel
from pruning.masks import Mask, ordered_units, random_units
from pruning.submodel import gather
from secagg.errors import SERVER, AgreementError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from protocols.aggregators import Client
    from protocols.federation import Federation
    from protocols.simulation.calibration import Calibration
    from protocols.training import State
    from secagg.layout import Layout
    from secagg.params import Mode

DIGEST_BYTES = 32


def layers(layout: Layout) -> Mask:
    return Mask.of_layers(layout, np.arange(len(layout.layers)) > 0)


def coordinates(layout: Layout) -> Mask:
    return Mask.of_coordinates(layout, np.random.default_rng(1).random(layout.size) < 0.5)


def units(layout: Layout) -> Mask:
    return random_units(layout, 0.5, np.random.default_rng(2))


def context_of(federation: Federation, served: Served | None = None) -> RoundContext:
    start = federation.start()
    model = federation.model_at(start)
    return RoundContext(1, model, start.state, served or Served(federation.units.layout, start.state), start.state)


class Forger(Served):
    """Sends everybody the model under the root, but for what it changes."""

    def __init__(self, layout: Layout, state: State, change: Callable[[Fetched], Fetched]) -> None:
        super().__init__(layout, state)
        self._change = change

    def fetch(self, numbers: Collection[int]) -> Fetched:
        return self._change(super().fetch(numbers))


class Witness(Stage):
    """Notes who got as far as this."""

    def __init__(self) -> None:
        self.seen: list[Work] = []

    def on_client(self, context: RoundContext, work: Work) -> Work:  # noqa: ARG002 - a witness only
        self.seen.append(work)
        return work


@pytest.mark.parametrize("make", [Mask.full, units, layers, coordinates])
def test_what_a_client_fetched_is_its_submodel(federation: Federation, make: Callable[[Layout], Mask]) -> None:
    layout, state = federation.units.layout, federation.start().state
    mask, served = make(layout), Served(layout, state)
    opened = served.fetch(leaves_for(mask)).opened(served.root, mask)
    expected = gather(state, mask)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in gather(opened, mask).items())


def test_what_was_not_fetched_is_not_there(federation: Federation) -> None:
    layout, mask = federation.units.layout, units(federation.units.layout)
    served = Served(layout, federation.start().state)
    opened = served.fetch(leaves_for(mask)).opened(served.root, mask)
    assert np.isnan(opened["fc1.bias"].numpy()).tolist() == (~mask.held[: len(opened["fc1.bias"])]).tolist()


def test_a_part_weighs_its_leaves_and_its_proof(federation: Federation) -> None:
    layout, state = federation.units.layout, federation.start().state
    served = Served(layout, state)
    whole, part = (served.fetch(leaves_for(mask)) for mask in (Mask.full(layout), ordered_units(layout, 0.5)))
    rows = [4 * (16 + 1), 4 * (32 + 1) + 4 * 4]  # a unit of fc1: row and bias; of fc2: its column of the output too
    assert whole.nbytes == 4 * layout.size
    assert part.nbytes == 16 * rows[0] + 8 * rows[1] + 4 * 4 + DIGEST_BYTES * len(part.proof)
    assert len(part.proof) == 2  # the upper halves of both groups


@pytest.mark.parametrize(
    "change",
    [
        lambda fetched: replace(fetched, leaves=fetched.leaves | {0: bytes(len(fetched.leaves[0]))}),
        lambda fetched: replace(fetched, leaves={**fetched.leaves, 0: fetched.leaves[1], 1: fetched.leaves[0]}),
        lambda fetched: replace(fetched, proof=(bytes(DIGEST_BYTES), *fetched.proof[1:])),
        lambda fetched: replace(fetched, leaves={n: leaf for n, leaf in fetched.leaves.items() if n}),
        lambda fetched: replace(fetched, leaves=fetched.leaves | {48: b"", 99: b""}),
    ],
    ids=["another leaf", "leaves swapped", "another proof", "a leaf too few", "a leaf too many"],
)
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_a_forged_part_ends_the_round_before_anybody_trains_and_the_server_is_named(
    federation: Federation, plain: FixedPoint, change: Callable[[Fetched], Fetched], keep: float
) -> None:
    layout = federation.units.layout
    mask, witness = ordered_units(layout, keep) if keep < 1 else Mask.full(layout), Witness()
    served = Forger(layout, federation.start().state, change)
    stages = (Submodel(lambda _client, _context: mask), Fetch(), witness, Delta())
    with pytest.raises(AgreementError) as refused:
        play(stages, context_of(federation, served), federation.fleet.names, plain)
    assert refused.value.culprits == (SERVER,)
    assert not witness.seen


def test_parts_that_were_not_asked_for_are_refused_even_with_a_good_proof(federation: Federation) -> None:
    layout, mask = federation.units.layout, units(federation.units.layout)
    served = Served(layout, federation.start().state)
    other = Mask.of_units(layout, ~mask.held)
    with pytest.raises(AgreementError, match="other parts"):
        served.fetch(leaves_for(other)).opened(served.root, mask)


@pytest.mark.parametrize("begin", [(Fetch,), (Fetch, Submodel), (Submodel, Fetch)], ids=["whole", "cut out", "part"])
def test_a_client_uses_the_bytes_that_it_fetched_and_no_copy_of_the_server_s(
    federation: Federation, begin: tuple[type[Stage], ...]
) -> None:
    """The server's own copy is another model here; only what is under the root may reach the client."""
    layout, mask = federation.units.layout, units(federation.units.layout)
    elsewhere = {name: tensor + 1 for name, tensor in federation.start().state.items()}
    context = context_of(federation, Served(layout, elsewhere))

    def policy(client: Client, context: RoundContext) -> Mask:  # noqa: ARG001 - the same for everybody
        assert all(torch.equal(tensor, elsewhere[name]) for name, tensor in context.start.items())
        return mask

    work = Work("one", context.model, Mask.full(layout))
    for kind in begin:
        work = (Submodel(policy) if kind is Submodel else kind()).on_client(context, work)
    expected = gather(elsewhere, mask if Submodel in begin else Mask.full(layout))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in work.model.state_dict().items())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in work.start.items())
    work = Delta().on_client(context, work)
    assert not any(tensor.any() for tensor in work.update.values())


def test_who_chooses_before_fetching_sees_no_model(federation: Federation) -> None:
    seen: list[RoundContext] = []

    def policy(client: Client, context: RoundContext) -> Mask:  # noqa: ARG001 - the same for everybody
        seen.append(context)
        return Mask.full(federation.units.layout)

    context = context_of(federation)
    Submodel(policy).on_client(context, Work("one", context.model, Mask.full(federation.units.layout)))
    assert seen[0].start == {}


def straggler_downloads(
    federation: Federation, settings: ClipSettings, mode: Mode, instant: Calibration
) -> tuple[int, int]:
    """What a straggler and another client download in a round in which stragglers are pruned."""
    aggregator = FixedPoint(federation.units.layout, mode=mode)
    result, _ = Clip(federation, aggregator, settings, calibration=instant).run(2)
    clients = result.rounds[1].clients
    assert clients["straggler-01"].keep < 1
    return clients["straggler-01"].download_bytes, clients["fast-01"].download_bytes


def test_only_who_declares_its_mask_and_chose_it_unseen_fetches_less(
    federation: Federation, instant: Calibration
) -> None:
    local, public = ClipSettings(statistic="local"), ClipSettings(statistic="global")
    part, whole = straggler_downloads(federation, local, "mask-indexed", instant)
    assert part < whole == 4 * federation.units.layout.size
    assert straggler_downloads(federation, local, "uniform", instant) == (whole, whole)
    assert straggler_downloads(federation, public, "mask-indexed", instant) == (whole, whole)


def test_a_straggler_that_fetches_a_part_keeps_more_within_a_round(federation: Federation) -> None:
    aggregator = FixedPoint(federation.units.layout, mode="mask-indexed")
    straggler, fast = federation.fleet.stragglers[0], federation.fleet.rest[0]
    whole, part = (KeepRatios(federation, aggregator, fetches_parts=parts) for parts in (False, True))
    assert part.time(straggler, 0.5).download < whole.time(straggler, 0.5).download
    assert part.time(straggler, 1.0) == whole.time(straggler, 1.0)
    deadline = whole.time(fast, 1.0).total
    assert part.solve(straggler, "round", deadline, 0.05) > whole.solve(straggler, "round", deadline, 0.05)
