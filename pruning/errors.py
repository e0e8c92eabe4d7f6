"""Errors of submodels, branches of the one tree in ``secagg.errors``."""

from __future__ import annotations

from secagg.errors import InputError, ParameterError


class UnsupportedModelError(ParameterError):
    """The units of a model cannot be found, or the units found do not make an equal smaller model."""


class NotASubmodelError(InputError):
    """No smaller module holds exactly the coordinates of a mask."""
