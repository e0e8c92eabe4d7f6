"""Every number of a comparison, against hand-made runs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from scipy import stats

from protocols.commands.printing import ONLY_ON_PAGES, print_comparison
from protocols.experiments.comparison import Row, Spread, compare
from protocols.experiments.markdown import MEANINGS, costs, legend, personal, times, trips
from protocols.experiments.setup import Setup
from protocols.results import ClientRound, LostRound, Personal, RoundResult, RunResult
from protocols.simulation.clock import ClientTime
from secagg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# ---------------------------------------------------------------------------------- spread


def test_a_single_number_has_no_spread() -> None:
    assert Spread.of([0.5]) == Spread(mean=0.5, deviation=None, margin=None)


def test_the_spread_of_three_numbers_is_that_of_the_textbook() -> None:
    spread = Spread.of([1.0, 2.0, 6.0])
    assert spread.mean == 3.0
    assert spread.deviation == pytest.approx(7**0.5)  # ((-2)^2 + (-1)^2 + 3^2) / 2
    assert spread.margin == pytest.approx(4.302652730 * (7 / 3) ** 0.5)  # t of two degrees of freedom at 97.5 %


def test_the_margin_is_half_of_scipys_confidence_interval() -> None:
    values = [0.91, 0.88, 0.93, 0.9, 0.87]
    spread = Spread.of(iter(values))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=spread.mean, scale=stats.sem(values))
    assert (spread.mean - (spread.margin or 0), spread.mean + (spread.margin or 0)) == pytest.approx((low, high))


def test_equal_numbers_have_no_margin() -> None:
    assert Spread.of([0.25, 0.25]) == Spread(mean=0.25, deviation=0.0, margin=0.0)


# ---------------------------------------------------------------------------------- rows


def client(
    seconds: tuple[float, float, float, float], *, keep: float = 1.0, up: int = 100, late: bool = False
) -> ClientRound:
    """A client's round from its seconds of download, computation, upload and secure aggregation."""
    download, compute, upload, secure = seconds
    return ClientRound(
        keep=keep,
        parameters=10,
        flops=7,
        download_bytes=10 * up,
        upload_bytes=up,
        seconds=ClientTime(download=download, compute=compute, upload=upload, secure=secure),
        joules=40 * compute,
        late=late,
    )


def one_round(number: int, accuracy: float, clients: Mapping[str, ClientRound], **fields: Any) -> RoundResult:
    """A round as long as its slowest client; all rounds of a run are equally long."""
    seconds = max(one.seconds.total for one in clients.values())
    defaults: dict[str, Any] = {
        "number": number,
        "accuracy": accuracy,
        "finished_at": seconds * (number + 1),
        "seconds": seconds,
        "clients": clients,
        "survivors": tuple(clients),
        "withheld_share": 0.0,
        "difference": None,
        "verdict": "",
    }
    return RoundResult(**defaults | fields)


def run(rounds: Sequence[RoundResult], *, system: str = "made up", stragglers: tuple[str, ...] = ("c",)) -> RunResult:
    return RunResult(system=system, aggregator="float", stragglers=stragglers, rounds=tuple(rounds))


FAST_A, FAST_B = client((1, 2, 1, 0)), client((1, 4, 1, 0))
FULL = {"a": FAST_A, "b": FAST_B, "c": client((2, 8, 2, 0))}
"""Totals 4, 6 and 12: a round of 12 seconds, of 6 without the straggler."""

PRUNED = {"a": FAST_A, "b": FAST_B, "c": client((2, 4, 1, 1), keep=0.5, up=40)}
"""Totals 4, 6 and 8."""

BASELINE = {
    0: run([one_round(0, 0.2, FULL), one_round(1, 0.6, FULL)], system="FedAvg"),
    1: run([one_round(0, 0.4, FULL), one_round(1, 0.8, FULL)], system="FedAvg"),
}
SYSTEM = {
    0: run([one_round(number, accuracy, PRUNED) for number, accuracy in enumerate((0.3, 0.5))], system="CLIP"),
    1: run([one_round(number, accuracy, PRUNED) for number, accuracy in enumerate((0.7, 0.8))], system="CLIP"),
}


