"""`evener purge`: dead letters forgotten for good, by id or all that ended in one way."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from evener.cli import exits
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import DURATION, broker_option, connect_option, json_option, option
from evener.cli.output import complain, print_json
from evener.cli.tasks import DEAD_LETTERS, SHORT_ID, find, id_of, unknown
from evener.texts import plural

if TYPE_CHECKING:
    from evener.client import Client


@click.command(
    "purge",
    cls=Command,
    help=f"""{COMMANDS["purge"].summary}

    WHAT is lost, failed or expired, or the ids of such tasks. Asks before it does so, unless --yes
    is given.
    """,
    examples=[
        "evener purge 7f3a90b1",
        "evener purge failed --older-than 1d --yes",
        "evener purge lost failed expired --dry-run",
    ],
)
@click.argument("what", nargs=-1, required=True, metavar="lost|failed|expired|ID...")
@option("--function", metavar="NAME", help="Only tasks that call this function.")
@option(
    "--older-than", type=DURATION, metavar="DURATION", help="Only what ended longer ago than this."
)
@option("--yes", "-y", is_flag=True, help="Do not ask.")
@option("--dry-run", is_flag=True, help="Only count.")
@json_option
@broker_option
@connect_option
def command(
    what: tuple[str, ...],
    function: str | None,
    older_than: float | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    broker: str | None,
    connect_timeout: float,
) -> int:
    states = [word for word in what if word in DEAD_LETTERS]
    ids = [id_of(word) for word in what if word not in DEAD_LETTERS]
    if states and ids:
        raise click.UsageError("give either ids, or some of lost, failed, expired")
    if ids and (function is not None or older_than is not None):
        raise click.UsageError("--function and --older-than go with lost, failed or expired")
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("nobody can be asked here: give --yes, or --dry-run")
    filters = {"function": function, "older_than": older_than}
    with connected(broker, connect_timeout) as client:
        if ids:
            return _purge_named(client, ids, yes=yes, dry_run=dry_run, as_json=as_json)
        count = _count(client, states, filters, dry_run=True)
        asks = count and not (yes or dry_run)
        if asks and not click.confirm(f"forget {plural(count, 'task')} for good?", err=True):
            return exits.FAILED
        if count and not dry_run:
            count = _count(client, states, filters, dry_run=False)
    _tell(count, [], dry_run=dry_run, as_json=as_json)
    return exits.OK


def _count(client: Client, states: Sequence[str], filters: dict[str, Any], *, dry_run: bool) -> int:
    return sum(client.purge(state=state, dry_run=dry_run, **filters) for state in states)


def _purge_named(
    client: Client, ids: Sequence[str], *, yes: bool, dry_run: bool, as_json: bool
) -> int:
    from evener.errors import UsageError

    found = {beginning: find(client, beginning) for beginning in ids}
    known = [row for row in found.values() if row is not None]
    problems = [unknown(beginning) for beginning, row in found.items() if row is None]
    names = ", ".join(f"{row['function']}[{row['id'][:SHORT_ID]}]" for row in known)
    if known and not (yes or dry_run) and not click.confirm(f"forget {names}?", err=True):
        return exits.FAILED
    count = 0
    for row in known:
        try:
            count += client.purge(row["id"], dry_run=dry_run)
        except UsageError as error:
            problems.append(str(error))
    _tell(count, problems, dry_run=dry_run, as_json=as_json)
    return exits.FAILED if problems else exits.OK


def _tell(count: int, problems: Sequence[str], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"purged": count, "problems": problems, "dry_run": dry_run})
        return
    for problem in problems:
        complain(problem, "evener purge")
    click.echo(f"{'would forget' if dry_run else 'forgot'} {plural(count, 'task')}")
