"""The error tree tells a caller who has to act."""

from __future__ import annotations

import pytest

from secagg import errors

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
FAMILIES = (
    errors.ParameterError,
    errors.InputError,
    errors.LocalProtocolError,
    errors.RemoteProtocolError,
    errors.AbortError,
)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_a_secagg_error_of_exactly_one_family(kind: type[errors.SecAggError]) -> None:
    assert issubclass(kind, errors.SecAggError)
    families = [family for family in FAMILIES if issubclass(kind, family)]
    assert len(families) == (kind is not errors.SecAggError)


def test_culprits_are_kept_as_a_tuple_and_none_by_default() -> None:
    assert errors.ShareError("bad", culprits=iter([3, "alice"])).culprits == (3, "alice")
    assert errors.ShareError("bad").culprits == ()


def test_the_message_is_the_text_of_the_error() -> None:
    assert str(errors.AbortError("too few", culprits=[1])) == "too few"


@pytest.mark.parametrize("kind", [errors.ParameterError, errors.InputError, errors.WeightError])
def test_wrong_settings_and_inputs_are_value_errors_too(kind: type[errors.SecAggError]) -> None:
    assert issubclass(kind, ValueError)
