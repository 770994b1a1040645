"""What a future knows of a task that still runs: its progress, and the values that it yields.

Rules of this file: the base of `Future`, with the lock that all futures share (see there). Most
futures never need any of it, so what they need stays on the class.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import Future as StandardFuture
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, overload

from evener.errors import UsageError
from evener.payload import decode_value
from evener.streaming import Buffer, Stream

if TYPE_CHECKING:
    from evener.reporting import Progress
    from evener.session_records import Item
    from evener_wire.messages import Payload

T = TypeVar("T")
Y = TypeVar("Y")

_log = logging.getLogger("evener.client")

# Reentrant, because a collection of garbage, or a signal handler, may come to need it too.
MAKING: Final = threading.RLock()

# Another thread may hold it at the moment of a fork, and is not there to let it go.
os.register_at_fork(after_in_child=MAKING._at_fork_reinit)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType]


class Holder(Protocol):
    """What a future belongs to: a connection, or the executor of a cluster without workers."""

    trusted: bool

    def wait(self, future: Any, timeout: float | None) -> bool:
        """Blocks until the future is done, or the time is over; returns whether it is done."""
        ...

    def cancel(self, futures: Sequence[Any]) -> None:
        """Asks for these tasks to be stopped."""
        ...

    def take_values(self, task_id: bytes, fence: int, upto: int | None) -> None:
        """The program took all values of this attempt below `upto`; None: all that came."""
        ...

    def refuse_after_fork(self) -> None:
        """Raises `ClientClosed` in the child of a fork, where nobody will end the future."""
        ...


class Telling(StandardFuture[T]):
    """Base of `Future`."""

    item: Item
    _holder: Holder
    _progress: Progress | None = None
    _untold: Progress | None = None  # for those in `_watchers`, which the client's thread calls
    _watchers: tuple[Callable[[Progress], object], ...] = ()
    _values: Buffer | None = None
    _streamed: bool = False
    unread: bool = False
    """Internal: somebody waits for the result and nobody for values; they are dropped."""
    dropped: bool = False
    """Internal: values were."""

    @property
    def label(self) -> str:
        """How messages name the task: `demo.add[7f3a12bc]`."""
        return f"{self.item[1]}[{self.item[0].hex()[:8]}]"

    # --- Progress ---------------------------------------------------------------------------------

    def progress(self) -> Progress | None:
        """What the task said last with `evener.progress`; None if nothing is known. Never waits."""
        return self._progress

    def on_progress(self, callback: Callable[[Progress], object]) -> None:
        """Calls `callback(progress)` when the task says how far it is, ten times a second at most.

        In the client's thread, which it must not block; at once if something is known. While it
        runs, the last thing said replaces what was said before. What it raises is logged.
        """
        with MAKING:
            self._watchers = (*self._watchers, callback)
            known = self._progress
        if known is not None:
            callback(known)

    def reported(self, progress: Progress) -> bool:
        """Internal: the task said how far it is. Whether callbacks are due that were not yet."""
        with MAKING:
            self._progress = progress
            due = bool(self._watchers) and self._untold is None
            if self._watchers:
                self._untold = progress
        return due

    def tell_watchers(self) -> bool:
        """Internal: calls those who want to hear of progress; False if there is none to tell."""
        with MAKING:
            untold, self._untold = self._untold, None
        if untold is None:
            return False
        for callback in self._watchers:
            try:
                callback(untold)
            except Exception:
                _log.exception("a callback of on_progress raised")
        return True

    # --- Values -----------------------------------------------------------------------------------

    # As a type checker sees it, a function that yields returns one of these.
    @overload
    def stream(
        self: Telling[Generator[Y, Any, Any]], timeout: float | None = None
    ) -> Stream[Y]: ...
    @overload
    def stream(self: Telling[Iterator[Y]], timeout: float | None = None) -> Stream[Y]: ...
    @overload
    def stream(self: Telling[Iterable[Y]], timeout: float | None = None) -> Stream[Y]: ...
    @overload
    def stream(
        self: Telling[AsyncGenerator[Y, Any]], timeout: float | None = None
    ) -> Stream[Y]: ...
    @overload
    def stream(self: Telling[AsyncIterator[Y]], timeout: float | None = None) -> Stream[Y]: ...
    @overload
    def stream(self: Telling[AsyncIterable[Y]], timeout: float | None = None) -> Stream[Y]: ...
    @overload
    def stream(self, timeout: float | None = None) -> Stream[Any]: ...

    def stream(self, timeout: float | None = None) -> Stream[Any]:
        """The values that the task yields, in order, while it runs: `for value in f.stream()`.

        For tasks whose function is a generator, plain or asynchronous; of others it is empty. See
        `Stream`. Call it before `result()`, which gives up the values that nobody reads: then it
        raises `UsageError`. `timeout`: seconds that one value may take (None: for ever).
        """
        if self.dropped:
            raise UsageError(
                "values of this task were dropped, because result() was called before stream()"
            )
        with self._condition:
            self.unread, self._streamed = False, True
            buffer = self._values = self._values or Buffer()
        return Stream(self, self._holder, buffer, timeout)

    def values_dropped(self) -> bool:
        """Whether the broker dropped values of the task, which is done."""
        raise NotImplementedError

    def condition(self) -> threading.Condition:
        """Internal: notified at each value, and at the end."""
        return self._condition

    def valued(self, fence: int, payload: Payload | None) -> bool:
        """Internal: a value came, or their end. Whether nobody reads it; the broker is told so."""
        with self._condition:
            if self.unread:
                self.dropped = self.dropped or payload is not None
                return True
            buffer = self._values = self._values or Buffer()
            buffer.put(fence, payload)
            self._condition.notify_all()
        return False

    def give_up_values(self) -> None:
        """Internal: somebody waits for the result, which values unread must not hold up."""
        if self._streamed:
            return
        self.unread = True
        if self._values is not None:
            with self._condition:
                self._values = None
                self.dropped = True
            self._holder.take_values(self.item[0], 0, None)

    def decode_streamed(self, payload: Payload) -> Any:
        """Internal: a value as it was yielded."""
        return decode_value(payload, self._holder.trusted)
