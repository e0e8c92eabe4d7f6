"""Hypothesis strategies for sessions: layouts, masks, settings, dropouts, and everything together.

What a mask holds is worked out here, from names and unit numbers, not by ``secagg.declaration``: the tests compare the
two.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from secagg import declaration
from secagg.declaration import Declaration, Provenance
from secagg.driver import Contribution, Stage
from secagg.layout import NO_UNIT, Layout, Tensor
from secagg.params import Mode, Params
from secagg.prg import SeededEntropy
from secagg.session import CountedCoverage, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hypothesis.strategies import DrawFn, SearchStrategy
    from numpy.typing import NDArray

LEVELS = {16: 2**9, 24: 2**16, 32: 2**26, 64: 2**40}
"""Ring width to levels that need it, for 3 to 12 clients."""

GRID = 2**10
"""Values are multiples of value_range / GRID where the ring is so wide that float64 has to be exact on few bits."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask as a client gives it, and the coordinates that it holds, (layout.size,) bool."""

    given: Declaration | NDArray[np.bool_] | None
    held: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Scenario:
    """A session with everything that its clients bring, and when they leave."""

    session: Session
    contributions: Mapping[int, Contribution]
    masks: Mapping[int, Mask]
    last_stage: Mapping[int, Stage]
    seed: int

    @property
    def entropy_of(self) -> Callable[[int | None], Callable[[int], bytes]]:
        """Repeatable randomness for every party."""
        sources: dict[int | None, SeededEntropy] = {}
        return lambda id_: sources.setdefault(id_, SeededEntropy(f"{self.seed}/{id_}".encode()))

    def completed(self, stage: Stage) -> list[int]:
        """Clients that complete a stage, ascending."""
        return [id_ for id_ in sorted(self.contributions) if self.last_stage.get(id_, Stage.UNMASK) >= stage]


@st.composite
def plain_layouts(draw: DrawFn) -> Layout:
    """One to four tensors without units, scalars and empty tensors among them."""
    shapes = draw(
        st.lists(
            st.lists(st.integers(0, 4), max_size=3).map(tuple).filter(lambda shape: int(np.prod(shape)) <= 24),
            min_size=1,
            max_size=4,
        ).filter(lambda shapes: any(np.prod(shape) > 0 for shape in shapes))
    )
    names = ["conv.weight", "conv.bias", "head.weight", "scale"]
    return Layout(tuple(Tensor(name, shape) for name, shape in zip(names, shapes, strict=False)))


@st.composite
def unit_layouts(draw: DrawFn) -> Layout:
    """Two hidden layers of prunable units; a weight between them belongs to two units, some slices to none."""
    inputs, first, second, outputs = (draw(st.integers(1, 3)) for _ in range(4))
    one = [*range(first - 1), draw(st.sampled_from([NO_UNIT, first - 1]))]
    two = list(range(first, first + second))
    return Layout(
        (
            Tensor("fc1.weight", (first, inputs), unit_axes={0: tuple(one)}),
            Tensor("fc1.bias", (first,), unit_axes={0: tuple(one)}),
            Tensor("fc2.weight", (second, first), unit_axes={0: tuple(two), 1: tuple(one)}),
            Tensor("fc2.bias", (second,), unit_axes={0: tuple(two)}),
            Tensor("fc3.weight", (outputs, second), unit_axes={1: tuple(two)}),
            Tensor("fc3.bias", (outputs,)),
        ),
        {"fc1": first, "fc2": second},
    )


def layouts() -> SearchStrategy[Layout]:
    """A layout, with units or without."""
    return st.one_of(plain_layouts(), unit_layouts())


def layer_mask(layout: Layout, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Coordinates of the chosen layers, tensor by tensor."""
    kept = {layer for layer, keep in zip(layout.layers, chosen, strict=True) if keep}
    return np.concatenate([np.full(tensor.size, tensor.layer in kept) for tensor in layout.tensors])


def unit_mask(layout: Layout, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Coordinates whose every unit is chosen, one at a time."""
    held = []
    for tensor in layout.tensors:
        for index in itertools.product(*map(range, tensor.shape)):
            units = [tensor.unit_axes[axis][index[axis]] for axis in tensor.unit_axes]
            held.append(all(unit == NO_UNIT or chosen[unit] for unit in units))
    return np.array(held, bool)


def bits(count: int) -> SearchStrategy[NDArray[np.bool_]]:
    """A vector of ``count`` bools, mostly true."""
    return st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random(count) < 0.7)


@st.composite
def mask_of(draw: DrawFn, layout: Layout) -> Mask:
    """A mask of any kind: none, full, by layer, by unit, or by coordinate."""
    kinds = ["none", "full", "layers", "coordinates"] + ["units"] * bool(layout.unit_count)
    provenance = draw(st.sampled_from(Provenance))
    match draw(st.sampled_from(kinds)):
        case "none":
            return Mask(None, np.ones(layout.size, bool))
        case "full":
            return Mask(Declaration("full", b"", provenance), np.ones(layout.size, bool))
        case "layers":
            layers = draw(bits(len(layout.layers)))
            return Mask(declaration.of_layers(layout, layers, provenance), layer_mask(layout, layers))
        case "units":
            units = draw(bits(layout.unit_count))
            return Mask(declaration.of_units(layout, units, provenance), unit_mask(layout, units))
        case _:
            held = draw(bits(layout.size))
            return Mask(held, held)


