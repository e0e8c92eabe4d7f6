"""What the pages refer to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def anchors(page: Path) -> set[str]:
    """Where a page can be linked to, as GitHub calls the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        found = page.parent / target if target else page
        assert found.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(found), f"{target} has no heading #{anchor}"


def test_every_picture_is_shown_somewhere() -> None:
    shown = {
        (page.parent / target).resolve()
        for page in PAGES
        for target, _ in LINK.findall(page.read_text(encoding="utf-8"))
    }
    pictures = set(ROOT.glob("docs/**/*.png"))
    assert pictures
    assert pictures <= shown


@pytest.mark.parametrize("text", ["[a](none.md)", "[a](README.md#no-such-heading)"])
def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(f"# A heading\n\n{text}\n", encoding="utf-8")
    with pytest.raises(AssertionError):
        test_every_link_leads_somewhere(tmp_path / "README.md")
