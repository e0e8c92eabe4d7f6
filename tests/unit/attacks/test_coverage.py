from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import secagg
from attacks import isolation
from secagg.errors import CoverageError

ALL = np.ones(4, bool)
MASKS = {
    "one": np.array([1, 1, 0, 0], bool),
    "two": np.array([1, 0, 1, 0], bool),
    "three": np.array([1, 0, 1, 0], bool),
}


def test_a_coordinate_with_one_holder_is_read_off_the_sum() -> None:
    found = isolation(MASKS, ALL)
    assert found.in_clear == {"one": 1}
    assert (found.smallest_group, found.exposed_share) == (0, 3 / 4)


def test_what_is_not_released_exposes_nobody() -> None:
    found = isolation(MASKS, np.array([1, 0, 0, 0], bool))
    assert (found.smallest_group, found.exposed_share, found.in_clear) == (3, 0.0, {})
    nothing = isolation(MASKS, ~ALL)
    assert (nothing.smallest_group, nothing.exposed_share, nothing.in_clear) == (None, 0.0, {})


@given(data=st.data(), clients=st.integers(5, 9))
def test_the_release_rule_leaves_nobody_alone_where_summing_whatever_is_held_does(
    data: st.DataObject, clients: int
) -> None:
    bits = data.draw(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=clients, max_size=clients))
    bits[0] = [True, *bits[0][1:]]
    for others in bits[1:]:
        others[0] = False  # the first coordinate has one holder
    masks = {number: np.array(held) for number, held in enumerate(bits)}
    dropped = data.draw(st.sets(st.integers(1, clients - 1), max_size=1))
    survivors = {number: held for number, held in masks.items() if number not in dropped}
    careless = isolation(survivors, np.ones(6, bool))
    assert careless.in_clear[0] >= 1
    assert careless.exposed_share > 0
    try:
        result = secagg.simulate(
            {number: np.zeros(6) for number in masks},
            masks,
            mode="mask-indexed",
            params=secagg.Params(max_dropouts=1),
            dropouts=dict.fromkeys(dropped, "ShareKeys"),
            seed=b"isolation",
        )
    except CoverageError:  # nothing can be released
        return
    kept = isolation(survivors, ~result.withheld)
    assert (kept.exposed_share, kept.in_clear) == (0.0, {})
