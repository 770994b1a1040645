"""What happens to the broker: the input of `BrokerCore.step`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from evener_wire.codec import Envelope

Peer: TypeAlias = bytes
"""A connection as the transport names it. It carries no authority and dies with the connection."""


@dataclass(frozen=True, slots=True)
class Received:
    """A well-formed message came from a connection."""

    peer: Peer
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes came that are no message."""

    peer: Peer
    reason: str


@dataclass(frozen=True, slots=True)
class Flooding:
    """More of a peer's messages wait than may, and it goes on sending: those are dropped."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class PeerGone:
    """A send failed because nobody is connected under this name any more."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Committed:
    """The transactions up to `txn` are on disk, synced. The journal has `bytes_used`."""

    txn: int
    bytes_used: int


@dataclass(frozen=True, slots=True)
class CommitFailed:
    """The transactions from `txn` on are not on disk, nor is any that followed them.

    But of those up to `unknown` nobody can say that: the disk failed, and cannot be read either.
    """

    txn: int
    reason: str
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class MemoryShort:
    """The process takes more memory than it may, and `text` says how much; empty: not any more."""

    text: str


@dataclass(frozen=True, slots=True)
class WallClock:
    """What the wall clock says, in ns since 1970: for cron schedules, and for nothing else."""

    wall_ns: int


Event: TypeAlias = (
    Received | Malformed | Flooding | PeerGone | Committed | CommitFailed | MemoryShort | WallClock
)
