"""What every attack has to pass: it finds what is there, nothing where nothing is, and looks at its view alone.

A test of an attack derives from one of the two contracts, and says how to make targets.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from attacks.attack import Attack, Distinguisher, Reconstruction, Threat, Trial
from attacks.measurement import Measurement, measure_distinguisher, measure_reconstruction

if TYPE_CHECKING:
    from collections.abc import Iterable

SURE = 0.01
"""Below this chance is ruled out."""


def leaves(value: object) -> Iterable[Any]:
    """Every array and number of a view, whatever it is made of."""
    if isinstance(value, torch.nn.Module):
        yield from leaves(value.state_dict())
    elif isinstance(value, torch.Tensor):
        yield value.detach().numpy()
    elif isinstance(value, dict):
        for one in value.values():
            yield from leaves(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from leaves(one)
    elif hasattr(value, "__dataclass_fields__"):
        yield from leaves([getattr(value, name) for name in value.__dataclass_fields__])
    elif isinstance(value, np.ndarray | int | float | bool):
        yield value


class Contract(ABC):
    """What holds for attacks of both kinds."""

    @abstractmethod
    def attack(self) -> Attack[Any, Any, Any]: ...

    @abstractmethod
    def leaking(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        """Trials whose views give the secret away."""

    @abstractmethod
    def silent(self, rng: np.random.Generator) -> list[Trial[Any, Any]]:
        """Trials whose views were made without the secret: what the attack sees does not depend on it."""

    @abstractmethod
    def measure(self, trials: list[Trial[Any, Any]]) -> Measurement: ...

    @pytest.fixture(autouse=True)
    def one_thread(self) -> Iterable[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)

    def test_it_says_what_it_is(self) -> None:
        attack = self.attack()
        assert attack.name
        assert isinstance(attack.threat, Threat)
        assert attack.source

    def test_nothing_but_its_view_is_passed_to_it(self) -> None:
        assert list(inspect.signature(self.attack().guess).parameters) == ["view", "rng"]

    def test_it_leaves_its_view_as_it_is_and_repeats_itself(self) -> None:
        trial = self.leaking(np.random.default_rng(1))[0]
        before = [np.array(leaf) for leaf in leaves(copy.deepcopy(trial.view))]
        assert before
        first = self.attack().guess(trial.view, np.random.default_rng(2))
        again = self.attack().guess(trial.view, np.random.default_rng(2))
        for left, kept in zip(leaves(trial.view), before, strict=True):
            np.testing.assert_array_equal(left, kept)
        for one, other in zip(leaves(first), leaves(again), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_it_finds_what_leaks(self) -> None:
        assert self.measure(self.leaking(np.random.default_rng(3))).p_value < SURE

    def test_it_finds_nothing_where_nothing_leaks(self) -> None:
        found = self.measure(self.silent(np.random.default_rng(4)))
        assert found.p_value > SURE
        assert found.trials > 0


class ReconstructionContract(Contract):
    """Of an attack that makes up what it cannot see."""

    @abstractmethod
    def attack(self) -> Reconstruction[Any, Any, Any]: ...

    def measure(self, trials: list[Trial[Any, Any]]) -> Measurement:
        return measure_reconstruction(self.attack(), trials, np.random.default_rng(5), "guesses that are right")


class DistinguisherContract(Contract):
    """Of an attack that answers yes or no."""

    @abstractmethod
    def attack(self) -> Distinguisher[Any]: ...

    def measure(self, trials: list[Trial[Any, Any]]) -> Measurement:
        return measure_distinguisher(self.attack(), trials, np.random.default_rng(5), "answers")
