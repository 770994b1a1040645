"""What becomes of peers that break the protocol, or that send without end: they lose their session.

Only their service ends: what they are owed stays in the tables, and they may begin anew. Rules of
this file: one method per kind of offence; each is counted once, and its peer is told once.
"""

from __future__ import annotations

from typing import Final

from evener_broker.events import Flooding, Malformed, Peer
from evener_broker.quarantine import Quarantine
from evener_broker.rates import Rates
from evener_broker.records import Session
from evener_broker.sessions import Sessions
from evener_broker.tables import Tables
from evener_wire import messages as m
from evener_wire.limits import RESYNC_AGAIN_NS


class Manners:
    """Caller: the broker core, within a step."""

    def __init__(self, tables: Tables, sessions: Sessions) -> None:
        self._tables = tables
        self._sessions = sessions
        self.quarantine: Final = Quarantine(tables.timers)
        self._resyncs: Final = Rates(1, RESYNC_AGAIN_NS)

    def on_malformed(self, event: Malformed) -> None:
        """Bytes came that are no message."""
        counters = self._tables.counters
        if event.peer in self.quarantine.peers:
            counters["messages_quarantined"] += 1
            return
        counters["messages_malformed"] += 1
        session = self._tables.sessions.get(event.peer)
        if session is not None:
            self._violation(session, event.reason)
        self._note_error(event.peer)

    def without_session(self, peer: Peer, message: m.Message) -> None:
        """A connection without a session says something: it shall begin with HELLO.

        It hears that once for all that is on the way, and again when it goes on.
        """
        counters = self._tables.counters
        counters["messages_unknown_peer"] += 1
        if type(message) is m.Resync:
            return  # an answer to that would go to and fro for ever
        if self._resyncs.excess(peer, self._tables.now_ns):
            counters["resyncs_withheld"] += 1
        else:
            self._tables.outbox.send_outside(peer, m.Resync("unknown session"))

    def on_hello(self, peer: Peer) -> None:
        """It knows: what it says without a session from now on is something else."""
        self._resyncs.forget(peer)

    def forbidden(self, session: Session, text: str) -> None:
        """A message came that its sender may not send."""
        self._tables.counters["messages_forbidden"] += 1
        self._violation(session, text)
        self._note_error(session.peer)

    def on_flooding(self, event: Flooding) -> None:
        """A peer went on sending while a long line of its messages waited."""
        tables, peer = self._tables, event.peer
        if peer in self.quarantine.peers:
            return
        tables.counters["floods"] += 1
        session = tables.sessions.get(peer)
        name = session.record.name if session is not None else peer.hex()
        text = "too many of its messages waited to be handled while others needed the broker"
        tables.outbox.log("warning", f"{name}: {text}; nothing of this connection is read", peer)
        if session is not None:
            tables.outbox.send_outside(peer, m.Refused("busy", text))
            self._sessions.lose(session)
        self.quarantine.put(peer, tables.now_ns)

    def _violation(self, session: Session, text: str) -> None:
        """After an error a session is dead, never half alive; the peer may begin a new one."""
        self._tables.counters["violations"] += 1
        line = f"{session.record.name}: {text}; session ended"
        self._tables.outbox.log("warning", line, session.peer)
        self._tables.outbox.send_outside(session.peer, m.Refused("violation", text[:200]))
        self._sessions.lose(session)

    def _note_error(self, peer: Peer) -> None:
        if self.quarantine.note_error(peer, self._tables.now_ns):
            text = "too many protocol errors: for a minute nothing of this connection is read"
            self._tables.counters["quarantines"] += 1
            self._tables.outbox.log("warning", f"connection {peer.hex()}: {text}", peer)
