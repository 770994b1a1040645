"""Checkers of how peers come back: I25.

Rules of this file: judged by time, not by what somebody did.
"""

from __future__ import annotations

from typing import Final

from evener_wire.limits import HEARTBEAT_NS, SILENCE_NS
from tests.simulation.broker_node import BrokerNode
from tests.simulation.client_node import ClientNode
from tests.simulation.world import MS, Violation

# Silence, and a new connection, with a margin.
_RETURN_NS: Final = 2 * SILENCE_NS + 2 * HEARTBEAT_NS


def check_connected(broker: BrokerNode, client: ClientNode, now_ns: int) -> None:
    """I25: whoever has a way to the broker is there again soon, whatever broke before."""
    socket = client.socket
    if not client.alive or client.over or client.slow > 1 or socket is None:
        return
    since_ns = max(client.way_free_since(), client.paused_until)
    since_ns = max(since_ns, client.started_ns, broker.started_ns)
    if not broker.alive or now_ns - since_ns < _RETURN_NS:
        return
    if socket.conn is None or not socket.stands():
        raise Violation("I25", f"{client.who} is not connected, and could be")


def check_hellos(client: ClientNode) -> None:
    """I25: a client does not storm the broker."""
    hellos = client.hellos
    for first, tenth in zip(hellos, hellos[12:], strict=False):
        if tenth - first < 1_000 * MS:
            raise Violation("I25", f"{client.who} said HELLO 12 times within a second")
