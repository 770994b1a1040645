"""`evener broker`: one broker in this process."""

from __future__ import annotations

import click

from evener.cli.banner import Ready, show_broker
from evener.cli.bounds import bound_options
from evener.cli.group import COMMANDS, Command
from evener.cli.herald import Event, heralded
from evener.cli.journal import journal_options
from evener.cli.options import listen_options, log_options, refuse_open_host
from evener.cli.output import complain
from evener.discovery import PORT_DEFAULT


@click.command(
    "broker",
    cls=Command,
    help=COMMANDS["broker"].summary,
    examples=[
        "evener broker",
        "evener broker --journal tasks.journal",
        "evener broker --host 10.0.0.5 --insecure",
    ],
)
@listen_options
@journal_options
@bound_options
@log_options
def command(
    host: str,
    port: int | None,
    insecure: bool,
    journal: str | None,
    journal_size: int,
    max_tasks: int | None,
    max_bytes: int | None,
    max_client_tasks: int | None,
    max_client_bytes: int | None,
    memory_limit: int | None,
    log_level: str,
    log_format: str,
    quiet: bool,
) -> int:
    refuse_open_host(host, insecure)
    from evener.cli import logs
    from evener_broker.server import BrokerConfig, serve

    logs.set_up("broker", log_level, log_format, quiet)
    silent = quiet or log_format == "json"
    with heralded(lambda event: _announce(event, silent)) as ready_fd:
        return serve(
            BrokerConfig(
                host=host,
                port=PORT_DEFAULT if port is None else port,
                insecure=insecure,
                ready_fd=ready_fd,
                log_level=log_level,
                journal=journal,
                journal_size=journal_size,
                max_tasks=max_tasks or 0,
                max_bytes=max_bytes or 0,
                max_client_tasks=max_client_tasks or 0,
                max_client_bytes=max_client_bytes or 0,
                memory_limit=memory_limit or 0,
            )
        )


def _announce(event: Event, silent: bool) -> bool:
    if event.get("event") == "error":
        complain(event["text"], "evener broker")
    elif event.get("event") == "ready" and not silent:
        show_broker(Ready(event["address"]))
    return True
