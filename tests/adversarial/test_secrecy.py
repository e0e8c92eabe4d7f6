"""Secrecy, proved by going through every session of up to four clients.

The structure is the production's own: ``masking.terms`` says which streams hide a vector and with which signs,
``Plan`` says what is released, which places a client fills and which a pairwise stream covers, ``check_survivors`` says
when a client refuses. Only the streams themselves are replaced, by elements that are truly uniform and independent,
and the ring is shrunk until everything can be enumerated. One test ties this model to the state machines: they apply
exactly these streams, and reveal exactly these.

The server is semi-honest and remembers everything: the masked vectors of U2 (those that arrive too late as well), the
self masks of U3, every pairwise mask of a client that dropped out, the checksums, and all that up to ``corrupt``
clients know. The claim: the distribution of this view depends on the inputs through the sums over the honest
survivors that fill a place, and through nothing else; each of them has at least ``min_cohort`` terms.

Why a small field decides it. The view is linear: A x + B r with r uniform. It tells x from x' iff A (x - x') is not
in the image of B. The columns of B have one entry (self masks) or two of opposite sign (pairwise masks): B is the
incidence matrix of a directed graph with some unit columns, hence totally unimodular, so that its image over Z_m is
described by the same equations for every m. GF(3) is the smallest field in which + and - differ. GF(2) and the
enumeration in Z_2, Z_3 and Z_4 are there to check that argument.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from secagg import declaration, masking
from secagg.declaration import Provenance
from secagg.driver import Contribution
from secagg.errors import SecAggError, UnmaskRefusedError
from secagg.layout import Layout, Tensor
from secagg.messages import Participant
from secagg.params import Params
from secagg.prg import Stream, derive
from secagg.release import Plan
from secagg.ring import Ring
from secagg.rounds import Round
from secagg.session import CountedCoverage, Session
from tests.adversarial.play import Play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from secagg.params import Mode, Weighting

Fill = tuple[tuple[int, ...], ...]
"""Which places of the vector each client fills, ascending."""

Label = tuple[str, int, int]
"""A stream: its kind, and the clients at its ends."""

Row = tuple[int, ...]
Basis = tuple[Row, ...]

COEFFICIENTS = ((1, 2, 1, 2, 2, 1), (2, 2, 1, 0, 1, 1))
"""Of the two checksums, in GF(3): public, drawn from the transcript."""


@dataclass(frozen=True)
class Used:
    """One stream in one client's vector: the place that each of its elements covers, in the order of the stream."""

    label: Label
    sign: int
    covers: tuple[int, ...]

    def rank_of(self, place: int) -> int | None:
        """Which element of the stream covers a place, if one does."""
        return self.covers.index(place) if place in self.covers else None

    def rank_of_check(self, check: int) -> int:
        """The element that covers a checksum, numbered apart from the others."""
        return -1 - check


@dataclass(frozen=True)
class View:
    """Everything that decides what the server can know: nothing else about a session matters.

    Args:
        fill: Which places each client of U2 fills.
        streams: What hides each client's vector.
        survivors: U3.
        unmasked: Whether the survivors revealed anything.
        colluding: Clients that tell the server all they know.
    """

    fill: Fill
    streams: tuple[tuple[Used, ...], ...]
    survivors: frozenset[int]
    unmasked: bool
    colluding: frozenset[int]

    @property
    def honest(self) -> frozenset[int]:
        """Clients whose inputs are at stake."""
        return frozenset(range(len(self.fill))) - self.colluding

    def known(self, label: Label) -> bool:
        """Whether the server knows a stream: a self mask of a survivor, a pairwise mask of a dropout."""
        kind, *ends = label
        if self.colluding.intersection(ends):
            return True
        if kind == "self":
            return self.unmasked and ends[0] in self.survivors
        return self.unmasked and not self.survivors.issuperset(ends)

    @property
    def sums(self) -> Iterator[tuple[int, frozenset[int]]]:
        """What may be known: each place, with the honest survivors that fill it."""
        if self.unmasked:
            for place in sorted(set(itertools.chain(*self.fill))):
                yield place, frozenset(c for c in self.honest & self.survivors if place in self.fill[c])


