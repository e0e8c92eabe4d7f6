"""The model root: whoever was handed something else notices, whatever part of it was fetched."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import merkle
from secagg.errors import SERVER, AgreementError, LayoutMismatchError, ParameterError
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT = Layout(
    (
        Tensor("conv.weight", (2, 3), unit_axes={0: (0, 1)}),
        Tensor("conv.bias", (2,), unit_axes={0: (0, 1)}),
        Tensor("fc.weight", (2, 2), unit_axes={0: (-1, -1), 1: (0, 1)}),
        Tensor("fc.bias", (2,)),
    ),
    {"conv": 2},
)
MODEL = {tensor.name: np.arange(tensor.size).reshape(tensor.shape) / 8 for tensor in LAYOUT.tensors}


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_the_root_is_that_of_certificate_transparency() -> None:
    """RFC 9162, section 2.1.5: seven leaves split after four, three after two."""
    leaves = [bytes([number]) for number in range(7)]
    a, b, c, d, e, f, g = (sha(b"\x00" + leaf) for leaf in leaves)
    left = sha(b"\x01" + sha(b"\x01" + a + b) + sha(b"\x01" + c + d))
    right = sha(b"\x01" + sha(b"\x01" + e + f) + g)
    assert merkle.root(leaves) == sha(b"\x01" + left + right)
    assert merkle.root(leaves[:1]) == a


trees = st.lists(st.binary(max_size=4), min_size=1, max_size=20)


@given(trees, st.data())
def test_any_part_of_a_model_can_be_checked_and_no_other_passes_for_it(
    leaves: list[bytes], data: st.DataObject
) -> None:
    chosen = data.draw(st.sets(st.integers(0, len(leaves) - 1), min_size=1))
    root, proof = merkle.root(leaves), merkle.prove(leaves, chosen)
    fetched = {number: leaves[number] for number in chosen}
    merkle.check(root, len(leaves), fetched, proof)
    altered = data.draw(st.sampled_from(sorted(chosen)))
    with pytest.raises(AgreementError, match="not those under the session's model root") as refused:
        merkle.check(root, len(leaves), fetched | {altered: fetched[altered] + b"!"}, proof)
    assert refused.value.culprits == (SERVER,)
    with pytest.raises(AgreementError):
        merkle.check(root, len(leaves), fetched, (*proof, bytes(32)))
    if proof:
        with pytest.raises(AgreementError):
            merkle.check(root, len(leaves), fetched, (bytes(32), *proof[1:]))


def test_a_leaf_that_the_model_does_not_have_is_refused() -> None:
    leaves = [b"a", b"b", b"c"]
    with pytest.raises(AgreementError, match="the proof does not fit"):
        merkle.check(merkle.root(leaves), 3, {0: b"a", 3: b"d"}, merkle.prove(leaves, {0}))


def test_a_model_has_leaves() -> None:
    with pytest.raises(ParameterError, match="at least one leaf"):
        merkle.root([])


def test_whoever_fetched_everything_needs_no_proof() -> None:
    assert merkle.prove([b"a", b"b", b"c"], {0, 1, 2}) == ()


def test_every_coordinate_is_in_one_leaf_and_a_unit_s_leaf_holds_what_feeds_it() -> None:
    leaves = merkle.model_leaves(LAYOUT, MODEL)
    assert len(leaves) == LAYOUT.unit_count + len(LAYOUT.tensors)
    base = merkle.root(leaves)
    for tensor in LAYOUT.tensors:
        for place in np.ndindex(tensor.shape):
            changed = {name: values.copy() for name, values in MODEL.items()}
            changed[tensor.name][place] += 1
            others = merkle.model_leaves(LAYOUT, changed)
            differ = [number for number, (one, other) in enumerate(zip(leaves, others, strict=True)) if one != other]
            owner = {"conv.weight": place[0], "conv.bias": place[0], "fc.weight": place[-1], "fc.bias": 5}[tensor.name]
            assert differ == [owner]
            assert merkle.root(others) != base


def test_leaves_hold_the_model_and_nan_stands_where_none_was_fetched() -> None:
    leaves = merkle.model_leaves(LAYOUT, MODEL)
    whole = merkle.model_of(LAYOUT, dict(enumerate(leaves)))
    assert all(np.array_equal(values, whole[name]) for name, values in MODEL.items())
    needed = merkle.leaves_of_units(LAYOUT, np.array([False, True]))
    part = merkle.model_of(LAYOUT, {number: leaves[number] for number in needed})
    missing = {name: np.argwhere(np.isnan(values)).tolist() for name, values in part.items()}
    assert missing == {
        "conv.weight": [[0, 0], [0, 1], [0, 2]],
        "conv.bias": [[0]],
        "fc.weight": [[0, 0], [1, 0]],
        "fc.bias": [],
    }
    assert all(
        np.array_equal(values[~np.isnan(values)], MODEL[name][~np.isnan(values)]) for name, values in part.items()
    )


def test_every_kind_of_float_comes_back_as_it_was() -> None:
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        layout = Layout((Tensor("v", (3,), dtype), Tensor("scalar", (), dtype)))
        model = {"v": np.array([0.5, -2.0, 1.25]), "scalar": np.array(4.0)}
        back = merkle.model_of(layout, dict(enumerate(merkle.model_leaves(layout, model))))
        assert all(np.array_equal(values, back[name]) for name, values in model.items())


@pytest.mark.parametrize(
    ("number", "problem", "change"),
    [
        (0, "shorter", lambda leaf: leaf[:-1]),
        (5, "shorter", lambda leaf: leaf[:-1]),
        (0, "longer", lambda leaf: leaf + b"!"),
        (4, "longer", lambda leaf: leaf + b"!"),
    ],
    ids=["unit cut", "tensor cut", "unit grown", "tensor without coordinates grown"],
)
def test_a_leaf_of_another_length_is_refused_even_if_it_is_under_the_root(
    number: int, problem: str, change: Callable[[bytes], bytes]
) -> None:
    fetched = dict(enumerate(merkle.model_leaves(LAYOUT, MODEL)))
    with pytest.raises(AgreementError, match=problem) as refused:
        merkle.model_of(LAYOUT, fetched | {number: change(fetched[number])})
    assert refused.value.culprits == (SERVER,)


def test_a_model_that_does_not_fit_the_layout_is_refused() -> None:
    with pytest.raises(LayoutMismatchError, match="other tensors"):
        merkle.model_leaves(LAYOUT, {"fc.bias": np.zeros(2)})
    with pytest.raises(LayoutMismatchError, match=r"conv\.bias has shape"):
        merkle.model_leaves(LAYOUT, MODEL | {"conv.bias": np.zeros(3)})
