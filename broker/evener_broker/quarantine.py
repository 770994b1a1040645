"""Connections that send what is no protocol, again and again: for a while nothing of them is read.

A single error ends a session; a connection that goes on erring would cost a parse, a line in the
log and an answer each time. The shell asks `peers` before it parses. Nothing is answered either: a
peer that hears nothing opens a new connection, as it does when the broker is gone. A connection is
all we know of somebody without a key, so that a new one starts with a clean record.
"""

from __future__ import annotations

from typing import Final

from evener_broker.events import Peer
from evener_broker.rates import Rates
from evener_broker.timers import Timers
from evener_wire.limits import PROTOCOL_ERRORS_MAX, PROTOCOL_ERRORS_NS, QUARANTINE_NS

# Connections in quarantine at a time; beyond, the one that was put there first is let go.
_PEERS_MAX: Final = 4_096


class Quarantine:
    """Caller: `Manners`; `peers` is read by the shell."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._errors = Rates(PROTOCOL_ERRORS_MAX, PROTOCOL_ERRORS_NS)
        self.peers: Final[dict[Peer, int]] = {}
        """Whose messages are dropped unread, and until when."""

    def note_error(self, peer: Peer, now_ns: int) -> bool:
        """One more protocol error of this connection; True if that is one too many."""
        if not self._errors.excess(peer, now_ns):
            return False
        self._errors.forget(peer)
        self.put(peer, now_ns)
        return True

    def put(self, peer: Peer, now_ns: int) -> None:
        """From now on, for a while, nothing of this connection is read."""
        if len(self.peers) >= _PEERS_MAX:
            del self.peers[next(iter(self.peers))]
        until_ns = self.peers[peer] = now_ns + QUARANTINE_NS
        self._timers.set(until_ns, self._on_over, (peer, until_ns))

    def _on_over(self, subject: tuple[Peer, int]) -> None:
        peer, until_ns = subject
        if self.peers.get(peer) == until_ns:
            del self.peers[peer]
