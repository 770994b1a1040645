"""Questions whose answers take a walk over the tables: one is answered in a turn, the others wait.

Sessions take turns, so that whoever asks without end waits for its own answers. Where the tables
are large there is a pause after each answer, so that questions take a part of the broker's time and
not all of it. Rules of this file: it decides when; what is answered is decided elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import msgpack

from evener_broker.records import Session
from evener_broker.tables import Tables
from evener_wire import messages as m
from evener_wire.limits import MILLISECOND_NS, QUESTIONS_WAITING_MAX, SESSION_QUESTIONS_MAX

# A walk takes about a third of this for each task in the tables.
_PAUSE_PER_TASK_NS: Final = 300


class Questions:
    """Caller: the broker core, within a step."""

    def __init__(self, tables: Tables, answer: Callable[[Session, m.Query], None]) -> None:
        self._tables = tables
        self._answer = answer
        # In the order of their turns.
        self._lines: Final[dict[Session, deque[m.Query]]] = {}
        self._count = 0
        self._next_ns = 0

    def ask(self, session: Session, query: m.Query) -> None:
        """A question comes; it is answered in this turn if nobody else waits."""
        line = self._lines.get(session)
        mine = len(line) if line is not None else 0
        if mine >= SESSION_QUESTIONS_MAX or self._count >= QUESTIONS_WAITING_MAX:
            self._tables.counters["questions_refused"] += 1
            text = (
                f"too many questions wait for an answer: {mine} of this client, {self._count} in "
                f"all; ask again when some are answered"
            )
            body: bytes = msgpack.packb(text)
            self._tables.outbox.send(session, m.Answer(query.number, False, body))
            return
        if line is None:
            line = self._lines[session] = deque()
        line.append(query)
        self._count += 1

    def look(self) -> None:
        """At the end of each step: answer one, if it is time to."""
        tables = self._tables
        while self._lines and tables.now_ns >= self._next_ns:
            session, line = next(iter(self._lines.items()))
            del self._lines[session]
            if tables.sessions.get(session.peer) is not session:
                self._count -= len(line)  # it asks again in its next session
                continue
            query = line.popleft()
            self._count -= 1
            if line:
                self._lines[session] = line
            pause_ns = _PAUSE_PER_TASK_NS * len(tables.tasks)
            self._next_ns = tables.now_ns + (pause_ns if pause_ns > MILLISECOND_NS else 0)
            self._answer(session, query)
            return

    def wake_at(self) -> int | None:
        """When the next question is to be answered."""
        return max(self._next_ns, self._tables.now_ns) if self._lines else None

    def check(self) -> None:
        """Recount what waits."""
        assert self._count == sum(map(len, self._lines.values()))
        assert all(self._lines.values())
