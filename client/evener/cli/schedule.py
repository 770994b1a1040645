"""`evener schedule`: a schedule runs now, pauses, or goes on."""

from __future__ import annotations

import click

from evener.cli import exits
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import ChoiceType, broker_option, connect_option, json_option
from evener.cli.output import print_json

_DONE = {
    "run": "runs now: task {last_id}",
    "pause": "is paused until evener schedule resume",
    "resume": "goes on",
}


@click.command(
    "schedule",
    cls=Command,
    help=f"""{COMMANDS["schedule"].summary}

    evener ls schedules shows what there is. A run that is asked for changes nothing about when the
    next one is due, and works while the schedule is paused too; it is refused while the last run is
    open, unless the schedule has overlap="queue".
    """,
    examples=[
        "evener schedule run shop.clean_up",
        "evener schedule pause shop.clean_up",
        "evener schedule resume shop.clean_up",
    ],
)
@click.argument("action", type=ChoiceType(list(_DONE)), metavar="|".join(_DONE))
@click.argument("name")
@json_option
@broker_option
@connect_option
def command(
    action: str, name: str, as_json: bool, broker: str | None, connect_timeout: float
) -> int:
    with connected(broker, connect_timeout) as client:
        answer = client.query("schedule", name=name, do=action)
        ends = action == "pause" and not client.durable
    if as_json:
        print_json(answer)
    else:
        # Only a journal remembers it.
        until = ", or until the broker restarts" if ends else ""
        click.echo(f"{name} {_DONE[action].format_map(answer)}{until}")
    return exits.OK