def streams_of(plan: Plan, clients: Iterable[int]) -> tuple[tuple[Used, ...], ...]:
    """The streams in each client's vector, as ``Client`` applies them."""
    everybody = set(clients)
    result = []
    for client in sorted(everybody):
        mine = np.flatnonzero(plan.places(client))
        used = []
        for term in masking.terms(client, everybody - {client}):
            if term.peer is None:
                used.append(Used(("self", client, client), term.sign, tuple(map(int, mine))))
            else:
                common = plan.overlap(client, term.peer)
                covers = mine if common is None else mine[common]
                ends = min(client, term.peer), max(client, term.peer)
                used.append(Used(("pair", *ends), term.sign, tuple(map(int, covers))))
        result.append(tuple(used))
    return tuple(result)


def reduced(rows: Iterable[Row], prime: int) -> Basis:
    """The reduced row echelon form without zero rows: equal spaces have equal ones."""
    left = [list(row) for row in rows]
    basis: list[list[int]] = []
    for column in range(len(left[0]) if left else 0):
        pivot = next((row for row in left if row[column] % prime), None)
        if pivot is None:
            continue
        left.remove(pivot)
        inverse = pow(pivot[column], -1, prime)
        pivot = [value * inverse % prime for value in pivot]
        for rows_ in (left, basis):
            for index, row in enumerate(rows_):
                if row[column] % prime:
                    rows_[index] = [(a - row[column] * b) % prime for a, b in zip(row, pivot, strict=True)]
        basis.append(pivot)
    return tuple(map(tuple, basis))


@cache
def leaked(view: View, prime: int = 3) -> Basis:
    """Every linear function of the honest inputs that the view determines, as a basis.

    The rows of the view are the masked elements and the masked checksums. Known streams are struck out; what
    combinations of rows leave no unknown stream element is what the server can compute.
    """
    inputs = [(client, place) for client in sorted(view.honest) for place in view.fill[client]]
    elements = {
        (used.label, rank)
        for used in itertools.chain(*view.streams)
        if not view.known(used.label)
        for rank in range(-len(COEFFICIENTS), len(used.covers))
    }
    column = {name: index for index, name in enumerate([*sorted(elements), *inputs])}

    def row(client: int, weights: dict[int, int], rank_in: Callable[[Used], int | None]) -> Row:
        values = [0] * len(column)
        for place, weight in weights.items():
            values[column[client, place]] = weight
        for used in view.streams[client]:
            element = used.label, rank_in(used)
            if element in elements:
                values[column[element]] = used.sign
        return tuple(values)

    rows = []
    for client in view.honest:
        rows += [row(client, {place: 1}, partial(Used.rank_of, place=place)) for place in view.fill[client]]
        for check, coefficients in enumerate(COEFFICIENTS):
            weights = {place: coefficients[place] for place in view.fill[client]}
            rows.append(row(client, weights, partial(Used.rank_of_check, check=check)))
    rows = without_private_streams(rows, len(elements))
    return reduced([r[len(elements) :] for r in reduced(rows, prime) if not any(r[: len(elements)])], prime)


def without_private_streams(rows: list[Row], elements: int) -> list[Row]:
    """Strikes out rows that an element found nowhere else hides, again and again: no combination can use them."""
    while rows:
        met = [sum(map(bool, column)) for column in zip(*rows, strict=True)]
        left = [row for row in rows if not any(value and met[k] == 1 for k, value in enumerate(row[:elements]))]
        if len(left) == len(rows):
            break
        rows = left
    return rows


def released(view: View, prime: int = 3) -> Basis:
    """The sums over honest survivors, as ``leaked`` gives them."""
    inputs = [(client, place) for client in sorted(view.honest) for place in view.fill[client]]
    return reduced([tuple(int(c in who and p == place) for c, p in inputs) for place, who in view.sums], prime)


def in_clear(view: View) -> set[int]:
    """Honest clients of whose input the view determines a single element."""
    inputs = [client for client in sorted(view.honest) for _ in view.fill[client]]
    return {inputs[row.index(1)] for row in leaked(view) if sum(map(bool, row)) == 1}


