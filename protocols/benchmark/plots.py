"""Pictures of a benchmark, as PNG: time and bytes against coordinates, neighbours, clients and density."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from protocols.benchmark.cohort import Size, after_last_upload
from protocols.benchmark.costs import Cohort, client_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from protocols.benchmark.costs import Fit

# Okabe and Ito's colours, told apart by colour-blind readers too; markers tell the lines apart in print.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def draw(results: Mapping[str, Any], fits: Mapping[str, Mapping[str, Fit]], folder: Path) -> None:
    """Draws all pictures.

    Args:
        results: As ``run.measure``.
        fits: As ``costs.fitted``.
        folder: Where to write.
    """
    stages, cohorts = results["stages"], results["cohorts"]
    _time(stages, fits["client"]["MaskedInput"], folder / "time.png")
    _bytes(stages, cohorts, folder / "bytes.png")
    _cohorts(cohorts, folder / "cohorts.png")
    _density(results["density"], folder / "density.png")


def _time(rows: Sequence[Mapping[str, Any]], fit: Fit, path: Path) -> None:
    """MaskedInput of one client against coordinates and against neighbours, with the fitted formula."""
    figure, left, right = _pair()
    for number, k in enumerate(sorted({row["neighbours"] for row in rows})):
        alike = [row for row in rows if row["neighbours"] == k]
        _line(left, number, _over(alike, "coordinates", _masked("secagg")), f"k = {k}")
        _formula(left, number, fit, [_alone(k, d) for d in sorted({row["coordinates"] for row in rows})], "coordinates")
        beside = [row for row in alike if "flower" in row["seconds"]]
        _line(left, number, _over(beside, "coordinates", _masked("flower")), f"k = {k}, Flower", dashed=True)
    for number, d in enumerate(sorted({row["coordinates"] for row in rows})):
        alike = [row for row in rows if row["coordinates"] == d]
        _line(right, number, _over(alike, "neighbours", _masked("secagg")), f"d = {d:,}")
        _formula(right, number, fit, [_alone(k, d) for k in sorted({row["neighbours"] for row in rows})], "neighbours")
        beside = [row for row in alike if "flower" in row["seconds"]]
        _line(right, number, _over(beside, "neighbours", _masked("flower")), f"d = {d:,}, Flower", dashed=True)
    _finish(left, "A client's MaskedInput over the vector's length", "Coordinates d", "Seconds (median)")
    _finish(right, "The same over its neighbours", "Neighbours k", "Seconds (median)")
    figure.savefig(path)


def _bytes(rows: Sequence[Mapping[str, Any]], cohorts: Sequence[Mapping[str, Any]], path: Path) -> None:
    """What a client sends over coordinates, and what it sends and receives besides its vector over clients."""
    figure, left, right = _pair()
    rings = sorted({row["ring_bits"] for row in rows})
    for number, bits in enumerate(rings):
        alike = [row for row in rows if row["ring_bits"] == bits]
        _line(left, number, _over(alike, "coordinates", _uploaded("secagg")), f"ring of {bits} bits")
    beside = [row for row in rows if "flower" in row["upload_bytes"]]
    _line(left, len(rings), _over(beside, "coordinates", _uploaded("flower")), "Flower", dashed=True)
    for number, label in enumerate(dict.fromkeys(map(_graph, cohorts))):
        alike = [row for row in cohorts if _graph(row) == label]
        _line(right, number, _over(alike, "clients", _keys_sent), f"sends, {label}")
        _line(right, number, _over(alike, "clients", _keys_received), f"receives, {label}", dashed=True)
    _finish(left, "A client's masked vector on the wire", "Coordinates d", "Bytes")
    _finish(right, "What a client sends and receives besides", "Clients n", "Bytes")
    figure.savefig(path)


def _cohorts(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Seconds of the server after the last upload, and its memory, over clients; with the usual dropouts."""
    rows = [row for row in rows if row["dropped"] == round(Size.dropped * row["clients"])]
    figure, left, right = _pair()
    for number, d in enumerate(sorted({row["coordinates"] for row in rows})):
        alike = [row for row in rows if row["coordinates"] == d]
        _line(left, number, _over(alike, "clients", lambda row: after_last_upload(row)["total"]), f"d = {d:,}")
        _line(right, number, _over(alike, "clients", lambda row: row["server"]["peak_bytes"] / 1e6), f"d = {d:,}")
        vectors = [(row["clients"], row["clients"] * d * row["ring_bits"] / 8e6) for row in alike]
        _line(right, number, sorted(vectors), f"all vectors, d = {d:,}", dashed=True)
    _finish(left, "The server after the last upload, one process", "Clients n", "Seconds")
    _finish(right, "The server's peak memory", "Clients n", "MB")
    figure.savefig(path)


