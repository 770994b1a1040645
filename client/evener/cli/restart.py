"""`evener restart`: every worker of a host, or of all hosts, is replaced, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from evener.cli import exits
from evener.cli.care import Host, Progress, hosts, wait_option, watched
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import broker_option, connect_option, json_option, option
from evener.cli.output import complain, duration, print_json
from evener.texts import plural

if TYPE_CHECKING:
    from evener.client import Client


@click.command(
    "restart",
    cls=Command,
    help=f"""{COMMANDS["restart"].summary}

    A new worker imports the code as it is now. Once it is ready, an old one finishes what it runs
    and leaves, so no task is lost and no capacity. Code that does not import stops the restart,
    with its traceback, and the old workers go on. Without HOST the only host there is.
    """,
    examples=["evener restart", "evener restart node-3", "evener restart --all --json"],
)
@click.argument("host", required=False, metavar="[HOST]")
@option("--all", "every", is_flag=True, help="All hosts, one after the other.")
@option("--rolling", is_flag=True, help="One worker after the other, as it is always done.")
@wait_option(default=True, what="Wait until all are replaced.")
@json_option
@broker_option
@connect_option
def command(
    host: str | None,
    every: bool,
    rolling: bool,
    wait: bool,
    as_json: bool,
    broker: str | None,
    connect_timeout: float,
) -> int:
    if host is not None and every:
        raise click.UsageError("give either a host or --all")
    with connected(broker, connect_timeout) as client:
        results: list[Mapping[str, Any]] = []
        for one in hosts(client, host, every=every):
            result = _restart(client, one, wait=wait, quiet=as_json)
            results.append(result)
            if not as_json:
                _tell(result)
            if result["restart"]["state"] == "failed":
                break  # the same code would stop the next host
    if as_json:
        print_json({"hosts": results})
    failed = any(result["restart"]["state"] == "failed" for result in results)
    return exits.FAILED if failed else exits.OK


def _restart(client: Client, host: Host, *, wait: bool, quiet: bool) -> Mapping[str, Any]:
    progress = Progress(quiet)
    first: Mapping[str, Any] = host.ask(client, "restart")
    number = first["restart"]["number"]
    state = first
    if wait:
        for state in watched(client, host, first):
            roll = state["restart"]
            if roll["state"] != "running" or roll["number"] != number:
                break
            progress.show(f"{host.name}: {_so_far(roll)}")
        progress.end()
    return state


def _so_far(roll: Mapping[str, Any]) -> str:
    text = f"{roll['done']} of {plural(roll['total'], 'worker')} replaced"
    if roll["finishing"]:
        text += f", {roll['finishing']} finish what they run"
    return text


def _tell(state: Mapping[str, Any]) -> None:
    roll = state["restart"]
    name, took = state["host"], duration(roll["took_ms"])
    if roll["state"] == "failed":
        complain(
            f"{name}: stopped after {_so_far(roll)}; the others go on with the code that they "
            f"have. A new worker did not start: {roll['error']}",
            "evener restart",
        )
    elif roll["state"] == "running":
        click.echo(f"{name}: {plural(roll['total'], 'worker')} will be replaced")
    else:
        click.echo(f"{name}: {plural(roll['total'], 'worker')} replaced in {took}")
