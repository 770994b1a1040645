"""docs/reference/ against the source: up to date, nothing silent, no timeout without a word."""

from __future__ import annotations

import re
from collections.abc import Iterator

import griffe

from tests.reference.pages import FOLDER, MODULES, RENEW, Entry, entries, load, stale


def _shown() -> list[Entry]:
    return [item for name in MODULES for item in entries(load()[name])]


def _callables() -> Iterator[tuple[Entry, Entry]]:
    """Each function and method with what it belongs to."""
    for item in _shown():
        for member in [item, *item.members]:
            if isinstance(member.item, griffe.Function):
                yield item, member


def test_the_pages_are_what_the_docstrings_say() -> None:
    assert [path.name for path in stale()] == [], f"renew them: {RENEW}"


def test_every_name_says_what_it_is() -> None:
    silent = [item.path for item in _shown() if not item.text and item.kind != "value"]
    silent += [member.path for _, member in _callables() if not member.text]
    assert silent == []


def test_every_timeout_says_what_happens_then() -> None:
    silent = [
        member.path
        for owner, member in _callables()
        if isinstance(member.item, griffe.Function)
        for parameter in member.item.parameters
        if "timeout" in parameter.name and not member.text.startswith("As `")
        if f"`{parameter.name}`" not in member.text + owner.text
    ]
    assert silent == []


def test_every_link_leads_somewhere() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    anchors = {
        f"{name}#{anchor}"
        for name, text in texts.items()
        for anchor in re.findall(r'<a id="([^"]+)">', text)
    }
    for name, text in texts.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            page, _, anchor = target.partition("#")
            assert (FOLDER / (page or name)).is_file(), target
            assert not anchor or f"{page or name}#{anchor}" in anchors, target
