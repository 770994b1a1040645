"""The numbering of messages within a session, alike in broker, agent and client.

Each side numbers its messages 1, 2, 3, ... A receiver takes exactly the next number: a smaller one
is an old or repeated message and is dropped, a larger one means that something was lost, and the
session starts anew with HELLO. So inside a session nothing is missing, doubled or out of order,
whatever the transport did; and across sessions everything open is told again.
"""

from __future__ import annotations

from enum import Enum, auto


class Verdict(Enum):
    """What to do with a received message."""

    TAKE = auto()
    DROP = auto()
    RESYNC = auto()


class Sequence:
    """Both directions of one session. `session` is never 0."""

    __slots__ = ("received", "sent", "session")

    def __init__(self, session: int) -> None:
        assert session > 0
        self.session = session
        self.sent = 0
        self.received = 0

    def next_number(self) -> int:
        """The number of the message that is about to be sent."""
        self.sent += 1
        return self.sent

    def judge(self, session: int, number: int) -> Verdict:
        """Whether a received message is the next one; counts it if so."""
        if session != self.session:
            return Verdict.RESYNC
        if number == self.received + 1:
            self.received = number
            return Verdict.TAKE
        return Verdict.DROP if number <= self.received else Verdict.RESYNC
