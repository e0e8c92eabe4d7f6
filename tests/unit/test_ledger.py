"""Sessions that are safe each and unsafe together are refused, and the others are not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import declaration
from secagg.client import Client
from secagg.declaration import FULL, Provenance
from secagg.errors import DecodingError, DifferencingError, LocalProtocolError, ParameterError
from secagg.layout import Layout, Tensor
from secagg.ledger import Ledger, Scope
from secagg.messages import Participant
from secagg.params import Params
from secagg.release import Plan
from secagg.session import Session

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

LAYOUT = Layout((Tensor("w", (4,)),))
SESSION = Session(
    id=bytes(16), params=Params(min_cohort=3, max_dropouts=0), layout=LAYOUT, mode="uniform", model_root=b"m"
)


def plan(clients: Collection[int], number: int = 0, model: bytes = b"m") -> Plan:
    """A uniform session of these clients."""
    session = replace(SESSION, id=bytes([number]) * 16, model_root=model)
    return Plan(session, 2, [Participant(client, FULL, None) for client in sorted(clients)])


def masked(held: dict[int, Sequence[int]], number: int) -> Plan:
    """A mask-indexed session of clients that hold these of the four coordinates."""
    session = replace(SESSION, id=bytes([number]) * 16, mode="mask-indexed")
    declared = {
        client: declaration.of_coordinates(LAYOUT, np.isin(np.arange(4), places), Provenance.DEVICE)
        for client, places in held.items()
    }
    return Plan(session, 2, [Participant(client, declared[client], None) for client in sorted(held)])


def remembering(*plans: Plan, scope: Scope = "model") -> Ledger:
    ledger = Ledger(scope)
    for one in plans:
        ledger.record(one, one.clients)
    return ledger


@given(st.sets(st.integers(0, 9), min_size=3), st.sets(st.integers(0, 9), min_size=3))
def test_two_sessions_of_one_model_differ_in_nobody_or_in_a_whole_cohort(first: set[int], second: set[int]) -> None:
    ledger = remembering(plan(first, 1))
    if 0 < len(first ^ second) < 3:
        with pytest.raises(DifferencingError, match=f"isolate {len(first ^ second)} clients < 3: leave it out, or st"):
            ledger.check(plan(second, 2), sorted(second))
        assert ledger.refused == 1
    else:
        ledger.check(plan(second, 2), sorted(second))
        assert ledger.refused == 0


def test_colluding_clients_do_not_count() -> None:
    params = Params(min_cohort=3, max_dropouts=0, corrupt=2)
    first, second = (
        Plan(replace(one.session, params=params), 3, list(one.participants.values()))
        for one in (plan(range(9), 1), plan(range(5), 2))
    )
    with pytest.raises(DifferencingError, match="isolate 4 clients < 5"):
        remembering(first).check(second, range(5))


def test_sessions_of_other_models_or_other_layouts_are_compared_only_if_asked_for() -> None:
    one, other = plan(range(5), 1, b"one"), plan(range(4), 2, b"other")
    remembering(one).check(other, other.clients)
    with pytest.raises(DifferencingError, match=r"in the ledger, this one would isolate 1 clients < 3: leave it out$"):
        remembering(one, scope="all").check(other, other.clients)
    layout = Layout((Tensor("v", (4,)),))
    elsewhere = Plan(replace(other.session, layout=layout), 2, list(other.participants.values()))
    remembering(one, scope="all").check(elsewhere, elsewhere.clients)


def test_one_model_in_two_layouts_cannot_be_compared_and_is_refused() -> None:
    """The server could rename or reorder tensors, so that no coordinate looks like the one before."""
    layout = Layout((Tensor("w", (4,), "float64"),))
    again = Plan(replace(plan(range(4), 2).session, layout=layout), 2, list(plan(range(4)).participants.values()))
    ledger = remembering(plan(range(5), 1))
    with pytest.raises(DifferencingError, match="another layout"):
        ledger.check(again, again.clients)
    assert ledger.refused == 1


def test_three_sums_that_have_a_single_client_as_their_solution_are_refused() -> None:
    """a + b + c + ..., pairwise far apart; (A + B - C) / 2 is client 0 alone."""
    first, second = {0, 1, 2, 3, 4}, {0, 5, 6, 7, 8}
    third = {1, 2, 3, 4, 5, 6, 7, 8}
    ledger = remembering(plan(first, 1), plan(second, 2))
    assert min(len(first ^ third), len(second ^ third)) >= 3
    with pytest.raises(DifferencingError, match="isolate 1 clients"):
        ledger.check(plan(third, 3), sorted(third))
    ledger.check(plan(third | {9, 10, 11}, 4), sorted(third | {9, 10, 11}))


def test_what_matters_is_who_holds_the_same_coordinate() -> None:
    first = masked({0: [0, 1], 1: [0, 1], 2: [0, 1], 3: [0, 1, 2], 4: [2, 3], 5: [2, 3], 6: [2, 3], 7: [3]}, 1)
    same = masked({0: [0, 1], 1: [0, 1], 2: [0, 1], 3: [0, 1, 2], 4: [2, 3], 5: [2, 3], 6: [2, 3], 7: [3]}, 2)
    apart = masked({0: [0, 1], 1: [0, 1], 2: [0, 1], 4: [2, 3], 5: [2, 3], 6: [2, 3]}, 3)
    ledger = remembering(first)
    ledger.check(same, same.clients)
    with pytest.raises(DifferencingError, match="isolate 1 clients"):
        ledger.check(apart, apart.clients)  # coordinate 0 lacks client 3 alone
    elsewhere = masked({0: [0], 1: [0], 2: [0], 3: [0]}, 4)
    ledger.check(elsewhere, elsewhere.clients)  # its one coordinate has the same four holders as before


def test_survivors_count_and_not_participants() -> None:
    ledger = Ledger()
    ledger.record(plan(range(6), 1), range(5))
    ledger.check(plan(range(6), 2), range(5))
    with pytest.raises(DifferencingError):
        ledger.check(plan(range(6), 3), range(6))


def test_a_session_is_used_once() -> None:
    ledger = Ledger()
    ledger.open(bytes(16))
    with pytest.raises(LocalProtocolError, match="used before"):
        ledger.open(bytes(16))
    with pytest.raises(LocalProtocolError, match="used before"):
        Client(1, SESSION, ledger=ledger).advertise_keys()


@pytest.mark.parametrize("scope", ["model", "all"])
def test_a_ledger_is_kept_from_run_to_run(scope: Scope) -> None:
    ledger = remembering(plan(range(5), 1), scope=scope)
    ledger.open(b"x" * 16)
    with pytest.raises(DifferencingError):
        ledger.check(plan(range(4), 2), range(4))
    kept = Ledger.from_bytes(ledger.to_bytes())
    assert repr(kept) == repr(ledger) == f"Ledger(scope='{scope}', unmasked=1, refused=1)"
    with pytest.raises(LocalProtocolError):
        kept.open(b"x" * 16)
    with pytest.raises(DifferencingError):
        kept.check(plan(range(4), 3), range(4))
    kept.check(plan(range(5), 4), range(5))


@pytest.mark.parametrize("data", [b"", b"ledger", Ledger().to_bytes()[:-1]])
def test_what_is_no_ledger_is_refused(data: bytes) -> None:
    with pytest.raises(DecodingError, match="not a ledger"):
        Ledger.from_bytes(data)


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(ParameterError, match="scope must be one of"):
        Ledger("round")  # type: ignore[arg-type]
