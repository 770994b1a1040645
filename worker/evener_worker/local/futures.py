"""Who waits for a call: threads with a future, or with an event.

Rules of this file: the pool's thread only hands over bytes. What they mean is worked out by whoever
asks for the result, so user code that unpickling runs never holds up the pool.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from evener_wire.messages import Payload
from evener_worker.local.letters import value_of

T = TypeVar("T")


class _Raw:
    """An answer, opened at the first look at it."""

    __slots__ = ("_error", "_lock", "_opened", "_outcome", "_payload", "_value")

    def __init__(self, outcome: int, payload: Payload) -> None:
        self._outcome = outcome
        self._payload = payload
        self._lock = threading.Lock()
        self._opened = False
        self._value: Any = None
        self._error: Exception | None = None

    def open(self) -> tuple[Any, Exception | None]:
        with self._lock:
            if not self._opened:
                try:
                    self._value = value_of(self._outcome, self._payload)
                except Exception as error:
                    self._error = error
                self._payload = b""
                self._opened = True
            return self._value, self._error


class PoolFuture(concurrent.futures.Future[T], Generic[T]):
    """The result of an item that a worker of a pool processes. Made by `WorkerPool.submit`.

    `cancel()` gives up waiting: what has not begun is never run, an async `run` is cancelled, and a
    plain one goes on for nobody.
    """

    def __init__(self, give_up: Callable[[PoolFuture[T]], None] | None = None) -> None:
        super().__init__()
        self._give_up = give_up
        self._decided = threading.Event()
        self._is_in = False

    # --- For the pool -----------------------------------------------------------------------------

    def admitted(self) -> None:
        """Internal: there is room for it."""
        self._is_in = True
        self._decided.set()

    def answered(self, outcome: int, payload: Payload) -> None:
        """Internal: its answer is here."""
        self._settle(_Raw(outcome, payload), None)

    def failed(self, error: Exception) -> None:
        """Internal: it will have none."""
        self._settle(None, error)

    def _settle(self, raw: _Raw | None, error: Exception | None) -> None:
        self._give_up = None
        try:
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(cast("T", raw))
        except concurrent.futures.InvalidStateError:  # cancelled
            pass
        self._decided.set()

    def wait_for_room(self) -> None:
        """Internal: block until the pool has taken it in; raises what speaks against it."""
        self._decided.wait()
        error = None if self._is_in or self.cancelled() else super().exception(0)
        if error is not None:
            raise error

    # --- For the caller ---------------------------------------------------------------------------

    def cancel(self) -> bool:
        """Give up waiting. False if it is done."""
        cancelled = super().cancel()
        give_up, self._give_up = self._give_up, None
        if cancelled and give_up is not None:
            give_up(self)
        return cancelled

    def result(self, timeout: float | None = None) -> T:
        """What `run` returned. Raises what it raised, `WorkerDied`, `RequestTimeout`, ...

        Waits `timeout` seconds at most (None: for ever), then raises `TimeoutError`.
        """
        raw: Any = super().result(timeout)
        value, error = raw.open()
        if error is not None:
            raise error
        return cast("T", value)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The same, returned; None if there was none. Waits as `result` does, for `timeout`."""
        error = super().exception(timeout)
        if error is not None:
            return error
        raw: Any = super().result(0)
        opened: Exception | None = raw.open()[1]
        return opened


class Nobody:
    """A waiter where nobody waits."""

    def admitted(self) -> None:
        """Nothing follows."""

    def answered(self, outcome: int, payload: Payload) -> None:
        """Nothing follows."""

    def failed(self, error: Exception) -> None:
        """Nothing follows."""


class Signal(Nobody):
    """A thread waits until something happened, and not for a value."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._error: Exception | None = None

    def answered(self, outcome: int, payload: Payload) -> None:
        """It happened."""
        self._done.set()

    def failed(self, error: Exception) -> None:
        """It will not."""
        self._error = error
        self._done.set()

    def wait(self) -> None:
        """Raises what speaks against it."""
        self._done.wait()
        if self._error is not None:
            raise self._error


class RoomSignal(Signal):
    """The same for a message: it counts when there is room for it."""

    def admitted(self) -> None:
        """It is on its way."""
        self._done.set()
