"""`evener retry`: dead letters submitted once more, by id or all that ended in one way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from evener.cli import exits
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import DURATION, broker_option, connect_option, json_option, option
from evener.cli.output import clean, complain, print_json
from evener.cli.tasks import SHORT_ID, dead_letters, find, id_of, reason_of, unknown
from evener.texts import plural

if TYPE_CHECKING:
    from evener.cli.tasks import Row
    from evener.client import Client
    from evener.future import Future


@click.command(
    "retry",
    cls=Command,
    help=f"""{COMMANDS["retry"].summary}

    Each becomes a new task with an id of its own. Once the broker has accepted that, the old one is
    forgotten, so that it is not retried twice; --keep leaves it where it is.
    """,
    examples=[
        "evener retry 7f3a90b1",
        "evener retry --failed --function demo.load --dry-run",
        "evener retry --lost",
    ],
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@option("--lost", "states", flag_value="lost", multiple=True, help="All lost tasks.")
@option("--failed", "states", flag_value="failed", multiple=True, help="All failed tasks.")
@option("--expired", "states", flag_value="expired", multiple=True, help="All expired tasks.")
@option("--function", metavar="NAME", help="Of those only the ones that call this function.")
@option("--keep", is_flag=True, help="Do not forget the old tasks.")
@option("--dry-run", is_flag=True, help="Only tell which tasks these are.")
@option(
    "--timeout",
    type=DURATION,
    default="30s",
    metavar="DURATION",
    help="How long to wait until the broker accepts the new tasks.",
)
@json_option
@broker_option
@connect_option
def command(
    ids: tuple[str, ...],
    states: tuple[str, ...],
    function: str | None,
    keep: bool,
    dry_run: bool,
    timeout: float,
    as_json: bool,
    broker: str | None,
    connect_timeout: float,
) -> int:
    if bool(ids) == bool(states):
        raise click.UsageError("give either ids, or one or more of --lost, --failed, --expired")
    if ids and function is not None:
        raise click.UsageError("--function goes with --lost, --failed or --expired")
    wanted = [id_of(task_id) for task_id in ids]
    left = 0
    with connected(broker, connect_timeout) as client:
        rows, strangers = _named(client, wanted)
        for state in states:
            found, more = dead_letters(client, state, function)
            rows += found
            left += more
        told = _told(rows) if dry_run else _retry(client, rows, timeout, keep=keep)
    code = _report(told, strangers, dry_run=dry_run, as_json=as_json)
    if left:
        # Those that fail again are in the same list, so nothing here goes on by itself.
        complain(f"{plural(left, 'more task')} like these; run it again", "evener retry")
    return code


def _named(client: Client, wanted: Sequence[str]) -> tuple[list[Row], list[str]]:
    found = {beginning: find(client, beginning) for beginning in wanted}
    rows = [row for row in found.values() if row is not None]
    return rows, [beginning for beginning, row in found.items() if row is None]


def _told(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {"old": row["id"], "function": row["function"], "reason": reason_of(row)} for row in rows
    ]


def _retry(client: Client, rows: Sequence[Row], timeout: float, *, keep: bool) -> list[Any]:
    """Submits them; those that the broker accepted have a new `id`, the others an `error`."""
    from evener.errors import UsageError

    told = _told(rows)
    futures: list[Future[Any] | None] = []
    for entry in told:
        try:
            futures.append(client.retry(entry["old"]))
        except UsageError as error:
            entry["error"] = str(error)
            futures.append(None)
    client.flush(timeout)
    for entry, future in zip(told, futures, strict=True):
        if future is None:
            continue
        if refusal := _refusal(future):
            entry["error"] = refusal
            continue
        entry["id"] = future.task_id
        if not keep:
            _forget(client, entry)
    return told


def _refusal(future: Future[Any]) -> str | None:
    """Why the broker did not take a task, if it did not. Results are not decoded for this."""
    from evener.errors import QueueFull, TaskRejected, UnknownFunction

    error = future.error_if_rejected()
    return str(error) if isinstance(error, QueueFull | TaskRejected | UnknownFunction) else None


def _forget(client: Client, entry: dict[str, Any]) -> None:
    from evener.errors import UsageError

    try:
        client.purge(entry["old"])
    except UsageError as error:  # its client has not taken its end yet, or somebody was faster
        entry["kept"] = str(error)


def _report(
    told: Sequence[dict[str, Any]], strangers: Sequence[str], *, dry_run: bool, as_json: bool
) -> int:
    errors = [entry for entry in told if "error" in entry]
    if as_json:
        print_json({"retried": told, "unknown": strangers, "dry_run": dry_run})
    else:
        for entry in told:
            _tell(entry, dry_run=dry_run)
        if not told and not strangers:
            click.echo("there are no such tasks")
    for beginning in strangers:
        complain(unknown(beginning), "evener retry")
    if errors and not as_json:
        complain(f"{plural(len(errors), 'task')} not retried", "evener retry")
    return exits.FAILED if errors or strangers else exits.OK


def _tell(entry: dict[str, Any], *, dry_run: bool) -> None:
    old = f"{entry['old'][:SHORT_ID]}  {entry['function']}"
    if "error" in entry:
        complain(f"{old}: {entry['error']}", "evener retry")
    elif dry_run:
        click.echo(clean(f"{old}  {entry['reason'] or ''}".rstrip()))
    else:
        click.echo(clean(f"{old}  again as {entry['id']}"))
    if "kept" in entry:
        complain(f"{old}: the old one stays in the list: {entry['kept']}", "evener retry")
