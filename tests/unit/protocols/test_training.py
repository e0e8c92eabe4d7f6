"""Local training does what its settings say, on the examples' device, and leaves no trace elsewhere."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from protocols.models import char_lstm
from protocols.training import Examples, Training, accuracy
from secagg.errors import InputError, ParameterError
from tests.unit.protocols.elsewhere import Elsewhere, Traveller

FEATURES, CLASSES = 6, 3


def examples(count: int = 12, seed: int = 0) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, FEATURES, generator=generator)
    return Examples(inputs, inputs[:, :CLASSES].argmax(dim=1))


def sequences(count: int = 8, time: int = 5, vocab: int = 7) -> Examples:
    """At every place the label is the input's successor."""
    generator = torch.Generator().manual_seed(count)
    inputs = torch.randint(vocab, (count, time), generator=generator)
    return Examples(inputs, (inputs + 1) % vocab)


def linear(seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(FEATURES, CLASSES)


def whole_batch(own: Examples, *, steps: int = 1, **settings: Any) -> Training:
    """Steps on all examples at once: the gradient is that of the whole set, whatever the order."""
    return Training(steps=steps, batch_size=len(own), **settings)


def trained(model: nn.Module, settings: Training, own: Examples, seed: int = 0) -> nn.Module:
    model = copy.deepcopy(model)
    settings.train(model, own, seed)
    return model


def flat(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def gradient(model: nn.Module, own: Examples) -> torch.Tensor:
    """Of the mean cross entropy, over all parameters."""
    model = copy.deepcopy(model)
    functional.cross_entropy(model(own.inputs), own.labels).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def test_a_step_of_sgd_goes_against_the_gradient() -> None:
    model, own = linear(), examples()
    step = flat(trained(model, whole_batch(own, learning_rate=0.2), own)) - flat(model)
    torch.testing.assert_close(step, -0.2 * gradient(model, own))


def test_momentum_carries_the_first_step_into_the_second() -> None:
    model, own = linear(), examples()
    once = trained(model, whole_batch(own, learning_rate=0.2), own)
    twice = trained(model, whole_batch(own, steps=2, learning_rate=0.2, momentum=0.5), own)
    expected = -0.2 * (gradient(once, own) + 0.5 * gradient(model, own))
    torch.testing.assert_close(flat(twice) - flat(once), expected)


def test_the_first_step_of_adam_moves_every_parameter_by_the_learning_rate() -> None:
    model, own = linear(), examples()
    settings = whole_batch(own, optimiser="adam", learning_rate=0.01)
    step = flat(trained(model, settings, own)) - flat(model)
    torch.testing.assert_close(step, -0.01 * gradient(model, own).sign(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_gradient_beyond_the_limit_is_shortened_and_keeps_its_direction(share: float) -> None:
    model, own = linear(), examples()
    whole = gradient(model, own)
    settings = whole_batch(own, learning_rate=0.2, largest_gradient=share * float(whole.norm()))
    step = flat(trained(model, settings, own)) - flat(model)
    torch.testing.assert_close(step, -0.2 * share * whole, rtol=1e-4, atol=1e-7)


def test_a_gradient_within_the_limit_stays_as_it_is() -> None:
    model, own = linear(), examples()
    limit = 2 * float(gradient(model, own).norm())
    free, limited = (trained(model, whole_batch(own, largest_gradient=largest), own) for largest in (None, limit))
    assert torch.equal(flat(free), flat(limited))


def test_the_proximal_term_pulls_the_second_step_back_to_the_start() -> None:
    model, own = linear(), examples()
    once = trained(model, whole_batch(own, learning_rate=0.2, momentum=0.0, proximal=0.7), own)
    torch.testing.assert_close(flat(once) - flat(model), -0.2 * gradient(model, own))
    twice = trained(model, whole_batch(own, steps=2, learning_rate=0.2, momentum=0.0, proximal=0.7), own)
    expected = -0.2 * (gradient(once, own) + 0.7 * (flat(once) - flat(model)))
    torch.testing.assert_close(flat(twice) - flat(once), expected)


def test_a_proximal_term_holds_the_model_nearer_and_one_of_zero_changes_no_bit() -> None:
    model, own = linear(), examples()
    far, near, as_before = (
        trained(model, whole_batch(own, steps=30, **settings), own)
        for settings in ({}, {"proximal": 5.0}, {"proximal": 0.0})
    )
    assert (flat(near) - flat(model)).norm() < 0.5 * (flat(far) - flat(model)).norm()
    assert torch.equal(flat(far), flat(as_before))


def images(count: int = 12) -> Examples:
    generator = torch.Generator().manual_seed(count)
    return Examples(torch.randn(count, 2, 5, 5, generator=generator), torch.arange(count) % CLASSES)


def convolution() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 3, CLASSES))


def test_low_precision_rounds_the_steps_and_leaves_the_weights_as_they_were_kept() -> None:
    """A bfloat16 has 8 bits of precision, so a step on rounded products is a few hundredths off, and not exact."""
    model, own = convolution(), images()
    exact, rounded = (
        trained(model, whole_batch(own, learning_rate=0.2, precision=precision), own)
        for precision in ("float32", "bfloat16")
    )
    step, error = flat(exact) - flat(model), flat(rounded) - flat(exact)
    assert 0 < error.norm() < 0.1 * step.norm()
    for parameter in rounded.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.is_contiguous()


def test_a_label_at_every_place_counts_like_an_example_of_its_own() -> None:
    """A layer that sees one place at a time learns the same from sequences and from their places."""
    model, own = linear(), examples(12)
    places = Examples(own.inputs.reshape(4, 3, FEATURES), own.labels.reshape(4, 3))
    torch.testing.assert_close(
        flat(trained(model, whole_batch(places, steps=3), places)), flat(trained(model, whole_batch(own, steps=3), own))
    )


def test_a_recurrent_model_learns_from_sequences() -> None:
    own, model = sequences(), char_lstm(7, hidden=16, layers=1)
    settings = Training(steps=60, batch_size=8, optimiser="adam", learning_rate=0.03, largest_gradient=5.0)
    assert accuracy(trained(model, settings, own), own) > 0.9 > accuracy(model, own)


class Answers(nn.Module):
    """Names the class that the input holds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.one_hot(x, CLASSES).float()


@pytest.mark.parametrize(
    ("said", "labels", "expected"),
    [([0, 1, 2, 2], [0, 1, 2, 0], 0.75), ([[0, 1, 2], [2, 2, 0]], [[0, 1, 1], [2, 0, 1]], 0.5)],
    ids=["one label each", "sequences"],
)
def test_accuracy_is_the_share_of_the_labels_that_are_named(
    said: list[Any], labels: list[Any], expected: float
) -> None:
    assert accuracy(Answers(), Examples(torch.tensor(said), torch.tensor(labels))) == expected


def test_accuracy_counts_every_example_of_a_large_set() -> None:
    labels = torch.zeros(1201, dtype=torch.int64)
    said = torch.where(torch.arange(1201) < 1200, 0, 1)
    assert accuracy(Answers(), Examples(said, labels)) == pytest.approx(1200 / 1201)


def test_judging_a_model_changes_nothing_in_it() -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, CLASSES)).train()
    before = copy.deepcopy(model.state_dict())
    assert accuracy(model, examples()) == accuracy(model, examples())
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_seed_decides_the_batches_and_the_chance_inside_the_model() -> None:
    chancy = nn.Sequential(nn.Dropout(0.5), linear())
    for model, settings in ((linear(), Training(steps=2, batch_size=4)), (chancy, whole_batch(examples()))):
        one, same, other = (flat(trained(model, settings, examples(), seed)) for seed in (5, 5, 6))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_the_global_random_state_stays_as_it_was() -> None:
    before = torch.random.get_rng_state()
    trained(nn.Sequential(nn.Dropout(0.5), linear()), Training(steps=2), examples())
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_example_is_seen_once_before_any_is_seen_twice() -> None:
    own, seen = examples(10), []

    class Witness(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
            seen.extend(input[:, 0].tolist())
            return super().forward(input)

    Training(steps=5, batch_size=4).train(Witness(FEATURES, CLASSES), own, 1)
    assert len(seen) == 20
    assert sorted(seen[:10]) == sorted(seen[10:]) == sorted(own.inputs[:, 0].tolist())


def test_frozen_parameters_stay_where_they_are() -> None:
    model = nn.Sequential(linear(), nn.ReLU(), nn.Linear(CLASSES, CLASSES))
    model[0].requires_grad_(requires_grad=False)
    after = trained(model, Training(optimiser="adam"), examples())
    assert torch.equal(after.get_parameter("0.weight"), model.get_parameter("0.weight"))
    assert not torch.equal(after.get_parameter("2.weight"), model.get_parameter("2.weight"))


def test_a_model_trains_where_the_examples_are_and_comes_back() -> None:
    model, own = Traveller(FEATURES, CLASSES), examples()
    Training(steps=1).train(model, Elsewhere(own.inputs, own.labels), 0)
    assert model.sent == [torch.device("cuda"), torch.device("cpu")]


def test_a_subset_has_the_examples_at_its_places_and_moves_with_them() -> None:
    own = examples()
    part = own.subset([3, 0]).to("cpu")
    assert torch.equal(part.inputs, own.inputs[[3, 0]])
    assert torch.equal(part.labels, own.labels[[3, 0]])
    assert part.device == torch.device("cpu")


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"optimiser": "guess"},
        {"largest_gradient": 0.0},
        {"largest_gradient": math.nan},
        {"precision": "float16"},
        {"proximal": -0.1},
        {"proximal": math.nan},
        {"proximal": math.inf},
    ],
)
def test_settings_outside_their_domain_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Training(**wrong)


@pytest.mark.parametrize(("inputs", "labels"), [(3, 2), (0, 0)])
def test_examples_without_labels_are_refused(inputs: int, labels: int) -> None:
    with pytest.raises(InputError, match="labels"):
        Examples(torch.zeros(inputs, 2), torch.zeros(labels, dtype=torch.int64))
