"""``secagg bench`` from the outside on a tiny grid, and its parts by themselves."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import contextmanager
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from protocols import commands as plugged_in
from protocols.benchmark import (
    asked,
    cohort,
    cohort_server,
    coverage,
    density,
    grid,
    lengths,
    machine,
    memory,
    report,
    run,
    stages,
)
from protocols.benchmark.cohort import Size
from protocols.benchmark.cohort_server import serve
from protocols.benchmark.run import UNFINISHED, Task
from protocols.benchmark.timing import alternating, spread
from secagg import commands, declaration
from secagg.errors import ParameterError
from secagg.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from secagg import Session

TINY = ("--quick", "--coordinates", "2000", "--neighbours", "5", "--clients", "6", "--repeats", "1")
PICTURES = ("time.png", "bytes.png", "cohorts.png", "density.png")


class EntryPoint:
    """What installing would have registered."""

    name = "protocols"

    def load(self) -> Any:
        return plugged_in


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "entry_points", lambda *, group: [EntryPoint()] if group == commands.GROUP else [])
    monkeypatch.setattr(shutil, "which", lambda _: None)  # openssl speed takes whole seconds


def test_the_command_measures_a_tiny_grid_and_writes_tables_numbers_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["bench", *TINY, "--format", "json", "--out", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    (one,) = told["cohorts"]
    assert one["exact"]
    assert (one["clients"], one["coordinates"], one["dropped"], one["ring_bits"]) == (6, 2000, 1, 24)
    assert {name: found["messages"] for name, found in one["server"]["rounds"].items()} == {
        "AdvertiseKeys": 6,
        "ShareKeys": 6,
        "MaskedInput": 5,
        "Unmask": 5,
    }
    assert one["upload_bytes"]["MaskedInput"] == lengths.masked_input(0, 3 * 2000)
    assert set(one["server"]["unmask"]) == {"1", "2"}
    assert "AES by openssl" not in told["machine"]["bytes_per_second"]
    assert told["formulas"]["client"]["MaskedInput"]["points"] == 2
    page = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert "## Asked and measured" in page
    assert "Flower" not in page.replace("Beside Flower", "")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json", "bench.md", *PICTURES}


def test_without_flower_a_comparison_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert commands.main(["bench", *TINY, "--against", "flower", "--out", str(tmp_path)]) == commands.FAILED
    assert "secagg[flower]" in capsys.readouterr().err


def test_an_interrupted_benchmark_says_that_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measure", interrupted)
    assert commands.main(["bench", *TINY, "--out", str(tmp_path)]) == commands.INTERRUPTED
    assert "the same command goes on from there" in capsys.readouterr().err


def planned(measured: list[str]) -> list[Task]:
    def work(name: str) -> Callable[[object], Any]:
        def once(_: object) -> dict[str, str]:
            measured.append(name)
            return {"of": name}

        return once

    return [Task(group, name, work(name)) for group, name in (("stages", "a"), ("stages", "b"), ("density", "c"))]


def test_what_was_measured_before_an_interruption_is_not_measured_again(tmp_path: Path) -> None:
    measured: list[str] = []

    def stop_at_c(task: Task, doing: str) -> None:
        if task.name == "c" and doing:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.measure(planned(measured), tmp_path, stop_at_c)
    path = tmp_path / UNFINISHED
    path.write_text(path.read_text(encoding="utf-8") + '["c", {"of"', encoding="utf-8")
    found = run.measure(planned(measured), tmp_path, lambda *_: None)
    assert measured == ["a", "b", "c"]
    assert found == {"stages": [{"of": "a"}, {"of": "b"}], "density": {"of": "c"}}
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3
    run.finish(tmp_path)
    run.measure(planned(measured), tmp_path, lambda *_: None)
    assert measured == ["a", "b", "c"] * 2


def test_works_take_turns_and_warm_up_once() -> None:
    order: list[str] = []
    found = alternating({name: lambda name=name: order.append(name) for name in "ab"}, 3)  # type: ignore[misc]
    assert "".join(order) == "ab" * 4
    assert all(0 <= one["fastest"] <= one["median"] for one in found.values())
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "fastest": 1.0}


def test_memory_that_was_used_stays_in_the_peak() -> None:
    before = memory.peak()
    filled = np.ones(40_000_000, np.uint8)
    assert memory.peak() >= memory.resident() - 1_000_000
    assert memory.peak() >= before
    assert memory.resident() > filled.nbytes


def test_rates_of_openssl_are_read_as_it_prints_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "openssl"
    program.write_text("#!/bin/sh\necho +H:16384\necho +F:25:AES-128-CTR:5000000000.5\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(program))
    rates = machine.measure(1000, 1, 1)["bytes_per_second"]
    assert rates["AES by openssl"] == {"median": 5000000000.5, "fastest": 5000000000.5}
    assert all(rate["fastest"] >= rate["median"] > 0 for rate in rates.values())


def test_a_client_alone_sends_what_its_messages_take() -> None:
    found = stages.measure(2000, 5, 1, beside_flower=False)
    others = range(1, 6)
    assert found["upload_bytes"] == {
        "secagg": {
            "AdvertiseKeys": lengths.advertise_keys(0),
            "ShareKeys": lengths.share_keys(0, others),
            "MaskedInput": lengths.masked_input(0, 3 * 2000),
            "Unmask": lengths.unmask(0, [0, *others]),
        }
    }
    assert set(found["seconds"]["secagg"]) == {*stages.CLIENT_STAGES, *stages.PARTS, stages.DROPOUT}
    assert found["threshold"] == 4


def test_a_client_alone_has_all_others_for_neighbours_however_many_they_are() -> None:
    wired = stages.params_of(300).topology(301)
    assert (wired.degree, wired.failures) == (300, None)


def test_a_cohort_that_cannot_bear_its_dropouts_is_refused() -> None:
    with pytest.raises(ParameterError, match="lower the share"):
        cohort.measure(Size(6, 100, dropped=0.9), 0)


@contextmanager
def server_in_a_thread(session: Session, processes: int) -> Iterator[Connection]:
    """The same server, where a debugger and a measurement of coverage see it."""
    pipe, theirs = Pipe()
    thread = threading.Thread(target=serve, args=(theirs, session, processes))
    thread.start()
    yield pipe
    thread.join()


def test_a_server_takes_masks_off_alone_and_with_processes_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "_server", server_in_a_thread)
    monkeypatch.setattr(cohort_server, "REPEATS", 1)
    found = cohort.measure(Size(5, 300), 2)
    assert found["exact"]
    assert set(found["server"]["unmask"]) == {"1", "2"}
    assert all(one["fastest"] > 0 for one in found["server"]["unmask"].values())
    assert found["server"]["at_best"] > 0
    assert {name: one["messages"] for name, one in found["server"]["rounds"].items()} == dict.fromkeys(
        stages.CLIENT_STAGES, 5
    )


def test_dropouts_are_as_many_as_they_should_be_and_all_others_survive() -> None:
    size = Size(20, 300, dropped=0.3)
    assert len(size.lost) == 6
    rounds: list[str] = []
    found = cohort.measure(size, 0, rounds.append)
    assert found["exact"]
    assert found["server"]["rounds"]["MaskedInput"]["messages"] == 14
    assert "unmask" not in found["server"]
    assert rounds == ["ShareKeys", "MaskedInput", "Unmask", "taking masks off"]
    last = cohort.after_last_upload(found)
    parts = ("close MaskedInput", "receive Unmask", "close Unmask")
    assert last["total"] == pytest.approx(sum(last[part] for part in parts))


@pytest.mark.parametrize("wanted", density.DENSITIES)
def test_masks_are_as_dense_as_they_should_be(wanted: float) -> None:
    layout = density.layout_of(20_000)
    assert declaration.expand(layout, density.mask_of(layout, wanted)).mean() == pytest.approx(wanted, abs=0.01)


def test_a_pruned_client_sends_what_it_holds_and_no_more() -> None:
    rows = density.measure(2000, 10, 1)
    assert [round(row["density"], 1) for row in rows] == [1.0, 0.8, 0.5, 0.2]
    ring = Ring(24)
    for row in rows:
        held = round(row["density"] * row["coordinates"])
        assert row["upload_bytes"]["MaskedInput"] == lengths.masked_input(0, ring.nbytes(held))
    whole, least = rows[0]["of whole"], rows[-1]["of whole"]
    assert whole == {name: {"bytes": 1.0, "median": 1.0, "fastest": 1.0} for name in ("vector", "session")}
    assert least["vector"]["bytes"] == pytest.approx(rows[-1]["density"], rel=0.03)


def test_the_release_rule_is_measured_on_masks_that_release_something() -> None:
    found = coverage.measure(2000, 50, 1)
    assert found["released"] > 0.5
    assert found["seconds"]["median"] > 0


def test_other_sizes_take_the_place_of_the_grids() -> None:
    one = grid.chosen(grid.QUICK, coordinates=[10, 20], neighbours=[5], clients=[6], repeats=2)
    assert one.stages == one.flower == ((10, 5), (20, 5))
    assert one.cohorts == (Size(6, 10), Size(6, 20))
    assert (one.density, one.coverage, one.repeats) == ((20, 5), (20, 6), 2)
    assert grid.chosen(grid.QUICK) == grid.QUICK
    assert grid.chosen(grid.FULL, clients=[30]).stages == grid.FULL.stages


def times(seconds: float) -> dict[str, float]:
    return {"median": seconds, "fastest": seconds}


def results(coordinates: int = 1_000_000, clients: int = 1000, slower: float = 1.0) -> dict[str, Any]:
    """A benchmark in which everything is just as fast as asked, or slower by a factor."""
    stage_names = (*stages.CLIENT_STAGES, *stages.PARTS, stages.DROPOUT)
    shares = {"bytes": 0.3 * slower, **times(0.3 * slower)}
    row = {"coordinates": coordinates, "neighbours": 10, "clients": 11, "threshold": 6}
    one_round = {
        "messages": 1,
        "receive": times(1.0),
        "received": 5.0 * slower,
        "close": 5.0 * slower,
        "processor": 9.0,
    }
    return {
        "machine": {
            "coordinates": coordinates,
            "bytes_per_second": {"mask and add": times(6.0 / slower), "AES by openssl": times(10.0)},
        },
        "stages": [
            {
                **row,
                "seconds": {
                    "secagg": dict.fromkeys(stage_names, times(slower)),
                    "flower": dict.fromkeys(stage_names, times(20.0)),
                },
                "upload_bytes": {
                    "secagg": {"MaskedInput": 3 * coordinates * slower},
                    "flower": {"MaskedInput": 8 * coordinates},
                },
            }
        ],
        "cohorts": [
            {
                **row,
                "clients": clients,
                "dropped": 100,
                "ring_bits": 32,
                "exact": slower == 1,
                "client": {name: times(1.0) for name in stages.CLIENT_STAGES},
                "server": {
                    "rounds": dict.fromkeys(stages.CLIENT_STAGES, one_round),
                    "peak_bytes": 3e8 * slower,
                    "unmask": {"1": times(1.8), "2": times(slower)},
                    "at_best": 1.9,
                },
            }
        ],
        "density": [
            {
                **row,
                "density": 0.25,
                "seconds": {"MaskedInput": times(1.0), "ShareKeys": times(1.0)},
                "upload_bytes": {"MaskedInput": 1000, "ShareKeys": 10},
                "of whole": {"session": shares, "vector": shares},
            }
        ],
        "coverage": {"clients": clients, "coordinates": coordinates, "seconds": times(0.4 * slower)},
    }


def test_demands_are_met_to_the_point_and_missed_beyond_it() -> None:
    assert {one.met for one in asked.asked(results())} == {True}
    assert {one.met for one in asked.asked(results(slower=2.5))} == {False}


def test_demands_on_smaller_sizes_are_not_judged() -> None:
    rows = asked.asked(results(coordinates=1000, clients=20, slower=2.5))
    assert {one.met for one in rows if "bit for bit" not in one.what} == {None}


def test_tables_have_a_cell_for_every_column() -> None:
    found = report.tables(results(), {}, [])
    assert "Formulas" not in found
    for table in found.values():
        assert len({len(row) for row in table}) == 1
    page = report.page(found, "About.")
    assert page.count("## ") == len(found)
