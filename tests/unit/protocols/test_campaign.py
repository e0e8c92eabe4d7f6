"""A campaign gives the same results in one process and in two, encrypted and in the clear, at once and in parts."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from protocols.experiments import campaign
from protocols.experiments.campaign import Campaign
from protocols.experiments.folder import CHECKPOINT
from protocols.experiments.setup import Place, Setup
from protocols.experiments.suites import Variant
from protocols.simulation import calibration
from protocols.simulation.calibration import CALIBRATION
from secagg.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from protocols.experiments.comparison import Runs
    from protocols.results import Outcome

VARIANTS = (
    Variant(label="fedavg", system="fedavg", aggregation="uniform"),
    Variant(label="ma-clamp", system="ma-clamp", aggregation="mask-indexed", settings={"patience": 1}),
    Variant(label="exclusion", system="exclusion", aggregation="uniform"),
    Variant(label="fluid", system="fluid", aggregation="float"),
)
TINY = Campaign(
    base=Setup(
        system="fedavg",
        dataset="digits-mlp",
        profile="half-everything",
        clients=4,
        rounds=2,
        warm_up=1,
        training={"steps": 1, "batch_size": 8},
        params={"min_cohort": 2},
    ),
    variants=VARIANTS,
    seeds=(0, 5),
)
LABELS = [variant.label for variant in VARIANTS]
PLACE = Place()


class StoppedError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module", autouse=True)
def _short_calibration() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibration, "LENGTHS", (8, 64))
        patched.setattr(calibration, "SESSIONS", 1)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Runs]]:
    """All of it, in one process."""
    out = tmp_path_factory.mktemp("whole")
    return out, dict(campaign.run(TINY, out, PLACE))


def with_its_times(whole: Path, out: Path) -> Path:
    """A folder in which secure aggregation takes as long as in another one."""
    out.mkdir(exist_ok=True)
    shutil.copy(whole / CALIBRATION, out / CALIBRATION)
    return out


def interrupt(*processes: int | None) -> None:
    for process in processes:
        if process is not None:
            os.kill(process, signal.SIGINT)


def models(out: Path) -> dict[str, dict[str, bytes]]:
    """The bits of every run's model, by its folder."""
    return {
        str(path.parent.relative_to(out)): {
            name: tensor.numpy().tobytes() for name, tensor in torch.load(path, weights_only=True)["state"].items()
        }
        for path in sorted(out.rglob(CHECKPOINT))
    }


def test_every_variant_ran_with_every_seed_in_a_folder_of_its_own(whole: tuple[Path, dict[str, Runs]]) -> None:
    out, runs = whole
    assert {label: list(own) for label, own in runs.items()} == {label: [0, 5] for label in LABELS}
    assert set(models(out)) == {f"{label}/seed-{seed}" for label in [*LABELS, "warm-up"] for seed in (0, 5)}
    assert runs["ma-clamp"][5].system == "MA-CLAMP mask-indexed"
    assert [one.number for one in runs["fluid"][0].rounds] == [1, 2]


