"""The sentence says what was learned, by whom, and over how many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secagg import simulate
from secagg.declaration import FULL, Declaration, Provenance
from secagg.params import Params

UPDATES = {client: np.linspace(-1, 1, 8) for client in range(6)}
DENSE = np.ones(8, bool)
FRONT = np.arange(8) < 6
NO_DROPOUTS = Params(max_dropouts=0)


def sentence(**settings: Any) -> str:
    given: dict[str, Any] = {"params": NO_DROPOUTS, "seed": 1} | settings
    verdict = simulate(UPDATES, **given).verdict
    assert verdict.startswith("simulation: this process saw every update; deployed, a semi-honest server")
    assert verdict.endswith("nothing else about any client; a client that lies inside the range is not noticed.")
    return verdict


def test_a_plain_sum_names_survivors_and_smallest_group_and_no_mask() -> None:
    assert sentence() == (
        "simulation: this process saw every update; deployed, a semi-honest server would learn the uniform sum over 6 "
        "survivors, at every released coordinate over at least 6 of them, no mask, and nothing else about any client; "
        "a client that lies inside the range is not noticed."
    )


def test_dropouts_are_not_counted_as_survivors() -> None:
    text = sentence(params=Params(max_dropouts=2), dropouts={3: "SHARE_KEYS"})
    assert "sum over 5 survivors, at every released coordinate over at least 5 of them" in text


def test_colluding_clients_are_named_where_they_are_allowed_for() -> None:
    assert "a semi-honest server colluding with up to 2 clients would learn" in sentence(
        params=Params(max_dropouts=0, corrupt=2)
    )
    assert "colluding" not in sentence()


def test_the_share_of_withheld_coordinates_is_named() -> None:
    masks = {client: DENSE if client < 2 else FRONT for client in UPDATES}
    text = sentence(masks=masks, mode="mask-indexed")
    assert "the mask-indexed sum over 6 survivors" in text
    assert "25.0% of the coordinates are withheld" in text
    assert "withheld" not in sentence()


def test_a_small_withheld_share_is_not_rounded_to_nothing() -> None:
    updates = {client: np.zeros(5000) for client in range(4)}
    masks = {client: np.arange(5000) < 5000 - (client > 0) for client in updates}
    verdict = simulate(updates, masks=masks, mode="mask-indexed", params=NO_DROPOUTS, seed=1).verdict
    assert "0.0% of the coordinates" not in verdict
    assert "withheld" in verdict


def test_masks_are_said_to_be_learned_where_they_are_declared() -> None:
    masks = {client: DENSE if client < 5 else FRONT for client in UPDATES}
    assert "every client's mask (6 of them computed from data)" in sentence(masks=masks, mode="mask-indexed")


def test_masks_that_say_nothing_about_data_are_not_counted_as_computed_from_it() -> None:
    held = np.packbits(FRONT).tobytes()
    masks = {
        client: FULL
        if client < 4
        else Declaration("bitmap", held, Provenance.DEVICE if client < 5 else Provenance.DATA)
        for client in UPDATES
    }
    assert "every client's mask (1 of them computed from data)" in sentence(masks=masks, mode="mask-indexed")
    masks[5] = masks[4]
    text = sentence(masks=masks, mode="mask-indexed")
    assert "every client's mask, and nothing else" in text


def test_a_mask_indexed_session_of_whole_updates_reveals_no_mask() -> None:
    assert "no mask" in sentence(masks=dict.fromkeys(UPDATES), mode="mask-indexed")


def test_counted_masks_are_said_to_be_summed() -> None:
    masks = {client: DENSE if client < 5 else FRONT for client in UPDATES}
    text = sentence(masks=masks, mode="uniform")
    assert "sums of mask bits by unit and layer, no single mask" in text
    assert "the uniform sum" in text


def test_exact_denominators_are_said_to_reveal_the_masks() -> None:
    masks = {client: DENSE if client < 5 else FRONT for client in UPDATES}
    text = sentence(masks=masks, mode="uniform", params=Params(max_dropouts=0, exact_denominators=True))
    assert "denominators of every coordinate, which reveal the masks" in text


@pytest.mark.parametrize(
    ("mode", "weighting", "learned"),
    [
        ("uniform", "hidden", "the total weight, and nothing else"),
        ("mask-indexed", "hidden", "the total weight of each group of equal masks"),
        ("mask-indexed", "average", "the total weight, and nothing else"),
        ("mask-indexed", "public", "every client's rounded weight"),
    ],
)
def test_what_weights_reveal_is_named(mode: str, weighting: Any, learned: str) -> None:
    weights = dict.fromkeys(UPDATES, 0.5)
    masks = None if mode == "uniform" else {client: DENSE if client < 3 else FRONT for client in UPDATES}
    params = Params(max_dropouts=0, weighting=weighting)
    assert learned in sentence(mode=mode, masks=masks, weights=weights, params=params)


def test_exact_denominators_of_weighted_updates_reveal_the_weight_behind_each_coordinate() -> None:
    params = Params(max_dropouts=0, exact_denominators=True)
    text = sentence(mode="uniform", weights=dict.fromkeys(UPDATES, 0.5), params=params)
    assert "the total weight behind each coordinate" in text


def test_weights_are_not_mentioned_where_there_are_none() -> None:
    assert "weight" not in sentence()
