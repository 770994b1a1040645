"""`evener show`: everything that the broker knows of one task, also after its end."""

from __future__ import annotations

from collections.abc import Iterable

import click

from evener.cli import exits
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import broker_option, connect_option, json_option
from evener.cli.output import clean, complain, print_json
from evener.cli.tasks import find, id_of, unknown

_LABEL_WIDTH = 12


@click.command(
    "show",
    cls=Command,
    help=f"""{COMMANDS["show"].summary}

    Of a task that ended: how, when, and its result; of one that failed its traceback; of one that
    got lost how its worker died. Pickled results are described, not opened: evener result does
    that. The id may be cut to any beginning that fits one task only (at least four digits).
    """,
    examples=["evener show 7f3a90b1", "evener show 7f3a90b1 --json | jq .facts"],
)
@click.argument("task_id", metavar="ID")
@json_option
@broker_option
@connect_option
def command(task_id: str, as_json: bool, broker: str | None, connect_timeout: float) -> int:
    wanted = id_of(task_id)
    with connected(broker, connect_timeout) as client:
        row = find(client, wanted)
        task = None if row is None else client.show(row["id"])
    if task is None:
        complain(unknown(wanted), "evener show")
        return exits.FAILED
    # Here, because what reads results is slow to load.
    from evener.cli.describe import as_data, as_lines

    if as_json:
        print_json(as_data(task))
    else:
        click.echo(click.style(f"task {task['id']}", bold=True))
        _show(as_lines(task))
    return exits.OK


def _show(lines: Iterable[tuple[str, str]]) -> None:
    """Labels to the left; what has several lines stands below its label."""
    for label, text in lines:
        first, *rest = clean(text).split("\n")
        if rest:
            click.echo(f"  {label}")
            click.echo("\n".join(f"    {line}".rstrip() for line in (first, *rest)))
        else:
            click.echo(f"  {label:<{_LABEL_WIDTH}}{first}")
