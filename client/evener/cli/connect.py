"""How commands reach the broker.

Rules of this file: zmq is loaded here, when a command really talks to a broker.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evener.client import Client


@contextmanager
def connected(address: str | None, timeout: float) -> Generator[Client]:
    """A client of the broker at `address`, or of the one that runs on this host.

    Raises `BrokerUnreachable` when none answers within `timeout` seconds.
    """
    from evener.client import Client

    with Client(address, connect_timeout=timeout) as client:
        yield client
