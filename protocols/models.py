"""Reference models of the experiments, small enough to train on one CPU thread."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator


class CharLSTM(nn.Module):
    """A character-level language model: token numbers (batch, time) to logits (batch, time, vocab).

    Args:
        vocab: Number of characters.
        embedding: Width of their embedding.
        hidden: Hidden units of each LSTM layer.
        layers: LSTM layers.
    """

    def __init__(self, vocab: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, vocab)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next character after each."""
        hidden, _ = self.lstm(self.embedding(tokens))
        logits: torch.Tensor = self.output(hidden)
        return logits


def vgg9(classes: int = 10, channels: int = 3, *, seed: int = 0) -> nn.Sequential:
    """VGG-9 as CLIP and FLuID train it on 32 x 32 images: six convolutions, a pooling after every two, three dense.

    Args:
        classes: Outputs.
        channels: Of the images.
        seed: Fixes the initial weights.
    """
    with _seeded(seed):
        layers = [*_six_convolutions(channels, normalised=False), ("flatten", nn.Flatten())]
        layers += _named("fc1", nn.Linear(128 * 4 * 4, 512)) + _named("fc2", nn.Linear(512, 256))
        return _he_initialised(nn.Sequential(OrderedDict([*layers, ("fc3", nn.Linear(256, classes))])))


def conv_bn(classes: int = 10, channels: int = 3, *, seed: int = 0) -> nn.Sequential:
    """The network that CLAMP trains on 32 x 32 images: the convolutions of VGG-9, each normalised, and smaller dense.

    Args:
        classes: Outputs.
        channels: Of the images.
        seed: Fixes the initial weights.
    """
    with _seeded(seed):
        layers = [*_six_convolutions(channels, normalised=True), ("flatten", nn.Flatten())]
        layers += _named("fc1", nn.Linear(128 * 4 * 4, 256)) + _named("fc2", nn.Linear(256, 128))
        return nn.Sequential(OrderedDict([*layers, ("fc3", nn.Linear(128, classes))]))


def mnist_cnn(classes: int = 10, channels: int = 1, *, seed: int = 0) -> nn.Sequential:
    """The network of LEAF's FEMNIST task on 28 x 28 images, with a dense layer of 128 where LEAF has 2048.

    Args:
        classes: Outputs.
        channels: Of the images.
        seed: Fixes the initial weights.
    """
    with _seeded(seed):
        layers = [*_named("conv1", nn.Conv2d(channels, 32, 5, padding=2)), ("pool1", nn.MaxPool2d(2))]
        layers += [*_named("conv2", nn.Conv2d(32, 64, 5, padding=2)), ("pool2", nn.MaxPool2d(2))]
        layers += [("flatten", nn.Flatten()), *_named("fc1", nn.Linear(64 * 7 * 7, 128))]
        return nn.Sequential(OrderedDict([*layers, ("fc2", nn.Linear(128, classes))]))


def digits_cnn(classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """A small network for 8 x 8 gray digits: two convolutions of 16 and 32 filters, a dense layer of 128."""
    with _seeded(seed):
        layers = _named("conv1", nn.Conv2d(1, 16, 3, padding=1)) + _named("conv2", nn.Conv2d(16, 32, 3, padding=1))
        layers += [("pool", nn.MaxPool2d(2)), ("flatten", nn.Flatten())]
        layers += _named("fc1", nn.Linear(32 * 4 * 4, 128))
        return nn.Sequential(OrderedDict([*layers, ("fc2", nn.Linear(128, classes))]))


def har_cnn(channels: int, length: int, classes: int = 6, width: int = 64, *, seed: int = 0) -> nn.Sequential:
    """The network of CA-AFP on windows of signals: two convolutions along time, a pooling, a dense layer of 32.

    Args:
        channels: Of the signals.
        length: Samples of a window.
        classes: Outputs.
        width: Filters of each convolution.
        seed: Fixes the initial weights.
    """
    with _seeded(seed):
        # As images of one row: those PyTorch lays out with their channels last, a fifth faster in bfloat16.
        layers = [("rows", nn.Unflatten(1, (channels, 1))), *_named("conv1", nn.Conv2d(channels, width, (1, 5)))]
        layers += [*_named("conv2", nn.Conv2d(width, width, (1, 5))), ("pool", nn.MaxPool2d((1, 2)))]
        layers += [("flatten", nn.Flatten())]
        # Neither convolution pads: each takes four samples off.
        layers += _named("fc1", nn.Linear(width * ((length - 8) // 2), 32))
        return nn.Sequential(OrderedDict([*layers, ("fc2", nn.Linear(32, classes))]))


def mlp(
    inputs: int, hidden: tuple[int, ...] = (512, 256, 128, 64), classes: int = 10, *, seed: int = 0
) -> nn.Sequential:
    """Dense layers ``fc1``, ``fc2``, ... with ReLU between them, on inputs of any shape with ``inputs`` values."""
    with _seeded(seed):
        widths = (inputs, *hidden, classes)
        layers: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
        for number in range(1, len(widths) - 1):
            layers += _named(f"fc{number}", nn.Linear(widths[number - 1], widths[number]))
        last = (f"fc{len(widths) - 1}", nn.Linear(widths[-2], widths[-1]))
        return nn.Sequential(OrderedDict([*layers, last]))


def char_lstm(vocab: int, *, embedding: int = 8, hidden: int = 256, layers: int = 2, seed: int = 0) -> CharLSTM:
    """The character model of the Shakespeare task: an embedding of 8 and two LSTM layers of 256."""
    with _seeded(seed):
        return CharLSTM(vocab, embedding, hidden, layers)


def _six_convolutions(channels: int, *, normalised: bool) -> list[tuple[str, nn.Module]]:
    """Convolutions ``conv1`` to ``conv6``, where asked for with batch normalisations ``bn1`` to ``bn6``."""
    widths = (channels, 32, 32, 64, 64, 128, 128)
    layers: list[tuple[str, nn.Module]] = []
    for number in range(1, len(widths)):
        convolution = nn.Conv2d(widths[number - 1], widths[number], 3, padding=1)
        if normalised:
            layers += [(f"conv{number}", convolution), *_named(f"bn{number}", nn.BatchNorm2d(widths[number]))]
        else:
            layers += _named(f"conv{number}", convolution)
        if number % 2 == 0:
            layers.append((f"pool{number // 2}", nn.MaxPool2d(2)))
    return layers


def _named(name: str, layer: nn.Module) -> list[tuple[str, nn.Module]]:
    """A layer and the ReLU that follows it."""
    return [(name, layer), (f"relu_{name}", nn.ReLU())]


def _he_initialised(model: nn.Sequential) -> nn.Sequential:
    """Draws weights that keep the signal's size through ReLU layers: with PyTorch's own, nine of them do not learn.

    K. He et al., "Delving Deep into Rectifiers", ICCV 2015.
    """
    for module in model:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draws initial weights from a seed and leaves torch's own random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
