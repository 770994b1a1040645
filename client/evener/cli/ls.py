"""`evener ls`: what the broker has in its tables, one kind at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    print_json,
    print_table,
)
from evener.cli.tasks import (
    DEAD_LETTERS,
    ID_DIGITS,
    SHORT_ID,
    STATES,
    Row,
    reason_of,
    worker_of,
)
from evener.texts import plural

Column = tuple[str, Callable[[Row], object]]


def _field(name: str) -> Callable[[Row], object]:
    return lambda row: row.get(name)


def _span(name: str, scale: float = 1.0) -> Callable[[Row], object]:
    def read(row: Row) -> object:
        value = row.get(name)
        return duration(None if value is None else value * scale)

    return read


def _percentile(name: str, which: str) -> Callable[[Row], object]:
    def read(row: Row) -> object:
        told: dict[str, float | None] = row.get(name) or {}
        value = told.get(which)
        return duration(None if value is None else value / 1000)

    return read


def _size(name: str) -> Callable[[Row], object]:
    return lambda row: bytes_text(row.get(name))


def _short(name: str) -> Callable[[Row], object]:
    return lambda row: str(row.get(name) or "")[:SHORT_ID] or None


_LETTERS: Final[Sequence[Column]] = (
    ("ID", _short("id")),
    ("FUNCTION", _field("function")),
    ("REASON", reason_of),
    ("ENDED", lambda row: Amount(f"{duration(row.get('since_ms'))} ago")),
    ("WORKER", worker_of),
    ("ATTEMPTS", _field("attempt")),
    ("QUEUE", _field("queue")),
    ("CLIENT", _field("client")),
)


def _running(digits: int) -> Callable[[Row], object]:
    """What a worker runs, as logs name it: `demo.add[7f3a90b1]`."""

    def read(row: Row) -> object:
        function, task = row.get("running") or None, row.get("task")
        return (
            f"{function}[{task.hex()[:digits]}]" if function and type(task) is bytes else function
        )

    return read


def _when(row: Row) -> object:
    """How a schedule was written: `every 5 min`, or its cron expression, with its zone."""
    if row["cron"] is None:
        return f"every {duration(row['every_ms'])}"
    return row["cron"] if row["zone"] == "UTC" else f"{row['cron']} {row['zone']}"


def _next(row: Row) -> object:
    wait_ms = row["next_ms"]
    if wait_ms is None or row["state"] != "active":
        return None
    return Amount(f"in {duration(wait_ms)}" if wait_ms > 0 else "now")


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
        ("RUNNING", _running(SHORT_ID)),
        ("SINCE", lambda row: duration(row.get("running_ms") if row.get("running") else None)),
        ("CPU TIME", _span("cpu_ms")),
        ("MEMORY", _size("rss_bytes")),
        ("TASKS", _field("tasks")),
        ("RESTARTS", _field("restarts")),
        ("RECYCLED", _field("recycled")),
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
        ("QUEUED", _field("queued")),
        ("RUNNING", _field("running")),
        ("DONE", _field("completed")),
        ("FAILED", _field("failed")),
        ("EXPIRED", _field("expired")),
        ("CANCELLED", _field("cancelled")),
        ("LOST", _field("lost")),
        ("RUNS", _field("runs")),
        ("MEAN", _span("mean_us", 0.001)),
        ("P50", _percentile("run_us", "p50")),
        ("P90", _percentile("run_us", "p90")),
        ("P99", _percentile("run_us", "p99")),
        ("WAIT P50", _percentile("wait_us", "p50")),
        ("WAIT P99", _percentile("wait_us", "p99")),
    ),
    "schedules": (
        ("SCHEDULE", _field("name")),
        ("WHEN", _when),
        ("STATE", _field("state")),
        ("NEXT", _next),
        ("LAST", lambda row: Amount(f"{duration(row['last_ms'])} ago") if row["last_ms"] else None),
        ("ENDED", _field("last_state")),
        ("RUNS", _field("runs")),
        ("SKIPPED", _field("skipped")),
        ("MISSED", _field("missed")),
        ("HOSTS", _field("hosts")),
    ),
    **dict.fromkeys(DEAD_LETTERS, _LETTERS),
}


_WHOLE: Final[dict[tuple[str, str], Callable[[Row], object]]] = {
    **{(kind, "ID"): _field("id") for kind in ("tasks", *DEAD_LETTERS)},
    ("clients", "INSTANCE"): _field("instance"),
    ("workers", "RUNNING"): _running(ID_DIGITS),
}


# Shown once any row has something there: for the rest of the time terminals are narrow.
_UNLESS_ZERO: Final = {("functions", title) for title in ("EXPIRED", "CANCELLED", "LOST")}


def show_rows(kind: str, rows: Sequence[Row], *, wide: bool = False) -> None:
    """The rows of one kind as a table; `wide`: with whole ids."""
    columns = [
        (title, read)
        for title, read in TABLES[kind]
        if (kind, title) not in _UNLESS_ZERO or any(read(row) for row in rows)
    ]
    if wide:
        columns = [(title, _WHOLE.get((kind, title), read)) for title, read in columns]
    print_table(
        [title for title, _ in columns], [[read(row) for _, read in columns] for row in rows]
    )


@click.command(
    "ls",
    cls=Command,
    help=f"""{COMMANDS["ls"].summary}

    The tasks that are lost, failed or expired are kept for a week, so that evener show tells more
    of them, evener retry submits them once more and evener purge forgets them.
    """,
    examples=[
        "evener ls workers",
        "evener ls tasks --state queued",
        "evener ls tasks --json | jq '.rows[].id'",
    ],
)
@click.argument("kind", type=ChoiceType(list(TABLES)), metavar="|".join(TABLES))
@option(
    "--state",
    type=ChoiceType(STATES),
    metavar="STATE",
    help="Only tasks in this state, such as queued or running.",
)
@option(
    "--function", metavar="NAME", help="Only lost, failed or expired tasks that call this function."
)
@option("--wide", is_flag=True, help="Whole ids, which are never those of two tasks.")
@option("--limit", type=click.IntRange(1, 1_000), default=100, help="Rows at most.")
@json_option
@broker_option
@connect_option
def command(
    kind: str,
    state: str | None,
    function: str | None,
    wide: bool,
    limit: int,
    as_json: bool,
    broker: str | None,
    connect_timeout: float,
) -> None:
    if state is not None and kind != "tasks":
        raise click.UsageError("--state is for tasks only")
    if function is not None and kind not in DEAD_LETTERS:
        raise click.UsageError("--function is for lost, failed or expired tasks only")
    given = {"state": state, "function": function}
    filters: dict[str, Any] = {name: text for name, text in given.items() if text is not None}
    with connected(broker, connect_timeout) as client:
        answer = client.query("ls", kind=kind, limit=limit, **filters)
    if as_json:
        print_json(answer)
        return
    rows = answer["rows"]
    show_rows(kind, rows, wide=wide)
    total = answer.get("total", len(rows))
    if len(rows) == limit and total > len(rows) and not filters:
        noun = f"{kind} task" if kind in DEAD_LETTERS else kind[:-1]
        complain(f"{limit} of {plural(total, noun)}; more with --limit", "evener ls")