def rows(system: Mapping[int, RunResult] = SYSTEM, baseline: Mapping[int, RunResult] = BASELINE) -> tuple[Row, Row]:
    first, second = compare({"fedavg": baseline, "clip": system})
    return first, second


def in_time(one: Row) -> tuple[float, float]:
    """A row's accuracy in equal time, and what it gained by then."""
    assert one.accuracy_in_time is not None
    assert one.gain_in_time is not None
    return one.accuracy_in_time.mean, one.gain_in_time.mean


def row(system: Mapping[int, RunResult] = SYSTEM, baseline: Mapping[int, RunResult] = BASELINE) -> Row:
    return rows(system, baseline)[1]


def test_rows_stand_in_the_order_given_with_the_systems_own_names() -> None:
    baseline, system = rows()
    assert (baseline.label, baseline.system, baseline.seeds) == ("fedavg", "FedAvg", (0, 1))
    assert (system.label, system.system, system.seeds) == ("clip", "CLIP", (0, 1))


def test_times_stand_beside_the_baselines_and_its_bound() -> None:
    baseline, system = rows()
    assert (baseline.round_seconds, baseline.speed_up, baseline.bound) == (12, 0, 0.5)
    assert (system.round_seconds, system.bound) == (8, 0.5)
    assert system.speed_up == pytest.approx(1 / 3)


def test_the_bound_is_the_baselines_and_not_the_systems_own() -> None:
    quicker = {name: replace(one, seconds=ClientTime(download=0, compute=1, upload=0)) for name, one in PRUNED.items()}
    found = row({seed: run([one_round(0, 0.5, quicker)]) for seed in (0, 1)})
    assert found.bound == 0.5


DEADLINE = 7.0
CUT = {"a": FAST_A, "b": FAST_B, "c": client((2, 8, 2, 0), late=True)}
"""A round of 7 seconds, at whose end the straggler was not done."""


@pytest.mark.parametrize(
    ("clients", "length", "without_stragglers"),
    [
        (CUT, DEADLINE, 6),
        (CUT | {"b": client((1, 9, 1, 0), late=True)}, DEADLINE, DEADLINE),  # waits for b until the deadline
        ({"c": FULL["c"]}, 12, 12),  # nobody else to be as fast as
    ],
)
def test_with_a_deadline_no_round_gets_longer_if_stragglers_keep_up(
    clients: dict[str, ClientRound], length: float, without_stragglers: float
) -> None:
    one = run([one_round(0, 0.5, clients, seconds=length)])
    assert one.round_seconds_of_rest == without_stragglers
    assert row({0: one, 1: one}, {0: one, 1: one}).bound == pytest.approx(1 - without_stragglers / length)


def test_the_slowest_client_is_one_that_was_in_time_so_no_bar_exceeds_its_round() -> None:
    found = row({seed: run([one_round(0, 0.5, CUT, seconds=DEADLINE)]) for seed in (0, 1)})
    assert found.seconds == {"download": 1, "compute": 4, "upload": 1, "secure": 0}


@pytest.mark.parametrize(
    ("clients", "stragglers", "share"),
    [
        (CUT, ("c",), 0),
        (CUT, ("b", "c"), 0.5),
        ({"a": FAST_A, "b": FAST_B, "c": client((1, 4, 2, 0), late=True)}, ("c",), 0),  # late, if not slow
        (dict.fromkeys(("a", "b", "c"), client((1, 4, 2, 0), late=True)) | {"d": FAST_A}, ("a", "d"), 0.5),
    ],
)
def test_who_is_late_is_slow_and_not_in_time(
    clients: dict[str, ClientRound], stragglers: tuple[str, ...], share: float
) -> None:
    one = run([one_round(0, 0.5, clients, seconds=DEADLINE)], stragglers=stragglers)
    assert row({0: one, 1: one}).inclusion == share


