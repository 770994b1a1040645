"""`evener status`: the cluster on one screen, and what needs somebody's attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.ls import show_rows
from evener.cli.options import broker_option, connect_option, json_option
from evener.cli.output import bytes_text, clean, duration, humanised, print_json
from evener.texts import plural

_OPEN_STATES = ("queued", "held", "assigned", "running")
_ROWS_MAX = 10


@click.command(
    "status",
    cls=Command,
    help=COMMANDS["status"].summary,
    examples=["evener status", "evener status --json | jq .tasks.queued"],
)
@json_option
@broker_option
@connect_option
def command(as_json: bool, broker: str | None, connect_timeout: float) -> None:
    with connected(broker, connect_timeout) as client:
        answer = client.query("status")
        address = client.address
    if as_json:
        print_json({"address": address, **answer})
        return
    _show(address, answer)


def _show(address: str, status: Mapping[str, Any]) -> None:
    for name, text in _summary(address, status):
        click.echo(f"{click.style(f'{name:<8}', bold=True)}{clean(text)}")
    for kind in ("hosts", "queues", "functions"):
        rows: Sequence[Mapping[str, Any]] = status.get(kind) or ()
        if rows:
            click.echo()
            show_rows(kind, rows[:_ROWS_MAX])
            if len(rows) > _ROWS_MAX:
                click.echo(f"... {len(rows) - _ROWS_MAX} more: evener ls {kind}")
    for warning in _warnings(status):
        click.echo()
        click.echo(click.style("warning: ", fg="yellow") + clean(warning))


def _summary(address: str, status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    broker = status["broker"]
    kept = "kept in a journal" if broker.get("durable") else "kept in memory"
    up = duration(broker["live_s"] * 1000) if broker["live_s"] else "less than 1 s"
    size = bytes_text(broker["payload_bytes"])
    yield "broker", f"{address}  up {up}, epoch {broker['epoch']}, tasks {kept} ({size})"
    if journal := broker.get("journal"):
        room = f"{bytes_text(journal['bytes'])} of {bytes_text(journal['bytes_max'])}"
        yield "journal", f"{room}, {plural(journal['transactions'], 'transaction')}"
    hosts = status.get("hosts") or ()
    slots = sum(host["slots"] for host in hosts)
    running = sum(host["running"] for host in hosts)
    yield "workers", f"{slots:,} on {plural(len(hosts), 'host')}, {running:,} seen running"
    tasks = status["tasks"]
    counts = [f"{humanised(tasks[state])} {state}" for state in _OPEN_STATES if tasks.get(state)]
    ended = sum(count for state, count in tasks.items() if state not in _OPEN_STATES)
    if ended:
        counts.append(f"{humanised(ended)} ended, not yet fetched")
    yield "tasks", f"{', '.join(counts) or 'none open'}; {humanised(broker['accepted'])} accepted"
    clients = status.get("clients") or ()
    connected_clients = sum(bool(client["connected"]) for client in clients)
    yield "clients", f"{connected_clients} connected"


def _warnings(status: Mapping[str, Any]) -> Iterator[str]:
    journal: Mapping[str, Any] = status["broker"].get("journal") or {}
    if journal.get("failing"):
        yield (
            f"the broker cannot write its journal ({journal['failing']}): what it has accepted "
            "goes on, new tasks are rejected until it can"
        )
    hosts = status.get("hosts") or ()
    served = sorted({queue for host in hosts for queue in host["queues"]})
    for queue in status.get("unserved") or ():
        yield (
            f"{plural(queue['waiting'], 'task')} wait{'s' if queue['waiting'] == 1 else ''} for "
            f'queue "{queue["name"]}" but no connected worker serves it '
            f"(workers serve: {', '.join(served) or 'nothing, none is connected'})"
        )
    for host in hosts:
        if not host["connected"]:
            yield f"host {host['name']} is not connected"
