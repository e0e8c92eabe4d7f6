"""What was asked of the protocol's speed, beside what was measured, each at the largest size that was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from protocols.benchmark.cohort import after_last_upload
from protocols.benchmark.comparison import ratios
from protocols.benchmark.stages import DROPOUT
from protocols.benchmark.timing import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


ENOUGH = 1_000_000
"""Coordinates at which, and beyond, demands are made."""
CROWD = 1_000
"""Clients at which demands on a server are made."""


@dataclass(frozen=True)
class Asked:
    """One demand.

    Args:
        what: Of what, at which size.
        asked: The demand.
        measured: What came out: median, and fastest where there is one.
        met: Whether the median meets it; None where it was measured at a smaller size than it is asked of.
    """

    what: str
    asked: str
    measured: str
    met: bool | None


def asked(results: Mapping[str, Any]) -> list[Asked]:
    """All demands that the results say something about, each at the largest size.

    Args:
        results: As ``run.measure``.
    """
    beside = [row for row in results["stages"] if "flower" in row["seconds"]]
    largest = max((row["coordinates"] for row in beside), default=0)
    return [
        *_cipher(results["machine"]),
        *(one for row in beside if row["coordinates"] == largest for one in _flower(row)),
        *_upload(results["stages"]),
        *_cohort(max(results["cohorts"], key=lambda row: row["clients"] * row["coordinates"])),
        _exact(results["cohorts"]),
        *_straggler(results["density"][-1]),
        _coverage(results["coverage"]),
    ]


def _cipher(machine: Mapping[str, Any]) -> Iterator[Asked]:
    rates, size = machine["bytes_per_second"], machine["coordinates"]
    if "AES by openssl" in rates:
        shares = [rates["mask and add"][kind] / rates["AES by openssl"][kind] for kind in KINDS]
        what = f"mask and add, of openssl's AES-128-CTR on a core, d={size:,}"
        met = _judged(shares[0] >= 0.6, size >= ENOUGH)
        yield Asked(what, "at least 60%", f"{shares[0]:.0%}, fastest {shares[1]:.0%}", met)


def _flower(row: Mapping[str, Any]) -> Iterator[Asked]:
    size, found = f"d={row['coordinates']:,} k={row['neighbours']}", ratios(row)
    for name, least in (("client", 10), (DROPOUT, 20)):
        said = f"{found[name]['median']:.1f}x, fastest {found[name]['fastest']:.1f}x"
        met = _judged(found[name]["median"] >= least, row["coordinates"] >= ENOUGH)
        yield Asked(f"{name}, sooner than Flower, {size}", f"{least}x", said, met)


def _upload(rows: list[Mapping[str, Any]]) -> Iterator[Asked]:
    small = [row for row in rows if row["clients"] <= 16]
    if small:
        row = max(small, key=lambda one: ("flower" in one["upload_bytes"], one["coordinates"]))
        found = {name: sent["MaskedInput"] / row["coordinates"] for name, sent in row["upload_bytes"].items()}
        beside = f", Flower {found['flower']:.2f}" if "flower" in found else ""
        what = f"upload, bytes a coordinate, n={row['clients']} d={row['coordinates']:,}"
        met = _judged(round(found["secagg"], 3) <= 3, row["coordinates"] >= ENOUGH)
        yield Asked(what, "at most 3", f"{found['secagg']:.4f}{beside}", met)


def _cohort(row: Mapping[str, Any]) -> Iterator[Asked]:
    size = f"n={row['clients']} k={row['neighbours']} d={row['coordinates']:,}, {row['dropped']} dropped"
    enough = row["clients"] >= CROWD and row["coordinates"] >= ENOUGH
    seconds, peak = after_last_upload(row), row["server"]["peak_bytes"] / 1e6
    said = f"{seconds['total']:.2f} s, {seconds['processor']:.2f} s of its processor"
    met = _judged(seconds["total"] <= 15, enough)
    yield Asked(f"server after the last upload, {size}", "at most 15 s", said, met)
    yield Asked("its peak memory", "at most 300 MB", f"{peak:.0f} MB", _judged(peak <= 300, enough))
    one, other = (row["server"]["unmask"][name] for name in sorted(row["server"]["unmask"], key=int))
    sooner = [one[kind] / other[kind] for kind in KINDS]
    said = f"{sooner[0]:.2f}x, fastest {sooner[1]:.2f}x; two at once, at best {row['server']['at_best']:.2f}x"
    yield Asked("its unmasking with two processes", "1.8x", said, _judged(sooner[0] >= 1.8, enough))


def _exact(rows: list[Mapping[str, Any]]) -> Asked:
    exact = sum(row["exact"] for row in rows)
    return Asked("sums equal to plain ones bit for bit", "all", f"{exact} of {len(rows)}", exact == len(rows))


def _straggler(row: Mapping[str, Any]) -> Iterator[Asked]:
    size = f"density {row['density']:.2f}, d={row['coordinates']:,} k={row['neighbours']}"
    shares, enough = row["of whole"]["session"], row["coordinates"] >= 0.99 * ENOUGH
    vector = row["of whole"]["vector"]
    said = f"{shares['median']:.0%}, fastest {shares['fastest']:.0%}; without sharing keys {vector['median']:.0%}"
    met = _judged(shares["median"] <= 0.3, enough)
    yield Asked(f"straggler's work, of a whole client's, {size}", "at most 30%", said, met)
    yield Asked("its bytes", "at most 30%", f"{shares['bytes']:.1%}", _judged(shares["bytes"] <= 0.3, enough))


def _coverage(row: Mapping[str, Any]) -> Asked:
    what = f"coverage and release, n={row['clients']} d={row['coordinates']:,}, masks of units"
    seconds = row["seconds"]["median"]
    said = f"{seconds:.3f} s, fastest {row['seconds']['fastest']:.3f} s"
    met = _judged(seconds < 0.5, row["clients"] >= CROWD and row["coordinates"] >= 0.99 * ENOUGH)
    return Asked(what, "well under 1 s", said, met)


def _judged(met: bool, enough: bool) -> bool | None:  # noqa: FBT001 - two answers, in this order
    return met if enough else None
