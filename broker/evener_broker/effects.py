"""What the broker wants done: the output of `BrokerCore.step`, performed by the shell in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from evener_broker.events import Peer
from evener_wire.messages import Message

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Send:
    """Encode and send one message. A failed send comes back as `PeerGone`."""

    peer: Peer
    session: int
    number: int
    message: Message


@dataclass(frozen=True, slots=True)
class Log:
    """One line for the operator."""

    level: Level
    text: str


Effect: TypeAlias = Send | Log
