"""Which strategies need no more than the mean of the updates, and what they are handed instead of single replies."""

from __future__ import annotations

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from secagg.errors import ParameterError

MEAN_ONLY = (
    flower.FedAvg,
    flower.FedAvgM,
    flower.FedAdagrad,
    flower.FedAdam,
    flower.FedYogi,
    flower.FedProx,
    flower.DifferentialPrivacyClientSideFixedClipping,
)
"""Flower's strategies whose ``aggregate_train`` needs the mean alone."""


def check_strategy(strategy: Strategy, *, needs_only_mean: bool) -> None:
    """Refuses a strategy that needs single updates, or may need them.

    Args:
        strategy: The strategy.
        needs_only_mean: The caller's word for a strategy that is not Flower's own.

    Raises:
        ParameterError: It is refused.
    """
    kind = type(strategy)
    name = kind.__name__
    own = next(one for one in kind.__mro__ if "aggregate_train" in vars(one))
    if getattr(strategy, "accountant", None) is not None:
        raise ParameterError(f"{name} counts single replies for its accountant: leave it out, or set Params.privacy")
    if own not in _declaring():
        if own.__module__.startswith("flwr."):
            raise ParameterError(f"{name} needs single updates, and secure aggregation yields their mean only")
        if not needs_only_mean:
            raise ParameterError(f"{name} may need single updates: if their mean is enough, set needs_only_mean=True")
    inner = getattr(strategy, "strategy", None)
    if isinstance(inner, Strategy):
        check_strategy(inner, needs_only_mean=needs_only_mean)


def weight_key(strategy: Strategy) -> str:
    """The name under which a strategy looks for a client's weight."""
    inner = getattr(strategy, "strategy", None)
    return weight_key(inner) if isinstance(inner, Strategy) else getattr(strategy, "weighted_by_key", "num-examples")


def _declaring() -> set[type]:
    """The classes that define an ``aggregate_train`` which needs the mean alone."""
    return {next(one for one in kind.__mro__ if "aggregate_train" in vars(one)) for kind in MEAN_ONLY}