@st.composite
def masks_of(draw: DrawFn, layout: Layout, clients: list[int]) -> dict[int, Mask]:
    """A mask for each client; often several clients share one, so that groups of equal masks get large."""
    pool = draw(st.lists(mask_of(layout), min_size=1, max_size=4))
    if draw(st.booleans()):
        return {client: draw(st.sampled_from(pool)) for client in clients}
    return {client: draw(mask_of(layout)) for client in clients}


@st.composite
def params_of(draw: DrawFn, /, layout: Layout, clients: int, **fixed: Any) -> Params:
    """Settings; value ranges and max_weight are powers of two, so that a test can encode exactly."""
    powers = st.sampled_from([0.125, 1.0, 4.0])
    by_name = draw(st.booleans())
    corrupt = draw(st.sampled_from([0, 0, 0, 1]))
    threshold = draw(st.sampled_from([None, None, None, 2, 3]))
    settings: dict[str, Any] = {
        "min_cohort": draw(st.integers(2, max(2, clients // 2))),
        "max_dropouts": draw(st.none() | st.integers(0, 4)),
        "corrupt": corrupt,
        "participation": draw(st.sampled_from([0.0, 0.0, 0.5, 0.7])),
        "value_range": {layout.tensors[0].name: draw(powers), "*": draw(powers)} if by_name else draw(powers),
        "levels": draw(st.sampled_from([4, *LEVELS.values()])),
        "out_of_range": draw(st.sampled_from(["refuse", "saturate"])),
        "max_weight": draw(st.sampled_from([0.5, 1.0, 64.0])),
        "weighting": draw(st.sampled_from(["hidden", "public", "average"])),
        "share_threshold": threshold and max(threshold, corrupt + 1),
        "adversary": draw(st.sampled_from(["semi-honest", "semi-honest", "active"])),
    }
    return Params(**(settings | fixed))


@st.composite
def weights_of(draw: DrawFn, params: Params) -> float:
    """A weight that does not round to zero: a multiple of max_weight / 256."""
    least = 129 if params.magnitude < 256 else 1
    return draw(st.integers(least, 256)) / 256 * params.max_weight


def updates_of(layout: Layout, params: Params, held: NDArray[np.bool_], seed: int) -> dict[str, NDArray[Any]]:
    """An update: values on a grid or of full float32 precision, beyond the range too, and rubbish outside the mask."""
    rng = np.random.default_rng(seed)
    update = {}
    for tensor, place in layout.slices():
        limit = params.range_of(tensor.name)
        values = limit * rng.integers(-GRID, GRID + 1, tensor.size) / GRID
        if params.levels <= LEVELS[32] and rng.random() < 0.5:
            values = rng.uniform(-limit, limit, tensor.size).astype(np.float32).astype(np.float64)
        if params.out_of_range == "saturate" and rng.random() < 0.5:
            values *= 2
        rubbish = rng.choice([np.nan, np.inf, -1e30, 0.0], tensor.size)
        values = np.where(held[place], values, rubbish)
        update[tensor.name] = values.astype(rng.choice(["f4", "f8"])).reshape(tensor.shape)
    return update


def dropouts_of(clients: list[int]) -> SearchStrategy[dict[int, Stage]]:
    """Who drops out, and after which stage; half of the time nobody or few."""
    few = st.dictionaries(st.sampled_from(clients), st.sampled_from(Stage), max_size=max(1, len(clients) // 4))
    return few | st.dictionaries(st.sampled_from(clients), st.sampled_from(Stage), max_size=len(clients))


MODES: tuple[Mode, ...] = ("uniform", "mask-indexed")


@st.composite
def scenarios(
    draw: DrawFn,
    /,
    mode: Mode | None = None,
    clients: tuple[int, int] = (3, 12),
    *,
    weighted: bool | None = None,
    **fixed: Any,
) -> Scenario:
    """A session of either mode, with masks, weights and dropouts of every kind.

    Args:
        draw: Given by hypothesis.
        mode: The mode, or None for either.
        clients: Fewest and most clients.
        weighted: Whether clients bring weights, or None for either.
        fixed: Settings of ``Params`` that are not drawn.
    """
    layout = draw(layouts())
    count = draw(st.integers(*clients))
    ids = draw(
        st.sampled_from([list(range(count)), [7 + 3 * k for k in range(count)], [2**63 - 1 - k for k in range(count)]])
    )
    drawn: Mode = draw(st.sampled_from(MODES)) if mode is None else mode
    weighted = draw(st.booleans()) if weighted is None else weighted
    if drawn == "uniform":
        weightings = ["hidden", "average"] if weighted else ["hidden", "public", "average"]
        fixed = {"weighting": draw(st.sampled_from(weightings)), "exact_denominators": draw(st.booleans())} | fixed
    params = draw(params_of(layout, count, **fixed))
    masks = draw(masks_of(layout, ids))
    counted = None
    if drawn == "uniform":
        if not params.active and draw(st.booleans()):  # an active server could forge the counts
            slack = draw(st.integers(0, 1))
            least = np.sum([mask.held for mask in masks.values()], axis=0) - slack
            counted = CountedCoverage(frozenset(ids), np.maximum(least, 0).astype(np.int32))
        else:
            masks = {id_: Mask(None, np.ones(layout.size, bool)) for id_ in ids}
    seed = draw(st.integers(0, 2**32 - 1))
    contributions = {
        id_: Contribution(
            updates_of(layout, params, masks[id_].held, seed + place),
            masks[id_].given,
            draw(weights_of(params)) if weighted else None,
        )
        for place, id_ in enumerate(ids)
    }
    session = Session(
        id=seed.to_bytes(16, "big"), params=params, layout=layout, mode=drawn, weighted=weighted, counted=counted
    )
    return Scenario(session, contributions, masks, draw(dropouts_of(ids)), seed)
