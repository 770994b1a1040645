"""Who waits for the end of a task that may be another program's: questions answered later.

Rules of this file: a question is answered once, or goes with its session; whoever asked says it
again in the next one. Bounded, because a question costs nothing to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgpack

from evener_broker.records import Session, Task
from evener_broker.transitions import TERMINAL_CODES
from evener_wire import messages as m
from evener_wire.limits import BUFFERS_MAX, INLINE_BYTES_MAX

# Questions that wait: of one session, and of all.
_PER_SESSION_MAX: Final = 100_000
_TOTAL_MAX: Final = 1_000_000


class Waiting:
    """Caller: the broker core, within a step."""

    def __init__(self, send: Callable[[Session, m.Message], object]) -> None:
        self._send = send
        self._by_task: Final[dict[bytes, list[tuple[Session, int]]]] = {}
        self._by_session: Final[dict[Session, dict[int, bytes]]] = {}
        self.count = 0

    def add(self, session: Session, number: int, task: Task) -> None:
        """A question that is answered when the task has ended."""
        mine = self._by_session.setdefault(session, {})
        if number in mine:
            return
        if len(mine) >= _PER_SESSION_MAX or self.count >= _TOTAL_MAX:
            self._refuse(session, number, f"{self.count} questions already wait for tasks to end")
            return
        mine[number] = task.id
        self._by_task.setdefault(task.id, []).append((session, number))
        self.count += 1

    def tell(self, task: Task) -> None:
        """The task has ended, and everybody may know."""
        for session, number in self._take(task.id):
            self._send(session, m.Answer(number, True, ending(task)))

    def give_up(self, task_id: bytes, text: str) -> None:
        """The task will never end, because it is not there any more."""
        for session, number in self._take(task_id):
            self._refuse(session, number, text)

    def forget(self, session: Session) -> None:
        """The session ended; what it asked, it asks again."""
        for number, task_id in self._by_session.pop(session, {}).items():
            asked = self._by_task[task_id]
            asked.remove((session, number))
            if not asked:
                del self._by_task[task_id]
            self.count -= 1

    def _take(self, task_id: bytes) -> list[tuple[Session, int]]:
        asked = self._by_task.pop(task_id, [])
        self.count -= len(asked)
        for session, number in asked:
            mine = self._by_session[session]
            del mine[number]
            if not mine:
                del self._by_session[session]
        return asked

    def _refuse(self, session: Session, number: int, text: str) -> None:
        self._send(session, m.Answer(number, False, msgpack.packb(text)))

    def check(self) -> None:
        """Recount all three views of the same."""
        by_task = {(s, n, i) for i, asked in self._by_task.items() for s, n in asked}
        by_session = {(s, n, i) for s, mine in self._by_session.items() for n, i in mine.items()}
        assert by_task == by_session
        assert self.count == len(by_task) == sum(map(len, self._by_task.values()))


def ending(task: Task) -> m.Payload:
    """The end of a task as the body of an answer.

    A head [terminal state, facts or None, payload or None], then the frames of a payload that does
    not lie in it. Where these are as many as a payload may have, they come joined, and the head has
    a fourth entry with their lengths.
    """
    payload = task.payload
    state, facts = TERMINAL_CODES[task.state], task.tries.facts
    told = None if facts is None else dict(facts)
    if type(payload) is bytes:
        body: bytes = msgpack.packb([state, told, payload])
        return body if len(body) <= INLINE_BYTES_MAX else m.Frames([body])
    assert type(payload) is m.Frames
    if len(payload.buffers) < BUFFERS_MAX:
        return m.Frames([msgpack.packb([state, told, None]), *payload.buffers])
    lengths = [memoryview(buffer).nbytes for buffer in payload.buffers]
    return m.Frames([msgpack.packb([state, told, None, lengths]), b"".join(payload.buffers)])
