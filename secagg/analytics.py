"""Statistics over clients: a mean, a histogram, a quantile, with or without differential privacy.

Each question is a session of its own, or a few. A question says what a client contributes (``update``), how the sums
are read (``read``) and which settings the session needs (``params``), so that it can be asked of ``Client`` and
``Server`` too; ``mean``, ``histogram`` and ``quantile`` ask it in memory, as ``secagg.simulate`` does.

What a client contributes is bounded whatever its value is: one outside the range counts as the nearest one inside. With
a ``PrivacyBudget`` the bound is the sensitivity, and the answer is noisy; its ``clip`` is not used.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from secagg.errors import InputError, NotFiniteError, ParameterError
from secagg.layout import Layout, Tensor
from secagg.params import Params
from secagg.privacy.events import Event
from secagg.privacy.ledger import PrivacyLedger
from secagg.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from secagg.aggregate import Aggregate
    from secagg.privacy.budget import PrivacyBudget
    from secagg.simulate import Result

Value = TypeVar("Value")

MOST_STEPS = 40
"""Of a bisection: beyond, halves of an interval may be equal in floating point."""

_NAME = "answer"


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """What came of a question.

    Args:
        value: The statistic.
        clients: How many clients it is about, those of the last session if there were several.
        epsilon: What each of them spent at the budget's delta; None without a budget, when nothing is guaranteed
            beyond what a sum hides.
        verdict: Who learned what, a sentence a session.
    """

    value: Value
    clients: int
    epsilon: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Question(ABC):
    """What is asked of every client in one session."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """Of what a client contributes."""

    @property
    @abstractmethod
    def bound(self) -> float:
        """Largest magnitude of one number of it."""

    @property
    @abstractmethod
    def norm(self) -> float:
        """Largest L2 norm of it."""

    @abstractmethod
    def numbers(self, value: Any) -> NDArray[np.float64]:
        """What a client with this value contributes, (layout.size,) float64."""

    def update(self, value: Any) -> dict[str, NDArray[np.float64]]:
        """The same as ``Client.masked_input`` takes it.

        Raises:
            InputError: A value that is none.
        """
        return {_NAME: self.numbers(value)}

    def params(
        self, params: Params | None = None, budget: PrivacyBudget | None = None, *, clients: int, sessions: int = 1
    ) -> Params:
        """The settings of its session.

        Args:
            params: Thresholds and adversary; values are encoded as the question needs it.
            budget: What all sessions together may cost a client.
            clients: Clients that take part.
            sessions: How many sessions share the budget.

        Raises:
            ParameterError: No noise is enough.
        """
        own = replace(
            params or Params(), value_range=self.bound, out_of_range="refuse", exact_denominators=False, privacy=None
        )
        if budget is None:
            return own
        bounded = replace(budget, clip=self.norm)
        return replace(
            own, privacy=bounded.privacy(own, rounds=sessions, clients=clients, coordinates=self.layout.size)
        )


@dataclass(frozen=True, kw_only=True)
class Mean(Question):
    """The mean of a number, or of each number of a vector.

    Args:
        low: Smallest value that counts as it is. Public.
        high: Largest one.
        size: Numbers of a client.

    Raises:
        ParameterError: An empty range, or no number.
    """

    low: float
    high: float
    size: int = 1

    def __post_init__(self) -> None:
        _check_range(self.low, self.high)
        if self.size < 1:
            raise ParameterError(f"size must be at least 1, not {self.size}")

    @property
    def layout(self) -> Layout:
        """A number for each."""
        return Layout((Tensor(_NAME, (self.size,)),))

    @property
    def bound(self) -> float:
        """Half of the range: numbers are taken from its middle."""
        return (self.high - self.low) / 2

    @property
    def norm(self) -> float:
        """Of a vector in a corner."""
        return self.bound * math.sqrt(self.size)

    def numbers(self, value: ArrayLike) -> NDArray[np.float64]:
        """The distances from the middle of the range."""
        own = np.asarray(value, np.float64).reshape(-1)
        if own.shape != (self.size,):
            raise InputError(f"a value must have {self.size} numbers, not {own.size}")
        if np.isnan(own).any():
            raise NotFiniteError("a value is NaN")
        return np.clip(own, self.low, self.high) - (self.low + self.high) / 2

    def read(self, aggregate: Aggregate) -> NDArray[np.float64]:
        """The mean over the survivors, (size,) float64."""
        return aggregate.mean + (self.low + self.high) / 2


@dataclass(frozen=True, kw_only=True)
class Histogram(Question):
    """How many clients there are in each bin; beyond the outer edges count the outer bins.

    Args:
        edges: Ascending, one more than bins: [edge, next edge). Public.

    Raises:
        ParameterError: No bin, or edges that do not ascend.
    """

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        inner = np.asarray(self.edges, np.float64)
        if len(inner) < 2 or not np.isfinite(inner).all() or (np.diff(inner) <= 0).any():
            raise ParameterError("edges must be at least two finite numbers that ascend")

    @property
    def layout(self) -> Layout:
        """A number for each bin."""
        return Layout((Tensor(_NAME, (len(self.edges) - 1,)),))

    @property
    def bound(self) -> float:
        """A client counts once."""
        return 1.0

    @property
    def norm(self) -> float:
        """A client counts in one bin."""
        return 1.0

    def numbers(self, value: float) -> NDArray[np.float64]:
        """A one in its bin."""
        if math.isnan(value):
            raise NotFiniteError("a value is NaN")
        counted = np.zeros(self.layout.size)
        counted[min(max(int(np.searchsorted(self.edges, value, side="right")) - 1, 0), len(counted) - 1)] = 1
        return counted

    def read(self, aggregate: Aggregate) -> NDArray[np.float64]:
        """The counts, (bins,) float64: whole numbers without noise; with it, fractions, and some negative."""
        counted = aggregate.sum
        return counted if aggregate.event is not None else np.rint(counted)


def mean(
    values: Mapping[Hashable, ArrayLike],
    low: float,
    high: float,
    *,
    params: Params | None = None,
    budget: PrivacyBudget | None = None,
    seed: bytes | int | None = None,
) -> Answer[NDArray[np.float64]]:
    """The mean over clients.

    Args:
        values: Client to its number, or numbers, as many for all.
        low: Smallest value that counts as it is. Public: never choose the range from the values.
        high: Largest one.
        params: The settings.
        budget: Differential privacy.
        seed: Makes the run repeatable, secrets included: for simulations only.

    Returns:
        The mean, (numbers of a client,) float64.

    Raises:
        InputError: No client, or values of different lengths.
        ParameterError: Settings that contradict each other, or a budget that no noise keeps.
        TooFewClientsError: Fewer clients than the settings ask for.
    """
    sizes = {np.asarray(value).size for value in values.values()}
    question = Mean(low=low, high=high, size=max(sizes, default=1))
    return _answered(question, values, _settings(question, values, params, budget), seed)


def histogram(
    values: Mapping[Hashable, float],
    edges: Sequence[float],
    *,
    params: Params | None = None,
    budget: PrivacyBudget | None = None,
    seed: bytes | int | None = None,
) -> Answer[NDArray[np.float64]]:
    """How many clients have a value in each bin.

    Args:
        values: Client to its number.
        edges: As ``Histogram``.
        params: The settings.
        budget: Differential privacy.
        seed: Makes the run repeatable, secrets included: for simulations only.

    Returns:
        The counts, (bins,) float64.

    Raises:
        InputError: No client, or a value that is NaN.
        ParameterError: As ``mean``.
        TooFewClientsError: As ``mean``.
    """
    question = Histogram(edges=tuple(map(float, edges)))
    return _answered(question, values, _settings(question, values, params, budget), seed)


def quantile(
    values: Mapping[Hashable, float],
    share: float,
    low: float,
    high: float,
    *,
    steps: int = 10,
    params: Params | None = None,
    budget: PrivacyBudget | None = None,
    seed: bytes | int | None = None,
) -> Answer[float]:
    """The value that a share of the clients is below, by bisection: each step is a count on either side of a threshold.

    The answer is the middle of an interval of ``(high - low) / 2^steps`` in which the quantile lies; with noise it is
    off where a count is. All thresholds and counts are public.

    Args:
        values: Client to its number.
        share: Of the clients, in (0, 1): .5 for the median.
        low: Smallest value that is looked for. Public.
        high: Largest one.
        steps: How often the interval is halved: sessions, which share the budget.
        params: The settings.
        budget: Differential privacy.
        seed: Makes the run repeatable, secrets included: for simulations only.

    Raises:
        InputError: No client, or a value that is NaN.
        ParameterError: As ``mean``, or ``share`` or ``steps`` is outside its domain.
        TooFewClientsError: As ``mean``.
    """
    _check_range(low, high)
    if not 0 < share < 1 or not 1 <= steps <= MOST_STEPS:
        raise ParameterError(f"share must be in (0, 1), and steps from 1 to {MOST_STEPS}")
    start, end, verdicts, events = low, high, list[str](), list[Event]()
    for step in range(steps):
        middle = (start + end) / 2
        question = Histogram(edges=(start, middle, end))
        settings = _settings(question, values, params, budget, steps)
        (below, _), result = _asked(question, values, settings, None if seed is None else repr((seed, step)).encode())
        start, end = (start, middle) if below >= share * len(result.survivors) else (middle, end)
        verdicts.append(result.verdict)
        events += [] if result.aggregate.event is None else [result.aggregate.event]
    epsilon = _spent(events, settings)
    return Answer((start + end) / 2, len(result.survivors), epsilon, " ".join(dict.fromkeys(verdicts)))


def _settings(
    question: Question,
    values: Mapping[Hashable, Any],
    params: Params | None,
    budget: PrivacyBudget | None,
    sessions: int = 1,
) -> Params:
    if not values:
        raise InputError("values holds no client")
    return question.params(params, budget, clients=len(values), sessions=sessions)


def _answered(
    question: Mean | Histogram, values: Mapping[Hashable, Any], settings: Params, seed: bytes | int | None
) -> Answer[NDArray[np.float64]]:
    value, result = _asked(question, values, settings, seed)
    events = () if result.aggregate.event is None else (result.aggregate.event,)
    return Answer(value, len(result.survivors), _spent(events, settings), result.verdict)


def _asked(
    question: Mean | Histogram, values: Mapping[Hashable, Any], settings: Params, seed: bytes | int | None
) -> tuple[NDArray[np.float64], Result]:
    """Plays one session."""
    result = simulate({client: question.update(value) for client, value in values.items()}, params=settings, seed=seed)
    return question.read(result.aggregate), result


def _spent(events: Iterable[Event], settings: Params) -> float | None:
    if settings.privacy is None:
        return None
    ledger = PrivacyLedger()
    for event in events:
        ledger.record(event)
    return ledger.epsilon(settings.privacy.delta)


def _check_range(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ParameterError(f"low must be below high, and both finite, not {low} and {high}")
