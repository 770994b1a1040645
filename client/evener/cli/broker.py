"""`evener broker`: one broker in this process."""

from __future__ import annotations

import click

from evener.cli.group import COMMANDS, Command
from evener.cli.options import PORT_DEFAULT, listen_options, log_options, refuse_open_host


@click.command(
    "broker",
    cls=Command,
    help=COMMANDS["broker"].summary,
    examples=["evener broker", "evener broker --host 10.0.0.5 --insecure"],
)
@listen_options
@log_options
def command(
    host: str,
    port: int | None,
    insecure: bool,
    log_level: str,
    log_format: str,
    quiet: bool,
) -> int:
    refuse_open_host(host, insecure)
    from evener.cli import logs
    from evener_broker.server import BrokerConfig, serve

    logs.set_up("broker", log_level, log_format, quiet)
    return serve(
        BrokerConfig(
            host=host,
            port=PORT_DEFAULT if port is None else port,
            insecure=insecure,
            log_level=log_level,
        )
    )
