"""Submodels for slow clients: which units a model has, which of them to keep, and the smaller module that results."""

from pruning.clip import invariant_mask, largest_relative_change, relative_norm
from pruning.cost import Cost, SubmodelCosts, cost_of, keep_for_budget
from pruning.errors import NotASubmodelError, UnsupportedModelError
from pruning.masks import Mask, keep_units, ordered_units, random_units
from pruning.submodel import extract, gather, scatter
from pruning.units import Units, find_units

__all__ = [
    "Cost",
    "Mask",
    "NotASubmodelError",
    "SubmodelCosts",
    "Units",
    "UnsupportedModelError",
    "cost_of",
    "extract",
    "find_units",
    "gather",
    "invariant_mask",
    "keep_for_budget",
    "keep_units",
    "largest_relative_change",
    "ordered_units",
    "random_units",
    "relative_norm",
    "scatter",
]
