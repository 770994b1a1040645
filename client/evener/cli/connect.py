"""How commands reach the broker.

Rules of this file: zmq is loaded here, when a command really talks to a broker.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from evener.cli import exits
from evener.cli.output import complain

if TYPE_CHECKING:
    from evener.client import Client

_ASKED: Final = "evener.cli.asked_broker"
_NAMED_MAX: Final = 3


@contextmanager
def connected(address: str | None, timeout: float) -> Generator[Client]:
    """A client of the broker at `address`, or of the one that runs on this host.

    Raises `BrokerUnreachable` when none answers within `timeout` seconds.
    """
    address = address or local_broker()
    from evener.client import Client

    with Client(address, connect_timeout=timeout) as client:
        if (context := click.get_current_context(silent=True)) is not None:
            context.meta[_ASKED] = client.address
        yield client


def asked_broker() -> str:
    """`the broker at tcp://...`: the one that the command has asked."""
    context = click.get_current_context(silent=True)
    address = None if context is None else context.meta.get(_ASKED)
    return f"the broker at {address}" if address else "the broker"


def local_broker() -> str:
    """The address of the newest broker of this host, or the end of the command.

    Says on stderr which it is where several run, for nobody chose it.
    """
    from evener.discovery import local_brokers

    running = local_brokers()
    if not running:
        raise NoBrokerError(
            "no broker was named, and none runs on this host.  Start one: evener up module:app   "
            "Name one: --broker or EVENER_BROKER"
        )
    newest, *others = running
    if others:
        complain(
            f"{len(running)} brokers run on this host; this is about the newest, {newest.address}. "
            f"Another: {', '.join(other.address for other in others[:_NAMED_MAX])} "
            "(--broker or EVENER_BROKER)",
            "evener",
        )
    return newest.address


class NoBrokerError(click.ClickException):
    """Raised when there is no address to try."""

    exit_code = exits.UNREACHABLE
