from __future__ import annotations

from functools import cache

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from protocols.models import char_lstm
from pruning import Mask, extract, find_units, gather, keep_units, ordered_units, scatter
from secagg import declaration
from secagg.layout import Layout

Case = tuple[nn.Module, torch.Tensor, Layout]


class Mixed(nn.Module):
    """Convolution, normalisations, a residual sum, a depthwise convolution and a flattening in one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.inner = nn.Conv2d(6, 8, 1)
        self.groups = nn.GroupNorm(4, 8)
        self.outer = nn.Conv2d(8, 6, 1, bias=False)
        self.dense = nn.Linear(6 * 4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.outer(torch.relu(self.groups(self.inner(self.depthwise(x)))))
        logits: torch.Tensor = self.head(torch.relu(self.dense(x.flatten(1))))
        return logits


@cache
def mixed() -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = Mixed(), torch.randn(3, 2, 2, 2)
        model(x)  # moves the running statistics away from 0 and 1
    return model.eval(), x, find_units(model, x).layout


@cache
def language() -> Case:
    model = char_lstm(5, embedding=3, hidden=4).eval()
    tokens = torch.tensor([[0, 1, 2], [3, 4, 0]])
    return model, tokens, find_units(model, tokens).layout


@st.composite
def unit_masks(draw: st.DrawFn, layout: Layout) -> Mask:
    """Any units, at least one of each group."""
    held = np.array(draw(st.lists(st.booleans(), min_size=layout.unit_count, max_size=layout.unit_count)))
    for group in layout.unit_groups:
        units = layout.units_of(group)
        held[draw(st.sampled_from(units))] = True
    return Mask.of_units(layout, held)


@given(st.data())
def test_any_submodel_computes_what_the_masked_model_computes(data: st.DataObject) -> None:
    model, x, layout = data.draw(st.sampled_from([mixed, language]))()
    mask = data.draw(unit_masks(layout))
    state = model.state_dict()
    masked = {name: state[name] * torch.from_numpy(held) for name, held in mask.by_tensor().items()}
    with torch.no_grad():
        expected = torch.func.functional_call(model, masked, (x,))
        torch.testing.assert_close(extract(model, mask)(x), expected, rtol=1e-4, atol=1e-5)


@given(st.data())
def test_scatter_and_gather_undo_each_other(data: st.DataObject) -> None:
    model, _, layout = mixed()
    mask = data.draw(unit_masks(layout))
    state = model.state_dict()
    small = gather(state, mask)
    assert sum(tensor.numel() for tensor in small.values()) == round(mask.density * layout.size)
    full = scatter(small, mask)
    for name, held in mask.by_tensor().items():
        assert torch.equal(full[name], state[name] * torch.from_numpy(held))
    again = gather(full, mask)
    assert all(torch.equal(again[name], small[name]) for name in small)


@given(st.data())
def test_a_mask_survives_its_declaration(data: st.DataObject) -> None:
    _, _, layout = mixed()
    mask = data.draw(unit_masks(layout))
    declared = mask.declaration()
    assert len(declared.data) == -(-layout.unit_count // 8)
    held = declaration.expand(layout, declared)
    again = Mask.of_coordinates(layout, held, declared.provenance)
    assert np.array_equal(again.coordinates, mask.coordinates)


@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_ordered_masks_are_nested(one: float, other: float) -> None:
    _, _, layout = mixed()
    smaller, larger = ordered_units(layout, min(one, other)), ordered_units(layout, max(one, other))
    assert not (smaller.coordinates & ~larger.coordinates).any()


@given(st.floats(0.01, 1), st.data())
def test_no_dropped_unit_scores_above_a_kept_one_of_its_group(keep: float, data: st.DataObject) -> None:
    _, _, layout = mixed()
    count = layout.unit_count
    scores = np.array(data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)))
    held = keep_units(layout, scores, keep).held
    for group in layout.unit_groups:
        units = np.array(layout.units_of(group))
        kept, dropped = units[held[units]], units[~held[units]]
        assert len(kept) >= 1
        assert scores[kept].min() >= scores[dropped].max(initial=0)
