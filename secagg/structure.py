"""Between the tensors of somebody's training loop and the named arrays of a layout.

Accepts a dict or state_dict, a list or tuple, or one array; leaves may be numpy arrays or PyTorch tensors on any
device. PyTorch is never imported: where it is in use, it already is.
"""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg.errors import InputError, LayoutMismatchError
from secagg.layout import Layout, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

FLOATS = ("float16", "bfloat16", "float32", "float64")
"""Types that are aggregated."""

SINGLE = "array"
"""Name of the tensor where the whole update is one array."""


@dataclass(frozen=True)
class Leaf:
    """What is remembered of one tensor: enough to make another like it."""

    shape: tuple[int, ...]
    dtype: str
    like: Any

    @property
    def aggregated(self) -> bool:
        """Whether it holds floating-point numbers; integer buffers stay as they are."""
        return self.dtype in FLOATS


class Structure:
    """The shape of one client's update, and of everything that is returned in that shape.

    Args:
        example: One client's update.
        ties: Names to the earlier name whose memory they share; such tensors are aggregated once.

    Raises:
        InputError: Not one of the forms above, or nothing in it is floating point.
    """

    def __init__(self, example: object, ties: Mapping[str, str] | None = None) -> None:
        self._kind = _kind_of(example)
        self._keys = {str(key): key for key in example} if isinstance(example, Mapping) else {}
        self.leaves = {name: _leaf(name, value) for name, value in named_leaves(example).items()}
        self.ties = dict(ties or {})
        self.unchanged = tuple(name for name, leaf in self.leaves.items() if not leaf.aggregated)
        if len(self.unchanged) == len(self.leaves):
            raise InputError("nothing to aggregate: no tensor holds floating-point numbers")

    @classmethod
    def common(cls, updates: Iterable[object]) -> Structure:
        """The structure of the first update, with the ties that all of them have."""
        updates = list(updates)
        ties = [set(ties_in(update).items()) for update in updates]
        return cls(updates[0], dict(set.intersection(*ties)))

    @property
    def layout(self) -> Layout:
        """The layout of what is aggregated, without units."""
        return Layout(tuple(Tensor(name, leaf.shape, leaf.dtype) for name, leaf in self._distinct().items()))

    def arrays(self, update: object, whose: object) -> dict[str, NDArray[np.floating[Any]]]:
        """The aggregated tensors of an update as numpy arrays, without a copy where there is one in memory.

        Raises:
            LayoutMismatchError: Names, shapes or dtypes differ from the example's; ``culprits`` names the client.
        """
        named = self.named(update, whose)
        for name, value in named.items():
            leaf, found = self.leaves[name], _leaf(name, value)
            if (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
                raise LayoutMismatchError(
                    f"{name} of client {whose} is {found.dtype}{list(found.shape)}, that of the first client "
                    f"{leaf.dtype}{list(leaf.shape)}",
                    culprits=[whose],
                )
        return {name: _to_numpy(named[name]) for name in self._distinct()}

    def build(
        self, aggregated: Mapping[str, NDArray[Any]], unchanged: Callable[[str], Any], dtype: str | None = None
    ) -> Any:
        """A structure like the example's.

        Args:
            aggregated: Name to values, for the aggregated tensors.
            unchanged: Name to the leaf to put where nothing is aggregated.
            dtype: ``"bool"`` or ``"int32"`` for all aggregated leaves; None for the dtype of each.
        """
        leaves: dict[str, Any] = {}
        for name, leaf in self.leaves.items():
            if name in self.ties:
                leaves[name] = leaves[self.ties[name]]
            elif leaf.aggregated:
                leaves[name] = _like(leaf, aggregated[name], dtype or leaf.dtype)
            else:
                leaves[name] = unchanged(name)
        match self._kind:
            case "mapping":
                return {self._keys[name]: leaf for name, leaf in leaves.items()}
            case "array":
                return leaves[SINGLE]
            case "list":
                return list(leaves.values())
            case _:
                return tuple(leaves.values())

    def moved(self, state: object, steps: Mapping[str, NDArray[np.float64]]) -> Any:
        """A state plus a step; a copy of whatever is not aggregated.

        Args:
            state: In the form of the example.
            steps: Name to the change, for the aggregated tensors.

        Raises:
            LayoutMismatchError: The state has other names or shapes.
        """
        named, before = self.named(state, "start"), self.arrays(state, "start")
        after = {name: values.astype(np.float64) + steps[name] for name, values in before.items()}
        return self.build(after, lambda name: copy.deepcopy(named[name]))

    def zeros(self, name: str, dtype: str | None = None) -> Any:
        """A leaf of zeros like the named one."""
        leaf = self.leaves[name]
        return _like(leaf, np.zeros(leaf.shape), dtype or leaf.dtype)

    def named(self, value: object, whose: object) -> dict[str, Any]:
        """The leaves of a structure by name.

        Raises:
            LayoutMismatchError: Its form or its names are not the example's.
        """
        if _kind_of(value) != self._kind:
            raise LayoutMismatchError(
                f"client {whose} brings a {_kind_of(value)}, the first client a {self._kind}", culprits=[whose]
            )
        named = named_leaves(value)
        odd = set(named).symmetric_difference(self.leaves)
        if odd:
            raise LayoutMismatchError(
                f"client {whose} and the first client differ in {', '.join(sorted(odd))}", culprits=[whose]
            )
        return named

    def _distinct(self) -> dict[str, Leaf]:
        return {name: leaf for name, leaf in self.leaves.items() if leaf.aggregated and name not in self.ties}


def mask_vector(layout: Layout, mask: object, whose: object) -> NDArray[np.bool_]:
    """A structure of bools as one vector over the layout, (layout.size,) bool.

    Leaves for tensors that the layout does not aggregate (integer buffers, second names of tied parameters) may be
    there and are ignored.

    Raises:
        LayoutMismatchError: A tensor is missing, has another shape, or is not boolean; ``culprits`` names the client.
    """
    named = named_leaves(mask)
    parts = [np.zeros(0, bool)]
    for tensor in layout.tensors:
        if tensor.name not in named:
            raise LayoutMismatchError(f"the mask of client {whose} lacks {tensor.name}", culprits=[whose])
        values = _to_numpy(named[tensor.name])
        if values.dtype != np.bool_ or values.shape != tensor.shape:
            raise LayoutMismatchError(
                f"the mask of {tensor.name} of client {whose} is {values.dtype}{list(values.shape)}, "
                f"not bool{list(tensor.shape)}",
                culprits=[whose],
            )
        parts.append(values.reshape(-1))
    return np.concatenate(parts)


def ties_in(update: object) -> dict[str, str]:
    """Names whose tensor shares its memory with an earlier one, to that earlier name (tied parameters)."""
    first: dict[object, str] = {}
    ties = {}
    for name, value in named_leaves(update).items():
        if 0 in value.shape:
            continue
        place = (value.data_ptr(), value.stride()) if _is_torch(value) else (value.ctypes.data, value.strides)
        earlier = first.setdefault((place, tuple(value.shape), str(value.dtype)), name)
        if earlier != name:
            ties[name] = earlier
    return ties


def same_memory(one: Any, other: Any) -> bool:
    """Whether two tensors of the same kind start at the same place in memory."""
    if _is_torch(one) and _is_torch(other):
        return bool(one.data_ptr() == other.data_ptr())
    return not _is_torch(one) and not _is_torch(other) and np.shares_memory(one, other)


def state_of(model_or_state: object) -> Any:
    """The state_dict of a module; anything else as it is."""
    state_dict = getattr(model_or_state, "state_dict", None)
    return model_or_state if state_dict is None else state_dict()


def _kind_of(value: object) -> str:
    if isinstance(value, Mapping):
        return "mapping"
    if isinstance(value, (list, tuple)):
        return "list" if isinstance(value, list) else "tuple"
    if _is_torch(value) or isinstance(value, np.ndarray):
        return "array"
    raise InputError(
        "an update is a dict of arrays or tensors, a state_dict, a list of arrays, or one array, "
        f"not {type(value).__name__}"
    )


def named_leaves(value: Any) -> dict[str, Any]:
    """The leaves of a structure by name: keys, or positions.

    Raises:
        InputError: Not one of the accepted forms.
    """
    match _kind_of(value):
        case "mapping":
            named = {str(name): leaf for name, leaf in value.items()}
            if len(named) != len(value):
                twice = [str(key) for key, times in Counter(map(str, value)).items() if times > 1]
                raise InputError(f"different keys of an update read alike: {', '.join(twice)}")
        case "array":
            named = {SINGLE: value}
        case _:
            named = {str(index): leaf for index, leaf in enumerate(value)}
    for name, leaf in named.items():
        if not (_is_torch(leaf) or isinstance(leaf, np.ndarray)):
            raise InputError(f"{name} is neither a numpy array nor a PyTorch tensor but {type(leaf).__name__}")
    return named


def _leaf(name: str, value: Any) -> Leaf:
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in FLOATS and not dtype.startswith(("int", "uint", "bool")):
        raise InputError(f"{name} holds {dtype}, which cannot be aggregated")
    return Leaf(tuple(value.shape), dtype, value)


def _is_torch(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _to_numpy(value: Any) -> NDArray[Any]:
    if not _is_torch(value):
        return np.asarray(value)
    value = value.detach().cpu()
    if str(value.dtype) == "torch.bfloat16":
        value = value.float()
    return np.asarray(value.numpy())


def _like(leaf: Leaf, values: NDArray[Any], dtype: str) -> Any:
    if not _is_torch(leaf.like):
        with np.errstate(over="ignore"):  # a float16 sum may well be infinite
            return np.asarray(values).astype(dtype).reshape(leaf.shape)
    torch = sys.modules["torch"]
    values = np.ascontiguousarray(values).reshape(leaf.shape)
    return torch.from_numpy(values).to(device=leaf.like.device, dtype=getattr(torch, dtype), copy=True)
