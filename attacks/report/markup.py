"""HTML and SVG that are well-formed by construction: whatever is not markup already is escaped where it enters."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_VOID = frozenset({"br", "img", "meta"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child: TypeAlias = "str | int | Iterable[Child] | None"
"""What an element holds; None is nothing."""

Attribute: TypeAlias = "str | float | None"
"""None leaves an attribute out."""

Row: TypeAlias = "tuple[Child, Sequence[Child] | None]"
"""Row header and cells; without cells it is a heading of the rows below it."""


def join(children: Child) -> Markup:
    """Children side by side, escaped where they are not markup."""
    if children is None:
        return Markup()
    if isinstance(children, Markup):
        return children
    if isinstance(children, str | int):
        return Markup(html.escape(str(children)))
    return Markup("".join(map(join, children)))


def element(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """One element.

    Args:
        name: Of its tag.
        children: What it holds.
        attributes: By name, with ``_`` for ``-``; a last ``_`` is left out: ``class_``.
    """
    opening = name + "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{opening}>" if name in _VOID else f"<{opening}>{join(children)}</{name}>")


def _plain(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def grid(
    caption: Child,
    columns: Sequence[Child],
    rows: Iterable[Row],
    *,
    class_: str = "stack",
    foot: Iterable[Row] = (),
) -> Markup:
    """A table whose rows have headers. A narrow screen shows it row by row, each cell under its column's name.

    Args:
        caption: What it shows.
        columns: Names of the columns, that of the row headers first.
        rows: Of the table.
        class_: How it looks.
        foot: Rows that sum up.
    """
    # Roles are spelled out because browsers drop them from tables that are not laid out as such.
    head = element("tr", (element("th", name, scope="col", role="columnheader") for name in columns), role="row")
    body, below = ([_row(columns, header, cells) for header, cells in some] for some in (rows, foot))
    return element(
        "table",
        element("caption", caption),
        element("thead", head, role="rowgroup"),
        element("tbody", body, role="rowgroup"),
        element("tfoot", below, role="rowgroup") if below else None,
        class_=class_,
        role="table",
    )


def _row(columns: Sequence[Child], header: Child, cells: Sequence[Child] | None) -> Markup:
    if cells is None:
        heading = element("th", header, colspan=len(columns), scope="colgroup", role="columnheader")
        return element("tr", heading, class_="group", role="row")
    labelled = zip(columns[1:], cells, strict=True)
    return element(
        "tr",
        element("th", header, scope="row", role="rowheader"),
        (
            element("td", element("div", cell), data_label=html.unescape(join(name)), role="cell")
            for name, cell in labelled
        ),
        role="row",
    )


def paragraphs(*texts: Child, class_: str | None = None) -> Markup:
    """A paragraph for each text that is not empty."""
    return join(element("p", text, class_=class_) for text in texts if text)
