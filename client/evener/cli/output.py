"""What commands print: tables and JSON on stdout, sentences on stderr, numbers for people.

Rules of this file: no connection, no logging. Text that came from elsewhere passes `clean` before
it reaches a terminal, so that nobody's task name moves a cursor or colours a screen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import click

from evener.texts import printable, seconds_text

SCHEMA: Final = 1
"""Of every JSON that commands print: fields are added under it, and never change or go."""


def print_json(body: Mapping[str, Any]) -> None:
    """One JSON object on one line."""
    try:
        text = json.dumps({"schema": SCHEMA, **body}, default=_plain, ensure_ascii=False)
    except (TypeError, ValueError):  # keys that JSON does not have, or a circle
        safe = {name: value if _fits(value) else repr(value) for name, value in body.items()}
        text = json.dumps({"schema": SCHEMA, **safe}, default=_plain, ensure_ascii=False)
    click.echo(text)


def _fits(value: Any) -> bool:
    try:
        json.dumps(value, default=_plain)
    except (TypeError, ValueError):
        return False
    return True


def _plain(value: Any) -> object:
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, set | frozenset):
        return [*cast("set[object]", value)]
    return repr(value)


def complain(text: str, who: str) -> None:
    """A sentence on stderr: who says it, then what."""
    click.echo(f"{who}: {clean(text)}" if who else clean(text), err=True)


def clean(text: str) -> str:
    """The text with everything escaped that would steer a terminal, but lines and tabs."""
    return printable(text)


# --- Tables ---------------------------------------------------------------------------------------


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; numbers to the right, the rest to the left."""
    cells = [[clean(_cell(value)).replace("\n", " ") for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[i], int | float | Amount | None) for row in rows)
        for i in range(len(headers))
    ]
    click.echo(click.style(_line(headers, widths, right), dim=True))
    for row in cells:
        click.echo(_line(row, widths, right))


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, cast("list[object]", value))) or "-"
    return str(value)


class Amount(str):
    """A text that stands for a number, and is set to the right in tables."""

    __slots__ = ()


# --- Numbers and moments for people ---------------------------------------------------------------

_SCALES: Final = ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k"))
_BYTES: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def humanised(number: int) -> str:
    """Both to grasp and exact: `12.4 k (12,431)`."""
    for scale, letter in _SCALES:
        if number >= 10 * scale:
            return f"{number / scale:.1f} {letter} ({number:,})"
    return f"{number:,}"


def duration(milliseconds: float | None) -> Amount:
    """A duration for people: `12 ms`, `1.2 s`, `2 min 5 s`, or a dash."""
    return Amount("-" if milliseconds is None else seconds_text(milliseconds / 1000))


def bytes_text(number: int | None) -> Amount:
    """Bytes for people: `1.5 GiB`, or a dash."""
    if number is None:
        return Amount("-")
    for scale, unit in _BYTES:
        if number >= scale:
            return Amount(f"{number / scale:.1f} {unit}")
    return Amount(f"{number} B")