def test_accuracies_are_paired_by_seed() -> None:
    baseline, system = rows()
    assert (baseline.accuracy.mean, baseline.accuracy.deviation) == pytest.approx((0.5, 0.02**0.5))
    assert baseline.gain == Spread(mean=0, deviation=0, margin=0)
    assert system.accuracy.mean == pytest.approx(0.575)
    # 0.4 against 0.4 and 0.75 against 0.6: paired, they differ by 0 and 0.15.
    assert system.gain.mean == pytest.approx(0.075)
    assert system.gain.deviation == pytest.approx(0.15 / 2**0.5)


def test_seeds_are_paired_in_whatever_order_they_stand() -> None:
    turned = {seed: SYSTEM[seed] for seed in (1, 0)}
    assert row(turned).gain.mean == pytest.approx(row().gain.mean)
    assert row(turned).gain.deviation == pytest.approx(row().gain.deviation)


def test_accuracy_in_time_is_read_when_the_first_system_of_the_seed_was_done() -> None:
    # CLIP is done after 16 seconds; by then FedAvg had ended its first round only, at 12 seconds.
    baseline, system = rows()
    assert in_time(system) == pytest.approx((0.575, 0.575 - 0.3))
    assert in_time(baseline) == pytest.approx(((0.2 + 0.4) / 2, 0))
    assert system.gain_in_time is not None
    assert system.gain_in_time.deviation == pytest.approx(0.15 / 2**0.5)  # 0.4 less 0.2, 0.75 less 0.4: paired


def test_accuracies_in_time_are_means_over_as_much_time_for_all() -> None:
    # CLIP's last five of eight rounds take 40 seconds, until the 64th; by then FedAvg ended rounds at 12, 24, ... 60.
    quick = run([one_round(number, number / 10, PRUNED) for number in range(8)])
    whole = run([one_round(number, number / 10, FULL) for number in range(8)])
    baseline, system = rows({0: quick}, {0: whole})
    assert in_time(system)[0] == pytest.approx((0.3 + 0.4 + 0.5 + 0.6 + 0.7) / 5)
    assert in_time(baseline)[0] == pytest.approx((0.2 + 0.3 + 0.4) / 3)  # at 36, 48 and 60 seconds, after the 24th


def test_a_round_longer_than_the_time_averaged_over_counts_too() -> None:
    quick = run([one_round(number, 0.5, {"a": client((0, 1, 0, 0))}) for number in range(8)])
    slow = run([one_round(number, 0.1, {"a": client((0, 2.5, 0, 0))}) for number in range(8)])
    late = run([replace(one, finished_at=one.finished_at + 100 * one.number) for one in slow.rounds])
    assert in_time(rows({0: quick}, {0: late})[0])[0] == pytest.approx(0.1)


def test_who_had_not_ended_a_round_by_then_is_where_its_warm_up_ended() -> None:
    short = {seed: run([replace(one_round(0, 0.5, PRUNED), finished_at=5.0)]) for seed in (0, 1)}
    baseline, system = compare({"fedavg": BASELINE, "clip": short}, {0: (1.0, 0.25), 1: (1.0, 0.35)})
    assert in_time(baseline) == pytest.approx((0.3, 0))
    assert in_time(system) == pytest.approx((0.5, 0.2))


def test_without_a_warm_up_its_accuracy_is_unknown_and_so_is_what_others_gained() -> None:
    short = {seed: run([replace(one_round(0, 0.5, PRUNED), finished_at=5.0)]) for seed in (0, 1)}
    baseline, system = rows(short)
    assert (baseline.accuracy_in_time, baseline.gain_in_time, system.gain_in_time) == (None, None, None)
    assert system.accuracy_in_time == Spread(mean=0.5, deviation=0, margin=0)


