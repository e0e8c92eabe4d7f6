"""The stages that exist: which part of the model, its fetch, its training, its update, its weight."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, final

import torch

from protocols.aggregators.aggregated import add_step
from protocols.fetch import leaves_for
from protocols.randomness import number, session_seed
from protocols.round import Stage
from protocols.training import with_state
from pruning.sparse import held_by
from pruning.submodel import extract, gather, scatter
from secagg.errors import InputError
from secagg.prg import SeededEntropy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protocols.aggregators import Client
    from protocols.round import RoundContext, Work
    from protocols.training import Examples, State, Training
    from pruning.masks import Mask


class MaskPolicy(Protocol):
    """Decides, on the client, what it holds in a round."""

    def __call__(self, client: Client, context: RoundContext) -> Mask:
        """The mask of one client, over the layout of the global model."""


VALUE_BYTES = 4
"""Bytes of a coordinate on its way to a client."""


def fetched_bytes(mask: Mask) -> int:
    """What a client fetches of a model under a mask of single coordinates: their values, and which they are."""
    return VALUE_BYTES * int(mask.coordinates.sum()) + len(mask.declaration().data)


@final
class Fetch(Stage):
    """Fetches what the client's mask leaves of the global model, checks it, and puts it into the client's module."""

    def on_client(self, context: RoundContext, work: Work) -> Work:
        """Returns a module whose tensors are those that were fetched.

        Raises:
            AgreementError: What the server sent is not under the model root.
        """
        fetched = context.served.fetch(leaves_for(work.mask))
        start = gather(fetched.opened(context.served.root, work.mask), work.mask)
        model = with_state(work.model, start)
        return replace(work, model=model, start=start, fetched_bytes=fetched.nbytes)


@final
class Submodel(Stage):
    """Gives a client the smaller module that its mask leaves.

    After ``Fetch`` the policy sees the global model, which the client has fetched whole. Before it, the policy sees
    none and only the submodel is fetched: the server, asked for some leaves and not for others, learns the mask.

    Args:
        policy: Chooses the mask.
    """

    def __init__(self, policy: MaskPolicy) -> None:
        self._policy = policy

    def on_client(self, context: RoundContext, work: Work) -> Work:
        """Extracts the submodel; a full mask leaves the model as it is."""
        mask = self._policy(work.client, replace(context, start=work.start))
        if mask.kind == "full":
            return replace(work, mask=mask)
        start = gather(work.start, mask) if work.start else work.start
        return replace(work, model=extract(work.model, mask), mask=mask, start=start, keep=float(mask.held.mean()))


@final
class Sparse(Stage):
    """Gives a client a mask of single coordinates; outside of it the model is zero, and stays zero in training.

    After ``Fetch``, but less than the whole model is fetched: the values that the mask leaves, and which they are.

    Args:
        policy: Chooses the mask.
    """

    def __init__(self, policy: MaskPolicy) -> None:
        self._policy = policy

    def on_client(self, context: RoundContext, work: Work) -> Work:
        """Zeroes what the mask leaves out; a full mask leaves the model as it is."""
        mask = self._policy(work.client, context)
        if mask.kind == "full":
            return replace(work, mask=mask)
        # The module keeps its shape even where the coordinates happen to be those of whole units or layers.
        mask = replace(mask, kind="coordinates", held=mask.coordinates)
        held = mask.by_tensor()
        start = {name: torch.where(torch.from_numpy(held[name]), tensor, 0) for name, tensor in work.start.items()}
        model = with_state(work.model, start)
        return replace(work, model=model, mask=mask, start=start, keep=mask.density, fetched_bytes=fetched_bytes(mask))


@final
class LocalTraining(Stage):
    """Trains a copy of the client's model on its own examples, under its mask if that is one of single coordinates.

    Args:
        examples: Those of every client; their order numbers the clients.
        settings: How to train.
        seed: With the round's and the client's number it decides everything random in a client's training.
    """

    def __init__(self, examples: Mapping[Client, Examples], settings: Training, seed: int) -> None:
        self._examples = examples
        self._settings = settings
        self._seed = seed
        self._number = {client: place for place, client in enumerate(examples)}

    def on_client(self, context: RoundContext, work: Work) -> Work:
        """Returns the trained copy.

        Raises:
            InputError: A client without examples.
        """
        if work.client not in self._examples:
            raise InputError(f"client {work.client} has no examples", culprits=[work.client])
        model = copy.deepcopy(work.model)
        seed = number(self._seed, "training", context.number, self._number[work.client])
        with held_by(work.mask, model) if work.mask.kind == "coordinates" else nullcontext():
            noise = SeededEntropy(session_seed("training", self._seed, context.number, self._number[work.client]))
            self._settings.train(model, self._examples[work.client], seed, noise)
        return replace(work, model=model)


@final
class Delta(Stage):
    """On a client: what training changed, at full shape. On the server: the start plus the mean of those changes."""

    def on_client(self, context: RoundContext, work: Work) -> Work:  # noqa: ARG002 - the client has its own start
        """Subtracts what was fetched from the trained model and scatters the difference to full shape."""
        after: dict[str, torch.Tensor] = work.model.state_dict()
        change = {name: after[name] - tensor for name, tensor in work.start.items()}
        return replace(work, update=scatter(change, work.mask))

    def on_server(self, context: RoundContext, values: State) -> State:
        """Adds the step to the start, in the dtype of the start."""
        return add_step(context.start, values)


@final
class Weigh(Stage):
    """Weighs every client by its number of examples. Without this stage all weigh the same.

    The mean is divided by the weights where they are summed, so the server has nothing to undo.

    Args:
        examples: Those of every client.
    """

    def __init__(self, examples: Mapping[Client, Examples]) -> None:
        self._weights = {client: float(len(own)) for client, own in examples.items()}

    def on_client(self, context: RoundContext, work: Work) -> Work:  # noqa: ARG002 - the same in every round
        """Attaches the weight."""
        return replace(work, weight=self._weights[work.client])
