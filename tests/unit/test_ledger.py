"""Sessions that are safe each and unsafe together are refused, and the others are not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import counts, declaration, isolation
from secagg.client import Client
from secagg.declaration import FULL, Provenance
from secagg.errors import CoverageError, DecodingError, DifferencingError, LocalProtocolError, ParameterError
from secagg.layout import Layout, Tensor
from secagg.ledger import Entry, Ledger, Scope, _Kept
from secagg.messages import Participant
from secagg.params import Params
from secagg.release import Plan
from secagg.session import Session

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from secagg.params import Weighting

LAYOUT = Layout((Tensor("w", (4,)),))
SESSION = Session(
    id=bytes(16), params=Params(min_cohort=3, max_dropouts=0), layout=LAYOUT, mode="uniform", model_root=b"m" * 32
)


def plan(clients: Collection[int], number: int = 0, model: bytes = b"m" * 32) -> Plan:
    """A uniform session of these clients."""
    session = replace(SESSION, id=bytes([number]) * 16, model_root=model)
    return Plan(session, 2, [Participant(client, FULL, None) for client in sorted(clients)])


def masked(
    held: Mapping[int, Collection[int]], number: int, weighting: Weighting | None = None, buckets: Sequence[int] = ()
) -> Plan:
    """A mask-indexed session of clients that hold these of the four coordinates."""
    params = replace(SESSION.params, weighting=weighting or "hidden")
    session = replace(
        SESSION, id=bytes([number]) * 16, mode="mask-indexed", params=params, weighted=weighting is not None
    )
    declared = {
        client: declaration.of_coordinates(LAYOUT, np.isin(np.arange(4), list(places)), Provenance.DEVICE)
        for client, places in held.items()
    }
    weights = dict(zip(sorted(held), buckets, strict=False))
    return Plan(session, 2, [Participant(client, declared[client], weights.get(client)) for client in sorted(held)])


def copy(ledger: Ledger) -> Ledger:
    return Ledger.from_bytes(ledger.to_bytes())


def remembering(*plans: Plan, scope: Scope = "model") -> Ledger:
    ledger = Ledger(scope)
    for one in plans:
        ledger.agree(one, one.clients)
    return ledger


@given(st.sets(st.integers(0, 9), min_size=3), st.sets(st.integers(0, 9), min_size=3))
def test_two_sessions_of_one_model_differ_in_nobody_or_in_a_whole_cohort(first: set[int], second: set[int]) -> None:
    ledger = remembering(plan(first, 1))
    if 0 < len(first ^ second) < 3:
        with pytest.raises(DifferencingError, match=f"isolate {len(first ^ second)} clients < 3: leave it out, or st"):
            ledger.agree(plan(second, 2), sorted(second))
        assert ledger.refused == 1
    else:
        copy(ledger).agree(plan(second, 2), sorted(second))
        assert ledger.refused == 0


def test_colluding_clients_do_not_count() -> None:
    params = Params(min_cohort=3, max_dropouts=0, corrupt=2)
    first, second = (
        Plan(replace(one.session, params=params), 3, list(one.participants.values()))
        for one in (plan(range(9), 1), plan(range(5), 2))
    )
    with pytest.raises(DifferencingError, match="isolate 4 clients < 5"):
        remembering(first).agree(second, range(5))


def test_sessions_of_other_models_or_other_layouts_are_compared_only_if_asked_for() -> None:
    one, other = plan(range(5), 1, b"one".zfill(32)), plan(range(4), 2, b"other".zfill(32))
    remembering(one).agree(other, other.clients)
    with pytest.raises(DifferencingError, match=r"in the ledger, this one would isolate 1 clients < 3: leave it out$"):
        remembering(one, scope="all").agree(other, other.clients)
    layout = Layout((Tensor("v", (4,)),))
    elsewhere = Plan(replace(other.session, layout=layout), 2, list(other.participants.values()))
    remembering(one, scope="all").agree(elsewhere, elsewhere.clients)


def test_one_model_in_two_layouts_cannot_be_compared_and_is_refused() -> None:
    """The server could rename or reorder tensors, so that no coordinate looks like the one before."""
    layout = Layout((Tensor("w", (4,), "float64"),))
    again = Plan(replace(plan(range(4), 2).session, layout=layout), 2, list(plan(range(4)).participants.values()))
    ledger = remembering(plan(range(5), 1))
    with pytest.raises(DifferencingError, match="another layout"):
        ledger.agree(again, again.clients)
    assert ledger.refused == 1


def test_three_sums_that_have_a_single_client_as_their_solution_are_refused() -> None:
    """a + b + c + ..., pairwise far apart; (A + B - C) / 2 is client 0 alone."""
    first, second = {0, 1, 2, 3, 4}, {0, 5, 6, 7, 8}
    third = {1, 2, 3, 4, 5, 6, 7, 8}
    ledger = remembering(plan(first, 1), plan(second, 2))
    assert min(len(first ^ third), len(second ^ third)) >= 3
    with pytest.raises(DifferencingError, match="isolate 1 clients"):
        ledger.agree(plan(third, 3), sorted(third))
    copy(ledger).agree(plan(third | {9, 10, 11}, 4), sorted(third | {9, 10, 11}))


def test_three_sums_that_leave_two_clients_are_refused() -> None:
    """As above with client 0 twice, so that nobody is alone in any combination."""
    first, second = {0, 9, 1, 2, 3, 4}, {0, 9, 5, 6, 7, 8}
    third = {1, 2, 3, 4, 5, 6, 7, 8}
    ledger = remembering(plan(first, 1), plan(second, 2))
    with pytest.raises(DifferencingError, match="isolate 2 clients"):
        ledger.agree(plan(third, 3), sorted(third))
    assert ledger.refused == 1


def test_what_an_earlier_session_with_a_lower_floor_gave_away_is_not_held_against_later_ones() -> None:
    ledger = remembering(plan(range(4), 1))
    strict = plan(range(10, 20), 2)
    params = Params(min_cohort=5, max_dropouts=0)
    strict = Plan(replace(strict.session, params=params), 2, list(strict.participants.values()))
    copy(ledger).agree(strict, strict.clients)
    again = Plan(replace(plan(range(9)).session, params=params), 2, list(plan(range(9)).participants.values()))
    copy(ledger).agree(again, again.clients)
    with pytest.raises(DifferencingError, match="isolate 4 clients < 5"):
        ledger.agree(again, range(8))


TWICE = (
    {client: [0, 1] if client < 3 else [1] for client in range(6)},
    {client: [2, 3] if client < 4 else [3] for client in range(8)},
)
"""Two sessions without a common coordinate; the first three clients are alike in one, and the first four in another."""


def test_sums_of_weights_are_compared_although_no_coordinate_is_in_both() -> None:
    first, second = (masked(held, number, "hidden") for number, held in enumerate(TWICE))
    with pytest.raises(DifferencingError, match="isolate 1 clients"):
        remembering(first).agree(second, second.clients)
    for weighting in (None, "average"):
        first, second = (masked(held, number, weighting) for number, held in enumerate(TWICE))
        if weighting is None:
            remembering(first).agree(second, second.clients)
        else:
            with pytest.raises(DifferencingError, match="isolate 2 clients"):
                remembering(first).agree(second, second.clients)


def test_weights_are_compared_over_models_and_layouts_if_asked_for() -> None:
    one, other = (
        Plan(replace(short.session, weighted=True), 2, list(short.participants.values()))
        for short in (plan(range(5), 1, b"one".zfill(32)), plan(range(4), 2, b"other".zfill(32)))
    )
    elsewhere = replace(other.session, layout=Layout((Tensor("v", (9,)),)))
    other = Plan(elsewhere, 2, list(other.participants.values()))
    remembering(one).agree(other, other.clients)
    with pytest.raises(DifferencingError, match="isolate 1 clients"):
        remembering(one, scope="all").agree(other, other.clients)


def test_sums_with_other_weights_than_before_cannot_be_compared_and_are_refused() -> None:
    held = dict.fromkeys(range(4), range(4))
    ledger = remembering(masked(held, 1, "public", [0, 1, 2, 3]))
    copy(ledger).agree(masked(held, 2, "public", [0, 1, 2, 3]), range(4))
    copy(ledger).agree(masked(dict.fromkeys(range(4, 9), range(4)), 2, "public", [7, 7, 7, 7, 7]), range(4, 9))
    for changed in (masked(held, 3, "public", [0, 1, 2, 4]), masked(held, 3), masked(held, 3, "hidden")):
        with pytest.raises(DifferencingError, match="weighted the clients otherwise"):
            ledger.agree(changed, changed.clients)


holdings = st.fixed_dictionaries({client: st.sets(st.integers(0, 3)) for client in range(6)})


@given(holdings, holdings)
def test_two_masked_sessions_are_compared_coordinate_by_coordinate(
    first: dict[int, set[int]], second: dict[int, set[int]]
) -> None:
    holders = [[{client for client in one if place in one[client]} for place in range(4)] for one in (first, second)]
    both = [(one, other) for one, other in zip(*holders, strict=True) if min(len(one), len(other)) >= 3]
    try:
        ledger, later = remembering(masked(first, 1)), masked(second, 2)
    except CoverageError:
        return
    if any(0 < len(one ^ other) < 3 for one, other in both):
        with pytest.raises(DifferencingError):
            ledger.agree(later, later.clients)
    else:
        copy(ledger).agree(later, later.clients)


def test_a_comparison_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = remembering(plan(range(5), 1), plan(range(5, 10), 2))
    copy(ledger).agree(plan(range(3, 8), 3), range(3, 8))
    monkeypatch.setattr(isolation, "MOST_WORK", 10)
    with pytest.raises(DifferencingError, match="takes too long to tell"):
        ledger.agree(plan(range(3, 8), 3), range(3, 8))
    assert ledger.refused == 1


def test_a_session_that_is_agreed_to_after_all_or_twice_counts_once_and_as_agreed_to() -> None:
    ledger = remembering(plan(range(5), 1))
    with pytest.raises(DifferencingError):
        ledger.agree(plan(range(5), 2), range(4))
    before = len(ledger.to_bytes())
    ledger.agree(plan(range(5), 2), range(5))
    ledger.agree(plan(range(5), 2), range(5))
    assert (ledger.agreed, ledger.refused) == (2, 0)
    assert len(ledger.to_bytes()) - before < 20, "what was known before takes an id and no more"


def test_what_matters_is_who_holds_the_same_coordinate() -> None:
    first = masked({0: [0, 1], 1: [0, 1], 2: [0, 1], 3: [0, 1, 2], 4: [2, 3], 5: [2, 3], 6: [2, 3], 7: [3]}, 1)
    same = masked({0: [0, 1], 1: [0, 1], 2: [0, 1], 3: [0, 1, 2], 4: [2, 3], 5: [2, 3], 6: [2, 3], 7: [3]}, 2)
    apart = masked({0: [0, 1], 1: [0, 1], 2: [0, 1], 4: [2, 3], 5: [2, 3], 6: [2, 3]}, 3)
    ledger = remembering(first)
    copy(ledger).agree(same, same.clients)
    with pytest.raises(DifferencingError, match="isolate 1 clients"):
        ledger.agree(apart, apart.clients)  # coordinate 0 lacks client 3 alone
    elsewhere = masked({0: [0], 1: [0], 2: [0], 3: [0]}, 4)
    copy(ledger).agree(elsewhere, elsewhere.clients)  # its one coordinate has the same four holders as before


def test_survivors_count_and_not_participants() -> None:
    ledger = Ledger()
    ledger.agree(plan(range(6), 1), range(5))
    copy(ledger).agree(plan(range(6), 2), range(5))
    with pytest.raises(DifferencingError):
        ledger.agree(plan(range(6), 3), range(6))


def test_a_session_is_used_once() -> None:
    ledger = Ledger()
    ledger.open(bytes(16))
    with pytest.raises(LocalProtocolError, match="used before"):
        ledger.open(bytes(16))
    with pytest.raises(LocalProtocolError, match="used before"):
        Client(1, SESSION, ledger=ledger).advertise_keys()


def test_until_it_is_known_who_survived_nothing_else_is_sent_for_the_same_model() -> None:
    """It may be released without this client, over survivors that it never hears of."""
    one, again, other = plan(range(5), 1), plan(range(5), 2), plan(range(5), 3, b"other".zfill(32))
    ledger = Ledger()
    ledger.send(one.session)
    ledger = Ledger.from_bytes(ledger.to_bytes())
    with pytest.raises(DifferencingError, match="start from a new model, or abandon that session"):
        ledger.send(again.session)
    assert ledger.refused == 1
    ledger.send(other.session)
    ledger.agree(one, range(5))
    with pytest.raises(DifferencingError):
        ledger.send(again.session)
    assert set(ledger.pending) == {one.session.id, other.session.id}
    ledger.settle(one.session.id)
    ledger.send(again.session)
    ledger.abandon(again.session.id)
    ledger.send(again.session)
    assert set(ledger.pending) == {again.session.id, other.session.id}
    wary = Ledger("all")
    wary.send(one.session)
    with pytest.raises(DifferencingError):
        wary.send(other.session)


ROOTLESS = plan(range(4), 2, b"")


@pytest.mark.parametrize("rootless_first", [False, True])
def test_a_session_without_a_root_may_start_from_any_model(*, rootless_first: bool) -> None:
    first, second = (ROOTLESS, plan(range(5), 1)) if rootless_first else (plan(range(5), 1), ROOTLESS)
    with pytest.raises(DifferencingError, match="isolate 1 clients"):
        remembering(first).agree(second, second.clients)
    sent = Ledger()
    sent.send(first.session)
    with pytest.raises(DifferencingError, match="did not end here"):
        sent.send(second.session)


@pytest.mark.parametrize("counting_first", [False, True])
def test_a_counting_session_is_not_about_the_model_that_it_counts_for(*, counting_first: bool) -> None:
    """It has no root and a layout of its own; compared it is with other counts of that layout."""
    counting = replace(SESSION, id=b"c" * 16, layout=counts.counting_layout(LAYOUT), model_root=b"")
    counted = Plan(counting, 2, list(ROOTLESS.participants.values()))
    first, second = (counted, plan(range(5), 1)) if counting_first else (plan(range(5), 1), counted)
    ledger = Ledger()
    ledger.send(first.session)
    ledger.send(second.session)
    ledger.agree(first, first.clients)
    ledger.agree(second, second.clients)
    more = Plan(replace(counting, id=b"d" * 16), 2, list(plan(range(5)).participants.values()))
    with pytest.raises(DifferencingError, match="isolate 1 clients"):
        ledger.agree(more, more.clients)


@pytest.mark.parametrize("scope", ["model", "all"])
def test_a_ledger_is_kept_from_run_to_run(scope: Scope) -> None:
    ledger = remembering(plan(range(5), 1), scope=scope)
    ledger.open(b"x" * 16)
    with pytest.raises(DifferencingError):
        ledger.agree(plan(range(4), 2), range(4))
    kept = Ledger.from_bytes(ledger.to_bytes())
    assert repr(kept) == repr(ledger) == f"Ledger(scope='{scope}', agreed=1, refused=1)"
    with pytest.raises(LocalProtocolError):
        kept.open(b"x" * 16)
    with pytest.raises(DifferencingError):
        kept.agree(plan(range(4), 3), range(4))
    copy(kept).agree(plan(range(5), 4), range(5))


@given(holdings, st.sets(st.integers(0, 5)), st.sampled_from([None, "average", "public"]))
def test_a_kept_ledger_is_the_same_ledger(
    held: dict[int, set[int]], survivors: set[int], weighting: Weighting | None
) -> None:
    try:
        session = masked(held, 1, weighting, range(6) if weighting == "public" else ())
    except CoverageError:
        return
    elsewhere = replace(session.session, id=b"e" * 16, model_root=b"e" * 32)
    ledger = remembering(session, plan(range(7), 2, b"other".zfill(32)))
    ledger.agree(Plan(elsewhere, 2, list(session.participants.values())), sorted(survivors | {0}))
    ledger.send(elsewhere)
    data = ledger.to_bytes()
    assert Ledger.from_bytes(data).to_bytes() == data
    assert Ledger.from_bytes(data)._entries.keys() == ledger._entries.keys()


def runs(*numbers: int) -> bytes:
    return np.array(numbers, "<i8").tobytes()


ENTRY = Entry(b"m" * 32, bytes(32), (1, 4, 6), (0, 1, -1), b"\x60\xe0", runs(0, 2, 1, 2, 3, 0), b"\xc0")


def kept(*entries: Entry, ids: Sequence[bytes] = ()) -> bytes:
    return b"\x01" + msgspec.msgpack.encode(_Kept("model", list(ids), [], [], [], list(entries)))


def test_the_entry_that_is_malformed_below_is_well_formed() -> None:
    assert Ledger.from_bytes(kept(ENTRY, ids=[bytes(16), b"x" * 16])).to_bytes() == kept(
        ENTRY, ids=[bytes(16), b"x" * 16]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"survivors": (1, 1, 6)},
        {"survivors": (4, 1, 6)},
        {"survivors": (1, 4)},
        {"survivors": (), "weights": ()},
        {"survivors": (-1, 4, 6)},
        {"survivors": (1, 4, 2**63)},
        {"weights": (0, 1)},
        {"weights": (0, 1, 128)},
        {"layout": bytes(31)},
        {"model": b"m"},
        {"model": bytes(33)},
        {"groups": b"\x60\xe1"},
        {"groups": b"\xe0\x60"},
        {"groups": b"\x60"},
        {"groups": b"\x20\x60\xe0"},
        {"groups": b""},
        {"slots": b"\xc1"},
        {"slots": b"\xc0\xc0"},
        {"runs": b""},
        {"runs": ENTRY.runs[:-1]},
        {"runs": runs(0, 2, 1, 2, 3, 2)},
        {"runs": runs(0, 2, 1, 2, 3, -1)},
        {"runs": runs(-1, 2, 1, 2, 3, 0)},
        {"runs": runs(0, 2, 1, 1, 3, 0)},
        {"runs": runs(0, 0, 1, 2, 3, 0)},
        {"runs": runs(2, 3, 0, 0, 2, 1)},
        {"runs": runs(0, 1, 1, 1, 2, 1, 2, 3, 0)},
    ],
)
def test_a_malformed_entry_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(DecodingError):
        Ledger.from_bytes(kept(msgspec.structs.replace(ENTRY, **changes)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ledger",
        Ledger().to_bytes()[:-1],
        Ledger().to_bytes() + b"\x00",
        b"\x02" + Ledger().to_bytes()[1:],
        kept(ENTRY, ENTRY),
        kept(ids=[b"short"]),
        kept(ids=[bytes(16), bytes(16)]),
        kept(ids=[b"x" * 16, bytes(16)]),
    ],
)
def test_what_is_no_ledger_is_refused(data: bytes) -> None:
    with pytest.raises(DecodingError, match=r"not a ledger|not in canonical form"):
        Ledger.from_bytes(data)


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(ParameterError, match="scope must be one of"):
        Ledger("round")  # type: ignore[arg-type]