def test_two_processes_give_the_same_results_as_one(tmp_path: Path, whole: tuple[Path, dict[str, Runs]]) -> None:
    told: list[tuple[str, int, int]] = []

    def deaf(label: str, seed: int, outcome: Outcome) -> None:
        told.append((label, seed, outcome.number))
        if len(told) == 3:  # what a terminal would do to all processes
            interrupt(*(process.pid for process in multiprocessing.active_children()))

    runs = campaign.run(TINY, with_its_times(whole[0], tmp_path), PLACE, jobs=2, on_round=deaf)
    assert runs == whole[1]
    assert models(tmp_path) == models(whole[0])
    expected = {(label, seed, number) for label in LABELS for seed in (0, 5) for number in (1, 2)}
    assert set(told) == expected | {("warm-up", 0, 0), ("warm-up", 5, 0)}
    assert len(told) == len(set(told))


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """As in a terminal: what runs in the background may have been started with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_stops_the_other_processes_too(tmp_path: Path, whole: tuple[Path, dict[str, Runs]]) -> None:
    endless = replace(TINY, base=replace(TINY.base, rounds=5000), variants=VARIANTS[:1])
    told: list[str] = []

    def interrupted(label: str, _seed: int, _outcome: Outcome) -> None:
        told.append(label)
        if told.count("fedavg") == 1:
            interrupt(os.getpid())

    with pytest.raises(KeyboardInterrupt):
        campaign.run(endless, with_its_times(whole[0], tmp_path), PLACE, jobs=2, on_round=interrupted)
    assert multiprocessing.active_children() == []
    assert 1 <= told.count("fedavg") < 5000


def test_what_decided_a_campaign_and_where_its_warm_ups_ended_can_be_read(whole: tuple[Path, dict[str, Runs]]) -> None:
    setup = campaign.resolved(TINY, whole[0])
    assert (setup["system"], setup["seed"], setup["rounds"], setup["training"]["steps"]) == ("fedavg", 0, 2, 1)
    begins = campaign.begins(TINY, whole[0])
    assert set(begins) == {0, 5}
    for seed, (seconds, _) in begins.items():
        first = whole[1]["fedavg"][seed].rounds[0]
        assert seconds == pytest.approx(first.finished_at - first.seconds)
    assert campaign.begins(replace(TINY, base=replace(TINY.base, warm_up=0)), whole[0]) == {}


def test_seeds_differ_in_data_and_not_in_devices() -> None:
    mixed = replace(TINY, base=replace(TINY.base, profile="mixed"))
    assert len({mixed.setup(variant, seed).fleet() for variant in VARIANTS for seed in range(4)}) == 1


def test_a_place_that_is_no_folder_is_refused_as_the_option_that_named_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ParameterError, match=r"--out .*file"):
        campaign.run(TINY, tmp_path / "file", PLACE)


def test_in_the_clear_the_models_are_the_same(tmp_path: Path, whole: tuple[Path, dict[str, Runs]]) -> None:
    runs = campaign.run(replace(TINY, encrypted=False), with_its_times(whole[0], tmp_path), PLACE)
    assert models(tmp_path) == models(whole[0])
    assert {own[0].aggregator for own in runs.values()} == {"plain", "float"}
    for label, own in runs.items():
        for seed, one in own.items():
            encrypted = whole[1][label][seed]
            assert one.accuracy == encrypted.accuracy
            for clear, hidden in zip(one.rounds, encrypted.rounds, strict=True):
                for name, client in clear.clients.items():
                    assert client.seconds.secure == hidden.clients[name].seconds.secure
                    assert client.flops == hidden.clients[name].flops


def test_a_campaign_that_is_done_runs_nothing_again(whole: tuple[Path, dict[str, Runs]]) -> None:
    def refuse(*_: object) -> None:
        raise StoppedError

    before = (whole[0] / CALIBRATION).read_bytes()
    assert campaign.run(TINY, whole[0], PLACE, on_round=refuse) == whole[1]
    assert (whole[0] / CALIBRATION).read_bytes() == before


@pytest.mark.parametrize("stop", [1, 7])
def test_a_campaign_that_was_stopped_goes_on(tmp_path: Path, whole: tuple[Path, dict[str, Runs]], stop: int) -> None:
    out = with_its_times(whole[0], tmp_path)
    told: list[tuple[str, int, int]] = []

    def count(label: str, seed: int, outcome: Outcome) -> None:
        told.append((label, seed, outcome.number))
        if len(told) == stop:
            raise StoppedError

    with pytest.raises(StoppedError):
        campaign.run(TINY, out, PLACE, on_round=count)
    assert campaign.run(TINY, out, PLACE, on_round=count) == whole[1]
    assert models(out) == models(whole[0])
    assert len(told) == len(set(told)) == 2 + 2 * 2 * len(VARIANTS)


def test_a_campaign_grows_by_seeds_and_variants(tmp_path: Path, whole: tuple[Path, dict[str, Runs]]) -> None:
    out = with_its_times(whole[0], tmp_path)
    small = replace(TINY, variants=VARIANTS[:1], seeds=(5,))
    campaign.run(small, out, PLACE)
    told: list[tuple[str, int]] = []
    grown = replace(TINY, variants=VARIANTS[:2], seeds=(5, 0))
    runs = campaign.run(grown, out, PLACE, on_round=lambda label, seed, _: told.append((label, seed)))
    assert runs == {label: whole[1][label] for label in LABELS[:2]}
    assert ("fedavg", 5) not in told
    assert told.count(("warm-up", 5)) == 0


def test_a_setup_of_the_campaign_is_the_base_with_the_variants_own_settings() -> None:
    one = TINY.setup(VARIANTS[1], 5)
    assert (one.system, one.aggregation, one.mode, one.settings) == ("ma-clamp", "mask-indexed", None, {"patience": 1})
    assert (one.seed, one.clients, one.warm_up) == (5, 4, 1)
    clear = replace(TINY, encrypted=False)
    assert (clear.setup(VARIANTS[1], 5).aggregation, clear.setup(VARIANTS[1], 5).mode) == ("plain", "mask-indexed")
    assert (clear.setup(VARIANTS[0], 5).aggregation, clear.setup(VARIANTS[0], 5).mode) == ("plain", "uniform")
    assert clear.setup(VARIANTS[3], 0) == TINY.setup(VARIANTS[3], 0)


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_no_seed_and_a_seed_twice_are_refused(seeds: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError, match="seeds"):
        replace(TINY, seeds=seeds)


def test_no_process_cannot_run_anything(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="jobs must be at least 1, not 0"):
        campaign.run(TINY, tmp_path, PLACE, jobs=0)


def test_a_variant_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    wrong = Variant(label="wrong", system="fedavg", aggregation="mask-indexed")
    with pytest.raises(ParameterError, match="fedavg aggregates uniform"):
        campaign.run(replace(TINY, variants=(*VARIANTS, wrong)), tmp_path, PLACE)
    assert not list(tmp_path.iterdir())
