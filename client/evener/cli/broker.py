"""`evener broker`: one broker in this process."""

from __future__ import annotations

import json
import os
from threading import Thread
from typing import Any

import click

from evener.cli.banner import Ready, show_broker
from evener.cli.group import COMMANDS, Command
from evener.cli.options import PORT_DEFAULT, listen_options, log_options, refuse_open_host
from evener.cli.output import complain


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
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # Lives until the broker listens, or does not; then this process has one thread again.
    herald = Thread(target=_announce, args=(reader, quiet or log_format == "json"), daemon=True)
    herald.start()
    try:
        return serve(
            BrokerConfig(
                host=host,
                port=PORT_DEFAULT if port is None else port,
                insecure=insecure,
                ready_fd=writer,
                log_level=log_level,
            )
        )
    finally:
        os.close(writer)
        herald.join()


def _announce(reader: int, quiet: bool) -> None:
    with open(reader, encoding="utf-8") as lines:
        line = lines.readline()
    event: dict[str, Any] = json.loads(line) if line else {}
    if event.get("event") == "error":
        complain(event["text"], "evener broker")
    elif event.get("event") == "ready" and not quiet:
        show_broker(Ready(event["address"]))
