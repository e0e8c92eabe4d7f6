"""Models of their own: how each client fares on its own test examples when a run has ended, and after training on.

A client that trains on without a mask has a dense model again, whatever the run pruned. So three accuracies stand side
by side: before, trained on under the mask, and trained on without it.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from protocols.randomness import number
from protocols.results import Personal
from protocols.training import accuracy
from pruning.masks import Mask
from pruning.sparse import held_by
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from torch import nn

    from protocols.aggregators import Client
    from protocols.experiments.folder import RunFolder
    from protocols.federation import Checkpoint, Federation
    from protocols.system import System


def judge(system: System, checkpoint: Checkpoint, steps: int) -> Personal:
    """Trains the model that each client ends with on its own examples, and judges it on its own test examples.

    Args:
        system: That was run.
        checkpoint: Where it ended.
        steps: Of the training; the optimiser and all else are the federation's, but for what holds to a start.

    Raises:
        ParameterError: Clients have no test examples of their own, or ``steps`` is below 1.
    """
    check_judgeable(system.federation, steps)
    system.recall(checkpoint.memory)
    found = {client: _of_client(system, checkpoint, client, steps) for client in system.federation.tests}
    before, masked, whole = (
        {str(client): accuracies[place] for client, accuracies in found.items()} for place in range(3)
    )
    return Personal(steps=steps, before=before, masked=masked, whole=whole)


def judged_once(system: System, kept: RunFolder, rounds: int, steps: int) -> Personal | None:
    """As ``judge``, or what the run's folder has of it, which keeps it.

    Args:
        system: That was run.
        kept: Its folder.
        rounds: After how many. A folder that is ahead of them has no model of then any more.
        steps: As ``judge``.

    Returns:
        None where the model is gone and was not judged while it was there.

    Raises:
        ParameterError: As ``judge``.
        InputError: A file in the folder is damaged.
    """
    found = kept.personal(rounds)
    if found is None and kept.checkpoint is not None and rounds == len(kept.outcomes):
        found = judge(system, kept.checkpoint, steps)
        kept.keep_personal(rounds, found)
    return found


def check_judgeable(setup: Federation, steps: int) -> None:
    """Refuses, before a run, what could not be judged after it.

    Raises:
        ParameterError: As ``judge``.
    """
    if not setup.tests or steps < 1:
        raise ParameterError("fine_tuning takes at least 1 step, and test examples of the clients' own")


def _of_client(system: System, checkpoint: Checkpoint, client: Client, steps: int) -> tuple[float, float, float]:
    setup = system.federation
    state, mask = system.model_of(client, checkpoint)
    own, precision = setup.tests[client], setup.training.precision
    before = setup.model_at(replace(checkpoint, state=state))
    under_mask = _trained(setup, before, mask, client, steps)
    whole = under_mask if mask.kind == "full" else _trained(setup, before, Mask.full(mask.layout), client, steps)
    return accuracy(before, own, precision), accuracy(under_mask, own, precision), accuracy(whole, own, precision)


def _trained(setup: Federation, model: nn.Module, mask: Mask, client: Client, steps: int) -> nn.Module:
    trained = copy.deepcopy(model)
    training = replace(setup.training, steps=steps, proximal=0.0, sample_level=None)  # it stays there
    with held_by(mask, trained):
        training.train(trained, setup.examples[client], number(setup.seed, "fine-tuning", setup.fleet.number(client)))
    return trained
