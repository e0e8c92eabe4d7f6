"""Steps of DP-SGD are what plain gradients, one example at a time, and the drawn noise add up to."""

from __future__ import annotations

import copy
import itertools
import math
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from opacus.layers import DPLSTM
from scipy import stats
from torch import nn

from protocols.sample_level.clipping import Gradients, check_suited, clipper
from protocols.sample_level.training import _CHUNK, PrivateTraining, SampleLevel, _Chance
from protocols.training import Examples, Training, accuracy, cross_entropy
from pruning.masks import Mask, random_units
from pruning.sparse import held_by
from pruning.submodel import extract
from pruning.units import find_units
from secagg.errors import InputError, ParameterError
from secagg.prg import SeededEntropy
from tests.unit.protocols.elsewhere import Elsewhere, Traveller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FEATURES, CLASSES, VOCAB = 6, 3, 5
ALL_GRADIENTS: tuple[Gradients, ...] = get_args(Gradients)


def seeded(model: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model()


def dense() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(FEATURES, 5), nn.ReLU(), nn.Linear(5, CLASSES)))


def convolution() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 2 * 2, CLASSES)
        )
    )


class Characters(nn.Module):
    """As ``CharLSTM``, with the cure for its LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 3)
        self.lstm = DPLSTM(3, 4, batch_first=True)
        self.output = nn.Linear(4, VOCAB)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.lstm(self.embedding(tokens))[0])
        return logits


def points(count: int = 12) -> Examples:
    inputs = torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(count))
    return Examples(inputs, inputs[:, :CLASSES].argmax(dim=1))


def images(count: int = 12) -> Examples:
    generator = torch.Generator().manual_seed(count)
    return Examples(torch.randn(count, 2, 4, 4, generator=generator), torch.arange(count) % CLASSES)


def sequences(count: int = 12) -> Examples:
    inputs = torch.randint(VOCAB, (count, 4), generator=torch.Generator().manual_seed(count))
    return Examples(inputs, (inputs + 1) % VOCAB)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Examples]]] = {
    "dense": (dense, points),
    "convolution": (convolution, images),
    "characters": (lambda: seeded(Characters), sequences),
}


def private(
    gradients: Gradients = "hooks", clip: float = 0.3, noise_multiplier: float = 0.0, **training: Any
) -> PrivateTraining:
    settings = {"steps": 1, "batch_size": 5, "learning_rate": 0.5, "momentum": 0.0} | training
    return PrivateTraining(
        training=Training(**settings),
        privacy=SampleLevel(clip=clip, noise_multiplier=noise_multiplier, gradients=gradients),
    )


def trained(
    model: nn.Module, settings: PrivateTraining, own: Examples, *, secret: bytes = b"secret", seed: int = 0
) -> nn.Module:
    model = copy.deepcopy(model)
    settings.train(model, own, seed, SeededEntropy(secret))
    return model


def flat(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def step(model: nn.Module, settings: PrivateTraining, own: Examples, secret: bytes = b"secret") -> torch.Tensor:
    return flat(trained(model, settings, own, secret=secret)) - flat(model)


def gradient(model: nn.Module, own: Examples) -> torch.Tensor:
    """Plain autograd on these examples, zero for frozen parameters."""
    model = copy.deepcopy(model)
    cross_entropy(model(own.inputs), own.labels).backward()
    return torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in model.parameters()])


def expected_step(
    model: nn.Module,
    settings: PrivateTraining,
    own: Examples,
    secret: bytes = b"secret",
    held: float | torch.Tensor = 1,
) -> torch.Tensor:
    """One step of SGD by the definition: example by example, without opacus."""
    chance, clip = _Chance(SeededEntropy(secret)), settings.privacy.clip
    total = torch.zeros_like(flat(model))
    for place in chance.drawn(len(own), settings.event(len(own)).sample_rate):
        one = gradient(model, own.subset([place])) * held
        total += one * min(1.0, clip / float(one.norm()))
    noise = torch.cat([torch.from_numpy(chance.normal(p.numel())) for p in model.parameters() if p.requires_grad])
    total += (settings.privacy.noise_multiplier * clip * noise * held).float()
    return -settings.training.learning_rate * total / min(settings.training.batch_size, len(own))


def drawn(secret: bytes, count: int, rate: float) -> list[int]:
    return _Chance(SeededEntropy(secret)).drawn(count, rate)


def secrets() -> Iterator[bytes]:
    return (bytes([number]) for number in itertools.count())


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("noise_multiplier", [0.0, 0.7])
def test_a_step_is_the_sum_of_clipped_gradients_and_noise_over_the_expected_number(
    case: str, gradients: Gradients, noise_multiplier: float
) -> None:
    make, data = CASES[case]
    model, own = make(), data()
    norms = [float(gradient(model, own.subset([place])).norm()) for place in range(len(own))]
    settings = private(gradients, clip=float(np.median(norms)), noise_multiplier=noise_multiplier)
    actual, promised = step(model, settings, own), expected_step(model, settings, own)
    assert promised.norm() > 1e-3
    torch.testing.assert_close(actual, promised, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_hooks_and_ghost_clipping_train_alike(case: str, optimiser: str) -> None:
    make, data = CASES[case]
    settings: dict[str, Any] = {"steps": 4, "optimiser": optimiser, "momentum": 0.9, "learning_rate": 0.02}
    one, other = (
        step(make(), private(gradients, noise_multiplier=0.4, **settings), data()) for gradients in ALL_GRADIENTS
    )
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def outlier(own: Examples, place: int, value: float) -> Examples:
    """One example is so many times as far out, and wrong."""
    inputs, labels = own.inputs.clone(), own.labels.clone()
    inputs[place] *= value
    labels[place] = (labels[place] + 1) % CLASSES
    return Examples(inputs, labels)


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
@pytest.mark.parametrize("noise_multiplier", [0.0, 1.0])
def test_one_example_moves_a_step_by_its_share_of_the_clip_and_no_more(
    gradients: Gradients, noise_multiplier: float
) -> None:
    """However far out it is, and however many are drawn. Without it: an example that is no number counts as zero."""
    own, settings = points(), private(gradients, noise_multiplier=noise_multiplier)
    bound = settings.training.learning_rate * settings.privacy.clip / settings.training.batch_size
    sizes = set()
    for secret in itertools.islice((one for one in secrets() if 3 in drawn(one, 12, 5 / 12)), 6):
        sizes.add(len(drawn(secret, 12, 5 / 12)))
        with_it, without = (step(dense(), settings, outlier(own, 3, value), secret) for value in (1e3, math.nan))
        assert float((with_it - without).norm()) == pytest.approx(bound, rel=1e-4)
    assert len(sizes) > 2


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
def test_an_example_less_moves_the_sum_by_the_clip_at_most(gradients: Gradients) -> None:
    own = outlier(points(), 11, 50.0)
    settings = private(gradients, batch_size=12, noise_multiplier=1.0)
    whole, rest = (len(part) * step(dense(), settings, part) for part in (own, own.subset(range(11))))
    bound = settings.training.learning_rate * settings.privacy.clip
    assert 0.99 * bound < float((whole - rest).norm()) <= (1 + 1e-4) * bound


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
def test_examples_that_are_no_numbers_leave_the_noise_alone(gradients: Gradients) -> None:
    own = Examples(torch.full((12, FEATURES), math.inf), points().labels)
    settings = private(gradients, noise_multiplier=1.0)
    noise = torch.from_numpy(_Chance(SeededEntropy(b"secret")).normal(5 * FEATURES)).float()
    moved = step(dense(), settings, own)[: len(noise)]
    torch.testing.assert_close(moved, -0.5 * 0.3 / 5 * noise)


def wide() -> nn.Module:
    return seeded(lambda: nn.Linear(120, 100))


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
@pytest.mark.parametrize(("steps", "count"), [(1, 10), (3, 10), (1, 2 * _CHUNK + 9)])
def test_the_noise_of_a_step_has_the_promised_deviation(gradients: Gradients, steps: int, count: int) -> None:
    """With so small a clip the gradients do not show. Squares of d normal numbers have mean d and variance 2 d."""
    own = Examples(torch.randn(count, 120, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 100)
    settings = private(gradients, clip=1e-6, noise_multiplier=1e6, steps=steps, batch_size=4)
    moved = step(wide(), settings, own).double().numpy() / (0.5 * 1.0 / 4 * math.sqrt(steps))
    assert abs(np.square(moved).mean() - 1) < 5 * math.sqrt(2 / moved.size)
    assert stats.kstest(moved, "norm").pvalue > 1e-3


def test_the_stream_yields_independent_normal_numbers_with_their_tails() -> None:
    numbers = _Chance(SeededEntropy(b"noise")).normal(400_001)
    assert numbers.shape == (400_001,)
    assert stats.kstest(numbers, "norm").pvalue > 1e-3
    beyond = stats.binomtest(int((np.abs(numbers) > 4).sum()), numbers.size, 2 * stats.norm.sf(4)).pvalue
    assert beyond > 1e-3
    of_one_pair = numbers[:200_000], numbers[200_001:]
    for one, other in (of_one_pair, (numbers[:-1], numbers[1:])):
        for power in (1, 2):
            assert abs(np.corrcoef(one**power, other**power)[0, 1]) < 5 / math.sqrt(len(one))


def test_each_example_is_drawn_independently_at_the_rate() -> None:
    """A sample of fixed size would not vary; one drawn with replacement, or one cut from passes, would not be free."""
    count, rate, steps = 400, 0.2, 500
    chance, drawn_at = _Chance(SeededEntropy(b"draws")), np.zeros((steps, count))
    for at in range(steps):
        drawn_at[at, chance.drawn(count, rate)] = 1
    assert stats.binomtest(int(drawn_at.sum()), count * steps, rate).pvalue > 1e-3
    for sizes, of in ((drawn_at.sum(axis=0), steps), (drawn_at.sum(axis=1), count)):
        spread = sizes.var(ddof=1) / (of * rate * (1 - rate)) * (len(sizes) - 1)
        assert 1e-3 < stats.chi2.cdf(spread, len(sizes) - 1) < 1 - 1e-3


def test_a_client_with_fewer_examples_than_a_batch_takes_all_of_them_and_divides_by_their_number() -> None:
    own, settings = points(4), private(clip=1e6)
    assert settings.event(4).sample_rate == 1
    torch.testing.assert_close(step(dense(), settings, own), -0.5 * gradient(dense(), own), rtol=1e-4, atol=1e-6)


def test_a_step_that_draws_nobody_takes_the_noise() -> None:
    own = points(100)
    secret = next(one for one in secrets() if not drawn(one, 100, 0.01))
    assert not step(dense(), private(batch_size=1), own, secret).any()
    settings = private(batch_size=1, noise_multiplier=0.5)
    noisy = step(dense(), settings, own, secret)
    assert noisy.all()
    torch.testing.assert_close(noisy, expected_step(dense(), settings, own, secret))


def test_a_proximal_term_pulls_back_after_the_noise() -> None:
    own = points()
    once = trained(dense(), private(noise_multiplier=0.5, steps=1), own)
    free, held = (trained(dense(), private(noise_multiplier=0.5, steps=2, proximal=p), own) for p in (0.0, 0.7))
    torch.testing.assert_close(flat(held) - flat(free), -0.5 * 0.7 * (flat(once) - flat(dense())))


def sparse_mask(model: nn.Module) -> Mask:
    units = find_units(model, torch.zeros(2, FEATURES))
    return Mask.of_coordinates(units.layout, np.random.default_rng(4).random(units.layout.size) < 0.4)


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"optimiser": "adam"}, {"proximal": 0.5}], ids=str)
def test_noise_does_not_bring_back_what_a_mask_drops(gradients: Gradients, settings: dict[str, Any]) -> None:
    model = dense()
    mask = sparse_mask(model)
    with held_by(mask, model):
        before = flat(model)
        private(gradients, noise_multiplier=1.0, steps=5, **settings).train(model, points(), 0)
    moved, held = flat(model) != before, torch.from_numpy(np.concatenate([*map(np.ravel, mask.by_tensor().values())]))
    assert torch.equal(moved, held)
    assert not any(parameter._backward_hooks for parameter in model.parameters())


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_under_a_mask_the_clip_is_spent_on_what_it_holds(gradients: Gradients, scale: float) -> None:
    """A dropped coordinate neither counts in a norm nor moves, whatever value it has.

    A hook that makes gradients smaller is no mask: less noise would be none of its business.
    """
    model, own, settings = dense(), points(), private(gradients, clip=0.2, noise_multiplier=0.5)
    held = torch.rand(flat(model).shape, generator=torch.Generator().manual_seed(1)) < 0.3
    expected = expected_step(model, settings, own, held=held)
    with ExitStack() as stack:
        parts = held.split([parameter.numel() for parameter in model.parameters()])
        for parameter, part in zip(model.parameters(), parts, strict=True):
            hook = parameter.register_hook(partial(torch.mul, scale * part.view_as(parameter)))
            stack.callback(hook.remove)
        before = flat(model)
        settings.train(model, own, 0, SeededEntropy(b"secret"))
    torch.testing.assert_close(flat(model) - before, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(flat(model)[~held], before[~held])


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
def test_a_submodel_is_trained_at_its_own_size(gradients: Gradients) -> None:
    model, settings = dense(), private(gradients, noise_multiplier=0.5)
    small = extract(
        model, random_units(find_units(model, torch.zeros(2, FEATURES)).layout, 0.5, np.random.default_rng(0))
    )
    assert flat(small).numel() < flat(model).numel()
    torch.testing.assert_close(
        step(small, settings, points()), expected_step(small, settings, points()), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
def test_frozen_parameters_stay_and_do_not_count(gradients: Gradients) -> None:
    model, own, settings = dense(), points(), private(gradients, clip=0.1, noise_multiplier=0.5)
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    model[2].bias.requires_grad_(False)  # type: ignore[index]
    after = trained(model, settings, own)
    assert [p.requires_grad for p in after.parameters()] == [False, True, True, False]
    frozen, chance = FEATURES * 5, _Chance(SeededEntropy(b"secret"))
    total = torch.zeros_like(flat(model))
    for place in chance.drawn(len(own), 5 / 12):
        one = gradient(model, own.subset([place]))
        total += one * min(1.0, 0.1 / float(one.norm()))
    total[frozen:-CLASSES] += 0.05 * torch.from_numpy(np.concatenate([chance.normal(5), chance.normal(15)])).float()
    torch.testing.assert_close(flat(after) - flat(model), -0.5 * total / 5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
def test_a_parameter_that_nothing_goes_through_gets_noise_or_a_named_error(gradients: Gradients) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(FEATURES, CLASSES), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.used(x)
            return logits

    settings = private(gradients, noise_multiplier=0.5)
    if gradients == "ghost":
        with pytest.raises(ParameterError, match="gradients='hooks'"):
            trained(Holder(), settings, points())
    else:
        assert step(Holder(), settings, points()).all()


def attributes_of(model: nn.Module) -> list[dict[str, int]]:
    """What each layer carries, and of collections, such as hooks, how much."""
    return [
        {name: len(value) if hasattr(value, "__len__") else 1 for name, value in layer.__dict__.items()}
        for layer in model.modules()
    ]


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_opacus_is_left_on_a_module(case: str, gradients: Gradients, fails: bool) -> None:  # noqa: FBT001 - a parameter
    make, data = CASES[case]
    model, own = make().eval(), data()
    keys, attributes = list(model.state_dict()), attributes_of(model)
    if fails:
        with pytest.raises(IndexError, match="out of bounds"):
            private(gradients, batch_size=99).train(model, Examples(own.inputs, own.labels + 99), 0)
    else:
        private(gradients).train(model, own, 0)
    assert list(model.state_dict()) == keys
    assert attributes_of(model) == attributes
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    cross_entropy(model(own.inputs), own.labels).backward()
    assert not any(parameter.__dict__ for parameter in model.parameters())


def test_a_model_trains_where_the_examples_are_and_comes_back() -> None:
    model, own = Traveller(FEATURES, CLASSES), points()
    private().train(model, Elsewhere(own.inputs, own.labels), 0)
    assert model.sent == [torch.device("cuda"), torch.device("cpu")]


def test_entropy_decides_draws_and_noise_and_the_seed_the_chance_in_the_model() -> None:
    chancy = nn.Sequential(nn.Dropout(0.5), dense())
    settings, whole = private(noise_multiplier=1.0), private(batch_size=12)
    same, again, other = (trained(dense(), settings, points(), secret=secret) for secret in (b"1", b"1", b"2"))
    assert torch.equal(flat(same), flat(again))
    assert not torch.equal(flat(same), flat(other))
    one, equal, different = (trained(chancy, whole, points(), seed=seed) for seed in (5, 5, 6))
    assert torch.equal(flat(one), flat(equal))
    assert not torch.equal(flat(one), flat(different))


def test_without_entropy_given_no_two_trainings_are_alike() -> None:
    one, other = dense(), dense()
    for model in (one, other):
        private(noise_multiplier=1.0, batch_size=12).train(model, points(), 0)
    assert not torch.equal(flat(one), flat(other))


def test_the_global_random_state_stays_as_it_was() -> None:
    before = torch.random.get_rng_state()
    trained(nn.Sequential(nn.Dropout(0.5), dense()), private(noise_multiplier=1.0), points())
    assert torch.equal(before, torch.random.get_rng_state())


class Counting(nn.Module):
    """Keeps the mean of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean = x.detach().mean(dim=0)
        return x


