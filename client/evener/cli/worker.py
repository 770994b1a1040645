"""`evener worker`: the agent of this host in this process, with its workers below it."""

from __future__ import annotations

import click

from evener.cli.connect import local_broker
from evener.cli.group import COMMANDS, Command
from evener.cli.options import broker_option, log_options, option, worker_options


@click.command(
    "worker",
    cls=Command,
    help=COMMANDS["worker"].summary,
    examples=[
        "evener worker demo:app -n 4",
        "evener worker jobs/app.py:app --broker tcp://10.0.0.5:7450 --insecure -q gpu",
    ],
)
@click.argument("app", metavar="MODULE:APP")
@worker_options
@broker_option
@option(
    "--insecure",
    is_flag=True,
    help="Let a broker on another machine send pickles, which can run code here.",
    section="Connection",
)
@log_options
def command(
    app: str,
    workers: int | None,
    queues: tuple[str, ...],
    name: str | None,
    drain: float,
    broker: str | None,
    insecure: bool,
    log_level: str,
    log_format: str,
    quiet: bool,
) -> int:
    from evener.cli import logs
    from evener_worker.config import AgentConfig
    from evener_worker.server import serve

    logs.set_up("agent", log_level, log_format, quiet)
    line = logs.line_maker("agent", log_format)
    return serve(
        AgentConfig(
            app=app,
            workers=workers or 0,
            broker=broker or local_broker(),
            queues=queues or ("default",),
            name=name or "",
            insecure=insecure,
            drain_seconds=round(drain),
            log_level="warning" if quiet else log_level,
        ),
        line,
    )
