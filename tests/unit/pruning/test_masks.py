from __future__ import annotations

import numpy as np
import pytest

from pruning import Mask, keep_units, ordered_units, random_units
from secagg import declaration
from secagg.declaration import Provenance
from secagg.errors import LayoutMismatchError, NotFiniteError, ParameterError
from secagg.layout import Layout, Tensor

LAYOUT = Layout(
    (
        Tensor("first.weight", (4, 3), unit_axes={0: (0, 1, 2, 3)}),
        Tensor("first.bias", (4,), unit_axes={0: (0, 1, 2, 3)}),
        Tensor("second.weight", (3, 4), unit_axes={0: (4, 5, 6), 1: (0, 1, 2, 3)}),
        Tensor("third.weight", (2, 3), unit_axes={1: (4, 5, 6)}),
    ),
    {"first": 4, "second": 3},
)


def bits(text: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([letter == "1" for letter in text])


def test_density_is_the_share_of_coordinates_held() -> None:
    mask = Mask.of_units(LAYOUT, bits("1100101"))
    assert mask.density == (2 * 3 + 2 + 2 * 2 + 2 * 2) / 34
    assert Mask.full(LAYOUT).density == 1


def test_a_weight_is_held_when_both_of_its_units_are() -> None:
    held = Mask.of_units(LAYOUT, bits("1010011")).by_tensor()
    assert np.array_equal(held["second.weight"], np.outer(bits("011"), bits("1010")))
    assert np.array_equal(held["first.bias"], bits("1010"))
    assert list(held) == ["first.weight", "first.bias", "second.weight", "third.weight"]


@pytest.mark.parametrize(
    ("mask", "kind"),
    [
        (Mask.full(LAYOUT), "full"),
        (Mask.of_units(LAYOUT, bits("1010011"), Provenance.DEVICE), "units"),
        (Mask.of_layers(LAYOUT, bits("001"), Provenance.PUBLIC), "layers"),
        (Mask.of_coordinates(LAYOUT, bits("10" * 17)), "bitmap"),
    ],
)
def test_a_declaration_says_what_the_mask_holds(mask: Mask, kind: str) -> None:
    declared = mask.declaration()
    assert (declared.kind, declared.provenance) == (kind, mask.provenance)
    assert np.array_equal(declaration.expand(LAYOUT, declared), mask.coordinates)


@pytest.mark.parametrize(
    "mask", [Mask.full(LAYOUT), Mask.of_units(LAYOUT, bits("1010011")), Mask.of_layers(LAYOUT, bits("011"))]
)
def test_coordinates_that_form_units_or_layers_become_a_mask_of_those(mask: Mask) -> None:
    again = Mask.of_coordinates(LAYOUT, mask.coordinates, mask.provenance)
    assert again == mask
    assert hash(again) == hash(mask)


def test_masks_of_another_provenance_differ() -> None:
    assert ordered_units(LAYOUT, 0.5) != ordered_units(LAYOUT, 0.5, provenance=Provenance.DATA)


def test_a_mask_cannot_be_changed_through_its_arrays() -> None:
    held = bits("1010011")
    mask = Mask.of_units(LAYOUT, held)
    held[:] = False
    mask.by_tensor()["first.bias"][:] = False
    assert mask.held.sum() == 4
    assert mask.coordinates.sum() == 2 * 3 + 2 + 2 * 2 + 2 * 2
    with pytest.raises(ValueError, match="read-only"):
        mask.coordinates[0] = False


def test_the_lowest_scores_of_each_group_are_dropped() -> None:
    mask = keep_units(LAYOUT, [9, 7, 8, 6, 1, 3, 2], 0.5)
    assert np.array_equal(mask.held, bits("1010011"))
    assert mask.provenance is Provenance.DATA


def test_equal_scores_keep_the_first_units() -> None:
    assert np.array_equal(keep_units(LAYOUT, [1, 2, 1, 1, 0, 0, 0], 0.5).held, bits("1100110"))


@pytest.mark.parametrize(("keep", "held"), [(1e-9, "1000100"), (0.5, "1100110"), (0.9, "1111111"), (1, "1111111")])
def test_ordered_units_keep_the_first_of_each_group_and_at_least_one(keep: float, held: str) -> None:
    assert np.array_equal(ordered_units(LAYOUT, keep).held, bits(held))


def test_random_units_depend_on_the_generator_only() -> None:
    layout = Layout((Tensor("a.weight", (100, 2), unit_axes={0: tuple(range(100))}),), {"a": 100})
    one, same, other = (random_units(layout, 0.3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert one.held.sum() == other.held.sum() == 30
    assert one.provenance is Provenance.DEVICE


@pytest.mark.parametrize("keep", [0, -0.1, 1.01, float("nan")])
def test_a_keep_ratio_outside_its_domain_is_refused(keep: float) -> None:
    with pytest.raises(ParameterError, match=r"\(0, 1\]"):
        ordered_units(LAYOUT, keep)


def test_scores_must_be_one_a_unit_and_ordered() -> None:
    with pytest.raises(LayoutMismatchError, match="7 units"):
        keep_units(LAYOUT, [1, 2], 0.5)
    with pytest.raises(NotFiniteError):
        keep_units(LAYOUT, [1, 2, 3, 4, 5, 6, float("nan")], 0.5)


def test_a_mask_of_another_length_is_refused() -> None:
    for make, length in ((Mask.of_units, 7), (Mask.of_layers, 3), (Mask.of_coordinates, 34)):
        with pytest.raises(LayoutMismatchError):
            make(LAYOUT, np.ones(length + 1, bool))
