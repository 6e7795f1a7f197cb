"""Every link within the documentation leads somewhere, and every page can be reached from the index."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs.generate.pages import ROOT, pages

INDEX = ROOT / "docs" / "README.md"
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (?P<text>.+?)\s*$", re.MULTILINE)
EACH_PAGE = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in pages()]
)


def anchor_of(heading: str) -> str:
    """The anchor that a heading gets where pages are shown.

    >>> anchor_of("Each command in `each` state")
    'each-command-in-each-state'
    """
    plain = LINK.sub(lambda link: link["text"], heading).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\- ]", "", plain).strip().lower().replace(" ", "-")


def anchors_of(page: str) -> set[str]:
    """Every anchor of a page; the second heading of the same text gets `-1`, and so on."""
    found: set[str] = set()
    for heading in HEADING.finditer(FENCE.sub("", page)):
        anchor = wanted = anchor_of(heading["text"])
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{wanted}-{number}"
        found.add(anchor)
    return found


def links_of(page: str) -> list[str]:
    """The targets of a page's links, but for those in code and comments."""
    plain = COMMENT.sub("", FENCE.sub("", page))
    return [
        link["target"] for link in LINK.finditer(plain) if not any(_within(code, link) for code in CODE.finditer(plain))
    ]


def _within(outer: re.Match[str], inner: re.Match[str]) -> bool:
    return outer.start() < inner.start() and inner.end() < outer.end()


def broken_links(path: Path, page: str) -> list[str]:
    """What is wrong with the links of a page that stands at `path`."""
    wrong = []
    for target in links_of(page):
        if re.match(r"https?://", target):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / unquote(place)).resolve() if place else path
        if not file.exists() or not file.is_relative_to(ROOT):
            wrong.append(f"{target}: there is no such file")
        elif anchor and (file.suffix != ".md" or anchor not in anchors_of(file.read_text("utf-8"))):
            wrong.append(f"{target}: there is no such heading")
    return wrong


@EACH_PAGE
def test_every_link_leads_somewhere(path: Path) -> None:
    assert broken_links(path, path.read_text("utf-8")) == []


@EACH_PAGE
def test_a_page_has_one_title_and_closes_what_it_opens(path: Path) -> None:
    page = path.read_text("utf-8")
    titles = [line for line in FENCE.sub("", page).splitlines() if line.startswith("# ")]
    assert len(titles) == 1
    assert page.count("```") % 2 == 0
    assert page.endswith("\n")
    assert not page.endswith("\n\n")


def test_every_page_can_be_reached_from_the_index() -> None:
    linked = {(INDEX.parent / link.partition("#")[0]).resolve() for link in links_of(INDEX.read_text("utf-8"))}
    missing = [
        path.relative_to(ROOT).as_posix()
        for path in pages()
        if path.is_relative_to(INDEX.parent) and path not in linked and path != INDEX
    ]
    assert missing == []


@pytest.mark.parametrize(
    "link",
    ["nowhere.md", "tutorial.md#no-such-heading", "#no-such-heading", "../heartlane/lanes/rules.py#x", "../../outside"],
)
def test_a_broken_link_is_seen(link: str) -> None:
    assert len(broken_links(INDEX, f"# Title\n\n[text]({link})\n")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[text](tutorial.md#1-start-a-server)",
        "[text](../LICENSE)",
        "[text](https://example.org/x#y)",
        "`[text](nowhere.md)`",
        "```\n[text](nowhere.md)\n```",
    ],
)
def test_any_other_link_passes(text: str) -> None:
    assert broken_links(INDEX, f"# Title\n\n{text}\n") == []


def test_headings_of_the_same_text_get_anchors_of_their_own() -> None:
    assert anchors_of("# One\n\n## Two\n\n```\n# no heading\n```\n\n## Two\n") == {"one", "two", "two-1"}