@dataclass(frozen=True)
class Tiny:
    """A session small enough to go through all of its kind."""

    clients: int
    coordinates: int
    mode: Mode
    weighting: Weighting | None
    params: Params
    held: tuple[tuple[bool, ...], ...]

    def plan(self) -> Plan | None:
        """What is released, or None where the clients and the server refuse to go on after ShareKeys."""
        layout = Layout((Tensor("w", (self.coordinates,)),))
        counted = None
        if self.mode == "uniform":
            counted = CountedCoverage(frozenset(range(self.clients)), np.sum(self.held, axis=0).astype(np.int32))
        session = Session(
            id=bytes(16),
            params=self.params,
            layout=layout,
            mode=self.mode,
            weighted=self.weighting is not None,
            counted=counted,
        )
        try:
            graph, topology = session.topology(range(self.clients), bytes(32))
            assert graph.degree == self.clients - 1
            return Plan(
                session, topology.needed, [Participant(i, self._declared(i), None) for i in range(self.clients)]
            )
        except SecAggError:
            return None

    def _declared(self, client: int) -> declaration.Declaration:
        if self.mode == "uniform":
            return declaration.FULL
        held = np.array(self.held[client], bool)
        return declaration.of_coordinates(Layout((Tensor("w", (self.coordinates,)),)), held, Provenance.DATA)


def cohorts(corrupt: Iterable[int] = (0, 1)) -> Iterator[tuple[int, Params]]:
    """Two to four clients with every setting of the thresholds that they can meet."""
    for clients, promised, colluding in itertools.product((2, 3, 4), (2, 3), corrupt):
        for dropouts in range(max(0, clients - promised - colluding) + 1):
            if clients >= promised + colluding:
                yield clients, Params(min_cohort=promised, corrupt=colluding, max_dropouts=dropouts)


def tiny_sessions(
    coordinates: int, mode: Mode = "mask-indexed", weighting: Weighting | None = None, corrupt: Iterable[int] = (0, 1)
) -> Iterator[Tiny]:
    """All sessions of a kind: every cohort, every setting, every combination of masks."""
    masks = list(itertools.product((False, True), repeat=coordinates))
    for clients, params in cohorts(corrupt):
        settings = params if weighting is None else Params(**(vars(params) | {"weighting": weighting}))
        for held in itertools.product(masks, repeat=clients):
            yield Tiny(clients, coordinates, mode, weighting, settings, held)


def endings(tiny: Tiny, plan: Plan, colluding: int | None = None) -> Iterator[View]:
    """What the server sees, for every set of survivors and every set of at most ``corrupt`` colluding clients."""
    everybody = range(tiny.clients)
    streams = streams_of(plan, everybody)
    fill = tuple(tuple(map(int, np.flatnonzero(plan.places(client)))) for client in everybody)
    most = tiny.params.corrupt if colluding is None else colluding
    for survivors in subsets(everybody):
        unmasked = accepted(plan, survivors)
        for size in range(most + 1):
            for together in itertools.combinations(everybody, size):
                yield View(fill, streams, frozenset(survivors), unmasked, frozenset(together))


def subsets(clients: Iterable[int]) -> Iterator[tuple[int, ...]]:
    """Every set of survivors but the empty one."""
    everybody = list(clients)
    for size in range(1, len(everybody) + 1):
        yield from itertools.combinations(everybody, size)


def accepted(plan: Plan, survivors: tuple[int, ...]) -> bool:
    """Whether the survivors answer the unmask request."""
    try:
        plan.check_survivors(survivors)
    except UnmaskRefusedError:
        return False
    return True


