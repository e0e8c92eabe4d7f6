"""The audit as a table for a terminal."""

from __future__ import annotations

import io
import sys
import textwrap
from typing import TYPE_CHECKING

from attacks.report import text
from attacks.report.reading import Mark, Reading

if TYPE_CHECKING:
    from attacks.auditing import Audit
    from attacks.finding import Finding
    from attacks.report.reading import Topic

_QUESTION, _CELL = 34, 24
"""Letters on a line."""


def table(audit: Audit) -> str:
    """Attacks down, deployments across: what each comes to, then what was broken.

    Args:
        audit: What to show.
    """
    from rich.box import HEAVY_HEAD
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    reading = Reading(audit)
    grid = Table(box=HEAVY_HEAD, show_lines=True)
    for name in ("Question, and attacks", *reading.names):
        grid.add_column(Text(name), no_wrap=True)
    for topics in reading.questions:
        for topic in topics:
            cells = ["\n".join(_cell(reading, one) for one in topic.of(name)) for name in reading.names]
            grid.add_row(*map(Text, (_title(topic, first=topic is topics[0]), *cells)))
    file = io.StringIO()
    console = Console(file=file, width=sys.maxsize)
    wide = Measurement.get(console, console.options, grid).maximum
    Console(file=file, width=wide, color_system=None).print(grid)
    return file.getvalue() + "\n".join(_below(reading)) + "\n"


def _title(topic: Topic, *, first: bool) -> str:
    """The question once, above the attacks that ask it."""
    question = [*textwrap.wrap(topic.question, _QUESTION), ""] if first else []
    return "\n".join([*question, *textwrap.wrap(f"- {topic.attack}", _QUESTION, subsequent_indent="  ")])


def _cell(reading: Reading, one: Finding) -> str:
    mark = reading.mark(one)
    said = [f"{mark.symbol} {reading.words(one)}"]
    if one.measurement is not None:
        said += [text.figure(one.measurement), text.interval(one.measurement), text.chance(one.measurement)]
    return "\n".join(line for part in said for line in textwrap.wrap(part, _CELL))


def _below(reading: Reading) -> list[str]:
    scenarios = reading.audit.scenarios
    lines = [f"Below each mark: the figure, its interval ({text.SURE} confidence), and what it is held against."]
    if scenarios:
        lines.append(
            f"Protocol: {reading.stopped} of {len(scenarios)} attacks are stopped, and would not be without the checks."
        )
        lines += [f"  ✖ {one.name}" for one in scenarios if not (one.held and one.proven)]
    lines.append(f"{'✓' if reading.audit.passed else '✖'} {reading.verdict}.")
    lines += [f"  ✖ {one.deployment}: {one.question} ({one.attack})" for one in reading.audit.broken]
    if any(reading.mark(one) is Mark.LEAKS for one in reading.audit.findings):
        lines.append("Leaks that are not promised against are marked ▲; the report says what helps.")
    return lines