def _density(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A pruned client's seconds and bytes as shares of a whole one's."""
    figure = Figure(figsize=(5.5, 4.2), dpi=150, layout="constrained")
    axes: Axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="black", lw=1, ls=":", label="in proportion")
    for number, (name, kind) in enumerate({"seconds (median)": "median", "bytes": "bytes"}.items()):
        points = [(100 * row["density"], 100 * row["of whole"]["session"][kind]) for row in rows]
        _line(axes, number, sorted(points), name)
    row = rows[0]
    axes.set_title(f"A pruned client, d = {row['coordinates']:,}, k = {row['neighbours']}", loc="left", fontsize=10)
    axes.set_xlabel("Density (%)")
    axes.set_ylabel("Of a whole client's (%)")
    _tidy(axes)
    figure.savefig(path)


def _pair() -> tuple[Figure, Axes, Axes]:
    """Two pictures beside each other."""
    figure = Figure(figsize=(11, 4.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    return figure, left, right


def _line(axes: Axes, number: int, points: Sequence[tuple[float, float]], label: str, *, dashed: bool = False) -> None:
    if not points:
        return
    places, values = zip(*points, strict=True)
    axes.plot(
        places,
        values,
        color=_COLOURS[number % len(_COLOURS)],
        marker=_MARKERS[number % len(_MARKERS)],
        ls="--" if dashed else "-",
        mfc="white" if dashed else None,
        ms=4,
        lw=1.4,
        label=label,
    )


def _formula(axes: Axes, number: int, fit: Fit, cohorts: Iterable[Cohort], over: str) -> None:
    points = [(getattr(one, over), fit.predict(client_counts("MaskedInput", one))) for one in cohorts]
    axes.plot(*zip(*points, strict=True), color=_COLOURS[number % len(_COLOURS)], lw=0.8, ls=":")


def _finish(axes: Axes, title: str, places: str, values: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(EngFormatter(sep=""))
        axis.set_minor_formatter(NullFormatter())
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(places)
    axes.set_ylabel(values)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _over(
    rows: Iterable[Mapping[str, Any]], name: str, value: Callable[[Mapping[str, Any]], float]
) -> list[tuple[float, float]]:
    return sorted((float(row[name]), value(row)) for row in rows)


def _graph(row: Mapping[str, Any]) -> str:
    return "complete graph" if row["neighbours"] == row["clients"] - 1 else f"k = {row['neighbours']}"


def _masked(side: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda row: float(row["seconds"][side]["MaskedInput"]["median"])


def _uploaded(side: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda row: float(row["upload_bytes"][side]["MaskedInput"])


def _keys_sent(row: Mapping[str, Any]) -> float:
    return float(sum(sent for stage, sent in row["upload_bytes"].items() if stage != "MaskedInput"))


def _keys_received(row: Mapping[str, Any]) -> float:
    return float(sum(row["download_bytes"].values()))


def _alone(k: int, d: int) -> Cohort:
    return Cohort(clients=k + 1, neighbours=k, threshold=k // 2 + 1, coordinates=d)