class Buffered(nn.Linear):
    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)
        self.register_buffer("ones", torch.ones(CLASSES))


UNSUITED: dict[str, tuple[nn.Module, str]] = {
    "normalised": (nn.BatchNorm1d(5), "GroupNorm"),
    "normalised images": (nn.BatchNorm2d(5), "GroupNorm"),
    "without parameters": (nn.BatchNorm1d(5, affine=False), "GroupNorm"),
    "recurrent": (nn.LSTM(5, 5), "DPLSTM"),
    "gated": (nn.GRU(5, 5), "DPGRU"),
    "plainly recurrent": (nn.RNN(5, 5), "DPRNN"),
    "attentive": (nn.MultiheadAttention(4, 2), "DPMultiheadAttention"),
    "tracking": (nn.InstanceNorm1d(5, track_running_stats=True), "track_running_stats=False"),
    "in place": (nn.ReLU(inplace=True), "inplace=False"),
    "with buffers": (Buffered(), "buffers"),
}


@pytest.mark.parametrize("name", UNSUITED)
def test_a_layer_without_gradients_of_single_examples_is_refused_by_name_with_its_cure(name: str) -> None:
    layer, cure = UNSUITED[name]
    model = nn.Sequential(nn.Linear(FEATURES, 5), nn.ModuleDict({"odd": layer}))
    before = flat(model)
    with pytest.raises(ParameterError, match=rf"'1\.odd'.*{type(layer).__name__}.*{cure}"):
        private().train(model, points(), 0)
    assert torch.equal(flat(model), before)


