"""A cluster without workers: tasks run in the calling process, at once, inside of `submit`.

Rules of this file: everything that would travel is encoded and decoded all the same, by the very
code that workers use, so that what cannot travel fails here too. For tests and for debuggers.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final

import msgpack

from evener import inside
from evener.errors import ClientClosed
from evener.execution import Executed, Execution, Place
from evener.future import Future
from evener.hooks import HookFailed, run_starts, run_stops
from evener.outputs import OutputLine
from evener.questions import Question
from evener.reporting import Progress
from evener_wire import messages as m
from evener_wire.limits import MILLISECOND_NS

if TYPE_CHECKING:
    from evener.app import App

_log = logging.getLogger("evener")

_STATES: Final = {
    m.DONE: m.TERMINAL_DONE,
    m.FAILED: m.TERMINAL_FAILED,
    m.CANCELLED: m.TERMINAL_CANCELLED,
    m.TIMED_OUT: m.TERMINAL_EXPIRED,
}


class InlineWorker:
    """What takes the place of all workers: one at a time, and one event loop. One per cluster."""

    def __init__(self, app: App | None = None) -> None:
        self._app = app
        self.functions: Mapping[str, Callable[..., Any]] = {} if app is None else app.callables()
        """What it knows, by name."""
        place = Place(host=socket.gethostname(), pid=os.getpid(), worker="inline")
        self.execution = Execution(self.functions, trusted=True, place=place)
        # Reentrant: a task may submit another one.
        self.lock = threading.RLock()
        self._started = False

    def start(self) -> None:
        """Runs the start hooks of workers. Raises what one raises."""
        if self._app is not None:
            try:
                run_starts("on_worker_start", self._app.worker_starts, self.execution.complete)
            except HookFailed as failed:
                raise failed.error from None
        self._started = True

    def stop(self) -> None:
        """Runs the stop hooks of workers, if it has started. To be called once."""
        try:
            if self._app is not None and self._started:
                run_stops("on_worker_stop", self._app.worker_stops, self.execution.complete, _tell)
        finally:
            self.execution.close()


class InlineBackend:
    """Runs tasks of a client, one at a time, whichever thread submits them."""

    def __init__(self, worker: InlineWorker) -> None:
        self.trusted = True
        self._execution = worker.execution
        self._lock = worker.lock
        self._closed = False
        # Of the task that runs: what it may use, and since when.
        self._future: Future[Any] | None = None
        self._attempt = 1
        self._options = m.DEFAULT_OPTIONS
        self._since_ns: int = 0
        self._attempt_ns: int = 0

    def submit(self, future: Future[Any]) -> None:
        """Runs the task; its future is done afterwards."""
        task_id, _, _, options = future.item
        with self._lock:
            if self._closed:
                raise ClientClosed
            executed, attempt = self._run(future, options or m.DEFAULT_OPTIONS)
        facts: dict[str, Any] = dict(executed.facts or {})
        facts["attempt"] = attempt
        ending = (task_id, _STATES[executed.outcome], executed.payload, facts)
        for observed in Future.settle([(future, ending)]):
            observed.run_callbacks()

    def _run(self, future: Future[Any], options: m.Options) -> tuple[Executed, int]:
        outer = self._future, self._options, self._since_ns, self._attempt_ns, self._attempt
        asked = inside.enter(self)
        outlet, self._execution.outlet = self._execution.outlet, self
        self._future, self._options, self._since_ns = future, options, monotonic_ns()
        try:
            return self._run_attempts(future, options)
        finally:
            inside.enter(asked)
            self._execution.outlet = outlet
            self._future, self._options, self._since_ns, self._attempt_ns, self._attempt = outer

    def _run_attempts(self, future: Future[Any], options: m.Options) -> tuple[Executed, int]:
        _, name, payload, _ = future.item
        attempt = 1
        while True:
            self._attempt, self._attempt_ns = attempt, monotonic_ns()
            executed = self._execution.run(name, payload, self._on_item)
            if executed.outcome != m.FAILED or attempt > options.retries:
                return executed, attempt
            types = (executed.facts or {}).get("types", ())
            if options.retry_on and not set(options.retry_on) & set(types):
                return executed, attempt
            attempt += 1

    def on_output(self, callback: Callable[[OutputLine], object] | None) -> None:
        """Nobody: what a task writes here is on this program's own stdout and stderr already."""

    # --- What a task asks -------------------------------------------------------------------------

    def _on_item(self, index: int) -> None:
        self._attempt_ns = monotonic_ns()

    def is_stopping(self) -> bool:
        """Nobody stops a task here: whoever could waits until it has ended."""
        return False

    def left_s(self) -> float | None:
        """As told to the task; nothing is stopped when it is over."""
        options = self._options
        ends: list[int] = []
        if options.timeout_ms:
            ends.append(self._attempt_ns + options.timeout_ms * MILLISECOND_NS)
        if options.deadline_ms:
            ends.append(self._since_ns + options.deadline_ms * MILLISECOND_NS)
        return max(0, min(ends) - monotonic_ns()) / 1e9 if ends else None

    def report(self, done: float, total: float | None, note: str) -> None:
        """The future knows at once. Nobody can have left a callback: `submit` has not returned."""
        if self._future is not None:
            self._future.reported(Progress(done, total, note, self._attempt))

    def begin(self) -> None:
        """A generator runs: its values wait in the future, all of them."""

    def value(self, payload: m.Payload) -> None:
        """One of them."""
        if self._future is not None:
            self._future.valued(self._attempt, payload)

    def end(self) -> None:
        """There are no more."""

    def drain(self) -> None:
        """There are no more, as it raised."""

    def take_values(self, task_id: bytes, fence: int, upto: int | None) -> None:
        """Nobody waits for that."""

    # --- What a program asks ----------------------------------------------------------------------

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        """A future is only pending while another thread runs its task."""
        future.wait_until_done(timeout)
        return future.done()

    def refuse_after_fork(self) -> None:
        """Tasks run wherever they are submitted."""

    def cancel(self, futures: Sequence[Future[Any]]) -> None:
        """Nothing waits, and what runs is left alone."""

    def cancel_ids(self, task_ids: Sequence[bytes]) -> None:
        """As `cancel`."""

    def try_submit(self, future: Future[Any]) -> bool:
        """As `submit`: there is always room."""
        self.submit(future)
        return True

    def flush(self, timeout: float | None) -> bool:
        """Nothing waits."""
        return True

    def ask(self, question: Question, arguments: Mapping[str, Any], timeout: float | None) -> None:
        """There is nobody to ask."""
        text: bytes = msgpack.packb("a cluster without workers has no broker to ask")
        for observed in question.answered(False, text):
            observed.run_callbacks()

    def open_future(self, task_id: bytes) -> Future[Any] | None:
        """None is open once `submit` has returned."""
        return None

    durable = False
    """Tasks live as long as this process."""

    def open_tasks(self) -> int:
        """Tasks end inside of `submit`."""
        return 0

    def close(self, timeout: float) -> None:
        """No more tasks."""
        with self._lock:
            self._closed = True


def _tell(text: str) -> None:
    _log.error("%s", text)
