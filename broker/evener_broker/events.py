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
class PeerGone:
    """A send failed because nobody is connected under this name any more."""

    peer: Peer


Event: TypeAlias = Received | Malformed | PeerGone