KINDS: dict[str, tuple[int, Mode, Weighting | None]] = {
    "one coordinate": (1, "mask-indexed", None),
    "two coordinates": (2, "mask-indexed", None),
    "one coordinate, hidden weights": (1, "mask-indexed", "hidden"),
    "one coordinate, average weights": (1, "mask-indexed", "average"),
    "two coordinates, hidden weights": (2, "mask-indexed", "hidden"),
    "two secret masks": (2, "uniform", None),
    "one secret mask, hidden weights": (1, "uniform", "hidden"),
}
COUNTS: dict[str, dict[str, int]] = {
    "one coordinate": {"refused after ShareKeys": 126, "refused at Unmask": 817, "unmasked": 126},
    "two coordinates": {"refused after ShareKeys": 1460, "refused at Unmask": 20875, "unmasked": 3332},
    "one coordinate, hidden weights": {"refused after ShareKeys": 145, "refused at Unmask": 367, "unmasked": 75},
    "one coordinate, average weights": {"refused after ShareKeys": 126, "refused at Unmask": 817, "unmasked": 126},
    "two coordinates, hidden weights": {"refused after ShareKeys": 1971, "refused at Unmask": 8209, "unmasked": 1925},
    "two secret masks": {"refused after ShareKeys": 1460, "refused at Unmask": 20875, "unmasked": 3332},
    "one secret mask, hidden weights": {"refused after ShareKeys": 126, "refused at Unmask": 817, "unmasked": 126},
}
"""Cohorts with masks that are refused after ShareKeys, and views (a set of survivors and of colluding clients each)."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_view_is_the_sums_over_honest_survivors_and_nothing_else(kind: str) -> None:
    seen: Counter[str] = Counter()
    for tiny in tiny_sessions(*KINDS[kind]):
        plan = tiny.plan()
        if plan is None:
            seen["refused after ShareKeys"] += 1
            continue
        held = np.array(tiny.held)[:, plan.released]
        for view in endings(tiny, plan):
            seen["unmasked" if view.unmasked else "refused at Unmask"] += 1
            assert leaked(view) == released(view)
            assert not in_clear(view)
            for place, who in view.sums:
                assert len(who) >= tiny.params.min_cohort
                if place < held.shape[1]:  # in a uniform session those who fill it need not hold it
                    assert sum(held[client, place] for client in who) >= tiny.params.min_cohort
    assert seen == COUNTS[kind]


def views_of(tinies: Iterable[Tiny]) -> set[View]:
    """The different views of many sessions."""
    return {view for tiny in tinies if (plan := tiny.plan()) is not None for view in endings(tiny, plan)}


def test_the_same_functions_leak_over_the_field_of_two_elements() -> None:
    views = views_of(tiny_sessions(2))
    assert len(views) == 4138
    for view in views:
        assert leaked(view, 2) == released(view, 2)


def enumerated(view: View, modulus: int) -> tuple[int, int]:
    """Goes through all inputs and all randomness in Z_m: equal views exactly where the released sums are equal.

    Returns:
        How many inputs there are, and how many different distributions of the view they have.
    """
    inputs = [(client, place) for client, places in enumerate(view.fill) for place in places]
    elements = sorted(
        {(used.label, rank) for used in itertools.chain(*view.streams) for rank in range(len(used.covers))}
    )
    x, r = (np.indices((modulus,) * len(names)).reshape(len(names), -1) for names in (inputs, elements))
    codes = np.zeros((x.shape[1], r.shape[1]), np.int64)
    for client, place in inputs:
        row = x[inputs.index((client, place))][:, None].astype(np.int64)
        for used in view.streams[client]:
            rank = used.rank_of(place)
            if rank is not None:
                row = row + used.sign * r[elements.index((used.label, rank))]
        codes = codes * modulus + row % modulus
    for (label, _), values in zip(elements, r, strict=True):
        if view.known(label):
            codes = codes * modulus + values
    distributions = [one.tobytes() for one in np.sort(codes, axis=1)]
    sums = [sum(x[inputs.index((client, place))] for client in who) % modulus for place, who in view.sums]
    theirs = [values for (client, _), values in zip(inputs, x, strict=True) if client in view.colluding]
    known = list(zip(*(values.tolist() for values in [*sums, *theirs]), strict=True)) or [()] * x.shape[1]
    pairs = set(zip(known, distributions, strict=True))
    assert len(pairs) == len(set(known)) == len(set(distributions))
    return x.shape[1], len(pairs)


@pytest.mark.parametrize(
    ("modulus", "coordinates", "most", "views", "inputs"),
    [(2, 1, 4, 562, 4848), (3, 1, 3, 55, 1053), (4, 1, 3, 55, 2368), (2, 2, 3, 194, 4728)],
)
def test_equal_sums_have_equal_views_in_the_whole_of_a_tiny_ring(
    modulus: int, coordinates: int, most: int, views: int, inputs: int
) -> None:
    """Brute force, without linear algebra: no two inputs with equal sums can be told apart, all others always can."""
    tinies = [tiny for tiny in tiny_sessions(coordinates) if tiny.clients <= most]
    results = [enumerated(view, modulus) for view in views_of(tinies)]
    assert (len(results), sum(count for count, _ in results)) == (views, inputs)


# Where the rule is taken away, clients stand in the clear: so these tests would notice.


def without_dropouts_in_the_rule(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Params, "coverage_required", lambda params, *_: params.privacy_floor)


def without_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Plan, "check_survivors", lambda *_: None)


def ruined(colluding: int = 0, *, most_dropouts: bool = False) -> tuple[int, int, int]:
    """Goes through all sessions of two coordinates in which the parameters expect nobody to collude.

    Args:
        colluding: How many do.
        most_dropouts: Only sessions in which no more clients drop out than the parameters allow.

    Returns:
        The number of unmasked sessions, of those with a sum over fewer honest clients than ``min_cohort``, and of
        those with an honest client in the clear.
    """
    sessions = broken = clear = 0
    for tiny in tiny_sessions(2, corrupt=[0]):
        plan = tiny.plan()
        for view in endings(tiny, plan, colluding) if plan else ():
            late = tiny.clients - len(view.survivors)
            if not view.unmasked or len(view.colluding) != colluding or (most_dropouts and late > plan_dropouts(tiny)):
                continue
            sessions += 1
            broken += any(len(who) < tiny.params.min_cohort for _, who in view.sums)
            clear += bool(in_clear(view))
    return sessions, broken, clear


def plan_dropouts(tiny: Tiny) -> int:
    """The dropouts that a session tolerates."""
    return tiny.params.max_dropouts or 0


@pytest.mark.parametrize(
    ("patches", "arguments", "expected"),
    [
        ([], {}, (1667, 0, 0)),
        ([without_dropouts_in_the_rule], {}, (2821, 0, 0)),
        ([without_refusal], {"most_dropouts": True}, (1667, 0, 0)),
        ([without_refusal], {}, (9012, 5731, 4153)),
        ([without_dropouts_in_the_rule, without_refusal], {"most_dropouts": True}, (4999, 2178, 1716)),
        ([without_dropouts_in_the_rule, without_refusal], {}, (15243, 10922, 8029)),
        ([], {"colluding": 1}, (6531, 2393, 1628)),
    ],
    ids=[
        "the whole rule",
        "no D, but refusal",
        "D, but no refusal, and no more than D drop out",
        "D, but no refusal, and the server says that more dropped out",
        "neither, and no more than D drop out",
        "neither, and the server says that more dropped out",
        "the whole rule, but a client colludes and nobody reckoned with it",
    ],
)
def test_what_each_part_of_the_release_rule_is_worth(
    patches: list[Callable[[pytest.MonkeyPatch], None]],
    arguments: dict[str, Any],
    expected: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for patch in patches:
        patch(monkeypatch)
    assert ruined(**arguments) == expected


def test_without_a_self_mask_every_late_vector_is_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = masking.terms
    monkeypatch.setattr(masking, "terms", lambda *ends: (t for t in genuine(*ends) if t.peer is not None))
    late = 0
    for tiny in tiny_sessions(1, corrupt=[0]):
        plan = tiny.plan()
        for view in endings(tiny, plan) if plan else ():
            dropped = {client for client in set(range(tiny.clients)) - view.survivors if view.fill[client]}
            if view.unmasked and dropped:
                late += 1
                assert in_clear(view) >= dropped
    assert late == 33


def test_with_equal_signs_at_both_ends_something_else_than_the_sums_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decider sees signs: masks that do not cancel leave the server with other functions than the sums."""
    genuine = masking.terms
    monkeypatch.setattr(masking, "terms", lambda *ends: (masking.Term(1, t.peer) for t in genuine(*ends)))
    views = [view for view in views_of(tiny_sessions(1, corrupt=[0])) if released(view)]
    assert len(views) == 45
    assert all(leaked(view) != released(view) for view in views)


