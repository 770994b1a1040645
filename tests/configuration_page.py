"""Draws the tables of `docs/configuration.md`: `python -m tests.configuration_page`.

Rules of this file: what stands between the marks is the schema's; the test beside it fails when the
page and this differ.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from evener.cli.config import written
from evener.config.schema import SCHEMA, SECTIONS, Key

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
_MARKED: Final = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- end of settings -->)", re.DOTALL)


def page() -> str:
    """The page as it should be."""
    return _MARKED.sub(lambda _: tables(), PAGE.read_text(encoding="utf-8"))


def tables() -> str:
    """A heading and a table for each section."""
    parts: list[str] = []
    for section, meaning in SECTIONS.items():
        parts += [f"\n### [{section}]\n\n{meaning}\n"]
        parts.append("| key | value | default | variables | |\n|---|---|---|---|---|")
        parts += [_row(key) for key in SCHEMA.values() if key.section == section]
    return "\n".join(parts) + "\n\n"


def _row(key: Key) -> str:
    default = key.otherwise or f"`{written(key)}`"
    variables = ", ".join(f"`{name}`" for name in key.variables) or "none"
    kind = key.kind.name.replace(" | ", ", ")
    return f"| `{key.name}` | {kind} | {default} | {variables} | {key.help} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