def test_the_time_of_the_slowest_client_is_broken_down_round_by_round() -> None:
    assert row().seconds == {"download": 2, "compute": 4, "upload": 1, "secure": 1}
    other = {"a": client((8, 1, 1, 0)), "b": FAST_B, "c": PRUNED["c"]}
    assert row({seed: run([one_round(0, 0.5, other), one_round(1, 0.5, PRUNED)]) for seed in (0, 1)}).seconds == {
        "download": 5,
        "compute": 2.5,
        "upload": 1,
        "secure": 0.5,
    }


def test_bytes_and_energy_are_means_of_clients_and_sums_of_rounds() -> None:
    found = row()
    assert found.upload_bytes == 80
    assert found.download_bytes == 800
    assert found.straggler_upload_bytes == 40
    assert found.keep == 0.5
    assert found.joules == pytest.approx(40 * (2 + 4 + 4))
    assert rows()[0].joules == pytest.approx(40 * (2 + 4 + 8))


def test_slow_clients_in_time_are_counted_round_by_round() -> None:
    # The median of a full round is 6 seconds, so in time is who took at most 1.2 * 1.5 * 6 = 10.8.
    baseline, system = rows()
    assert (baseline.inclusion, system.inclusion) == (0, 1)
    half = run([one_round(0, 0.5, PRUNED), one_round(1, 0.5, FULL)])
    assert row({0: half, 1: half}).inclusion == 0.5


def test_every_seed_has_stragglers_of_its_own() -> None:
    turned = {"a": FULL["c"], "b": FULL["b"], "c": FULL["a"]}
    drawn = {
        0: run([one_round(0, 0.5, FULL)], stragglers=("c",)),
        1: run([one_round(0, 0.5, turned)], stragglers=("a",)),
    }
    assert row(drawn).inclusion == 0
    assert row(drawn).bound == 0.5


def test_without_stragglers_there_is_nothing_to_say_of_them() -> None:
    alone = {seed: run([one_round(0, 0.5, {"a": FAST_A, "b": FAST_B})]) for seed in (0, 1)}
    found = row(alone)
    assert (found.keep, found.straggler_upload_bytes, found.inclusion) == (None, None, None)
    assert found.upload_bytes == 100
    nobody = {seed: replace(one, stragglers=()) for seed, one in SYSTEM.items()}
    assert (row(nobody).keep, row(nobody).inclusion) == (None, None)


def test_recovered_layers_are_a_mean_over_rounds_and_none_where_there_are_no_depths() -> None:
    assert row().layers_recovered is None
    rounds = [
        one_round(number, 0.5, PRUNED, details={"layers recovered": layers}) for number, layers in enumerate((1.0, 2.0))
    ]
    assert row({0: run(rounds), 1: run(rounds[:1])}).layers_recovered == pytest.approx(4 / 3)


def test_withheld_coordinates_lost_rounds_and_differences_are_told() -> None:
    assert (row().withheld_share, row().lost_rounds, row().difference) == (0, 0, None)
    first = run([one_round(0, 0.5, PRUNED, withheld_share=0.25, difference=0.0)])
    second = run([one_round(0, 0.5, PRUNED, withheld_share=0.75, difference=0.125)])
    lost = LostRound(number=1, reason="too few", seconds=20.0)
    found = row({0: first, 1: replace(second, lost=(lost, lost))})
    assert found.withheld_share == 0.5
    assert found.difference == 0.125
    assert found.lost_rounds == 2
    assert found.round_seconds == pytest.approx((8 + (8 + 20 + 20) / 3) / 2)


def reaching(accuracies: Sequence[float], clients: Mapping[str, ClientRound]) -> RunResult:
    return run([one_round(number, accuracy, clients) for number, accuracy in enumerate(accuracies)])


WHEN = compare(
    {
        "fedavg": {0: reaching((0.2, 0.6, 0.6, 0.9), FULL), 1: reaching((0.6, 0.6, 0.6, 0.6), FULL)},
        "clip": {0: reaching((0.5, 0.6, 0.7, 0.9), PRUNED), 1: reaching((0.4, 0.5, 0.6, 0.7), PRUNED)},
    },
    targets=(0.5, 0.6, 0.95),
)
"""Rounds of 12 and of 8 seconds."""


