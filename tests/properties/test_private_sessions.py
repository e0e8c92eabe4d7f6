"""Differential privacy in whole sessions: what is in the sum, whoever drops out, and what the session says about it."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest

from secagg import Params, Privacy, PrivacyLedger, counts, driver, merkle, simulate
from secagg.declaration import Declaration, Provenance, of_layers
from secagg.driver import Contribution, Stage
from secagg.errors import ChecksumError, NotFiniteError, ParameterError
from secagg.layout import Layout, Tensor
from secagg.privacy.events import DiscreteGaussianSum, NonPrivate, SkellamSum
from secagg.privacy.noisy_sum import Mechanism
from secagg.privacy.shares import Shares
from secagg.ring import Ring
from secagg.rounds import Round
from secagg.server import Server
from secagg.session import Session
from tests.adversarial.play import Play
from tests.properties.noise_laws import check_independent, check_sample, room_for, share_law, sum_law

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from secagg.aggregate import Aggregate
    from secagg.params import Mode

    Integers = NDArray[np.int64]

CLIENTS, DROPOUTS = 6, 2
HELD = {"a": range(6), "b": range(5), "c": range(4)}
"""Layer to the clients that hold it. In a uniform session they all send it, and pad."""
MODES: tuple[Mode, ...] = ("uniform", "mask-indexed")
MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)


@dataclass(frozen=True, eq=False, kw_only=True)
class Setup:
    """A cohort of six, of whom two may drop out, and the updates of each: whole steps of the grid, known to the test.

    Args:
        mode: Of the session.
        privacy: Its differential privacy.
        size: Coordinates of each layer.
        corrupt: Clients 0 to ``corrupt - 1`` tell the server everything.
    """

    mode: Mode
    privacy: Privacy
    size: int = 500
    corrupt: int = 0
    outputs: list[Integers] = field(default_factory=list)
    """What the survivors of the latest session sent, each before its masks."""

    @property
    def params(self) -> Params:
        return Params(min_cohort=2, max_dropouts=DROPOUTS, corrupt=self.corrupt, privacy=self.privacy)

    @property
    def layout(self) -> Layout:
        return Layout(tuple(Tensor(f"{layer}.w", (self.size,), "float64") for layer in HELD))

    @cached_property
    def scale(self) -> float:
        """Steps in one unit of the updates."""
        senders = [CLIENTS if self.mode == "uniform" else len(holders) for holders in HELD.values()]
        sent = [count for count in senders if count >= 2 + DROPOUTS + self.corrupt]
        return Shares(self.privacy, CLIENTS, np.repeat(sent, self.size), DROPOUTS, self.corrupt).scale

    @cached_property
    def steps(self) -> dict[int, dict[str, Integers]]:
        """Client to layer to its update in steps; zero where it holds nothing."""
        rng = np.random.default_rng(7)
        return {
            client: {layer: rng.integers(-3, 4, self.size) * int(client in holders) for layer, holders in HELD.items()}
            for client in range(CLIENTS)
        }

    def play(self, dropped: tuple[int, ...] = (), seed: int = 0, updates: Mapping[int, Any] | None = None) -> Aggregate:
        """The end of a session in which some drop out after ShareKeys."""
        updates = updates or {
            client: {f"{layer}.w": steps / self.scale for layer, steps in own.items()}
            for client, own in self.steps.items()
        }
        masks = {client: self._mask(client) for client in range(CLIENTS)} if self.mode == "mask-indexed" else None
        self.outputs.clear()
        return simulate(
            updates,
            masks,
            mode=self.mode,
            params=self.params,
            dropouts=dict.fromkeys(dropped, Stage.SHARE_KEYS),
            seed=seed,
            layout=self.layout,
        ).aggregate

    def noise(self, aggregate: Aggregate) -> dict[str, Integers]:
        """Layer to the noise of the honest survivors, for those layers that were released."""
        released = aggregate.plan.released
        spread = np.zeros(len(released), np.int64)
        spread[released] = aggregate.integers
        for client in range(self.corrupt):
            if client in aggregate.survivors:
                known = np.zeros(aggregate.plan.released_count, np.int64)
                known[aggregate.plan.held(client)] = self.outputs[aggregate.survivors.index(client)]
                spread[released] -= known
        honest = [client for client in aggregate.survivors if client >= self.corrupt]
        found = {}
        for number, layer in enumerate(HELD):
            place = slice(number * self.size, (number + 1) * self.size)
            if released[place].all():
                found[layer] = spread[place] - sum(self.steps[client][layer] for client in honest)
        return found

    def promised(self, layer: str, survivors: tuple[int, ...]) -> tuple[int, int]:
        """How many honest survivors add noise to a layer, and how many there are at least, whoever drops out."""
        senders = range(CLIENTS) if self.mode == "uniform" else HELD[layer]
        adding = [client for client in survivors if client in senders and client >= self.corrupt]
        return len(adding), len(senders) - DROPOUTS - self.corrupt

    def check(self, noise: Integers, adding: int, guaranteed: int) -> None:
        """Refuses noise that is not the promised one: z * clip where only those are left that are guaranteed."""
        central = self.privacy.noise_multiplier * self.privacy.clip * self.scale
        room = room_for(central * math.sqrt(adding / guaranteed))
        law = share_law(self.privacy.mechanism, central**2 / guaranteed, room)
        check_sample(noise, sum_law(law, adding))

    def _mask(self, client: int) -> Declaration:
        return of_layers(self.layout, np.array([client in holders for holders in HELD.values()]), Provenance.DEVICE)


def patterns() -> Iterator[tuple[int, ...]]:
    """All sets of clients that may drop out."""
    return itertools.chain.from_iterable(itertools.combinations(range(CLIENTS), lost) for lost in range(DROPOUTS + 1))


def audit(setup: Setup, dropouts: Iterable[tuple[int, ...]]) -> None:
    """Refuses sessions whose sums are not what they promise, or that say about themselves what does not hold.

    All corrupt clients have to survive: where they do not, an event promises less than there is.
    """
    pooled: defaultdict[tuple[int, int], list[Integers]] = defaultdict(list)
    layers: defaultdict[str, list[Integers]] = defaultdict(list)
    for seed, dropped in enumerate(dropouts):
        aggregate = setup.play(dropped, seed)
        noise = setup.noise(aggregate)
        promised = {layer: setup.promised(layer, aggregate.survivors) for layer in noise}
        for layer, one in noise.items():
            pooled[promised[layer]].append(one)
            layers[layer].append(one)
        event = aggregate.event
        assert isinstance(event, SkellamSum | DiscreteGaussianSum)
        least = min(adding / guaranteed for adding, guaranteed in promised.values())
        central = setup.privacy.noise_multiplier * setup.privacy.clip * setup.scale
        assert 1 - 1e-12 <= event.variance / (least * central**2) <= 1 + 1e-12
    for (adding, guaranteed), drawn in pooled.items():
        setup.check(np.concatenate(drawn), adding, guaranteed)
    for left, right in itertools.combinations(layers.values(), 2):
        check_independent(np.concatenate(left), np.concatenate(right))


@pytest.mark.parametrize("ring_bits", [16, 24, 32])
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("mode", MODES)
def test_whoever_drops_out_the_sum_carries_the_promised_noise(mode: Mode, mechanism: Mechanism, ring_bits: int) -> None:
    privacy = Privacy(clip=2.0, noise_multiplier=0.7, mechanism=mechanism, ring_bits=ring_bits)
    audit(Setup(mode=mode, privacy=privacy), patterns())


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_ring_of_64_bits_carries_the_promised_noise(mechanism: Mechanism) -> None:
    privacy = Privacy(clip=1e-3, noise_multiplier=1.0, mechanism=mechanism, ring_bits=64)
    audit(Setup(mode="mask-indexed", privacy=privacy), [(), (4, 5)])


def record_outputs(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what each client sends before it masks."""
    genuine = Shares.encode

    def encode(shares: Shares, *args: Any) -> tuple[Integers, float]:
        integers, clipped = genuine(shares, *args)
        setup.outputs.append(integers)
        return integers, clipped

    monkeypatch.setattr(Shares, "encode", encode)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("mode", MODES)
