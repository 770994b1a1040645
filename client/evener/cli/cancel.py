"""`evener cancel`: by id, or by any beginning of one that fits a single task."""

from __future__ import annotations

import click

from evener.cli import exits
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import broker_option, connect_option, json_option
from evener.cli.output import complain, print_json
from evener.cli.tasks import ENDED, SHORT_ID, find, id_of, unknown


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
    wanted = [id_of(task_id) for task_id in ids]
    with connected(broker, connect_timeout) as client:
        found = {beginning: find(client, beginning) for beginning in wanted}
        rows = [row for row in found.values() if row is not None]
        ended = [row for row in rows if row["state"] in ENDED]
        asked = [row["id"] for row in rows if row["state"] not in ENDED]
        client.cancel(asked)
    strangers = [beginning for beginning, row in found.items() if row is None]
    if as_json:
        over = {row["id"]: row["state"] for row in ended}
        print_json({"cancelled": asked, "ended": over, "unknown": strangers})
    else:
        for task_id in asked:
            click.echo(f"asked to cancel {task_id[:SHORT_ID]}")
    for row in ended:
        name = f"{row['function']}[{row['id'][:SHORT_ID]}]"
        complain(f"task {name} has ended already: {row['state']}", "evener cancel")
    for beginning in strangers:
        complain(unknown(beginning), "evener cancel")
    return exits.FAILED if ended or strangers else exits.OK