def test_the_time_to_a_target_is_a_mean_over_seeds_that_all_reached_it() -> None:
    baseline, system = WHEN
    assert list(baseline.seconds_to) == [0.5, 0.6, 0.95]
    first = baseline.seconds_to[0.5]
    assert first is not None
    assert (first.mean, first.deviation) == pytest.approx(((24 + 12) / 2, 72**0.5))
    assert system.seconds_to[0.5] == Spread.of([8, 16])
    assert system.seconds_to[0.6] is None  # the second seed did not hold it for three rounds
    assert baseline.seconds_to[0.6] == Spread.of([24, 12])
    assert baseline.seconds_to[0.95] is system.seconds_to[0.95] is None
    assert row().seconds_to == {}


def test_times_to_targets_are_shown_with_how_many_times_sooner_than_the_baseline_that_is() -> None:
    assert times(WHEN) == {
        "s to 50 %": ["18", "12"],
        "times sooner (50 %)": ["1.00", "1.50"],
        "s to 60 %": ["18", "-"],
        "times sooner (60 %)": ["1.00", "-"],
        "s to 95 %": ["-", "-"],
        "times sooner (95 %)": ["-", "-"],
    }
    assert times(rows()) == {}


def test_long_times_keep_their_digits() -> None:
    found = replace(WHEN[0], seconds_to={0.5: Spread.of([1234.4]), 0.6: Spread.of([12.344])})
    assert times([found])["s to 50 %"] == ["1234"]
    assert times([found])["s to 60 %"] == ["12.3"]


def test_nobody_is_sooner_than_a_baseline_that_never_reached_the_target() -> None:
    never = {0: reaching((0.1, 0.1, 0.1), FULL)}
    found = compare({"fedavg": never, "clip": {0: reaching((0.9, 0.9, 0.9), PRUNED)}}, targets=(0.845,))
    assert times(found) == {"s to 84.5 %": ["-", "8"], "times sooner (84.5 %)": ["-", "-"]}


# ---------------------------------------------------------------------------------- clients' own models and details


def tuned(of: RunResult, before: tuple[float, float], masked: tuple[float, float]) -> RunResult:
    named = [dict(zip("ab", one, strict=True)) for one in (before, masked, (1.0, 1.0))]
    return replace(of, personal=Personal(steps=3, before=named[0], masked=named[1], whole=named[2]))


TUNED = {0: tuned(SYSTEM[0], (0.4, 0.8), (0.5, 0.9)), 1: tuned(SYSTEM[1], (0.2, 0.2), (0.6, 0.8))}


def test_fairness_is_over_the_clients_of_each_seed_and_then_over_seeds() -> None:
    found = row(TUNED).personal
    assert list(found) == ["before", "masked", "whole"]
    before = found["before"]
    assert (before.mean.mean, before.mean.deviation) == pytest.approx((0.4, 0.4 / 2**0.5))
    assert (before.deviation.mean, before.worst.mean) == pytest.approx((0.1, 0.3))  # (0.2 + 0) / 2, (0.4 + 0.2) / 2
    assert found["masked"].worst == Spread.of([0.5, 0.6])
    assert (found["whole"].mean.mean, found["whole"].deviation.mean, found["whole"].worst.mean) == (1, 0, 1)


def test_clients_are_shown_only_where_every_run_judged_them() -> None:
    assert row({**TUNED, 1: SYSTEM[1]}).personal == {}
    assert personal(rows(TUNED)) == {}  # not the baseline
    columns = personal(rows(TUNED, TUNED)[1:])
    assert columns["Before %"] == ["40.0 ± 28.3"]
    assert columns["Masked: between clients"] == ["15.0 ± 7.1"]
    assert columns["Unmasked: worst client"] == ["100.0 ± 0.0"]
    assert len(columns) == 9
    assert all(any(line.startswith(f"{kind} %: ") for line in legend(columns)) for kind in ("Before", "Masked"))


