"""`evener drain`: a host finishes what runs, gives back the rest, and takes nothing new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from evener.cli import exits
from evener.cli.care import Host, Progress, hosts, wait_option, watched
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import DURATION, broker_option, connect_option, json_option, option
from evener.cli.output import print_json
from evener.errors import BrokerUnreachable, UsageError
from evener.texts import plural

if TYPE_CHECKING:
    from evener.client import Client


@click.command(
    "drain",
    cls=Command,
    help=f"""{COMMANDS["drain"].summary}

    What waits there goes to other hosts at once. The agent and its workers stay, and take work
    again after --undo, or when the agent is started anew; with --stop they end when nothing runs,
    and with them the evener up that started them.
    """,
    examples=["evener drain node-3 --wait", "evener drain node-3 --undo", "evener drain --stop"],
)
@click.argument("host", required=False, metavar="[HOST]")
@option("--undo", is_flag=True, help="Take work again.")
@option("--stop", is_flag=True, help="End the agent then, as Ctrl-C would.")
@wait_option(default=False, what="Wait until nothing runs there.")
@option(
    "--timeout",
    type=DURATION,
    metavar="DURATION",
    show_default="none",
    help="Stop waiting after this time, with exit code 1; the host goes on draining.",
)
@json_option
@broker_option
@connect_option
def command(
    host: str | None,
    undo: bool,
    stop: bool,
    wait: bool,
    timeout: float | None,
    as_json: bool,
    broker: str | None,
    connect_timeout: float,
) -> int:
    if undo and (stop or wait):
        raise click.UsageError("--undo goes with neither --stop nor --wait")
    with connected(broker, connect_timeout) as client:
        (one,) = hosts(client, host)
        state: Mapping[str, Any] = one.ask(client, "drain", undo=undo, stop=stop)
        idle = _is_idle(state)
        if wait:
            state, idle = _wait(client, one, state, timeout, as_json)
    if as_json:
        print_json({**state, "idle": idle})
    else:
        click.echo(_text(state, undo=undo, idle=idle, left=wait and stop))
    return exits.OK if idle or not wait else exits.FAILED


def _is_idle(state: Mapping[str, Any]) -> bool:
    return not (state["running"] or state["waiting"] or state["untold"])


def _wait(
    client: Client, host: Host, first: Mapping[str, Any], timeout: float | None, quiet: bool
) -> tuple[Mapping[str, Any], bool]:
    progress = Progress(quiet)
    state = first
    try:
        for state in watched(client, host, first, timeout):
            if _is_idle(state) and not state["stopping"]:
                return state, True
            progress.show(f"{host.name}: {plural(state['running'], 'task')} still run")
    except UsageError:
        # Nobody answers: an agent that was to stop is gone when it is idle, and else it is lost.
        if not state["stopping"]:
            raise
        return {**state, "running": 0}, True
    except BrokerUnreachable as error:
        # It may have been the broker of an `evener up`, which ends with its agent.
        if not state["stopping"]:
            raise
        if not _is_idle(state):
            raise click.ClickException(
                f"{error}  It was there when {host.name} was told to stop, and had "
                f"{plural(state['running'], 'task')} running when last heard of"
            ) from error
        return state, True
    finally:
        progress.end()
    return state, False


def _text(state: Mapping[str, Any], *, undo: bool, idle: bool, left: bool) -> str:
    name = state["host"]
    if undo:
        return f"{name}: takes work again"
    if idle and left:
        return f"{name}: nothing runs, and its agent has ended"
    if idle:
        return f"{name}: nothing runs, and nothing new is taken"
    return f"{name}: {plural(state['running'], 'task')} still run; nothing new is taken"
