"""`evener scale`: so many workers from now on, on one host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from evener.cli.care import Progress, hosts, wait_option, watched
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import broker_option, connect_option, json_option
from evener.cli.output import print_json
from evener.texts import plural


@click.command(
    "scale",
    cls=Command,
    help=f"""{COMMANDS["scale"].summary}

    New workers start at once. Those above the number finish what they run and leave, the last one
    first. It holds until the agent is started anew.
    """,
    examples=["evener scale node-3 8", "evener scale node-3 2 --wait"],
)
@click.argument("host", metavar="HOST")
@click.argument("workers", type=click.IntRange(1, 4_096), metavar="N")
@wait_option(default=False, what="Wait until there are so many.")
@json_option
@broker_option
@connect_option
def command(
    host: str,
    workers: int,
    wait: bool,
    as_json: bool,
    broker: str | None,
    connect_timeout: float,
) -> None:
    with connected(broker, connect_timeout) as client:
        (one,) = hosts(client, host)
        first: Mapping[str, Any] = one.ask(client, "scale", workers=workers)
        state = first
        if wait:
            progress = Progress(as_json)
            for state in watched(client, one, first):
                if _is_there(state) or state["workers"] != workers:
                    break
                progress.show(f"{one.name}: {_text(state)}")
            progress.end()
    if as_json:
        print_json(state)
    else:
        click.echo(f"{one.name}: {_text(state)}")


def _is_there(state: Mapping[str, Any]) -> bool:
    return bool(state["ready"] == state["processes"] == state["workers"])


def _text(state: Mapping[str, Any]) -> str:
    wanted, more = state["workers"], state["processes"] - state["workers"]
    text = f"{state['ready']} of {plural(wanted, 'worker')} ready"
    return text + (f", {more} more to finish what they run" if more > 0 else "")
