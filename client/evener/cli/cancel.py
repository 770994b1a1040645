"""`evener cancel`: by id, or by any beginning of one that fits a single task."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from evener.cli import exits
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.ls import SHORT_ID
from evener.cli.options import broker_option, connect_option, json_option
from evener.cli.output import clean, complain, print_json

if TYPE_CHECKING:
    from evener.client import Client

_ID = re.compile(r"[0-9a-f]{4,32}")


@click.command(
    "cancel",
    cls=Command,
    help=f"""{COMMANDS["cancel"].summary}

    An id may be cut to any beginning that fits one task only (at least four digits). Tasks that
    have ended stay as they are.
    """,
    examples=[
        "evener cancel 7f3a90b1",
        "evener cancel $(evener ls tasks --json | jq -r '.rows[].id')",
    ],
)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@json_option
@broker_option
@connect_option
def command(ids: tuple[str, ...], as_json: bool, broker: str | None, connect_timeout: float) -> int:
    wanted = [task_id.lower().removeprefix("[").removesuffix("]") for task_id in ids]
    for task_id in wanted:
        if not _ID.fullmatch(task_id):
            raise click.UsageError(f'"{task_id}" is not the beginning of a task id')
    with connected(broker, connect_timeout) as client:
        found = {task_id: _find(client, task_id) for task_id in wanted}
        known = [full for full in found.values() if full is not None]
        client.cancel(known)
    if as_json:
        print_json({"cancelled": known, "unknown": [i for i, full in found.items() if not full]})
    for task_id, full in found.items():
        if full is None:
            complain(f'no open task has an id that begins with "{task_id}"', "evener cancel")
        elif not as_json:
            click.echo(f"asked to cancel {full[:SHORT_ID]}")
    return exits.OK if len(known) == len(found) else exits.FAILED


def _find(client: Client, beginning: str) -> str | None:
    rows = client.query("ls", kind="tasks", id=beginning, limit=2)["rows"]
    if len(rows) > 1:
        names = ", ".join(f"{row['id'][:12]} {row['function']}" for row in rows)
        raise click.UsageError(f'several task ids begin with "{beginning}": {clean(names)}, ...')
    return str(rows[0]["id"]) if rows else None
