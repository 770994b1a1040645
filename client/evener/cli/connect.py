"""How commands reach the broker.

Rules of this file: zmq is loaded here, when a command really talks to a broker.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from evener.cli import exits

if TYPE_CHECKING:
    from evener.client import Client


@contextmanager
def connected(address: str | None, timeout: float) -> Generator[Client]:
    """A client of the broker at `address`, or of the one that runs on this host.

    Raises `BrokerUnreachable` when none answers within `timeout` seconds.
    """
    address = address or local_broker()
    from evener.client import Client

    with Client(address, connect_timeout=timeout) as client:
        yield client


def local_broker() -> str:
    """The address of the newest broker of this host, or the end of the command."""
    from evener.discovery import local_brokers

    running = local_brokers()
    if not running:
        raise NoBrokerError(
            "no broker was named, and none runs on this host.  Start one: evener up module:app   "
            "Name one: --broker or EVENER_BROKER"
        )
    return running[0].address


class NoBrokerError(click.ClickException):
    """Raised when there is no address to try."""

    exit_code = exits.UNREACHABLE
