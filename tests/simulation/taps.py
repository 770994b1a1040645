"""What is known of the broker's peers from their messages alone, and who draws conclusions from it.

Rules of this file: data, filled by `watch.py`.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

from evener_broker.events import Event, Received
from evener_wire import messages as m
from evener_wire.session import Sequence
from tests.simulation.truth import Key, Sent, Ticket


class AgentTap:
    """What is known of one agent process from its messages to this broker process."""

    def __init__(self, who: str, instance: bytes) -> None:
        self.who: Final = who
        self.instance: Final = instance
        self.slots = 0
        self.changed_ns = 0  # when it last offered more or less than before
        self.draining = False
        self.queues: frozenset[str] = frozenset()
        self.functions: frozenset[str] = frozenset()
        self.offered = False
        self.reported = False  # whether it told this broker what it holds
        self.open: dict[Key, tuple[Ticket, Sent]] = {}
        self.left = False
        self.read_ns = 0  # when a message of it was last taken in
        self.session_ns = 0  # when its session was last seen to end or begin


class PeerTap:
    """A session as the messages show it."""

    __slots__ = ("agent", "instance", "role", "sequence", "who")

    def __init__(self, hello: m.Hello, session: int, agent: AgentTap | None) -> None:
        self.role: Final = hello.role
        self.instance: Final = hello.instance
        self.who: Final = hello.name
        self.sequence: Final = Sequence(session)
        self.agent: Final = agent


class Greetings:
    """The HELLOs of one turn, in runs: alike, of one peer, and nothing of it in between."""

    def __init__(self, events: list[Event]) -> None:
        self._left: Counter[bytes] = Counter()  # runs of a peer that are still to come
        self._first: set[int] = set()
        before: dict[bytes, tuple[bytes, str] | None] = {}
        for event in events:
            peer = getattr(event, "peer", None)
            if peer is None:
                continue
            message = event.envelope.message if isinstance(event, Received) else None
            who = (message.instance, message.role) if isinstance(message, m.Hello) else None
            if who is not None and before.get(peer) != who:
                self._left[peer] += 1
                self._first.add(id(event))
            before[peer] = who

    def is_repeated(
        self,
        event: Received,
        hello: m.Hello,
        before: m.Hello | None,
        tap: PeerTap | None,
        answers: int,
    ) -> bool:
        """Whether this asks for the session that its connection has, and has not used yet.

        `before`: what got it in this turn. A session of an earlier turn, `tap`, the broker may take
        for one for a while. It did if all its `answers` that are left belong to later runs.
        """
        self._left[event.peer] -= id(event) in self._first
        if before is not None:
            return (before.instance, before.role) == (hello.instance, hello.role)
        if tap is None or (tap.instance, tap.role) != (hello.instance, hello.role):
            return False
        return not tap.sequence.received and answers <= self._left[event.peer]


class Judge(Protocol):
    """Who draws conclusions: see `checkers.py`."""

    def on_submit(self, tap: PeerTap, message: m.Submit, rejected: set[bytes]) -> None: ...
    def on_cancel(self, message: m.Cancel) -> None: ...
    def on_withdrawn(self, tickets: list[Ticket]) -> None: ...
    def on_restored(self, ticket: Ticket) -> None: ...
    def on_adopted(self, ticket: Ticket) -> None: ...
    def on_returned(self, ticket: Ticket) -> None: ...
    def on_result(self, ticket: Ticket, fence: int, outcome: int) -> None: ...
    def on_assigned(self, ticket: Ticket) -> None: ...
    def on_run(self, tap: PeerTap, items: list[tuple[bytes, int, str, m.Payload]]) -> None: ...
    def on_terminal(self, tap: PeerTap, message: m.Terminal) -> None: ...
    def on_verdict(self, tap: AgentTap, why: str) -> None: ...
    def on_turn_over(self) -> None: ...
