"""`evener result`: the result of a task that was submitted before, as `submit --wait` prints it."""

from __future__ import annotations

import click

from evener.cli import exits
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import DURATION, broker_option, connect_option, json_option, option
from evener.cli.outcome import show_outcome
from evener.cli.output import complain
from evener.cli.tasks import ENDED, SHORT_ID, find, id_of, unknown


@click.command(
    "result",
    cls=Command,
    help=f"""{COMMANDS["result"].summary}

    The exit code tells how the task ended: 0 done, 1 failed, 75 timed out. Without --wait it is 75
    as well while the task has not ended. Results are opened here, pickles too where they come from
    this machine.
    """,
    examples=["evener result 7f3a90b1", "evener result 7f3a90b1 --wait --timeout 5m --json"],
)
@click.argument("task_id", metavar="ID")
@option("--wait", "-w", is_flag=True, help="Wait until the task has ended.")
@option(
    "--timeout",
    type=DURATION,
    metavar="DURATION",
    help="Wait no longer than this; the task goes on.",
)
@json_option
@broker_option
@connect_option
def command(
    task_id: str,
    wait: bool,
    timeout: float | None,
    as_json: bool,
    broker: str | None,
    connect_timeout: float,
) -> int:
    wanted = id_of(task_id)
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")
    with connected(broker, connect_timeout) as client:
        row = find(client, wanted)
        if row is None:
            complain(unknown(wanted), "evener result")
            return exits.FAILED
        if row["state"] not in ENDED and not wait:
            name = f"{row['function']}[{row['id'][:SHORT_ID]}]"
            complain(f"task {name} has not ended: it is {row['state']} (--wait)", "evener result")
            return exits.TIMED_OUT
        future = client.fetch(row["id"])
        return show_outcome(future, as_json, "evener result", row["function"], timeout)
