"""What a benchmark measures: sizes, and how often."""

from __future__ import annotations

from dataclasses import dataclass, replace

from protocols.benchmark.cohort import Size

Pair = tuple[int, int]
"""Coordinates and neighbours."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The measurements of a benchmark.

    Args:
        stages: Of one client, stage by stage.
        flower: Of these, beside Flower.
        cohorts: Whole sessions.
        density: Of a pruned client among whole ones.
        coverage: Coordinates and clients of the release rule.
        repeats: Times that everything is measured which takes less than seconds.
        openssl_seconds: Of each of three runs of ``openssl speed``.
    """

    stages: tuple[Pair, ...]
    flower: tuple[Pair, ...]
    cohorts: tuple[Size, ...]
    density: Pair
    coverage: Pair
    repeats: int
    openssl_seconds: int


FULL = Grid(
    stages=(
        (100_000, 10),
        (1_000_000, 10),
        (10_000_000, 10),
        (100_000, 50),
        (1_000_000, 50),
        (1_000_000, 100),
        (1_000_000, 200),
    ),
    flower=((100_000, 10), (1_000_000, 10), (1_000_000, 50)),
    cohorts=(
        Size(50, 100_000),
        Size(50, 1_000_000),
        Size(50, 1_000_000, dropped=0.0),
        Size(50, 1_000_000, dropped=0.3),
        Size(250, 100_000, 80),
        Size(250, 1_000_000, 80),
        Size(500, 100_000, 80),
        Size(500, 1_000_000, 80),
        Size(1000, 100_000),
        Size(1000, 1_000_000, 80),
    ),
    density=(1_000_000, 80),
    coverage=(1_000_000, 1000),
    repeats=7,
    openssl_seconds=2,
)
"""About five minutes on two quiet cores."""

QUICK = Grid(
    stages=((100_000, 10), (1_000_000, 10), (100_000, 50), (1_000_000, 50)),
    flower=((100_000, 10), (1_000_000, 10)),
    cohorts=(Size(20, 100_000), Size(50, 100_000), Size(100, 100_000), Size(250, 100_000), Size(50, 500_000)),
    density=(1_000_000, 20),
    coverage=(1_000_000, 1000),
    repeats=3,
    openssl_seconds=1,
)
"""About half a minute."""


def chosen(
    grid: Grid,
    coordinates: list[int] | None = None,
    neighbours: list[int] | None = None,
    clients: list[int] | None = None,
    repeats: int | None = None,
) -> Grid:
    """A grid over other sizes: all combinations of those that are given, instead of the grid's own.

    Args:
        grid: Where the rest comes from.
        coordinates: Of vectors.
        neighbours: Of the client that is measured alone.
        clients: Of whole sessions.
        repeats: As the grid's.
    """
    lengths = coordinates or sorted({length for length, _ in grid.stages})
    if coordinates or neighbours:
        degrees = neighbours or sorted({k for _, k in grid.stages})
        pairs = tuple((length, k) for k in degrees for length in lengths)
        shortest = min(degrees)
        grid = replace(grid, stages=pairs, flower=pairs, density=(max(lengths), shortest))
    if coordinates or clients:
        sizes = clients or sorted({size.clients for size in grid.cohorts})
        cohorts = tuple(Size(count, length) for count in sizes for length in lengths)
        grid = replace(grid, cohorts=cohorts, coverage=(max(lengths), max(sizes)))
    return replace(grid, repeats=repeats or grid.repeats)