def test_details_are_means_over_the_rounds_and_seeds_that_have_them() -> None:
    noted = {
        0: run([one_round(0, 0.5, PRUNED, details={"density": 1.0, "b": 7.0}), one_round(1, 0.5, PRUNED)]),
        1: run([one_round(number, 0.5, PRUNED, details={"density": 0.25}) for number in range(2)]),
    }
    assert row(noted).details == {"b": 7.0, "density": 0.5}
    assert row().details == {}


def test_what_asynchronous_clients_do_is_shown_by_means_and_by_where_it_ends() -> None:
    details = [
        {"staleness": 4.0, "trips of the slowest over the fastest's": 0.5, "server uploads MB": 1.0},
        {"staleness": 5.0, "trips of the slowest over the fastest's": 0.75, "server uploads MB": 2.0},
    ]
    drifting = {0: run([one_round(number, 0.5, FULL, details=one) for number, one in enumerate(details)])}
    found = compare({"fedavg": {0: SYSTEM[0]}, "pr-fl": drifting})
    assert trips(found) == {
        "Staleness": ["-", "4.5"],
        "Slowest trips / fastest": ["-", "0.750"],
        "Server sends MB": ["-", "1.5"],
    }
    assert trips(rows()) == {}
    assert (found[0].asynchronous, found[1].asynchronous) == (False, True)


DENSE = {"staleness": 4.0, "mean density": 0.5, "density floor": 0.125, "recoveries": 2.0}
DRIFTING = {0: tuned(run([one_round(0, 0.5, PRUNED, details=DENSE)]), (0.5, 0.5), (0.5, 0.5))}


def test_what_trips_have_no_part_of_their_own_for_is_not_told_as_nothing() -> None:
    columns = costs(compare({"clip": {0: SYSTEM[0]}, "pr-fl": DRIFTING}))
    assert columns["Secure s"] == ["1", "-"]
    assert columns["Compute s"] == ["4", "4"]
    assert "compute, up and down are of one trip" in " ".join(legend(columns))
    assert "Secure s" not in costs(compare({"pr-fl": DRIFTING}))


def test_a_terminal_says_what_the_columns_of_all_its_tables_mean(capsys: pytest.CaptureFixture[str]) -> None:
    found = compare({"pr-fl": DRIFTING, "again": DRIFTING}, targets=(0.5,))
    print_comparison(found, "title", Setup(system="pr-fl"), stragglers_only=False)
    said = " ".join(capsys.readouterr().out.split())
    shown = {*trips(found), *personal(found), *costs(found)} - set(ONLY_ON_PAGES)
    assert {"Staleness", "Mean density", "Density floor", "Recoveries", "Masked: worst client"} <= shown
    assert {"Mean density", "Density floor", "Recoveries"} <= set(MEANINGS)
    for name in shown & set(MEANINGS):
        assert f"{name}: {MEANINGS[name]}." in said
    assert "Seconds to a target: until" in said


def test_a_round_of_nobody_includes_nobody() -> None:
    last = one_round(1, 0.5, PRUNED)
    empty = replace(last, number=0, clients={}, survivors=())
    found, without = (row({0: run(rounds)}, {0: SYSTEM[0]}).inclusion for rounds in ([empty, last], [last]))
    assert found == without == 1.0


def test_a_row_becomes_json() -> None:
    plain = json.loads(json.dumps(row().to_json()))
    assert plain["accuracy"]["mean"] == pytest.approx(0.575)
    assert plain["seeds"] == [0, 1]


# ---------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("seeds", [(0,), (0, 2), (0, 1, 2)])
def test_runs_of_other_seeds_than_the_baselines_are_refused_by_their_label(seeds: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="clip ran with other seeds"):
        compare({"fedavg": BASELINE, "clip": dict.fromkeys(seeds, SYSTEM[0])})


def test_nothing_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        compare({})
