"""The report as one page for a browser, which needs nothing but itself, and the same figures as JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from attacks.report import closing, overview
from attacks.report.details import details
from attacks.report.markup import Markup, element, join
from attacks.report.reading import Reading
from attacks.report.style import CSS

if TYPE_CHECKING:
    from pathlib import Path

    from attacks.auditing import Audit


def write(audit: Audit, folder: Path) -> Path:
    """Writes ``report.html`` and ``audit.json``.

    Args:
        audit: What to report.
        folder: Where; it is made if it is not there.

    Returns:
        Where the page is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.json").write_text(figures(audit) + "\n", encoding="utf-8")
    path = folder / "report.html"
    path.write_text(page(audit), encoding="utf-8")
    return path


def figures(audit: Audit) -> str:
    """The figures as JSON, with null for those that JSON has no number for."""
    return json.dumps(_finite(audit.to_json()), indent=1, allow_nan=False, ensure_ascii=False)


def page(audit: Audit) -> str:
    """The page."""
    reading = Reading(audit)
    parts = [
        ("overview", "Overview", overview.matrix(reading)),
        ("deployments", "What was audited", overview.deployments(reading)),
        ("threats", "Who sees what", overview.threats(reading)),
        ("budgets", "Privacy budget", overview.budgets(reading)),
        ("attacks", "Attack by attack", details(reading)),
        ("protocol", "Protocol", closing.checklist(reading)),
        ("method", "How it was done", closing.method(reading)),
        ("limits", "Not covered", closing.limits()),
        ("terms", "Terms", closing.glossary()),
    ]
    parts = [part for part in parts if part[2]]
    header = element(
        "header",
        element("h1", "Privacy audit of a federation"),
        element("p", "What somebody who looks at its traffic and results could learn of single clients", class_="lead"),
        overview.verdict(reading),
        overview.contents([(anchor, title) for anchor, title, _ in parts]),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"Privacy audit: {reading.verdict}"),
        element("style", Markup(CSS)),
    )
    body = element("body", header, element("main", join(content for *_, content in parts)))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _finite(value: Any) -> Any:
    """Plain data, null for numbers that JSON has not."""
    if isinstance(value, dict):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
