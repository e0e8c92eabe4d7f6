"""What is compared with what: every variant of a system beside its baselines, the first of which is the yardstick."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.experiments.setup import Aggregation


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One system of a comparison.

    Args:
        label: What tables call it; also the name of its folder.
        system: As in ``protocols.experiments.catalogue``.
        aggregation: What joins the updates.
        settings: Those that differ from the system's defaults.
    """

    label: str
    system: str
    aggregation: Aggregation
    settings: Mapping[str, Any] = field(default_factory=dict)


SUITES: Mapping[str, tuple[Variant, ...]] = MappingProxyType(
    {
        "clip": (
            Variant(label="fedavg", system="fedavg", aggregation="uniform"),
            Variant(label="clip", system="clip", aggregation="mask-indexed"),
            Variant(label="clip-uniform", system="clip", aggregation="uniform"),
            Variant(label="clip-uniform-compute", system="clip", aggregation="uniform", settings={"budget": "compute"}),
            Variant(
                label="clip-largest", system="clip", aggregation="mask-indexed", settings={"score": "largest-change"}
            ),
            Variant(label="clip-local", system="clip", aggregation="mask-indexed", settings={"statistic": "local"}),
            Variant(label="clip-vote", system="clip", aggregation="mask-indexed", settings={"statistic": "vote"}),
            Variant(label="random-dropout", system="random-dropout", aggregation="mask-indexed"),
            Variant(label="ordered-dropout", system="ordered-dropout", aggregation="mask-indexed"),
            # In the clear, but with the others' bytes and keep ratio: only its choice of units differs from theirs.
            Variant(label="fluid", system="fluid", aggregation="plain"),
            Variant(label="exclusion", system="exclusion", aggregation="uniform"),
        ),
        "ma-clamp": (
            Variant(label="fedavg", system="fedavg", aggregation="uniform"),
            Variant(label="ma-clamp", system="ma-clamp", aggregation="mask-indexed"),
            Variant(label="clamp", system="clamp", aggregation="mask-indexed"),
            Variant(label="clamp-diluted", system="clamp-diluted", aggregation="uniform"),
            Variant(label="fedpmt", system="fedpmt", aggregation="mask-indexed"),
            Variant(label="feddrop", system="feddrop", aggregation="mask-indexed"),
            Variant(label="exclusion", system="exclusion", aggregation="uniform"),
        ),
        # One budget, and who adds the noise: a trusted server, the clients, or clients of whom some are pruned.
        "private": (
            Variant(label="central", system="fedavg", aggregation="float"),
            Variant(label="distributed", system="fedavg", aggregation="uniform"),
            Variant(label="mask-indexed", system="random-dropout", aggregation="mask-indexed"),
        ),
        # What sends whole models, or single ones, runs in the clear as published; the last one is PR-FL encrypted.
        "pr-fl": (
            Variant(label="fedasync", system="fedasync", aggregation="float"),
            Variant(label="pr-fl", system="pr-fl", aggregation="float", settings={"staleness": "poly"}),
            Variant(
                label="pr-fl-no-buffer",
                system="pr-fl",
                aggregation="float",
                settings={"staleness": "poly", "buffer": False, "server_rate": 0.6},
            ),
            Variant(
                label="pr-fl-dense", system="pr-fl", aggregation="float", settings={"staleness": "poly", "prune": False}
            ),
            Variant(
                label="pr-fl-no-recovery",
                system="pr-fl",
                aggregation="float",
                settings={"staleness": "poly", "recover": False},
            ),
            Variant(label="fedfix", system="fedfix", aggregation="float"),
            Variant(label="heterofl", system="heterofl", aggregation="float"),
            Variant(label="sub-fedavg", system="sub-fedavg", aggregation="float"),
            Variant(label="fedavg", system="fedavg", aggregation="uniform"),
            Variant(label="pr-fl-secure", system="pr-fl", aggregation="mask-indexed"),
        ),
        "ca-afp": (
            Variant(label="clustered", system="clustered", aggregation="float"),
            Variant(label="fedavg", system="fedavg", aggregation="uniform"),
            Variant(label="local", system="local", aggregation="float"),
            Variant(label="ca-afp", system="ca-afp", aggregation="float"),
            # As published; then the default with something changed, and baselines.
            Variant(
                label="ca-afp-paper",
                system="ca-afp",
                aggregation="float",
                settings={"coherence": "paper", "scope": "layer"},
            ),
            Variant(label="ca-afp-layer", system="ca-afp", aggregation="float", settings={"scope": "layer"}),
            Variant(
                label="ca-afp-corrected", system="ca-afp", aggregation="float", settings={"coherence": "corrected"}
            ),
            Variant(label="ca-afp-rank", system="ca-afp", aggregation="float", settings={"terms": "rank"}),
            Variant(
                label="magnitude", system="ca-afp", aggregation="float", settings={"alpha": 1, "beta": 0, "gamma": 0}
            ),
            Variant(
                label="magnitude-layer",
                system="ca-afp",
                aggregation="float",
                settings={"alpha": 1, "beta": 0, "gamma": 0, "scope": "layer"},
            ),
            Variant(label="no-magnitude", system="ca-afp", aggregation="float", settings={"alpha": 0}),
            Variant(label="no-coherence", system="ca-afp", aggregation="float", settings={"beta": 0}),
            Variant(label="no-signs", system="ca-afp", aggregation="float", settings={"gamma": 0}),
            Variant(label="cut-at-once", system="ca-afp", aggregation="float", settings={"start_density": 0.3}),
            Variant(label="no-churn", system="ca-afp", aggregation="float", settings={"churn": 0}),
            Variant(label="one-cluster", system="ca-afp", aggregation="float", settings={"clusters": 1}),
            Variant(label="fedsnip", system="fedsnip", aggregation="uniform"),
            Variant(label="clustered-secure", system="clustered", aggregation="uniform"),
            Variant(label="ca-afp-secure", system="ca-afp", aggregation="uniform"),
        ),
    }
)
"""Name of the system in question to what it is compared with."""


def suite(name: str, only: tuple[str, ...] | None = None) -> tuple[Variant, ...]:
    """The variants of a comparison, the baseline first.

    Args:
        name: Of the suite.
        only: Labels to compare besides the baseline; None for all.

    Raises:
        ParameterError: No such suite, or no such label in it.
    """
    if name not in SUITES:
        raise ParameterError(f"nothing to compare {name!r} with; there are {', '.join(SUITES)}")
    variants = SUITES[name]
    unknown = set(only or ()) - {variant.label for variant in variants}
    if unknown:
        known = ", ".join(variant.label for variant in variants)
        raise ParameterError(f"no variant {', '.join(sorted(unknown))}; there are {known}")
    return tuple(one for one in variants if only is None or one is variants[0] or one.label in only)
