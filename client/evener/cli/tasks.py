"""Tasks as people name them: ids that may be cut to any beginning that fits one task only.

Rules of this file: it asks the broker and prints nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from evener.cli.connect import asked_broker
from evener.cli.output import clean
from evener.texts import signal_text

if TYPE_CHECKING:
    from evener.client import Client

Row = Mapping[str, Any]

ENDED: Final = ("done", "failed", "cancelled", "expired", "lost")
STATES: Final = ("held", "queued", "assigned", "running", *ENDED)

DEAD_LETTERS: Final = ("lost", "failed", "expired")
"""The ends that the broker keeps with their calls."""

SHORT_ID: Final = 8
"""Digits of an id in tables; any unique beginning is accepted where an id is asked for."""

ROWS_MAX: Final = 1_000

# Tasks that a text names when several are meant.
_NAMED_MAX: Final = 3

_ID: Final = re.compile(r"[0-9a-f]{4,32}")
ID_DIGITS: Final = 32


def id_of(text: str) -> str:
    """The beginning of an id, also as it is copied from a log line: `demo.add[7f3a90b1]`."""
    wanted = text.rpartition("[")[2].removesuffix("]").lower()
    if not _ID.fullmatch(wanted):
        raise click.UsageError(f'"{text}" is not the beginning of a task id')
    return wanted


def find(client: Client, beginning: str) -> Row | None:
    """What the broker lists of the one task whose id begins so; None if there is none."""
    limit = _NAMED_MAX + 1
    rows: Sequence[Row] = client.query("ls", kind="tasks", id=beginning, limit=limit)["rows"]
    if len(rows) > 1:
        named = [f"{row['id']} ({row['function']}, {row['state']})" for row in rows[:_NAMED_MAX]]
        more = ", ..." if len(rows) > _NAMED_MAX else ""
        names = clean(", ".join(named))
        raise click.UsageError(f'several task ids begin with "{beginning}": {names}{more}')
    return rows[0] if rows else None


def unknown(beginning: str) -> str:
    """What to say when there is none."""
    return (
        f'{asked_broker()} has no task whose id begins with "{beginning}": it never had, '
        "or the task ended too long ago"
    )


def dead_letters(client: Client, state: str, function: str | None) -> tuple[Sequence[Row], int]:
    """The tasks that ended so, at most a thousand of them, and how many there are besides."""
    filters: dict[str, Any] = {} if function is None else {"function": function}
    answer = client.query("ls", kind=state, limit=ROWS_MAX, **filters)
    rows: Sequence[Row] = answer["rows"]
    return rows, answer["total"] - len(rows) if len(rows) == ROWS_MAX else 0


def reason_of(row: Row) -> str | None:
    """Why a task ended as it did, in a few words."""
    facts: Row = row.get("facts") or {}
    state = row.get("state")
    if state == "failed":
        text = f"{facts.get('type', '?')}: {facts.get('message', '')}"
        return text.partition("\n")[0][:60]
    if state == "expired":
        return f"{facts.get('limit', '?')} limit of {facts.get('ms', 0) / 1000:g} s"
    if state == "lost":
        how = death_of(facts)
        return str(facts.get("reason", "?")) + (f", {how}" if how else "")
    return None


def worker_of(row: Row) -> str | None:
    """On which worker its last attempt was, where that is known."""
    facts: Row = row.get("facts") or {}
    worker = facts.get("worker")
    return None if worker is None else str(worker)


def death_of(facts: Row) -> str | None:
    """How a worker ended: `SIGSEGV`, `exit code 3`, or None where that is not known."""
    number, code = facts.get("signal"), facts.get("exit_code")
    if isinstance(number, int):
        return signal_text(number)
    return f"exit code {code}" if isinstance(code, int) else None
