"""The result of a task to come: a `concurrent.futures.Future` that is cheap to make by the million.

Rules of this file. A future has no condition until somebody waits for it, adds a callback, or hands
it to `concurrent.futures.wait`: then the property `_condition` makes it, under the lock `_MAKING`.
`settle` ends a future under the same lock if it has no condition, and under its condition if it
has. So each waiter either sees the end, or is seen by `settle`.

The payload of a result is decoded by whoever asks for it first, not by the thread that received it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from evener.errors import (
    QueueFull,
    TaskCancelled,
    TaskLost,
    TaskRejected,
    TaskTimeout,
    UnknownFunction,
)
from evener.failure import decode_failure
from evener.payload import decode_value
from evener.telling import MAKING as _MAKING
from evener.telling import Holder, Telling
from evener_wire.messages import (
    TERMINAL_CANCELLED,
    TERMINAL_DONE,
    TERMINAL_EXPIRED,
    TERMINAL_FAILED,
    Facts,
    Payload,
)

if TYPE_CHECKING:
    from evener.session_records import Item, TerminalItem

T = TypeVar("T")

_PENDING: Final = "PENDING"
_FINISHED: Final = "FINISHED"
_CANCELLED: Final = "CANCELLED_AND_NOTIFIED"

# Arguments larger than this are let go when a task ends, though its future may live on.
_KEEP_BYTES_MAX: Final = 512


class Future(Telling[T]):
    """The result of one task, which may still be waiting, running, or done.

    Made by `Client.submit`. Works with `concurrent.futures.wait` and `as_completed`, and can be
    awaited in asyncio. Callbacks run in the client's own thread and must not block it.
    """

    # What most futures never need stays on the class, so that making one sets two attributes.
    _state: str = _PENDING
    _made_condition: threading.Condition | None = None
    _terminal: TerminalItem | None = None
    _error: BaseException | None = None
    _decoded: bool = False
    _value: Any = None

    def __init__(self, holder: Holder, item: Item) -> None:
        # The standard __init__ is not called: it makes a condition, which costs more than all this.
        self._holder = holder
        self.item = item

    # --- What a caller asks -----------------------------------------------------------------------

    @property
    def task_id(self) -> str:
        """The task's id in hexadecimal digits, as the command line shows and takes it."""
        return self.item[0].hex()

    @property
    def function(self) -> str:
        """The name of the function that the task calls."""
        return self.item[1]

    def done(self) -> bool:
        """Whether the task has ended, in whichever way."""
        return self._state is not _PENDING

    def running(self) -> bool:
        """Always False: a client does not know; `evener ls tasks` does."""
        return False

    def cancelled(self) -> bool:
        """Whether the task was stopped by `cancel()`."""
        return self._state is _CANCELLED

    def cancel(self) -> bool:
        """Asks the broker to stop the task, queued or running.

        True: the request is under way (or the task is cancelled already). The future then ends as
        cancelled, unless the task ended before the request reached it. False: it had ended.
        """
        if self._state is _PENDING:
            self._holder.cancel([self])
        return self._state is not _FINISHED

    def result(self, timeout: float | None = None) -> T:
        """The value that the function returned; raises what it raised.

        Waits `timeout` seconds at most (None: for ever), then raises `TaskTimeout`; the task goes
        on. Ctrl-C stops the waiting only, too. Also raises `TaskCancelled` and `TaskLost`.
        """
        if self._state is _PENDING and not self._wait(timeout):
            raise TaskTimeout("client", timeout or 0.0, self.label)
        if not self._decoded:
            self._decode()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self = None  # type: ignore[assignment]  # or the traceback keeps it, in a circle
        value: T = self._value
        return value

    def error_if_rejected(self) -> BaseException | None:
        """Internal: what ended the task, if that was no end that the broker told; does not wait."""
        return self._error if self._terminal is not None and self._decoded else None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None.

        Waits `timeout` seconds, and raises, as `result` does, also when it was cancelled.
        """
        if self._state is _PENDING and not self._wait(timeout):
            raise TaskTimeout("client", timeout or 0.0, self.label)
        if not self._decoded:
            self._decode()
        if self._state is _CANCELLED and self._error is not None:
            raise self._error
        return self._error

    def _wait(self, timeout: float | None) -> bool:
        self.give_up_values()
        return self._holder.wait(self, timeout)

    def wait_until_done(self, timeout: float | None) -> None:
        """Internal: blocks until another thread ends it, `timeout` seconds at most."""
        with self._condition:
            self._condition.wait_for(self.done, timeout)

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Calls `fn(future)` once the task has ended, in the client's thread; at once if it has."""
        super().add_done_callback(fn)  # type: ignore[arg-type]

    def __await__(self) -> Generator[Any, None, T]:
        if self._state is _PENDING:
            self.give_up_values()
        import asyncio  # here, because it costs 30 ms and most programs never need it

        return asyncio.wrap_future(self).__await__()

    def __repr__(self) -> str:
        state = {_PENDING: "pending", _CANCELLED: "cancelled"}.get(self._state)
        if state is None:
            terminal = self._terminal
            failed = self._error is not None or (
                terminal is not None and terminal[1] != TERMINAL_DONE
            )
            state = "failed" if failed else "done"
        return f"<Future {self.label} {state}>"

    # --- How the standard library looks at it -----------------------------------------------------

    # To a type checker these are the attributes of the base class, which only reads them.
    if TYPE_CHECKING:
        _done_callbacks: list[Callable[[Future[T]], object]]
    else:

        @property
        def _condition(self) -> threading.Condition:
            if self._state is _PENDING:
                # In the child of a fork whoever waits for this waits for ever.
                self._holder.refuse_after_fork()
            made = self._made_condition
            if made is None:
                with _MAKING:
                    made = self._made_condition
                    if made is None:
                        self._waiters = []
                        self._done_callbacks = []
                        made = self._made_condition = threading.Condition()
            return made

        @property
        def _exception(self) -> BaseException | None:
            return self._error

        @property
        def _result(self) -> Any:
            return self._value

    # --- The end ----------------------------------------------------------------------------------

    def _decode(self) -> None:
        terminal = self._terminal
        assert terminal is not None
        try:
            value, error = self._outcome(terminal)
        except Exception as problem:
            # A payload that cannot be read here is how the task ended. Unless a signal handler
            # raised in the midst of reading it; that does not happen a second time.
            value, error = self._outcome_or_error(terminal)
            if error is None:
                raise problem.__cause__ or problem from None
        self._keep(terminal, value, error)

    def _outcome(self, terminal: TerminalItem) -> tuple[Any, BaseException | None]:
        _, state, payload, facts = terminal
        if state == TERMINAL_DONE:
            return self._decode_value(payload), None
        return None, self._ending_error(state, payload, facts)

    def _outcome_or_error(self, terminal: TerminalItem) -> tuple[Any, BaseException | None]:
        try:
            return self._outcome(terminal)
        except Exception as problem:
            return None, problem

    def _keep(self, terminal: TerminalItem, value: Any, error: BaseException | None) -> None:
        with _MAKING:
            if not self._decoded:  # or another thread was faster, and its value is the one
                self._value, self._error = value, error
                self._decoded = True
                self._terminal = (terminal[0], terminal[1], b"", terminal[3] if not error else None)

    def values_dropped(self) -> bool:
        """Whether the broker dropped values of the task, which is done."""
        return self._terminal is not None and "values_dropped" in (self._terminal[3] or ())

    def _decode_value(self, payload: Payload) -> Any:
        return decode_value(payload, self._holder.trusted)

    def fail(self, error: BaseException, *, cancelled: bool = False) -> list[Future[Any]]:
        """Internal: ends it with an error that no payload says. Returns it if callbacks wait."""
        self._error = error
        self._decoded = True
        end: TerminalItem = (
            self.item[0],
            TERMINAL_CANCELLED if cancelled else TERMINAL_FAILED,
            b"",
            None,
        )
        return Future.settle([(self, end)])

    def run_callbacks(self) -> None:
        """Internal: calls what is due, of progress or of the end. Caller: the client's thread."""
        if not self.tell_watchers():
            self._invoke_callbacks()  # type: ignore[attr-defined]

    @staticmethod
    def settle(endings: Sequence[tuple[Future[Any], TerminalItem]]) -> list[Future[Any]]:
        """Internal: ends futures. Returns those that have callbacks, which the caller runs."""
        observed: list[Future[Any]] = []
        with _MAKING:
            for future, terminal in endings:
                if future._state is not _PENDING:
                    continue
                future._terminal = terminal
                item = future.item
                if len(item[2]) > _KEEP_BYTES_MAX:
                    future.item = (item[0], item[1], b"", None)
                if future._made_condition is None:
                    future._state = _FINISHED if terminal[1] != TERMINAL_CANCELLED else _CANCELLED
                else:
                    observed.append(future)
        return [future for future in observed if future._notify(future._made_condition)]

    def _notify(self, condition: threading.Condition | None) -> bool:
        """Ends it although somebody watches. Returns whether it has callbacks."""
        assert condition is not None
        terminal = self._terminal
        assert terminal is not None
        with condition:
            cancelled = terminal[1] == TERMINAL_CANCELLED
            self._state = _CANCELLED if cancelled else _FINISHED
            for waiter in self._waiters:
                if cancelled:
                    waiter.add_cancelled(self)
                elif terminal[1] == TERMINAL_DONE:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            condition.notify_all()
            return bool(self._done_callbacks)

    def _ending_error(self, state: int, payload: Payload, facts: Facts | None) -> BaseException:
        """The exception for a task that ended in any way but with a result."""
        known = dict(facts or {})
        if state == TERMINAL_FAILED:
            if known.get("reason") == "unknown_function":
                return _unknown_function(self.function, known)
            trusted = self._holder.trusted
            return decode_failure(payload, trusted=trusted, task=self.label, facts=facts)
        if state == TERMINAL_CANCELLED:
            return TaskCancelled(self.label)
        if state == TERMINAL_EXPIRED:
            milliseconds = known.get("ms", 0)
            seconds = milliseconds / 1000 if isinstance(milliseconds, int) else 0.0
            return TaskTimeout(str(known.get("limit", "total")), seconds, self.label)
        return TaskLost(str(known.get("reason", "unknown")), self.label, known)


def _unknown_function(function: str, facts: Facts) -> UnknownFunction:
    closest, *counts = (facts.get(name) for name in ("closest", "workers", "functions"))
    names = map(str, cast("Sequence[object]", closest) if isinstance(closest, list | tuple) else ())
    return UnknownFunction(
        function, [*names], *(count if isinstance(count, int) else 0 for count in counts)
    )


def rejection_error(function: str, code: str, text: str, facts: Facts | None) -> Exception:
    """The exception for a task that the broker did not take."""
    if code == "unknown_function":
        return _unknown_function(function, facts or {})
    if code == "queue_full":
        return QueueFull(text)
    return TaskRejected(code, text)
