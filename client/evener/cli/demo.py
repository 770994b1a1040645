"""`evener demo`: the main job, from an installed wheel as from a checkout."""

from __future__ import annotations

import click

from evener.cli.group import COMMANDS, Command
from evener.cli.options import ADDRESS, option


@click.command(
    "demo",
    cls=Command,
    help=f"""{COMMANDS["demo"].summary}

    Starts a broker and workers, indexes the identifiers of Python's standard library with them,
    kills one worker half-way with SIGKILL, and compares the totals with a single process's.
    """,
    examples=[
        "evener demo",
        "evener demo -n 8 --no-kill",
        "evener demo --broker tcp://10.0.0.5:7450",
    ],
)
@option("--workers", "-n", type=click.IntRange(1, 4_096), default=4, help="Worker processes.")
@option("--kill/--no-kill", default=True, help="Kill a worker half-way.")
@option(
    "--broker",
    "-b",
    type=ADDRESS,
    metavar="tcp://HOST:PORT",
    show_default="a cluster of its own",
    allow_from_autoenv=False,
    help="Use the workers of a broker that runs already, and kill none.",
)
def command(workers: int, kill: bool, broker: str | None) -> int:
    from evener.demo import main

    return main(workers=workers, kill=kill, broker=broker)
