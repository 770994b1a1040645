"""What the broker asks of an agent on behalf of a client: QUERY in, one ANSWER out.

Rules of this file: one handler per question, found by its name. An answer goes into the session in
which it was asked, or nowhere: a broker that restarted counts its questions from 1 again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgpack

from evener_wire import messages as m
from evener_wire.limits import INLINE_BYTES_MAX, MILLISECOND_NS, SLOTS_MAX
from evener_worker.attempts import HANDED
from evener_worker.care import Care
from evener_worker.effects import Dump, ReadLog
from evener_worker.ending import Ending
from evener_worker.events import Dumped, LogRead
from evener_worker.ledger import Ledger
from evener_worker.limits import QUESTIONS_MAX
from evener_worker.pool import Pool
from evener_worker.session import Session
from evener_worker.slots import LIVING, Slot


class _Asked(NamedTuple):
    """Who waits for an answer: session and number of the QUERY, and of which worker it is."""

    session: int
    number: int
    about: dict[str, Any]


class Questions:
    """Caller: the core's step. Affects: the ledger's effects."""

    __slots__ = (
        "_care",
        "_ending",
        "_handlers",
        "_host",
        "_last",
        "_ledger",
        "_open",
        "_pool",
        "_session",
    )

    def __init__(
        self,
        ledger: Ledger,
        pool: Pool,
        session: Session,
        host: str,
        care: Care,
        ending: Ending,
    ) -> None:
        self._ledger = ledger
        self._pool = pool
        self._session = session
        self._host = host
        self._last = 0
        self._open: dict[int, _Asked] = {}
        self._care = care
        self._ending = ending
        self._handlers: Final[dict[str, Callable[[int, m.Facts], None]]] = {
            "care": self._tell_care,
            "drain": self._drain,
            "logs": self._logs,
            "ping": self._ping,
            "restart": self._restart,
            "scale": self._scale,
            "stack": self._stack,
        }

    def on_query(self, query: m.Query) -> None:
        """The broker asks."""
        handler = self._handlers.get(query.what)
        if handler is None:
            known = ", ".join(self._handlers)
            self._refuse(query.number, f'cannot answer "{query.what}"; it knows {known}')
        elif (count := len(self._open) + self._care.health.asked) >= QUESTIONS_MAX:
            self._refuse(query.number, f"works on {count} questions, which is its limit")
        else:
            handler(query.number, query.arguments)

    def _refuse(self, number: int, text: str) -> None:
        self._answer(number, False, f"the agent on {self._host} {text}")

    def _answer(self, number: int, ok: bool, body: object) -> None:
        packed: bytes = msgpack.packb(body)
        payload = packed if len(packed) <= INLINE_BYTES_MAX else m.Frames([packed])
        self._session.send(m.Answer(number, ok, payload))

    # --- Care -------------------------------------------------------------------------------------

    def _tell_care(self, number: int, arguments: m.Facts) -> None:
        self._answer(number, True, {"host": self._host, **self._care.facts()})

    def _restart(self, number: int, arguments: m.Facts) -> None:
        if self._refuses(number):
            return
        self._care.rolling.ask("asked by a client")
        self._tell_care(number, arguments)

    def _scale(self, number: int, arguments: m.Facts) -> None:
        size = arguments.get("workers")
        if type(size) is not int or not 1 <= size <= SLOTS_MAX:
            text = f"can have 1 to {SLOTS_MAX:,} workers; evener drain lets it take nothing new"
            self._refuse(number, text)
        elif not self._refuses(number):
            self._care.scale(size)
            self._tell_care(number, arguments)

    def _drain(self, number: int, arguments: m.Facts) -> None:
        if self._refuses(number):
            return
        if arguments.get("undo") is True:
            self._care.resume()
        elif arguments.get("stop") is True:
            self._ending.drain("asked by a client", 0)
        else:
            self._care.pause()
        self._tell_care(number, arguments)

    def _refuses(self, number: int) -> bool:
        if self._pool.stopping:
            self._refuse(number, "is stopping")
        return self._pool.stopping

    # --- Health -----------------------------------------------------------------------------------

    def _ping(self, number: int, arguments: m.Facts) -> None:
        found = self._find(arguments)
        if isinstance(found, str):
            self._refuse(number, found)
            return
        about, session = self._about(found), self._session.number
        if found.handed:
            # It reads nothing before the end of what it runs.
            self._answer(number, True, {**about, "busy": True, "round_trip_us": None})
            return

        def told(took_ns: int | None) -> None:
            if session == self._session.number:
                took_us = None if took_ns is None else took_ns // 1_000
                self._answer(number, True, {**about, "busy": False, "round_trip_us": took_us})

        self._care.health.ask(found, told)

    # --- What workers wrote -----------------------------------------------------------------------

    def _logs(self, number: int, arguments: m.Facts) -> None:
        self._last += 1
        self._open[self._last] = _Asked(self._session.number, number, {"host": self._host})
        self._ledger.effects.append(ReadLog(self._last, arguments))

    def on_log_read(self, event: LogRead) -> None:
        """Lines came, or there are none."""
        asked = self._open.pop(event.number)
        if asked.session == self._session.number:
            self._answer(asked.number, True, {**asked.about, **event.answer})

    # --- The stack of a worker --------------------------------------------------------------------

    def _stack(self, number: int, arguments: m.Facts) -> None:
        found = self._find(arguments)
        if isinstance(found, str):
            self._refuse(number, found)
            return
        self._last += 1
        self._open[self._last] = _Asked(self._session.number, number, self._about(found))
        self._ledger.effects.append(Dump(found.number, self._last))

    def _find(self, arguments: m.Facts) -> Slot | str:
        """The worker with this `pid`, or the one that runs attempt `fence` of this `task`."""
        task_id, fence, pid = (arguments.get(name) for name in ("task", "fence", "pid"))
        if isinstance(task_id, bytes) and isinstance(fence, int):
            attempt = self._ledger.open.get((task_id, fence))
            if attempt is None:
                return "does not run this task any more"
            slot = self._pool.slots[attempt.slot] if attempt.state is HANDED else None
            if slot is None or (slot.handed and slot.handed[0] is not attempt):
                return "has this task, but no worker has started it"
            return slot
        for slot in self._pool.slots.values():
            if slot.state in LIVING and slot.pid and slot.pid == pid:
                return slot
        return f"has no worker with pid {pid}"

    def _about(self, slot: Slot) -> dict[str, Any]:
        head = slot.head()
        running, since_ns = head or (None, slot.ready_ns or slot.spawned_ns)
        return {
            "host": self._host,
            "worker": slot.worker,
            "pid": slot.pid,
            "state": slot.state.value,
            "function": running.function if running else None,
            "task": running.key[0].hex() if running else None,
            "since_ms": (self._ledger.now_ns - since_ns) // MILLISECOND_NS,
        }

    def on_dumped(self, event: Dumped) -> None:
        """The stack came, or it does not come."""
        asked = self._open.pop(event.number)
        if asked.session == self._session.number:
            answer = {
                **asked.about,
                "stack": event.stack,
                "reason": event.reason or None,
                "kernel": dict(event.kernel),
            }
            self._answer(asked.number, True, answer)