def test_all_that_opacus_calls_unsuited_is_refused_and_the_cures_are_not() -> None:
    from opacus.validators import ModuleValidator

    named = {kind for layer, _ in UNSUITED.values() for kind in type(layer).__mro__}
    others = {nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm2d, nn.InstanceNorm3d}
    assert set(ModuleValidator.VALIDATORS) <= named | others
    check_suited(nn.Sequential(nn.GroupNorm(1, 4), nn.InstanceNorm1d(4), nn.LayerNorm(4), DPLSTM(4, 4), nn.Dropout()))


def test_a_new_verdict_of_opacus_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from opacus.validators import ModuleValidator

    monkeypatch.setitem(ModuleValidator.VALIDATORS, nn.LayerNorm, lambda _: [ValueError("no longer")])
    with pytest.raises(ParameterError, match="LayerNorm: no longer"):
        check_suited(nn.LayerNorm(3))


def test_a_buffer_that_learned_from_the_examples_is_found() -> None:
    model = nn.Sequential(Counting(), nn.Linear(FEATURES, CLASSES))
    with pytest.raises(InputError, match=r"buffer 0\.mean"):
        private().train(model, points(), 0)


class Folded(nn.Module):
    """Its layer sees every place of a sequence as an example."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(x.flatten(0, 1))
        return logits.view(len(x), -1, CLASSES)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.layer(self.layer(x).relu()))
        return logits


@pytest.mark.parametrize("gradients", ALL_GRADIENTS)
def test_a_layer_that_takes_places_for_examples_is_refused(gradients: Gradients) -> None:
    own = Examples(torch.randn(12, 4, FEATURES), torch.zeros(12, 4, dtype=torch.int64))
    with pytest.raises(ParameterError, match="first dimension"):
        trained(Folded(), private(gradients), own)


def test_a_layer_that_is_used_twice_counts_twice_by_hooks_and_ghost_clipping_refuses_it() -> None:
    model, settings = seeded(Twice), private(noise_multiplier=0.5)
    promised = expected_step(model, settings, points())
    torch.testing.assert_close(step(model, settings, points()), promised, rtol=1e-4, atol=1e-6)
    with pytest.raises(ParameterError, match="gradients='hooks'"):
        trained(model, private("ghost"), points())


def test_ghost_clipping_refuses_inputs_whose_norms_it_cannot_find() -> None:
    """Of four dimensions opacus's ghost clipping finds no norm: it must neither do without nor take that of before."""
    own = Examples(torch.randn(12, 2, 2, FEATURES), torch.zeros(12, 2, 2, dtype=torch.int64))
    model = seeded(lambda: nn.Linear(FEATURES, CLASSES))
    assert step(model, private("hooks"), own).any()
    with clipper(model, 0.3, "ghost") as gradients:
        gradients.sum(points())
        with pytest.raises(ParameterError, match="gradients='hooks'"):
            gradients.sum(own)


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip": 0.0},
        {"clip": math.inf},
        {"clip": math.nan},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.inf},
        {"noise_multiplier": math.nan},
        {"gradients": "guess"},
    ],
    ids=str,
)
def test_settings_outside_their_domain_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        SampleLevel(**wrong)


@pytest.mark.parametrize("wrong", [{"largest_gradient": 1.0}, {"precision": "bfloat16"}], ids=str)
def test_settings_of_training_that_contradict_it_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        private(**wrong)


def test_the_gradients_of_a_chunk_are_those_of_its_examples() -> None:
    """What opacus keeps from one chunk does not show in the next."""
    model, own = dense(), points()
    with clipper(model.train(), 0.3, "ghost") as gradients:
        once = gradients.sum(own)
        gradients.sum(own.subset([0]))
        again = gradients.sum(own)
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def test_private_training_learns() -> None:
    own = points(200)
    model = trained(dense(), private(clip=1.0, noise_multiplier=1.0, steps=60, batch_size=50), own)
    assert accuracy(dense(), own) < 0.5
    assert accuracy(model, own) > 0.8
