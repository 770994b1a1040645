"""`evener ping`: one line and an exit code, for people, probes and health checks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import click

from evener.cli import exits
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import broker_option, connect_option, json_option, option
from evener.cli.output import complain, duration, print_json

# The worker has 2 s, its agent looks once a second, the broker gives up after 4 s and says so.
_QUERY_S: Final = 8.0


@click.command(
    "ping",
    cls=Command,
    help=f"""{COMMANDS["ping"].summary}

    Exits with 0 when it does, and with 69 when it does not. With --worker a worker is asked, which
    answers between two tasks: one that runs something is in order, as far as anybody can tell, and
    `evener stack` shows what it does.
    """,
    examples=[
        "evener ping",
        "evener ping --quiet -b tcp://broker:7450",
        "evener ping --worker node-3/4711",
    ],
)
@option("--worker", metavar="WORKER", help="Ask a worker: a pid, host/pid or name.")
@option("--quiet", is_flag=True, help="Only the exit code.")
@json_option
@broker_option
@connect_option
def command(
    worker: str | None, quiet: bool, as_json: bool, broker: str | None, connect_timeout: float
) -> int:
    with connected(broker, connect_timeout) as client:
        if worker is not None:
            answer = client.query("ping", query_timeout=_QUERY_S, worker=worker)
            return _tell_worker(answer, quiet, as_json)
        asked = time.perf_counter()
        # Small whatever the broker holds: the first of its queues.
        client.query("ls", kind="queues", limit=1)
        milliseconds = (time.perf_counter() - asked) * 1000
        address = client.address
    if as_json:
        print_json({"address": address, "round_trip_ms": round(milliseconds, 3)})
    elif not quiet:
        click.echo(f"{address} answered in {duration(milliseconds)}")
    return exits.OK


def _does(answer: Mapping[str, Any]) -> str:
    """What a worker does that should have answered: nothing, or several tasks side by side."""
    if answer["function"] is None:
        return "runs nothing"
    since = duration(answer["since_ms"])
    return f"runs {answer['function']}[{answer['task'][:8]}] since {since}, with others or alone,"


def _tell_worker(answer: Mapping[str, Any], quiet: bool, as_json: bool) -> int:
    took_us = answer["round_trip_us"]
    name = f"worker {answer['worker']} (pid {answer['pid']})"
    if as_json:
        print_json(answer)
    elif took_us is not None:
        if not quiet:
            click.echo(f"{name} answered its agent in {duration(took_us / 1000)}")
    elif answer["busy"]:
        task = f"{answer['function']}[{answer['task'][:8]}] since {duration(answer['since_ms'])}"
        if not quiet:
            click.echo(f"{name} runs {task}, and answers when that ends")
    elif not quiet:
        complain(f"{name} {_does(answer)} and does not answer", "evener ping")
    return exits.OK if answer["busy"] or took_us is not None else exits.UNREACHABLE
