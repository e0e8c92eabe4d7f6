"""The federation under audit: a user's own model, data and settings, and what its server gets to see of a round.

Every view that attacks are given comes from here, out of real local training and real sessions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch

from attacks.attack import Threat
from protocols.aggregators import FixedPoint, FloatMean
from protocols.training import with_state
from pruning import UnsupportedModelError, extract, find_units, gather, scatter
from secagg import Layout, Params, delta, simulate
from secagg.errors import InputError, ParameterError
from secagg.messages import MaskedInput, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from attacks.rules import MaskRule
    from protocols.training import Examples, State, Training
    from pruning import Mask, Units
    from secagg import Aggregate, Declaration
    from secagg.privacy.events import Event

Mode = Literal["plain", "uniform", "mask-indexed"]
"""How updates travel: in the clear, or through sessions of one mode."""

Declare: TypeAlias = "Callable[[Deployment, nn.Module, Mapping[int, State], np.random.Generator], dict[int, Mask]]"
"""What the pruned ones of some clients hold, from the model of the round and their updates of all of it."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the server has after one round.

    Args:
        uploads: Client to what it uploaded, at full shape: its update where that travels in the clear, else what its
            masked vector reads as.
        mean: The mean that was released, zero where withheld; under DP with its noise.
        holders: Clients in each coordinate's sum, (d,) int; 0 where withheld, or where nobody knows.
        declared: Client to the coordinates that it declared, (d,) bool; empty where masks stay secret.
        event: What the round was to whoever accounts for privacy; None without privacy.
    """

    uploads: Mapping[int, State]
    mean: State
    holders: NDArray[np.int64]
    declared: Mapping[int, NDArray[np.bool_]]
    event: Event | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Deployment:
    """One federation.

    Args:
        name: What reports call it.
        model: Makes the model, at its first weights.
        clients: Examples of each client, at least two clients.
        test: Examples that no client has.
        training: What a client does in a round.
        mode: How updates travel.
        params: Settings of the sessions, ``privacy`` included.
        mask: What a pruned client declares to hold; None where nobody prunes.
        pruned: Share of the clients that prune, the first ones.

    Raises:
        InputError: Fewer than two clients.
        ParameterError: ``pruned`` without a rule, or a privacy that nobody would add noise for.
    """

    name: str
    model: Callable[[], nn.Module]
    clients: Sequence[Examples]
    test: Examples
    training: Training
    mode: Mode = "uniform"
    params: Params = field(default_factory=Params)
    mask: MaskRule | None = None
    pruned: float = 0.0

    def __post_init__(self) -> None:
        if len(self.clients) < 2:
            raise InputError(f"an audit needs two clients or more, not {len(self.clients)}")
        if not 0 <= self.pruned <= 1 or (self.pruned and self.mask is None):
            raise ParameterError("pruned must be in [0, 1], and goes with a rule for the masks")
        if self.params.privacy is not None and self.mode == "plain":
            raise ParameterError("mode='plain' adds no noise: set mode='uniform' or 'mask-indexed' with privacy")

    def claims(self, threat: Threat) -> bool:
        """Whether the settings promise that whoever sees this learns nothing of a single client.

        Sessions promise that for uploads and transcripts, not for what the sum itself says; a budget bounds that, and
        is judged by its epsilon.
        """
        return self.mode != "plain" and threat in {Threat.ONE_UPLOAD, Threat.THE_TRANSCRIPT}

    def to_json(self) -> dict[str, Any]:
        """What is public of it, as plain data."""
        privacy = self.params.privacy
        return {
            "name": self.name,
            "mode": self.mode,
            "clients": len(self.clients),
            "parameters": self.layout.size,
            "pruned": self.pruned,
            "steps": self.training.steps,
            "batch_size": self.training.batch_size,
            "min_cohort": self.params.min_cohort,
            "adversary": self.params.adversary,
            "noise_multiplier": privacy and privacy.noise_multiplier,
            "clip": privacy and privacy.clip,
        }

    def variant(self, name: str, **changes: object) -> Deployment:
        """The same under another name and with other settings."""
        return replace(self, name=name, **changes)  # type: ignore[arg-type]  # replace checks the names itself

    @cached_property
    def units(self) -> Units | None:
        """The prunable units of the model; None if there are none that can be told."""
        try:
            return find_units(self.model(), self.clients[0].inputs[:2])
        except UnsupportedModelError:
            return None

    @cached_property
    def layout(self) -> Layout:
        """The layout of updates: tensors in canonical order, and their units where there are any."""
        if self.units is not None:
            return self.units.layout
        state = self.model().state_dict()
        return Layout.of({name: value.numpy() for name, value in state.items() if value.is_floating_point()})

    def vector(self, state: State) -> NDArray[np.float64]:
        """The tensors of a state in canonical order, flat, (d,)."""
        return np.concatenate(
            [state[tensor.name].detach().numpy().astype(np.float64).ravel() for tensor in self.layout.tensors]
        )

    def state(self, vector: NDArray[np.float64]) -> State:
        """The tensors of a flat vector, float32."""
        return {name: torch.from_numpy(part).float() for name, part in self.layout.by_tensor(vector).items()}

    def update(
        self,
        model: nn.Module,
        examples: Examples,
        seed: int,
        *,
        training: Training | None = None,
        mask: Mask | None = None,
    ) -> State:
        """What local training changes in a model, at full shape.

        Args:
            model: Where it starts; left as it is.
            examples: On what.
            seed: Of the batches.
            training: Other than the deployment's own.
            mask: The submodel that is trained, zero elsewhere; None for the whole model.
        """
        smaller = mask if mask is not None and mask.kind == "units" else None
        start = model.state_dict() if smaller is None else gather(model.state_dict(), smaller)
        local = with_state(model, {}) if smaller is None else extract(model, smaller)
        (training or self.training).train(local, examples, seed)
        changed = delta(local.state_dict(), {**local.state_dict(), **{name: t.clone() for name, t in start.items()}})
        if mask is not None:
            return scatter(changed, mask)
        return {tensor.name: changed[tensor.name] for tensor in self.layout.tensors}

    def masks(self, model: nn.Module, updates: Mapping[int, State], rng: np.random.Generator) -> dict[int, Mask]:
        """What the pruned ones of these clients declare to hold, by the deployment's rule.

        Args:
            model: The model of the round.
            updates: Client to its update of the whole model, which a rule may look at.
            rng: Of rules that draw.
        """
        if self.mask is None:
            return {}
        pruned = list(updates)[: self.pruned_among(len(updates))]
        return {client: self.mask(self, model, updates[client], rng) for client in pruned}

    def pruned_among(self, clients: int) -> int:
        """How many of so many clients prune: the first ones."""
        return 0 if self.mask is None else round(self.pruned * clients)

    def brought(
        self,
        model: nn.Module,
        examples: Mapping[int, Examples],
        seeds: Mapping[int, int],
        rng: np.random.Generator,
        *,
        training: Training | None = None,
        declare: Declare | None = None,
    ) -> tuple[dict[int, State], dict[int, Mask]]:
        """What clients bring to a round: updates, of their submodels where they prune, and what those hold.

        Args:
            model: The model of the round.
            examples: Client to what it trains on.
            seeds: Client to the seed of its batches.
            rng: Of masks that are drawn.
            training: Other than the deployment's own.
            declare: How masks are decided; None for the deployment's own rule.
        """
        updates = {
            client: self.update(model, own, seeds[client], training=training) for client, own in examples.items()
        }
        masks = (declare or Deployment.masks)(self, model, updates, rng)
        pruned = {
            client: self.update(model, examples[client], seeds[client], training=training, mask=mask)
            for client, mask in masks.items()
        }
        return updates | pruned, masks

    def exchange(
        self,
        updates: Mapping[int, State],
        masks: Mapping[int, Mask] | None = None,
        *,
        seed: int = 0,
        encrypted: bool = True,
    ) -> Seen:
        """One round's exchange of updates, and what the server sees of it.

        Args:
            updates: Client to update; at least as many clients as the settings ask for.
            masks: Client to what it holds; the others hold everything.
            seed: Of all secrets of the session, and of its noise: another one for every round.
            encrypted: False sums in the clear what a session would sum, in a fraction of the time: the same sum and
                the same noise, and no uploads.
        """
        if self.mode == "plain" or not encrypted:
            return self._in_the_clear(updates, masks or {}, seed)
        wire: dict[int, bytes] = {}
        declared = {client: mask.declaration() for client, mask in (masks or {}).items()}

        def tap(message: bytes) -> None:
            if isinstance(said := decode(message), MaskedInput):
                wire[said.sender] = said.vector

        result = simulate(
            updates, declared or None, mode=self.mode, params=self.params, seed=seed, layout=self.layout, observe=tap
        )
        found = result.aggregate
        uploads = {client: self._read(found, place, wire[place]) for place, client in enumerate(updates)}
        shown = self._declared(updates, masks or {}) if self.mode == "mask-indexed" else {}
        holders = self._holders(found.weight > 0, len(updates), shown)
        return Seen(uploads, self.state(np.nan_to_num(found.mean)), holders, shown, found.event)

    def _in_the_clear(self, updates: Mapping[int, State], masks: Mapping[int, Mask], seed: int) -> Seen:
        plain, open_masks = self.mode == "plain", self.mode == "mask-indexed" or (self.mode == "plain" and bool(masks))
        mode: Literal["uniform", "mask-indexed"] = "mask-indexed" if open_masks else "uniform"
        joined = FloatMean(self.layout, mode) if plain else FixedPoint(self.layout, self.params, mode)
        declared: dict[Hashable, Declaration | None] = {client: mask.declaration() for client, mask in masks.items()}
        named: dict[Hashable, State] = {client: updates[client] for client in updates}
        found = joined.aggregate(named, declared or None, seed=str(seed).encode())
        shown = self._declared(updates, masks) if open_masks else {}
        holders = self._holders(~np.isnan(found.vector), len(updates), shown)
        uploads = dict(updates) if plain else {}
        return Seen(uploads, self.state(np.nan_to_num(found.vector)), holders, shown, found.event)

    def _read(self, aggregate: Aggregate, place: int, packed: bytes) -> State:
        """A masked vector read as if it were an update: what it says to whoever lacks the keys."""
        plan = aggregate.plan
        filled = plan.places(place)
        words = np.zeros(plan.length, np.int64)
        words[filled] = plan.ring.centred(plan.ring.unpack(packed, int(filled.sum())))
        vector = np.zeros(self.layout.size)
        vector[plan.released] = plan.values(words)
        return self.state(vector)

    def _declared(self, updates: Mapping[int, State], masks: Mapping[int, Mask]) -> dict[int, NDArray[np.bool_]]:
        whole = np.ones(self.layout.size, bool)
        return {client: masks[client].coordinates if client in masks else whole for client in updates}

    @staticmethod
    def _holders(
        released: NDArray[np.bool_], clients: int, declared: Mapping[int, NDArray[np.bool_]]
    ) -> NDArray[np.int64]:
        held = np.sum(list(declared.values()), axis=0) if declared else np.full(len(released), clients)
        return np.where(released, held, 0).astype(np.int64)
