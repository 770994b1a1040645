"""Questions about single tasks, by anybody who has the id: what became of it, and what was called.

Rules of this file: one method per question; an answer that needs the task's end waits for it. Ids
are 128 random bits, and whoever has one may ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgpack

from evener_broker.answers import pack, task_view
from evener_broker.records import Session, Task
from evener_broker.retention import Retention
from evener_broker.tables import Tables
from evener_broker.transitions import LETTERS, TERMINAL, State
from evener_broker.waiting import ending
from evener_wire import messages as m
from evener_wire.limits import BUFFERS_MAX, ID_BYTES, MILLISECOND_NS

_Handler = Callable[[Session, m.Query], m.Payload | None]

_UNKNOWN: Final = (
    "this broker has no task {}: it never had, or the task ended and is not kept any longer"
)


class Requests:
    """Caller: the broker core."""

    def __init__(self, tables: Tables, retention: Retention) -> None:
        self._tables = tables
        self._retention = retention
        self._handlers: Final[dict[str, _Handler]] = {
            "fetch": self._fetch,
            "show": self._show,
            "call": self._call,
            "purge": self._purge,
        }

    @property
    def questions(self) -> Iterable[str]:
        """What it answers."""
        return self._handlers

    def handle(self, session: Session, query: m.Query) -> bool:
        """Answer, now or later; False if the question is none of these."""
        handler = self._handlers.get(query.what)
        if handler is None:
            return False
        try:
            body = handler(session, query)
        except ValueError as error:
            self._tables.outbox.send(session, m.Answer(query.number, False, pack(str(error))))
            return True
        if body is not None:
            self._tables.outbox.send(session, m.Answer(query.number, True, body))
        return True

    def _task(self, query: m.Query) -> Task:
        text = query.arguments.get("id")
        try:
            task_id = bytes.fromhex(text) if isinstance(text, str) else text
        except ValueError:
            task_id = None
        if not isinstance(task_id, bytes) or len(task_id) != ID_BYTES:
            raise ValueError(f"the id of a task has {2 * ID_BYTES} hexadecimal digits")
        task = self._tables.tasks.get(task_id)
        if task is None:
            raise ValueError(_UNKNOWN.format(task_id.hex()))
        return task

    def _fetch(self, session: Session, query: m.Query) -> m.Payload | None:
        """The end of a task: state, facts, result. See `ending` for its form."""
        task = self._task(query)
        if task.state in TERMINAL and self._tables.commits.is_saved(task):
            return ending(task)
        self._tables.waiting.add(session, query.number, task)
        return None

    def _show(self, session: Session, query: m.Query) -> m.Payload:
        """Everything about a task, with its result if that is small."""
        task = self._task(query)
        ended = task.state in TERMINAL
        small = ended and type(task.payload) is bytes
        call_bytes = len(task.tries.call or b"") if ended else len(task.payload)
        view = {
            **task_view(self._tables, task),
            "options": task.options._asdict(),
            "call_bytes": call_bytes,
            "result_bytes": len(task.payload) if ended else 0,
            "result": task.payload if small else None,
            "retained": task.taken,
            "saved": self._tables.commits.is_saved(task),
            "story": list(self._tables.story(task.id))[-_STORY_MAX:],
        }
        return pack(view)

    def _call(self, session: Session, query: m.Query) -> m.Payload:
        """What a dead letter called: [function, options, payload or None], then its frames."""
        task = self._task(query)
        call = task.tries.call
        if task.state not in LETTERS or call is None:
            state = "has not ended" if task.state not in TERMINAL else f"is {task.state.value}"
            raise ValueError(
                f"task {task.id.hex()} {state}: only what failed, got lost or expired is retried"
            )
        head: list[Any] = [task.function.name, tuple(task.options)]
        if type(call) is bytes:
            return pack([*head, call])
        assert type(call) is m.Frames
        if len(call.buffers) < BUFFERS_MAX:
            return m.Frames([msgpack.packb([*head, None]), *call.buffers])
        lengths = [memoryview(buffer).nbytes for buffer in call.buffers]
        return m.Frames([msgpack.packb([*head, None, lengths]), b"".join(call.buffers)])

    def _purge(self, session: Session, query: m.Query) -> m.Payload:
        """Forget dead letters: of one state, of one function, older than a time, or one by id."""
        tables, arguments = self._tables, query.arguments
        self._retention.inherit()
        if "id" in arguments:
            task = self._task(query)
            if not task.taken or task.state not in LETTERS:
                raise ValueError(
                    f"task {task.id.hex()} is {task.state.value}"
                    f"{'' if task.taken else ', and its client does not have that yet'}: only "
                    f"dead letters are purged"
                )
            return pack({"purged": self._retention.purge({task})})
        state, function = arguments.get("state"), arguments.get("function")
        older_ms = arguments.get("older_ms", 0)
        if state is not None and state not in {state.value for state in LETTERS}:
            names = ", ".join(sorted(state.value for state in LETTERS))
            raise ValueError(f'cannot purge "{state}"; there are {names}')
        if type(older_ms) is not int or older_ms < 0:
            raise ValueError("older_ms is not a number of milliseconds")
        before_ns = tables.now_ns - older_ms * MILLISECOND_NS
        found = {
            task
            for task in tables.letters
            if (state is None or task.state is State(state))
            and (function is None or task.function.name == function)
            and task.since_ns <= before_ns
        }
        if not arguments.get("dry_run"):
            self._retention.purge(found)
        return pack({"purged": len(found)})


# Steps of a task that an answer tells. A task that was tried a thousand times has more.
_STORY_MAX: Final = 100
