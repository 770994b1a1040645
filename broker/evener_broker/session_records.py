"""One connection of a peer, as the broker knows it.

Rules of this file: data, no decisions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from evener_broker.events import Peer
from evener_wire.session import Sequence

if TYPE_CHECKING:
    from evener_broker.records import Agent, Client


class Session:
    """One connection of a client or an agent. `heard_ns` is broker-live time."""

    __slots__ = (
        "ack_due",
        "beat_ns",
        "heard_ns",
        "peer",
        "record",
        "sequence",
        "unacked",
    )

    def __init__(
        self, peer: Peer, sequence: Sequence, record: Client | Agent, live_ns: int
    ) -> None:
        self.peer: Final = peer
        self.sequence: Final = sequence
        self.record: Final = record
        self.heard_ns = live_ns
        # When the peer is next looked at, and hears from us.
        self.beat_ns = 0
        # How many RESULTs wait for their ACK.
        self.ack_due = False
        self.unacked = 0

    def __repr__(self) -> str:
        return f"<Session {self.record.name} of {self.peer.hex()}>"
