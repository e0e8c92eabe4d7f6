"""DP-SGD, for the models and submodels that clients train, with whatever optimiser.

M. Abadi et al., "Deep Learning with Differential Privacy" (CCS 2016). In every step each example is drawn independently
of the others, its gradient is shortened to a norm of ``clip``, noise is added to the sum once, and the result is
divided by the number of examples that was *expected*. The optimiser, and whoever receives the trained model, see
nothing else. Neighbours are two runs of which one has a zero in place of the gradients of one example: how many
examples a client has is taken as known. opacus finds the gradients of single examples; who is drawn and the noise come
from cryptographic streams instead of its generators.

A coordinate that a mask drops gets neither gradient nor noise, and stays as it was, bit for bit. That costs nothing: it
says as much about the examples as the mask does, which is nothing unless the mask was computed from them. A mask that
was is a release of its own, which no event here covers.

What else is not covered. The noise is a floating-point number added to one, whose low bits can tell more than a real
number would (I. Mironov, "On Significance of the Least Significant Bits for Differential Privacy", CCS 2012). Sampling
amplifies privacy only against those who do not know who was drawn.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, final, get_args

import numpy as np
import torch

from protocols.sample_level.clipping import Gradients, check_suited, clipper
from secagg.errors import InputError, ParameterError
from secagg.prg import KEY_BYTES, Stream
from secagg.privacy.events import SampledGaussian
from secagg.privacy.normal import normal, words
from secagg.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from protocols.sample_level.clipping import Clipper
    from protocols.training import Examples, State, Training

_CHUNK = 64
"""Examples whose gradients are held at a time."""


@final
@dataclass(frozen=True, kw_only=True)
class SampleLevel:
    """How gradients of single examples are made private.

    Args:
        clip: Largest L2 norm of the gradient of one example, over all trained parameters; positive.
        noise_multiplier: Standard deviation of the noise on the sum of a step, over ``clip``. At 0 there is no noise,
            and no guarantee.
        delta: At which epsilon is told, in (0, 1): well below one over the number of examples that there are.
        gradients: ``"hooks"`` computes the gradient of every example; ``"ghost"`` computes only their norms where it
            can, and then the gradient of a weighted loss: less memory where layers are wide, and two backward passes
            (X. Li et al., "Large Language Models Can Be Strong Differentially Private Learners", ICLR 2022). The step
            is the same. Under a mask of single coordinates, ``"ghost"`` works as ``"hooks"``, since its norms would
            count what the mask drops.

    Raises:
        ParameterError: A setting outside its domain; the message names it.
    """

    clip: float = 1.0
    noise_multiplier: float = 1.0
    delta: float = 1e-5
    gradients: Gradients = "hooks"

    def __post_init__(self) -> None:
        if not 0 < self.clip < math.inf:
            raise ParameterError(f"clip must be positive and finite, not {self.clip}")
        if not 0 <= self.noise_multiplier < math.inf:
            raise ParameterError(f"noise_multiplier must be finite and not negative, not {self.noise_multiplier}")
        if not 0 < self.delta < 1:
            raise ParameterError(f"delta must be in (0, 1), not {self.delta}")
        if self.gradients not in get_args(Gradients):
            raise ParameterError(f"gradients must be one of {get_args(Gradients)}, not {self.gradients!r}")


@final
@dataclass(frozen=True, kw_only=True)
class PrivateTraining:
    """Local training in which every example of a client is private.

    Args:
        training: Steps, optimiser, and as ``batch_size`` the number of examples that is expected in a step; a client
            with fewer takes all of them in every step. A ``proximal`` term looks at no example, and is added after the
            noise.
        privacy: How.

    Raises:
        ParameterError: ``largest_gradient`` is set, which shortens the gradient of a batch, or ``precision`` is not
            float32, in which norms would be too inexact to rely on.
    """

    training: Training
    privacy: SampleLevel

    def __post_init__(self) -> None:
        if self.training.largest_gradient is not None:
            raise ParameterError("largest_gradient must be None: clip shortens the gradients of single examples")
        if self.training.precision != "float32":
            raise ParameterError(f"precision must be 'float32', not {self.training.precision!r}, to rely on norms")

    def event(self, count: int) -> SampledGaussian:
        """What training on ``count`` examples once releases."""
        return SampledGaussian(
            sample_rate=min(1.0, self.training.batch_size / count),
            noise_multiplier=self.privacy.noise_multiplier,
            steps=self.training.steps,
        )

    def train(
        self, model: nn.Module, examples: Examples, seed: int, entropy: Callable[[int], bytes] = os.urandom
    ) -> SampledGaussian:
        """Trains a model in place, on the device that the examples are on, and leaves it as ``Training`` does.

        Args:
            model: May be a submodel, have frozen parameters, and be under ``pruning.sparse.held_by``.
            examples: Those of one client.
            seed: Decides what is random in the model, such as dropout. Privacy does not rest on it.
            entropy: Source of random bytes for who is drawn and for the noise. It must not repeat itself from one
                training to another: the difference of two models with the same noise has none.

        Returns:
            What was released, for the one ledger of the client over all rounds.

        Raises:
            ParameterError: A layer has no gradients of single examples; the message names it and what to do.
            InputError: A buffer changed, maybe by what is in the examples, without noise. The model must not be
                released.
        """
        check_suited(model)
        event, chance = self.event(len(examples)), _Chance(entropy)
        home = next(model.parameters()).device
        model.to(examples.device).train()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        start = [parameter.detach().clone() for parameter in parameters]
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        optimiser = self.training.optimiser_of(parameters)
        expected = event.sample_rate * len(examples)
        with torch.random.fork_rng(devices=[]), clipper(model, self.privacy.clip, self.privacy.gradients) as gradients:
            torch.manual_seed(seed)
            for _ in range(event.steps):
                drawn = chance.drawn(len(examples), event.sample_rate)
                sums = self._noisy_sums(gradients, examples, drawn, chance)
                for parameter, total, origin in zip(parameters, sums, start, strict=True):
                    pull = self.training.proximal * (parameter.detach() - origin)
                    parameter.grad = total / expected + pull
                optimiser.step()
        optimiser.zero_grad()
        _check_same(buffers, dict(model.named_buffers()))
        model.to(home)
        return event

    def _noisy_sums(
        self, gradients: Clipper, examples: Examples, drawn: Sequence[int], chance: _Chance
    ) -> list[torch.Tensor]:
        """The clipped gradients of those drawn, perhaps nobody, and the noise, summed for each parameter."""
        sums = [torch.zeros_like(parameter) for parameter in gradients.parameters]
        for start in range(0, len(drawn), _CHUNK):
            added = gradients.sum(examples.subset(drawn[start : start + _CHUNK]))
            for total, more in zip(sums, added, strict=True):
                total.add_(more)
        std = self.privacy.noise_multiplier * self.privacy.clip
        for total, held in zip(sums, gradients.held, strict=True):
            noise = torch.from_numpy(std * chance.normal(total.numel())).view_as(total)
            total.add_(noise.to(total.device, total.dtype) * held)
        return sums


@final
class _Chance:
    """What privacy rests on: who is drawn, and the noise, from a stream each.

    Args:
        entropy: Source of random bytes.
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._draws, self._noise = (Stream(entropy(KEY_BYTES), Ring(64)) for _ in range(2))

    def drawn(self, count: int, rate: float) -> list[int]:
        """Which of ``count`` examples are in a step: each with a probability of ``rate``, or up to 2^-64 less."""
        if rate == 1:
            return list(range(count))
        chosen: list[int] = np.flatnonzero(words(self._draws, count) < np.uint64(int(rate * 2**64))).tolist()
        return chosen

    def normal(self, count: int) -> NDArray[np.float64]:
        """Standard normal numbers, (count,)."""
        return normal(self._noise, count)


def _check_same(before: State, after: Mapping[str, torch.Tensor]) -> None:
    for name, buffer in before.items():
        if not torch.equal(buffer, after[name]):
            raise InputError(f"buffer {name} changed in training: it may have learned from examples without noise")
