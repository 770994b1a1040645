"""`evener why`: one sentence on why a task waits, or where it runs."""

from __future__ import annotations

import click

from evener.cli import exits
from evener.cli.connect import asked_broker, connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import broker_option, connect_option, json_option
from evener.cli.output import clean, complain, print_json
from evener.cli.tasks import id_of


@click.command(
    "why",
    cls=Command,
    help=f"""{COMMANDS["why"].summary}

    The id may be cut to any beginning that fits one task only (at least four digits).
    """,
    examples=[
        "evener why 7f3a90b1",
        "evener why 7f3a90b1 --json | jq .in_front",
    ],
)
@click.argument("task_id", metavar="ID")
@json_option
@broker_option
@connect_option
def command(task_id: str, as_json: bool, broker: str | None, connect_timeout: float) -> int:
    wanted = id_of(task_id)
    with connected(broker, connect_timeout) as client:
        answer = client.query("why", id=wanted)
    found = answer["state"] != "unknown"
    if as_json:
        print_json(answer)
    elif found:
        click.echo(clean(answer["text"]))
    else:
        complain(f"{answer['text']} (asked: {asked_broker()})", "evener why")
    return exits.OK if found else exits.FAILED
