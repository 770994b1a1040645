"""What the broker wants done: the output of `BrokerCore.step`, performed by the shell in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from evener_broker.events import Peer
from evener_broker.journaling import Records
from evener_wire.messages import Message

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Send:
    """Encode and send one message. A failed send comes back as `PeerGone`.

    It may leave only once transaction `after` is committed; the core gives it out no earlier, and
    whoever performs it checks that. 0: it promises nothing that a journal keeps.
    """

    peer: Peer
    session: int
    number: int
    message: Message
    after: int = 0


@dataclass(frozen=True, slots=True)
class Append:
    """Write and sync one transaction; `Committed` or `CommitFailed` comes back.

    After a `CommitFailed` all that follows fails unwritten, up to one with `resume`.
    """

    txn: int
    records: Records
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Log:
    """One line for the operator."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class NoteAgent:
    """Note for the next broker on this host that an agent may hold work, or never will again.

    It has to survive the process before any effect after it is performed.
    """

    instance: bytes
    gone: bool = False


Effect: TypeAlias = Send | Append | Log | NoteAgent
