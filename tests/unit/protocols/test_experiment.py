"""Settings become a run: checked, typed, complete, and the same run again wherever it is stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from protocols import personal
from protocols.ca_afp import CaAfpSettings
from protocols.clip import ClipSettings
from protocols.experiments import experiment
from protocols.experiments import setup as setups
from protocols.experiments.catalogue import SYSTEMS
from protocols.experiments.folder import PERSONAL, ROUNDS, RunFolder
from protocols.experiments.setup import Setup, federation_of, mode_of, resolved, settings_from, system_of
from protocols.experiments.suites import SUITES, suite
from protocols.experiments.tasks import TASKS
from protocols.ma_clamp import DepthSettings
from protocols.personal import judge
from protocols.simulation import calibration
from protocols.simulation.calibration import CALIBRATION, Calibration
from protocols.simulation.profiles import table
from protocols.training import Training, accuracy
from secagg.errors import InputError, ParameterError
from secagg.params import Params

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import DataclassInstance

    from protocols.experiments.setup import Aggregation
    from protocols.federation import Checkpoint
    from protocols.results import Outcome, Personal, RunResult
    from protocols.system import System
    from secagg.params import Mode

BASE = Setup(
    system="fedavg",
    dataset="digits-mlp",
    aggregation="plain",
    profile="half-everything",
    clients=6,
    rounds=2,
    training={"steps": 1, "batch_size": 8},
    params={"min_cohort": 2, "max_dropouts": 1},
)

SCENES: dict[str, dict[str, Any]] = {name: {"system": name} for name in SYSTEMS} | {
    "clip with local scores": {"system": "clip", "settings": {"statistic": "local"}},
    "clip with votes": {"system": "clip", "settings": {"statistic": "vote"}},
    "fluid with thresholds": {"system": "fluid", "rounds": 5},
    "a few participants": {"system": "feddrop", "participants": 5},
    "floats": {"system": "ma-clamp", "aggregation": "float"},
    "a convolutional network": {"system": "clip", "dataset": "digits"},
}


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def setup(**changes: Any) -> Setup:
    return replace(BASE, **changes)


def run(one: Setup, folder: Path, instant: Calibration) -> RunResult:
    return experiment.run(one, folder, calibration=instant)


def end_of(one: Setup, folder: Path) -> Checkpoint:
    found = RunFolder(folder, resolved(one, federation_of(one))).checkpoint
    assert found is not None
    return found


def end_of_a(one: Setup, folder: Path, instant: Calibration) -> Checkpoint:
    run(one, folder, instant)
    return end_of(one, folder)


def same_model(one: Checkpoint, other: Checkpoint) -> bool:
    return all(torch.equal(tensor, other.state[name]) for name, tensor in one.state.items())


# ---------------------------------------------------------------------------------- settings from text


@pytest.mark.parametrize(
    ("defaults", "text", "typed"),
    [
        (
            Training(),
            {"steps": "3", "learning_rate": "0.5", "optimiser": "adam", "largest_gradient": "5"},
            Training(steps=3, learning_rate=0.5, optimiser="adam", largest_gradient=5.0),
        ),
        (Training(largest_gradient=5.0), {"largest_gradient": "null"}, Training()),
        (
            Params(),
            {"min_cohort": "4", "participation": "0.25", "weighting": "public", "neighbours": "6", "levels": "1024"},
            Params(min_cohort=4, participation=0.25, weighting="public", neighbours=6, levels=1024),
        ),
        (
            ClipSettings(),
            {"statistic": "vote", "refresh_every": "2", "keep": "0.5", "budget": "compute"},
            ClipSettings(statistic="vote", refresh_every=2, keep=0.5, budget="compute"),
        ),
        (
            DepthSettings(),
            {"depth": "2", "slow": "1.5", "jitter": "false", "patience": "1"},
            DepthSettings(depth=2, slow=1.5, jitter=False, patience=1),
        ),
    ],
)
def test_text_becomes_what_the_field_is(
    defaults: DataclassInstance, text: dict[str, str], typed: DataclassInstance
) -> None:
    found = settings_from(defaults, text)
    assert found == typed
    assert [type(value) for value in vars(found).values()] == [type(value) for value in vars(typed).values()]


@pytest.mark.parametrize("defaults", [Training(), Params(value_range=2.0), ClipSettings(), DepthSettings()])
def test_no_change_leaves_the_defaults_and_typed_values_stay(defaults: DataclassInstance) -> None:
    assert settings_from(defaults, {}) == defaults
    assert settings_from(defaults, vars(defaults)) == defaults


@pytest.mark.parametrize(
    ("defaults", "changes", "message"),
    [
        (Training(), {"stepps": 3}, "no setting stepps; there are steps, batch_size"),
        (Params(), {"cohort": 3, "min_cohort": 2}, "no setting cohort; there are min_cohort"),
        (ClipSettings(), {"depth": 1}, "no setting depth; there are .*statistic"),
        (DepthSettings(), {"keep": 1}, "no setting keep; there are depth"),
        (Training(), {"steps": "many"}, "^steps must be int, not 'many'$"),
        (Training(), {"steps": 0}, "steps"),
        (Training(), {"optimiser": "newton"}, "^optimiser must be one of adam, sgd, not 'newton'$"),
        (Params(), {"max_dropouts": "few"}, "^max_dropouts must be int or null, not 'few'$"),
        (Params(), {"value_range": {"a": "x"}}, r"^Expected `float`, got `str` - at `\$\.value_range"),
        (Params(), {"privacy": {"clip": 1.0}}, "noise_multiplier"),
        (CaAfpSettings(), {"clustering": "bogus"}, "^clustering must be one of agglomerative, secure, not 'bogus'$"),
        (Params(), {"min_cohort": "1"}, "min_cohort"),
        (Params(), {"participation": "half"}, "participation"),
        (ClipSettings(), {"statistic": "guess"}, "statistic"),
        (ClipSettings(), {"share": "0.9"}, "share"),
        (DepthSettings(), {"jitter": "perhaps"}, "jitter"),
        (DepthSettings(), {"depth": "0"}, "depth"),
        (DepthSettings(), {"depth": "2.5"}, "depth"),
    ],
)
def test_unknown_names_and_wrong_values_are_refused_by_name(
    defaults: DataclassInstance, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        settings_from(defaults, changes)


# ---------------------------------------------------------------------------------- setups


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"aggregation": "sum"}, "aggregation must be one of"),
        ({"rounds": 0}, "rounds"),
        ({"warm_up": -1}, "warm_up"),
        ({"clients": 1}, "clients"),
        ({"participants": -1}, "participants must be from 1 to the 6 clients, not -1"),
        ({"participants": 0}, "participants"),
        ({"participants": 7}, "participants"),
        ({"judge": "training"}, "judge must be one of"),
        ({"until": 0.0}, "until"),
        ({"until": -1.0}, "until"),
        ({"until": float("inf")}, "until"),
        ({"fine_tuning": -1}, "fine_tuning"),
        ({"seed": -1}, "seed"),
        ({"fleet_seed": -1}, "fleet_seed"),
    ],
)
def test_a_setup_outside_its_domain_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        setup(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"system": "fedsgd"}, "no system is called 'fedsgd'; there are fedavg, clip"),
        ({"dataset": "words"}, "dataset must be one of digits"),
        ({"profile": "quick"}, "profile must be one of"),
        ({"deadline": -1.0}, "deadline"),
        ({"partition": "natural"}, "partition"),
        ({"alpha": 0.0}, "alpha"),
        ({"training": {"speed": 1}}, "no setting speed"),
        ({"params": {"min_cohort": "few"}}, "min_cohort"),
        ({"system": "clip", "settings": {"depth": 1}}, "no setting depth"),
        ({"settings": {"depth": 1}}, "fedavg has no settings, so not depth"),
        ({"system": "exclusion", "settings": {"share": 0.1, "keep": 1}}, "exclusion has no settings, so not share, k"),
        ({"aggregation": "mask-indexed"}, "fedavg aggregates uniform: change aggregation or mode"),
        ({"mode": "mask-indexed"}, "fedavg aggregates uniform: change aggregation or mode"),
        ({"system": "ma-clamp", "aggregation": "uniform"}, "ma-clamp aggregates mask-indexed: change aggregation"),
        ({"system": "clamp-diluted", "aggregation": "mask-indexed"}, "clamp-diluted aggregates uniform"),
        ({"system": "clip", "aggregation": "uniform", "mode": "mask-indexed"}, "clip aggregates mask-indexed or unif"),
        ({"system": "fluid", "aggregation": "uniform"}, "fluid reads every update: set aggregation to float or plain"),
        ({"system": "fluid", "aggregation": "mask-indexed"}, "fluid reads every update: set aggregation"),
    ],
)
def test_what_cannot_be_is_refused_by_the_setting_to_change(wrong: dict[str, Any], message: str) -> None:
    one = setup(**wrong)
    with pytest.raises(ParameterError, match=message):
        system_of(one, federation_of(one))


@pytest.mark.parametrize(
    ("system", "aggregation", "mode", "found"),
    [
        ("clip", "plain", None, "mask-indexed"),
        ("clip", "plain", "uniform", "uniform"),
        ("clip", "float", "uniform", "uniform"),
        ("clip", "uniform", None, "uniform"),
        ("clip", "mask-indexed", "mask-indexed", "mask-indexed"),
        ("fedavg", "float", None, "uniform"),
        ("ma-clamp", "plain", None, "mask-indexed"),
    ],
)
def test_the_mode_is_that_of_the_aggregation_or_the_systems_own(
    system: str, aggregation: Aggregation, mode: Any, found: str
) -> None:
    assert mode_of(setup(system=system, aggregation=aggregation, mode=mode)) == found


def test_a_setup_becomes_json_with_its_device_table() -> None:
    one = setup(system="clip", settings={"statistic": "local"}, profile="mixed", seed=4)
    plain = json.loads(json.dumps(one.to_json()))
    assert plain["settings"] == {"statistic": "local"}
    assert plain["devices"] == table(one.fleet())
    assert sum(row["number"] for row in plain["devices"]) == one.clients


def test_the_seed_draws_the_model_and_the_data_and_leaves_the_fleet_as_it_is() -> None:
    one, same, other = (federation_of(setup(profile="mixed", seed=seed)) for seed in (1, 1, 2))
    assert one.fleet == same.fleet == other.fleet
    assert same_model(one.start(), same.start())
    assert not same_model(one.start(), other.start())
    name = one.fleet.names[0]
    assert torch.equal(one.examples[name].inputs, same.examples[name].inputs)
    assert not torch.equal(one.examples[name].labels[:20], other.examples[name].labels[:20])


def test_the_fleet_has_a_seed_of_its_own() -> None:
    assert setup(profile="mixed").fleet() != setup(profile="mixed", fleet_seed=1).fleet()


def test_rounds_are_judged_on_the_test_set_or_on_what_clients_set_aside_and_never_on_both() -> None:
    test, validation = federation_of(setup()), federation_of(setup(judge="validation"))
    assert all(torch.equal(own.inputs, validation.examples[name].inputs) for name, own in test.examples.items())
    trained = {row.numpy().tobytes() for own in test.examples.values() for row in own.inputs}
    judged = {one: {row.numpy().tobytes() for row in one.test.inputs} for one in (test, validation)}
    assert not judged[test] & judged[validation]
    assert not trained & judged[validation]


def test_a_judged_accuracy_is_that_on_the_chosen_part(tmp_path: Path, instant: Calibration) -> None:
    one = setup(judge="validation", rounds=1, training={"steps": 20})
    federation = federation_of(one)
    model = federation.model_at(end_of_a(one, tmp_path, instant))
    assert RunFolder.as_it_stands(tmp_path).setup["data"]["validation"] == len(federation.test)
    assert run(one, tmp_path, instant).accuracy == accuracy(model, federation.test)
    assert accuracy(model, federation.test) != accuracy(model, federation_of(setup()).test)


def test_what_decides_a_run_is_told_whole() -> None:
    one = setup(system="clip", settings={"statistic": "local"}, training={"steps": "3"}, seed=4)
    federation = federation_of(one)
    found = json.loads(json.dumps(resolved(one, federation)))
    assert found["settings"] == vars(ClipSettings(statistic="local"))
    assert found["training"] == vars(replace(TASKS["digits-mlp"].training, steps=3))
    assert (found["params"]["min_cohort"], found["params"]["value_range"], found["params"]["levels"]) == (2, 2, 2**18)
    assert (found["partition"], found["mode"], found["watts"]) == ("label-skewed", "mask-indexed", 40)
    assert found["model"]["fc1.weight"] == [64, 64]
    assert found["data"]["train"] == sum(map(len, federation.examples.values()))
    assert found["data"]["test"] == len(federation.test)


def test_the_same_settings_said_in_other_words_are_the_same_run() -> None:
    short, long = setup(params={}), setup(params={"min_cohort": "3", "value_range": 2}, partition="label-skewed")
    assert resolved(short, federation_of(short)) == resolved(long, federation_of(long))


@pytest.mark.parametrize("place", [("straggler-01", "inputs"), ("fast-02", "labels"), ("test", "labels")])
def test_a_changed_example_is_another_run(place: tuple[str, str]) -> None:
    one, (owner, what) = setup(), place
    federation = federation_of(one)
    before = resolved(one, federation)
    assert before == resolved(one, federation_of(one))
    own = federation.test if owner == "test" else federation.examples[owner]
    changed = replace(own, **{what: getattr(own, what).flip(0)})
    if owner == "test":
        other = replace(federation, test=changed)
    else:
        other = replace(federation, examples={**federation.examples, owner: changed})
    assert resolved(one, other)["data"]["sha256"] != before["data"]["sha256"]


def test_a_task_that_changed_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instant: Calibration
) -> None:
    run(setup(), tmp_path, instant)
    own = TASKS["digits-mlp"]
    changed = replace(own, training=replace(own.training, momentum=0.5), value_range=3.0)
    monkeypatch.setattr(setups, "task", lambda _: changed)
    with pytest.raises(ParameterError, match="another params, training"):
        run(setup(), tmp_path, instant)


def test_systems_that_are_compared_start_from_one_model_and_one_division() -> None:
    fedavg, clip = federation_of(setup()), federation_of(setup(system="clip", aggregation="mask-indexed", rounds=9))
    assert same_model(fedavg.start(), clip.start())
    assert all(torch.equal(own.inputs, clip.examples[name].inputs) for name, own in fedavg.examples.items())


def test_a_task_brings_its_own_training_and_settings_change_it() -> None:
    own = federation_of(setup(training={}))
    assert (own.training.optimiser, own.watts) == ("adam", 40.0)
    assert federation_of(setup(training={"steps": "7"})).training == replace(own.training, steps=7)


def test_data_that_lie_in_no_folder_are_asked_for() -> None:
    with pytest.raises(ParameterError, match="data-dir"):
        federation_of(setup(dataset="mnist"))


def test_data_that_are_not_in_their_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mnist"):
        federation_of(setup(dataset="mnist"), setups.Place(data=tmp_path))


# ---------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("scene", SCENES)
def test_every_system_runs_by_its_name_and_goes_on_where_it_was_stopped(
    tmp_path: Path, instant: Calibration, scene: str
) -> None:
    one = setup(**SCENES[scene])
    whole = run(one, tmp_path / "whole", instant)
    assert [outcome.number for outcome in whole.rounds] == list(range(one.rounds))
    stop = one.rounds - 2

    def told(_: str, outcome: Outcome) -> None:
        if outcome.number == stop:
            raise StoppedError

    with pytest.raises(StoppedError):
        experiment.run(one, tmp_path / "parts", calibration=instant, on_round=told)
    assert run(one, tmp_path / "parts", instant) == whole
    assert same_model(end_of(one, tmp_path / "parts"), end_of(one, tmp_path / "whole"))


def test_the_scenes_are_what_they_are_called(tmp_path: Path, instant: Calibration) -> None:
    fluid = run(setup(**SCENES["fluid with thresholds"]), tmp_path / "fluid", instant)
    assert "invariant units" in fluid.rounds[-1].details
    vote = run(setup(**SCENES["clip with votes"]), tmp_path / "vote", instant)
    assert max(one.keep for one in vote.of_stragglers()[1:]) < 1
    few = run(setup(**SCENES["a few participants"]), tmp_path / "few", instant)
    assert {len(one.clients) for one in few.rounds} == {5}
    exclusion = run(setup(system="exclusion"), tmp_path / "exclusion", instant)
    assert exclusion.of_stragglers() == ()


@pytest.mark.parametrize(
    ("system", "aggregation"),
    [("fedavg", "uniform"), ("clip", "uniform"), ("clip", "mask-indexed"), ("ma-clamp", "mask-indexed")],
)
def test_encryption_changes_nothing_of_the_model(
    tmp_path: Path, instant: Calibration, system: str, aggregation: Mode
) -> None:
    settings = {"patience": 1} if system == "ma-clamp" else {}
    hidden = setup(system=system, settings=settings, aggregation=aggregation, check=True, rounds=3)
    clear = replace(hidden, aggregation="plain", mode=aggregation, check=False)
    result, plain = run(hidden, tmp_path / "hidden", instant), run(clear, tmp_path / "clear", instant)
    assert result.difference == 0
    assert plain.difference is None
    assert [one.accuracy for one in result.rounds] == [one.accuracy for one in plain.rounds]
    assert same_model(end_of(hidden, tmp_path / "hidden"), end_of(clear, tmp_path / "clear"))


UNTIL = {"aggregation": "float", "mode": "uniform", "rounds": 6}
"""Floats take no time that would have to be measured."""


@pytest.mark.parametrize("ended", [0, 1, 3])
def test_no_round_begins_after_the_time_that_a_run_is_given(tmp_path: Path, instant: Calibration, ended: int) -> None:
    whole = run(setup(**UNTIL), tmp_path / "whole", instant)
    seconds = whole.rounds[0].seconds
    for name, until in (("inside", (ended + 0.5) * seconds), ("just", whole.rounds[ended].finished_at)):
        cut = run(setup(**UNTIL, until=until), tmp_path / name, instant)
        assert cut.rounds == whole.rounds[: ended + 1]
    assert len(run(setup(**UNTIL, until=99 * seconds), tmp_path / "long", instant).rounds) == 6


def test_a_run_that_is_given_more_time_goes_on_and_one_that_is_given_less_tells_less(
    tmp_path: Path, instant: Calibration
) -> None:
    whole = run(setup(**UNTIL), tmp_path / "whole", instant)
    seconds = whole.rounds[0].seconds
    for until, rounds in ((1.5, 2), (3.5, 4), (99, 6), (2.5, 3), (99, 6)):
        one = setup(**UNTIL, until=until * seconds)
        assert run(one, tmp_path / "run", instant).rounds == whole.rounds[:rounds]


def test_the_time_that_a_run_is_given_counts_from_its_warm_up_on(tmp_path: Path, instant: Calibration) -> None:
    one = setup(**UNTIL, warm_up=2)
    whole = run(one, tmp_path / "whole", instant)
    cut = replace(one, until=whole.rounds[0].finished_at + 1e-9)
    assert run(cut, tmp_path / "cut", instant).rounds == whole.rounds[:2]


def test_a_run_leaves_the_number_of_threads_as_it_was(tmp_path: Path, instant: Calibration) -> None:
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        experiment.run(
            setup(warm_up=1, rounds=1),
            tmp_path,
            calibration=instant,
            on_round=lambda *_: seen.append(torch.get_num_threads()),
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]


# ---------------------------------------------------------------------------------- warm-up


def told_by(one: Setup, folder: Path, instant: Calibration, **kwargs: Any) -> list[str]:
    """What each round that was played called itself."""
    names: list[str] = []
    experiment.run(one, folder, calibration=instant, on_round=lambda name, _: names.append(name), **kwargs)
    return names


def test_a_warm_up_is_shared_and_trained_once(tmp_path: Path, instant: Calibration) -> None:
    shared, warm = {"warm_up_folder": tmp_path / "warm"}, {"warm_up": 2, "rounds": 1}
    first = told_by(setup(**warm), tmp_path / "fedavg", instant, **shared)
    assert first == ["warm-up", "warm-up", "FedAvg plain"]
    second = setup(system="ma-clamp", settings={"depth": 2}, deadline=1e6, check=True, **warm)
    assert told_by(second, tmp_path / "ma-clamp", instant, **shared) == ["MA-CLAMP plain"]


def test_a_run_begins_where_its_warm_up_ended(tmp_path: Path, instant: Calibration) -> None:
    one = setup(system="fedpmt", settings={"depth": 1}, warm_up=2, rounds=1)
    result = run(one, tmp_path / "warm", instant)
    assert [outcome.number for outcome in result.rounds] == [2]
    fedavg = setup(rounds=2, mode="uniform")
    whole = run(fedavg, tmp_path / "cold", instant)
    before, after = end_of(fedavg, tmp_path / "cold"), end_of(one, tmp_path / "warm")
    assert result.rounds[0].finished_at == pytest.approx(whole.rounds[-1].finished_at + result.rounds[0].seconds)
    frozen = [name for name in before.state if not name.startswith("fc5")]
    assert len(frozen) == 8
    assert all(torch.equal(before.state[name], after.state[name]) for name in frozen)


def test_a_warm_up_does_not_withhold_what_the_system_would(tmp_path: Path, instant: Calibration) -> None:
    one = setup(system="feddrop", params={"min_cohort": 2, "participation": 0.75}, warm_up=1, rounds=1)
    run(one, tmp_path / "one", instant)
    other = replace(one, params={"min_cohort": 2, "participation": 0.5})
    assert told_by(other, tmp_path / "two", instant, warm_up_folder=tmp_path / "one" / "warm-up") == ["FedDrop plain"]


@pytest.mark.parametrize("system", ["ma-clamp", "clamp"])
def test_what_makes_a_system_what_it_is_cannot_be_set(system: str) -> None:
    with pytest.raises(ParameterError, match=f"participation is part of what {system} is"):
        setups.params_of(setup(system=system, params={"participation": 0.7}))


@pytest.mark.parametrize("length", [1, 3])
def test_a_warm_up_of_another_length_is_refused_and_the_one_that_is_there_stays(
    tmp_path: Path, instant: Calibration, length: int
) -> None:
    shared = {"warm_up_folder": tmp_path / "warm"}
    before = told_by(setup(warm_up=2, rounds=1), tmp_path / "one", instant, **shared)
    assert before == ["warm-up", "warm-up", "FedAvg plain"]
    with pytest.raises(ParameterError, match="one holds a run with another warm_up: choose another --out"):
        told_by(setup(warm_up=length, rounds=1), tmp_path / "one", instant, **shared)
    with pytest.raises(ParameterError, match="warm holds a run with another rounds: choose another --out"):
        told_by(setup(warm_up=length, rounds=1), tmp_path / "two", instant, **shared)
    assert told_by(setup(warm_up=2, rounds=1), tmp_path / "one", instant, **shared) == []
    assert told_by(setup(warm_up=2, rounds=1), tmp_path / "two", instant, **shared) == ["FedAvg plain"]


def test_a_run_that_began_needs_its_warm_up_no_more(tmp_path: Path, instant: Calibration) -> None:
    told_by(setup(warm_up=1, rounds=1), tmp_path / "run", instant)
    shutil.rmtree(tmp_path / "run" / "warm-up")
    assert told_by(setup(warm_up=1, rounds=2), tmp_path / "run", instant) == ["FedAvg plain"]
    assert not (tmp_path / "run" / "warm-up").exists()


def test_a_warm_up_that_was_stopped_goes_on(tmp_path: Path, instant: Calibration) -> None:
    def stop(*_: object) -> None:
        raise StoppedError

    one = setup(warm_up=2, rounds=1)
    with pytest.raises(StoppedError):
        experiment.run(one, tmp_path, calibration=instant, on_round=stop)
    assert told_by(one, tmp_path, instant) == ["warm-up", "FedAvg plain"]


# ---------------------------------------------------------------------------------- calibration


ASYNCHRONOUS = {"pr-fl", "fedasync", "fedfix"}
"""They have no cohorts to draw."""

ON_THE_WAY = {"ca-afp", "clustered", "fedsnip", "pr-fl"}
"""How many clients their sessions have, or what they sum beside updates, shows when they run."""


@pytest.mark.parametrize("participants", [None, 4])
@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_calibrated_before_is_all_that_a_run_and_its_warm_up_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, participants: int | None
) -> None:
    monkeypatch.setattr(calibration, "LENGTHS", (8, 64))
    monkeypatch.setattr(calibration, "SESSIONS", 1)
    drawn = None if system in ASYNCHRONOUS else participants
    one, known = setup(system=system, participants=drawn, warm_up=1, rounds=1), Calibration()
    experiment.calibrate(one, known)
    measured = known.times
    assert {time.mode for time in measured} == {"uniform", mode_of(one)}
    experiment.run(one, tmp_path, calibration=known)
    found = Calibration.load(tmp_path / CALIBRATION).times
    assert found[: len(measured)] == measured
    assert len(found) == len(measured) or system in ON_THE_WAY


@pytest.mark.parametrize("system", sorted(ON_THE_WAY))
def test_what_is_measured_on_the_way_is_known_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr(calibration, "LENGTHS", (8, 64))
    monkeypatch.setattr(calibration, "SESSIONS", 1)
    one = setup(system=system, rounds=3)

    def told(_: str, outcome: Outcome) -> None:
        if outcome.number == 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        experiment.run(one, tmp_path, on_round=told)
    kept = Calibration.load(tmp_path / CALIBRATION).times
    assert len(kept) >= 1
    experiment.run(one, tmp_path)
    assert Calibration.load(tmp_path / CALIBRATION).times == kept


def test_floats_have_nothing_to_calibrate() -> None:
    known = Calibration()
    experiment.calibrate(setup(aggregation="float"), known)
    assert known.times == ()


# ---------------------------------------------------------------------------------- models of clients' own

TUNED = setup(system="fedsnip", fine_tuning=2, rounds=2)


def test_clients_are_judged_once_where_a_run_ends_and_anew_where_it_ends_later(
    tmp_path: Path, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(TUNED, tmp_path, instant)
    assert first.personal is not None
    assert first.personal.steps == 2
    assert set(first.personal.before) == set(federation_of(TUNED).fleet.names)
    judged: list[int] = []

    def noted(system: System, at: Checkpoint, steps: int) -> Personal:
        judged.append(at.number)
        return judge(system, at, steps)

    monkeypatch.setattr(personal, "judge", noted)
    assert run(TUNED, tmp_path, instant) == first
    assert judged == []
    longer = run(replace(TUNED, rounds=3), tmp_path, instant)
    assert judged == [3]
    assert longer == run(replace(TUNED, rounds=3), tmp_path / "at once", instant)


def test_of_a_model_that_is_gone_nobody_tells_how_clients_fare(tmp_path: Path, instant: Calibration) -> None:
    long = run(TUNED, tmp_path, instant)
    short = run(replace(TUNED, rounds=1), tmp_path, instant)
    assert short.personal is None
    assert run(TUNED, tmp_path, instant) == long


def test_without_test_examples_of_their_own_no_round_is_played(
    tmp_path: Path, instant: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "federation_of", lambda *of: replace(federation_of(*of), tests={}))
    with pytest.raises(ParameterError, match="fine_tuning"):
        run(TUNED, tmp_path, instant)
    assert not (tmp_path / ROUNDS).exists()


def test_nobody_is_judged_who_was_not_asked(tmp_path: Path, instant: Calibration) -> None:
    assert run(replace(TUNED, fine_tuning=0), tmp_path, instant).personal is None
    assert not (tmp_path / PERSONAL).exists()


# ---------------------------------------------------------------------------------- suites


@pytest.mark.parametrize("name", SUITES)
def test_every_variant_of_a_suite_can_be_built(name: str) -> None:
    variants, federation = suite(name), federation_of(BASE)
    assert len({variant.label for variant in variants}) == len(variants)
    for variant in variants:
        one = setup(system=variant.system, settings=variant.settings, aggregation=variant.aggregation)
        system = system_of(one, federation)
        assert system.aggregator.name == variant.aggregation


def test_a_suite_can_be_narrowed_and_keeps_its_baseline() -> None:
    assert [one.label for one in suite("ma-clamp", ("clamp",))] == ["fedavg", "clamp"]
    assert [one.label for one in suite("clip", ())] == ["fedavg"]


@pytest.mark.parametrize(
    ("name", "only", "message"),
    [("fedavg", None, "nothing to compare 'fedavg' with"), ("clip", ("clamp", "clip"), "no variant clamp; there are")],
)
def test_what_no_suite_has_is_refused_with_what_there_is(name: str, only: tuple[str, ...] | None, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        suite(name, only)
