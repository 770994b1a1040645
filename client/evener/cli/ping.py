"""`evener ping`: one line and an exit code, for people, probes and health checks."""

from __future__ import annotations

import time

import click

from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import broker_option, connect_option, json_option, option
from evener.cli.output import duration, print_json


@click.command(
    "ping",
    cls=Command,
    help=f"""{COMMANDS["ping"].summary}

    Exits with 0 when it does, and with 69 when it does not.
    """,
    examples=["evener ping", "evener ping --quiet -b tcp://broker:7450"],
)
@option("--quiet", is_flag=True, help="Only the exit code.")
@json_option
@broker_option
@connect_option
def command(quiet: bool, as_json: bool, broker: str | None, connect_timeout: float) -> None:
    with connected(broker, connect_timeout) as client:
        asked = time.perf_counter()
        # Small whatever the broker holds: the first of its queues.
        client.query("ls", kind="queues", limit=1)
        milliseconds = (time.perf_counter() - asked) * 1000
        address = client.address
    if as_json:
        print_json({"address": address, "round_trip_ms": round(milliseconds, 3)})
    elif not quiet:
        click.echo(f"{address} answered in {duration(milliseconds)}")