# The model is the protocol.


def covered_of(places: NDArray[np.intp], mask: masking.MaskKey) -> tuple[int, ...]:
    """Those of the places that a stream covers."""
    for some in mask.places:
        places = np.where(np.unpackbits(some, count=len(places)), places, -1)
    return tuple(int(place) for place in places if place >= 0)


@pytest.mark.parametrize("dropped", [None, 0, 1, 2])
def test_the_state_machines_apply_and_reveal_exactly_the_streams_of_the_model(
    dropped: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[masking.MaskKey] = []
    genuine_hide, genuine_apply = masking.hide, masking.Accumulator.apply_to_vector

    def recorded_hide(
        integers: masking.Integers, length: int, ring: Ring, masks: list[masking.MaskKey], checks: masking.Checksums
    ) -> tuple[bytes, bytes]:
        applied.extend(masks)
        return genuine_hide(integers, length, ring, masks, checks)

    def recorded_apply(accumulator: masking.Accumulator, masks: list[masking.MaskKey]) -> None:
        applied.extend(masks)
        genuine_apply(accumulator, masks)

    def taken() -> list[masking.MaskKey]:
        taken, applied[:] = list(applied), []
        return taken

    monkeypatch.setattr(masking, "hide", recorded_hide)
    monkeypatch.setattr(masking.Accumulator, "apply_to_vector", recorded_apply)
    params = Params(min_cohort=2, max_dropouts=int(dropped is not None), levels=4)
    sessions = 0
    for held in itertools.product(itertools.product((False, True), repeat=2), repeat=3):
        tiny = Tiny(3, 2, "mask-indexed", None, params, held)
        plan = tiny.plan()
        if plan is None:
            continue
        sessions += 1
        view = next(
            view
            for view in endings(tiny, plan)
            if view.survivors == frozenset(range(3)) - {dropped} and not view.colluding
        )
        brought = {i: Contribution({"w": np.zeros(2)}, np.array(held[i])) for i in range(3)}
        game = Play(plan.session, brought).until(Round.MASKED_INPUT)
        keys: dict[Label, bytes] = {}
        for client in range(3):
            taken()
            answer = game.answer(client)
            mine = np.flatnonzero(plan.places(client))
            masks = taken()
            assert len(masks) == len(view.streams[client])
            for mask, used in zip(masks, view.streams[client], strict=True):
                assert (mask.sign, covered_of(mine, mask)) == (used.sign, used.covers)
                assert keys.setdefault(used.label, mask.key) == mask.key
            if client != dropped:
                game.server.receive(answer)
        assert len(set(keys.values())) == len(keys) == 6
        game.close()
        game.finish()
        places = np.arange(plan.length)
        revealed = sorted((mask.key, mask.sign, covered_of(places, mask)) for mask in taken())
        assert revealed == sorted(
            (keys[used.label], -used.sign, used.covers)
            for client in view.survivors
            for used in view.streams[client]
            if view.known(used.label)
        )
    assert sessions == (48 if dropped is None else 15)  # of 64: a place that two hold, or one that all three hold


def test_the_checksums_are_a_public_combination_of_the_released_sums() -> None:
    rng = np.random.default_rng(7)
    transcript = bytes(range(32))
    length = 40
    filled = rng.random((5, length)) < 0.6
    inputs = rng.integers(-(2**40), 2**40, (5, length)) * filled
    sums = inputs.sum(axis=0)
    for check in range(masking.CHECKS):
        public = Stream(derive(transcript, "checksum", bytes([check])), Ring(32)).take(length).tolist()
        expected = sum(a * int(b) for a, b in zip(public, sums, strict=True)) % 2**64
        parts = [
            masking.checksums(inputs[client][filled[client]], transcript, filled[client])[check] for client in range(5)
        ]
        assert sum(parts) % 2**64 == expected == masking.checksums(sums, transcript)[check]
