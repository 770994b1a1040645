"""`evener ls`: what the broker has in its tables, one kind at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import click

from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import ChoiceType, broker_option, connect_option, json_option, option
from evener.cli.output import (
    Amount,
    bytes_text,
    complain,
    duration,
    plural,
    print_json,
    print_table,
)

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], object]]

SHORT_ID: Final = 8
"""Digits of an id in tables; any unique beginning is accepted where an id is asked for."""


def _field(name: str) -> Callable[[Row], object]:
    return lambda row: row.get(name)


def _span(name: str, scale: float = 1.0) -> Callable[[Row], object]:
    def read(row: Row) -> object:
        value = row.get(name)
        return duration(None if value is None else value * scale)

    return read


def _size(name: str) -> Callable[[Row], object]:
    return lambda row: bytes_text(row.get(name))


def _short(name: str) -> Callable[[Row], object]:
    return lambda row: str(row.get(name) or "")[:SHORT_ID] or None


TABLES: Final[dict[str, Sequence[Column]]] = {
    "tasks": (
        ("ID", _short("id")),
        ("FUNCTION", _field("function")),
        ("STATE", _field("state")),
        ("SINCE", _span("since_ms")),
        ("QUEUE", _field("queue")),
        ("PRIORITY", _field("priority")),
        ("HOST", _field("host")),
        ("ATTEMPT", _field("attempt")),
        ("CLIENT", _field("client")),
    ),
    "workers": (
        ("WORKER", _field("name")),
        ("PID", lambda row: None if row.get("pid") is None else Amount(row["pid"])),
        ("STATE", _field("state")),
        ("RUNNING", lambda row: row.get("running") or None),
        ("CPU TIME", _span("cpu_ms")),
        ("MEMORY", _size("rss_bytes")),
        ("TASKS", _field("tasks")),
        ("RESTARTS", _field("restarts")),
    ),
    "queues": (
        ("QUEUE", _field("name")),
        ("WAITING", _field("waiting")),
        ("OLDEST", _span("oldest_ms")),
        ("HOSTS", _field("agents")),
        ("WORKERS", _field("slots")),
    ),
    "hosts": (
        ("HOST", _field("name")),
        ("CONNECTED", _field("connected")),
        ("HEARD", lambda row: Amount(f"{duration(row.get('silent_ms'))} ago")),
        ("WORKERS", _field("slots")),
        ("HELD", _field("held")),
        ("DRAINING", _field("draining")),
        ("QUEUES", _field("queues")),
        ("FUNCTIONS", lambda row: len(row.get("functions") or ())),
    ),
    "clients": (
        ("CLIENT", _field("name")),
        ("INSTANCE", _short("instance")),
        ("CONNECTED", _field("connected")),
        ("OPEN", _field("open")),
        ("UNFETCHED", _field("unfetched")),
        ("HELD", _size("payload_bytes")),
    ),
    "functions": (
        ("FUNCTION", _field("name")),
        ("HOSTS", _field("hosts")),
        ("RUNS", _field("runs")),
        ("FAILED", _field("failed")),
        ("MEAN", _span("mean_us", 0.001)),
    ),
}


def show_rows(kind: str, rows: Sequence[Row]) -> None:
    """The rows of one kind as a table."""
    columns = TABLES[kind]
    print_table(
        [title for title, _ in columns], [[read(row) for _, read in columns] for row in rows]
    )


@click.command(
    "ls",
    cls=Command,
    help=COMMANDS["ls"].summary,
    examples=[
        "evener ls workers",
        "evener ls tasks --state queued",
        "evener ls tasks --json | jq '.rows[].id'",
    ],
)
@click.argument("kind", type=ChoiceType(list(TABLES)), metavar="|".join(TABLES))
@option("--state", metavar="STATE", help="Only tasks in this state, such as queued or running.")
@option("--limit", type=click.IntRange(1, 1_000), default=100, help="Rows at most.")
@json_option
@broker_option
@connect_option
def command(
    kind: str,
    state: str | None,
    limit: int,
    as_json: bool,
    broker: str | None,
    connect_timeout: float,
) -> None:
    if state is not None and kind != "tasks":
        raise click.UsageError("--state is for tasks only")
    filters: dict[str, Any] = {} if state is None else {"state": state}
    with connected(broker, connect_timeout) as client:
        answer = client.query("ls", kind=kind, limit=limit, **filters)
    if as_json:
        print_json(answer)
        return
    rows = answer["rows"]
    show_rows(kind, rows)
    total = answer.get("total", len(rows))
    if len(rows) == limit and total > len(rows) and state is None:
        complain(f"{limit} of {plural(total, kind[:-1])}; more with --limit", "evener ls")
