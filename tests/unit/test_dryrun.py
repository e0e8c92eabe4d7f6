"""A dry run foretells what a round costs and what it releases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from secagg import declaration, driver, simulate
from secagg.counts import counting_layout
from secagg.declaration import FULL, Declaration, Provenance
from secagg.dryrun import COUNTING, PRUNED, WHOLE, dry_run
from secagg.errors import InputError, ParameterError, TooFewClientsError
from secagg.layout import Layout, Tensor
from secagg.params import Params
from secagg.session import ID_BYTES, Session

if TYPE_CHECKING:
    from secagg.params import Mode

LAYOUT = Layout(
    (
        Tensor("fc.weight", (8, 5), unit_axes={0: tuple(range(8))}),
        Tensor("fc.bias", (8,), unit_axes={0: tuple(range(8))}),
        Tensor("out.weight", (2, 8), unit_axes={1: tuple(range(8))}),
    ),
    {"fc": 8},
)
PARAMS = Params(min_cohort=3, max_dropouts=1, value_range=1.0)
QUARTER = declaration.of_units(LAYOUT, np.arange(8) < 2, Provenance.DEVICE)
MODES: tuple[Mode, ...] = ("uniform", "mask-indexed")


def masks(pruned: int, whole: int) -> dict[str, Declaration]:
    return {f"client-{number}": QUARTER if number < pruned else FULL for number in range(pruned + whole)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("whole", [2, 5])
def test_what_is_foreseen_to_be_released_is_released(mode: Mode, whole: int) -> None:
    given = masks(4, whole)
    updates = {client: {t.name: np.zeros(t.shape) for t in LAYOUT.tensors} for client in given}
    result = simulate(updates, given, mode=mode, params=PARAMS, layout=LAYOUT)
    withheld = np.concatenate([values.ravel() for values in result.withheld.values()])
    assert dry_run(PARAMS, given, mode, LAYOUT).released_share == pytest.approx(1 - withheld.mean())


@pytest.mark.parametrize("mode", MODES)
def test_whole_updates_take_one_session_with_the_bytes_foreseen(mode: Mode) -> None:
    foreseen = dry_run(PARAMS, masks(0, 6), mode, LAYOUT)
    assert set(foreseen.sessions) == {WHOLE}
    session = Session(id=bytes(ID_BYTES), params=PARAMS, layout=LAYOUT, mode=mode)
    update = {tensor.name: np.zeros(tensor.shape) for tensor in LAYOUT.tensors}
    played = driver.run(session, {id_: driver.Contribution(update) for id_ in range(6)})
    assert set(played.traffic.upload_bytes.values()) == {sum(foreseen.sessions[WHOLE].upload_bytes.values())}


def test_a_uniform_session_of_pruned_updates_is_counted_before_and_sends_everything() -> None:
    foreseen = dry_run(PARAMS, masks(4, 5), "uniform", LAYOUT)
    assert set(foreseen.sessions) == {COUNTING, WHOLE}
    assert foreseen.sessions[COUNTING].coordinates == counting_layout(LAYOUT).size
    assert foreseen.sessions[WHOLE].coordinates == LAYOUT.size


def test_in_a_mask_indexed_session_whoever_holds_least_sends_least() -> None:
    foreseen = dry_run(PARAMS, masks(4, 5), "mask-indexed", LAYOUT)
    assert set(foreseen.sessions) == {WHOLE, PRUNED}
    whole, pruned = (foreseen.sessions[name].upload_bytes for name in (WHOLE, PRUNED))
    assert foreseen.sessions[PRUNED].coordinates == declaration.expand(LAYOUT, QUARTER).sum()
    assert pruned["MaskedInput"] < whole["MaskedInput"]
    assert pruned["ShareKeys"] == whole["ShareKeys"]


def test_printed_it_names_every_session_the_share_released_and_the_remedy() -> None:
    text = str(dry_run(PARAMS, masks(4, 2), "uniform", LAYOUT))
    assert text.index(COUNTING) < text.index(WHOLE) < text.index("releases 25.0% of the coordinates")
    assert "would release everything" in text or "more clients hold" in text


def test_it_becomes_json() -> None:
    foreseen = dry_run(PARAMS, masks(4, 2), "mask-indexed", LAYOUT)
    plain = json.loads(json.dumps(foreseen.to_json()))
    assert plain["released_share"] == foreseen.released_share
    assert plain["sessions"][PRUNED]["coordinates"] == foreseen.sessions[PRUNED].coordinates
    assert [tensor["name"] for tensor in plain["explanation"]["tensors"]] == [t.name for t in LAYOUT.tensors]
    assert plain["remedy"] == foreseen.explanation.remedy


def test_what_a_session_would_refuse_is_refused_in_the_dry_run() -> None:
    with pytest.raises(InputError, match="no client"):
        dry_run(PARAMS, {}, "uniform", LAYOUT)
    with pytest.raises(TooFewClientsError):
        dry_run(PARAMS, masks(0, 2), "uniform", LAYOUT)
    with pytest.raises(ParameterError, match="could forge them"):
        dry_run(Params(adversary="active"), masks(4, 5), "uniform", LAYOUT)
