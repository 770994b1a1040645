"""The beginning of a connection: waiting for the welcome, and saying why there is none."""

from __future__ import annotations

import os
import socket
import time
from typing import Final

from evener.connection import Connection
from evener.diagnosis import look
from evener.errors import BrokerRefused, BrokerUnreachable, ClientClosed, UsageError
from evener.session_records import State
from evener_wire.checks import is_name

_SETTLED: Final = (State.OPEN, State.REFUSED, State.CLOSED)

_PAUSE_S: Final = 0.25  # until somebody looks why there is no answer


def checked_name(name: str | None) -> str:
    """The name of a client; without one, its host and process. Raises `UsageError`."""
    if name is None:
        host = "".join(c if c.isprintable() and c != " " else "-" for c in socket.gethostname())
        return f"{host[:64] or 'client'}:{os.getpid()}"
    if not isinstance(name, str) or not is_name(name):
        raise UsageError(f"name={name!r} is not a name: printable characters without spaces")
    return name


def await_welcome(connection: Connection, address: str, timeout: float) -> None:
    """Blocks until the session is open. Raises `BrokerUnreachable` and `BrokerRefused`."""
    start = time.monotonic()
    pause = _PAUSE_S
    while True:
        left = start + timeout - time.monotonic()
        if _is_open(connection, address, max(0.0, min(left, pause))):
            return
        finding = look(address)
        if _is_open(connection, address, 0.0):
            return
        if finding.final:
            raise BrokerUnreachable(address, finding.reason)
        if time.monotonic() - start >= timeout:
            break
        pause = 2 * pause
    if connection.refusal is not None:
        raise BrokerRefused(*connection.refusal, address)
    raise BrokerUnreachable(address, f"{finding.reason}, tried for {timeout:g} s")


def _is_open(connection: Connection, address: str, seconds: float) -> bool:
    """Whether the session is open within this time. Raises if it never will be."""
    with connection.changed:
        connection.changed.wait_for(lambda: connection.state in _SETTLED, seconds)
    if connection.state is State.REFUSED and connection.refusal is not None:
        raise BrokerRefused(*connection.refusal, address)
    if connection.state is State.CLOSED:
        raise ClientClosed
    return connection.state is State.OPEN
