"""A cluster without workers: tasks run in the calling process, at once, inside of `submit`.

Rules of this file: everything that would travel is encoded and decoded all the same, by the very
code that workers use, so that what cannot travel fails here too. For tests and for debuggers.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgpack

from evener.errors import ClientClosed
from evener.execution import Executed, Execution, Place
from evener.future import Future
from evener_wire import messages as m

_STATES: Final = {
    m.DONE: m.TERMINAL_DONE,
    m.FAILED: m.TERMINAL_FAILED,
    m.CANCELLED: m.TERMINAL_CANCELLED,
    m.TIMED_OUT: m.TERMINAL_EXPIRED,
}


class InlineBackend:
    """Runs tasks of a client, one at a time, whichever thread submits them."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.trusted = True
        place = Place(host=socket.gethostname(), pid=os.getpid(), worker="inline")
        self._execution = Execution(functions, trusted=True, place=place)
        # Reentrant: a task may submit another one.
        self._lock = threading.RLock()
        self._closed = False

    def submit(self, future: Future[Any]) -> None:
        """Runs the task; its future is done afterwards."""
        task_id, name, payload, options = future.item
        with self._lock:
            if self._closed:
                raise ClientClosed
            executed, attempt = self._run(name, payload, options or m.DEFAULT_OPTIONS)
        facts: dict[str, Any] = dict(executed.facts or {})
        facts["attempt"] = attempt
        ending = (task_id, _STATES[executed.outcome], executed.payload, facts)
        for observed in Future.settle([(future, ending)]):
            observed.run_callbacks()

    def _run(self, name: str, payload: m.Payload, options: m.Options) -> tuple[Executed, int]:
        attempt = 1
        while True:
            executed = self._execution.run(name, payload)
            if executed.outcome != m.FAILED or attempt > options.retries:
                return executed, attempt
            types = (executed.facts or {}).get("types", ())
            if options.retry_on and not set(options.retry_on) & set(types):
                return executed, attempt
            attempt += 1

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        """A future is only pending while another thread runs its task."""
        future.wait_until_done(timeout)
        return future.done()

    def cancel(self, futures: Sequence[Future[Any]]) -> None:
        """Nothing waits, and what runs is left alone."""

    def cancel_ids(self, task_ids: Sequence[bytes]) -> None:
        """As `cancel`."""

    def ask(self, what: str, arguments: Mapping[str, Any], timeout: float) -> tuple[bool, Any]:
        """There is nobody to ask."""
        text: bytes = msgpack.packb("a cluster without workers has no broker to ask")
        return False, text

    def open_tasks(self) -> int:
        """Tasks end inside of `submit`."""
        return 0

    def close(self, timeout: float) -> None:
        """No more tasks."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._execution.close()