def test_what_corrupt_clients_know_leaves_the_promised_noise(
    mode: Mode, mechanism: Mechanism, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(mode=mode, privacy=Privacy(clip=1.0, noise_multiplier=1.0, mechanism=mechanism), corrupt=1)
    record_outputs(setup, monkeypatch)
    dropouts = [(), (5,), (3, 4), (1, 2)]
    audit(setup, dropouts)
    aggregate = setup.play((4,))
    total = np.zeros(aggregate.plan.released_count, np.int64)
    for client, sent in zip(aggregate.survivors, setup.outputs, strict=True):
        total[aggregate.plan.held(client)] += sent
    assert aggregate.integers.tolist() == total.tolist()


# Broken builds, and the audit that finds them out.


def sized_for_everybody(shares: Shares) -> NDArray[np.int64]:
    return shares.coverage.astype(np.int64)


def sized_for_the_whole_cohort(shares: Shares) -> NDArray[np.int64]:
    return np.full(len(shares.coverage), shares.clients - shares.dropouts - shares.corrupt)


def sized_for_the_corrupt_too(shares: Shares) -> NDArray[np.int64]:
    return shares.coverage.astype(np.int64) - shares.dropouts


def no_noise_on_padded_places(
    shares: Shares, values: Any, sent: Any, entropy: Any, seeds: Any
) -> tuple[Integers, float]:
    integers, clipped = genuine_encode(shares, values, sent, entropy, seeds)
    return np.where(values == 0, 0, integers), clipped


def one_key_for_all_classes(shares: Shares, sent: Any, seeds: Any) -> Integers:
    own = shares.sized_for[sent]
    drawn = np.zeros(len(own), np.int64)
    for sized_for in shares.classes:
        for part in shares.parts(sized_for):
            drawn[own == sized_for] = part.sample(int((own == sized_for).sum()), seeds[0])
    return drawn


def one_key_for_all_clients(shares: Shares, sent: Any, _: Any) -> Integers:
    return genuine_draw(shares, sent, [b"the same for all"])


def noise_of_every_class_everywhere(shares: Shares, sent: Any, seeds: Any) -> Integers:
    drawn = np.zeros(int(sent.sum()), np.int64)
    for place, sized_for in enumerate(shares.classes):
        for part in shares.parts(sized_for):
            drawn += part.sample(len(drawn), bytes([place]) + seeds[0][1:])
    return drawn


genuine_encode, genuine_draw = Shares.encode, Shares.drawn

BROKEN: dict[str, tuple[Mode, int, str, Any]] = {
    "sizes shares for everybody": ("uniform", 0, "sized_for", property(sized_for_everybody)),
    "sizes shares for everybody who holds": ("mask-indexed", 0, "sized_for", property(sized_for_everybody)),
    "forgets who does not hold": ("mask-indexed", 0, "sized_for", property(sized_for_the_whole_cohort)),
    "counts on the corrupt": ("uniform", 1, "sized_for", property(sized_for_the_corrupt_too)),
    "leaves padding bare": ("uniform", 0, "encode", no_noise_on_padded_places),
    "reuses a key for two classes": ("mask-indexed", 0, "drawn", one_key_for_all_classes),
    "reuses a key for two clients": ("uniform", 0, "drawn", one_key_for_all_clients),
    "draws before it looks at the class": ("mask-indexed", 0, "drawn", noise_of_every_class_everywhere),
}
FEW = [(), (1, 4), (2, 5)]


@pytest.mark.parametrize(("mode", "corrupt"), sorted({(mode, corrupt) for mode, corrupt, _, _ in BROKEN.values()}))
def test_the_audit_lets_pass_the_genuine_build(mode: Mode, corrupt: int, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(mode=mode, privacy=Privacy(clip=1.0, noise_multiplier=1.0), size=3000, corrupt=corrupt)
    record_outputs(setup, monkeypatch)
    audit(setup, FEW)


@pytest.mark.parametrize("fault", BROKEN)
def test_the_audit_finds_out_a_build_that(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mode, corrupt, name, broken = BROKEN[fault]
    setup = Setup(mode=mode, privacy=Privacy(clip=1.0, noise_multiplier=1.0), size=3000, corrupt=corrupt)
    _ = setup.scale
    monkeypatch.setattr(Shares, name, broken)
    record_outputs(setup, monkeypatch)
    with pytest.raises(AssertionError):
        audit(setup, FEW)


@pytest.mark.parametrize("fault", [fault for fault, (_, _, name, _) in BROKEN.items() if name == "sized_for"])
def test_the_noise_alone_betrays_shares_of_the_wrong_size(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mode, corrupt, name, broken = BROKEN[fault]
    setup = Setup(mode=mode, privacy=Privacy(clip=1.0, noise_multiplier=1.0), size=6000, corrupt=corrupt)
    _ = setup.scale
    monkeypatch.setattr(Shares, name, broken)
    record_outputs(setup, monkeypatch)
    aggregate = setup.play((4, 5))
    noise = setup.noise(aggregate)
    layer = list(noise)[-1]
    with pytest.raises(AssertionError, match=r"another distribution|too small a variance|to be expected"):
        setup.check(noise[layer], *setup.promised(layer, aggregate.survivors))


# What a session says about itself.


def epsilon(aggregate: Aggregate, delta: float = 1e-5) -> float:
    ledger = PrivacyLedger()
    assert aggregate.event is not None
    ledger.record(aggregate.event)
    return ledger.epsilon(delta)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("mode", MODES)
def test_the_more_survive_the_less_is_spent(mode: Mode, mechanism: Mechanism) -> None:
    setup = Setup(mode=mode, privacy=Privacy(clip=1.0, noise_multiplier=1.0, mechanism=mechanism), size=20)
    spent = [epsilon(setup.play(dropped)) for dropped in [(), (0,), (0, 1)]]
    assert spent == sorted(spent)
    assert len(set(spent)) == 3
    assert 4 < spent[2] < 6  # a central Gaussian with the same multiplier has 4.4


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("mode", MODES)
def test_without_noise_the_sum_is_that_of_the_clipped_updates_and_nothing_is_guaranteed(
    mode: Mode, mechanism: Mechanism
) -> None:
    setup = Setup(mode=mode, privacy=Privacy(clip=1.0, noise_multiplier=0.0, mechanism=mechanism), size=20)
    rng = np.random.default_rng(0)
    updates = {client: {f"{layer}.w": rng.normal(size=20) * 0.4**client for layer in HELD} for client in range(CLIENTS)}
    aggregate = setup.play((1,), updates=updates)
    expected = np.zeros(60)
    for client in aggregate.survivors:
        vector = np.concatenate(list(updates[client].values())) * aggregate.plan.held(client)
        expected += vector * min(1.0, 1 / float(np.linalg.norm(vector)))
    assert np.abs(aggregate.sum - expected).max() <= len(aggregate.survivors) / setup.scale
    assert aggregate.event == NonPrivate(reason="updates were clipped, and no noise was added")
    assert epsilon(aggregate) == math.inf


def test_clipping_takes_in_all_that_is_sent_and_nothing_else() -> None:
    setup = Setup(mode="mask-indexed", privacy=Privacy(clip=1.0, noise_multiplier=0.0), size=4)
    values = dict.fromkeys(range(CLIENTS), 0.0) | {0: 3.0, 4: 3.0}
    updates = {client: {f"{layer}.w": np.full(4, value) for layer in HELD} for client, value in values.items()}
    updates[4]["c.w"][:] = np.nan  # it does not hold that layer
    played = setup.play(updates=updates)
    step = CLIENTS / setup.scale
    assert played.sum[8:] == pytest.approx(np.full(4, 12**-0.5), abs=step)
    assert played.sum[:8] == pytest.approx(np.full(8, 12**-0.5 + 8**-0.5), abs=step)


def test_without_privacy_a_session_has_no_event() -> None:
    assert simulate({client: np.zeros(3) for client in range(3)}).aggregate.event is None


@pytest.mark.parametrize("provenance", Provenance)
def test_masks_from_data_void_the_guarantee_even_of_a_client_that_drops_out(provenance: Provenance) -> None:
    setup = Setup(mode="mask-indexed", privacy=Privacy(clip=1.0, noise_multiplier=1.0), size=5)
    masks = {client: of_layers(setup.layout, np.ones(3, bool), Provenance.PUBLIC) for client in range(CLIENTS)}
    masks[2] = of_layers(setup.layout, np.ones(3, bool), provenance)
    aggregate = simulate(
        {client: {f"{layer}.w": np.ones(5) for layer in HELD} for client in range(CLIENTS)},
        masks,
        mode="mask-indexed",
        params=setup.params,
        dropouts={2: "ShareKeys"},
    ).aggregate
    assert isinstance(aggregate.event, NonPrivate) == (provenance is Provenance.DATA)
    assert math.isinf(epsilon(aggregate)) == (provenance is Provenance.DATA)


def test_counts_are_summed_without_noise_and_void_the_guarantee() -> None:
    privacy = Privacy(clip=1.0, noise_multiplier=1.0)
    assert counts.bit_params(Params(privacy=privacy)).privacy is None
    held = np.array([True, True, False])
    aggregate = simulate(
        {client: np.ones(3) for client in range(6)},
        {client: np.ones(3, bool) if client < 5 else held for client in range(6)},
        mode="uniform",
        privacy=privacy,
    ).aggregate
    assert aggregate.event == NonPrivate(reason="what is released was decided by counts without noise")
    assert aggregate.plan.shares is not None
    assert set(aggregate.plan.shares.coverage.tolist()) == {6}, "padding carries noise too"


# Everything else of a session goes on as before.


def session_of(privacy: Privacy, mode: Mode = "mask-indexed", **settings: Any) -> Session:
    params = Params(min_cohort=2, max_dropouts=1, privacy=privacy, **settings)
    return Session(id=bytes(range(16)), params=params, layout=Layout((Tensor("w", (40,)),)), mode=mode)


def six_clients(session: Session) -> dict[int, Contribution]:
    return {
        client: Contribution(
            {"w": np.linspace(-1, 1, 40) * (client + 1)},
            np.arange(40) < 40 - 5 * (client % 2) if session.mode == "mask-indexed" else None,
        )
        for client in range(6)
    }


@pytest.mark.parametrize("adversary", ["semi-honest", "active"])
@pytest.mark.parametrize("mode", MODES)
def test_a_server_that_restarts_after_every_message_ends_in_the_same_noisy_sum(mode: Mode, adversary: str) -> None:
    session = session_of(Privacy(clip=1.0, noise_multiplier=1.0), mode, adversary=adversary)
    undisturbed = Play(session, six_clients(session)).finish()
    game = Play(session, six_clients(session))
    while game.server.round is not Round.DONE:
        for client in game.server.awaited:
            game.deliver([client])
            game.server = Server.restore(session, game.server.save(), game.clients, game.pinned)
        game.close()
    outcome = game.server.outcome
    assert outcome.integers.tolist() == undisturbed.integers.tolist()
    assert (outcome.survivors, outcome.event) == (undisturbed.survivors, undisturbed.event)


def test_a_sparse_graph_carries_the_same_noisy_sum_as_the_complete_one() -> None:
    sums = []
    for neighbours in (4, None):
        session = session_of(Privacy(clip=1.0, noise_multiplier=1.0), "uniform", neighbours=neighbours)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Shares, "encode", lambda shares, values, *_: (np.rint(values * shares.scale).astype(int), 0))
            sums.append(driver.run(session, six_clients(session), {3: Stage.SHARE_KEYS}).aggregate.integers.tolist())
        driver.run(session, six_clients(session), {3: Stage.SHARE_KEYS})
    assert sums[0] == sums[1]


def test_a_model_root_goes_along_with_privacy() -> None:
    root = merkle.root([b"unit"])
    privacy = Privacy(clip=1.0, noise_multiplier=1.0)
    aggregate = simulate({client: np.zeros(3) for client in range(4)}, model_root=root, privacy=privacy).aggregate
    assert aggregate.plan.session.model_root == root
    assert math.isfinite(epsilon(aggregate))


def test_every_party_has_to_have_the_same_noise() -> None:
    digests = {
        session_of(privacy).digest
        for privacy in (
            Privacy(clip=1.0, noise_multiplier=1.0),
            Privacy(clip=1.0, noise_multiplier=0.5),
            Privacy(clip=2.0, noise_multiplier=1.0),
            Privacy(clip=1.0, noise_multiplier=1.0, ring_bits=32),
            Privacy(clip=1.0, noise_multiplier=1.0, mechanism="discrete-gaussian"),
        )
    }
    assert len(digests) == 5


@pytest.mark.parametrize("ring_bits", [16, 24, 32])
def test_a_sum_that_wraps_around_is_not_released(ring_bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens once in 10^9 sessions. Privacy would bear it, as wrapping is post-processing; the value would not."""
    session = session_of(Privacy(clip=1.0, noise_multiplier=1.0, ring_bits=ring_bits), "uniform")
    reach = Ring(ring_bits).largest // 5
    monkeypatch.setattr(Shares, "encode", lambda _, values, *__: (np.full(len(values), reach), 0.0))
    assert driver.run(session, six_clients(session), {0: Stage.SHARE_KEYS}).aggregate.integers.max() == 5 * reach
    with pytest.raises(ChecksumError):
        driver.run(session, six_clients(session))


# Refusals.


@pytest.mark.parametrize(
    "wrong",
    [{"weights": dict.fromkeys(range(3), 1.0)}, {"params": Params(exact_denominators=True)}],
    ids=["weights", "exact denominators"],
)
def test_sums_that_would_need_noise_of_their_own_are_refused(wrong: dict[str, Any]) -> None:
    sent: list[bytes] = []
    with pytest.raises(ParameterError, match="weights and exact_denominators would need noise of their own"):
        simulate(
            {client: np.zeros(3) for client in range(3)},
            privacy=Privacy(clip=1.0, noise_multiplier=1.0),
            observe=sent.append,
            **wrong,
        )
    assert not sent


GRIDS = {
    "too coarse": (Privacy(clip=1.0, noise_multiplier=1e-5), "steps, not .*: raise ring_bits"),
    "too coarse for shares of discrete Gaussian noise": (
        Privacy(clip=1.0, noise_multiplier=2e-4, mechanism="discrete-gaussian"),
        "standard deviation of 2 steps, not .*: raise ring_bits, or set mechanism='skellam'",
    ),
}


@pytest.mark.parametrize(("privacy", "message"), GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("mode", MODES)
def test_a_grid_that_cannot_carry_the_noise_is_refused_by_all_before_anything_of_an_update_is_sent(
    mode: Mode, privacy: Privacy, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(privacy, mode)
    game = Play(session, six_clients(session)).until(Round.SHARE_KEYS)
    game.deliver()
    with pytest.raises(ParameterError, match=message):
        game.close()
    assert game.server.round is Round.SHARE_KEYS
    with monkeypatch.context() as patch:
        patch.setattr(Shares, "__post_init__", lambda _: None)  # a server that looks at nothing
        game.close()
    before = game.clients[2]._state
    with pytest.raises(ParameterError, match=message):
        game.answer(2)
    assert game.clients[2]._state is before
    assert not game.sent[Round.MASKED_INPUT]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_refused_update_leaves_the_client_as_it_was_and_the_next_try_counts(bad: float) -> None:
    session = session_of(Privacy(clip=1.0, noise_multiplier=1.0))
    game = Play(session, six_clients(session)).until(Round.MASKED_INPUT)
    client, before = game.clients[2], game.clients[2]._state
    with pytest.raises(NotFiniteError):
        client.masked_input(game.inbox[2], {"w": np.full(40, bad)})
    assert client._state is before
    assert client.clipped_share == 0
    assert not game.sent[Round.MASKED_INPUT]
    aggregate = game.finish()
    assert client.clipped_share == 1
    assert aggregate.survivors == tuple(range(6))


def out_of_memory(*_: Any) -> bytes:
    raise MemoryError


def test_a_try_that_fails_after_the_noise_was_drawn_is_followed_by_fresh_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(Privacy(clip=1.0, noise_multiplier=1.0), "uniform")
    game = Play(session, six_clients(session)).until(Round.MASKED_INPUT)
    drawn: list[list[int]] = []

    def encode(shares: Shares, *args: Any) -> tuple[Integers, float]:
        found = genuine_encode(shares, *args)
        drawn.append(found[0].tolist())
        return found

    monkeypatch.setattr(Shares, "encode", encode)
    with monkeypatch.context() as patch:
        patch.setattr(Ring, "pack", out_of_memory)
        with pytest.raises(MemoryError):
            game.answer(2)
    assert not game.sent[Round.MASKED_INPUT]
    game.deliver([2])
    assert len(drawn) == 2
    assert drawn[0] != drawn[1]


def test_values_beyond_the_value_range_are_clipped_by_norm_instead() -> None:
    privacy = Privacy(clip=1.0, noise_multiplier=0.0, ring_bits=32)
    updates = {client: np.array([3e6, -4e6]) for client in range(4)}
    result = simulate(updates, privacy=privacy, params=Params(value_range=1e-3))
    assert result.mean == pytest.approx([0.6, -0.8], abs=1e-3)
    assert set(result.stats.clipped_share.values()) == {1.0}


def test_privacy_given_to_simulate_takes_the_place_of_that_of_the_params() -> None:
    first, second = (Privacy(clip=clip, noise_multiplier=1.0) for clip in (1.0, 2.0))
    updates = {client: np.zeros(2) for client in range(4)}
    aggregate = simulate(updates, params=replace(Params(), privacy=first), privacy=second).aggregate
    assert aggregate.plan.session.params.privacy == second


@pytest.mark.parametrize("mode", MODES)
def test_a_client_knows_for_itself_what_a_session_costs_it(mode: Mode) -> None:
    session = session_of(Privacy(clip=1.0, noise_multiplier=1.0), mode)
    game = Play(session, {id_: replace(one, mask=None) for id_, one in six_clients(session).items()})
    told = [game.until(Round.MASKED_INPUT).clients[2].event]
    game.answer(2)
    told.append(game.clients[2].event)
    ended = game.finish().event
    nothing, worst, real = *told, game.clients[2].event
    assert nothing is None
    assert isinstance(worst, SkellamSum)
    assert isinstance(real, SkellamSum)
    assert real == ended
    assert real.variance > worst.variance


def test_a_client_whose_mask_comes_from_its_data_knows_that_nothing_is_guaranteed() -> None:
    session = session_of(Privacy(clip=1.0, noise_multiplier=1.0))
    game = Play(session, six_clients(session))
    game.finish()
    assert isinstance(game.clients[2].event, NonPrivate)
