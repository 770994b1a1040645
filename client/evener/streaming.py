"""The values of a task that is a generator, as whoever submitted it reads them.

Rules of this file: nothing is sent from here but what the holder of the future is asked to. The
client's thread puts values in, any one thread takes them out; both hold the future's condition.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from evener.errors import StreamBroken, StreamRestarted, TaskTimeout

if TYPE_CHECKING:
    from evener.telling import Telling
    from evener_wire.messages import Payload

T = TypeVar("T")

# So many values are taken before that is told, unless none is left: round trips cost more than
# memory.
_TELL_EACH: Final = 64

_OVER: Final = object()


class Reader(Protocol):
    """Who is told what is taken."""

    def take_values(self, task_id: bytes, fence: int, upto: int) -> None:
        """All values below this index are taken."""
        ...


class Buffer:
    """Values of one task that came and that nobody took. Caller: holder of the condition."""

    __slots__ = ("fence", "restarted", "taken", "told", "values")

    def __init__(self) -> None:
        self.fence = 0
        self.values: deque[Payload | None] = deque()  # None: the end
        self.taken = 0
        self.told = 0
        self.restarted = False  # whoever took values has to hear that they are void

    def put(self, fence: int, payload: Payload | None) -> None:
        """The next value of an attempt."""
        if fence != self.fence:
            self.restarted = self.restarted or self.taken > 0
            self.fence, self.taken, self.told = fence, 0, 0
            self.values.clear()
        self.values.append(payload)

    def take(self) -> tuple[Payload | None, int]:
        """The oldest one, and how many are to be told as taken (0: not yet)."""
        payload = self.values.popleft()
        self.taken += 1
        if self.values and self.taken - self.told < _TELL_EACH:
            return payload, 0
        self.told = self.taken
        return payload, self.taken


class Stream(Generic[T]):
    """`for value in future.stream()`, or `async for`: what the task yields, in order, as it does.

    Made by `Future.stream`. It ends when the task has ended, and raises what the task raised, after
    its values. Values that are not read make the task wait. Raises `StreamRestarted` when the
    worker that ran the task was lost, or the task is tried again: the values so far are void, and
    go on with the first one of the new attempt. Raises `TaskTimeout` when `timeout` seconds pass
    without a value, and `StreamBroken` at the end where values were dropped, since this client had
    been away for long.
    """

    def __init__(
        self, future: Telling[Any], reader: Reader, buffer: Buffer, timeout: float | None
    ) -> None:
        self._future = future
        self._reader = reader
        self._buffer = buffer
        self._timeout = timeout

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        value = self._next()
        if value is _OVER:
            raise StopIteration
        return cast("T", value)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        import asyncio  # here, because it costs 30 ms and most programs never need it

        value = await asyncio.to_thread(self._next)
        if value is _OVER:
            raise StopAsyncIteration
        return cast("T", value)

    def _next(self) -> Any:
        future, buffer = self._future, self._buffer
        while True:
            condition = future.condition()
            with condition:
                if not self._wait(condition):
                    raise TaskTimeout("client", self._timeout or 0.0, future.label)
                if buffer.restarted:
                    buffer.restarted = False
                    raise StreamRestarted(future.label)
                if not buffer.values:
                    break
                payload, told = buffer.take()
                fence = buffer.fence
            if told and not future.done():
                self._reader.take_values(future.item[0], fence, told)
            if payload is not None:
                return future.decode_streamed(payload)
        future.result()  # raises what the task raised
        if future.values_dropped():
            raise StreamBroken(future.label)
        return _OVER

    def _wait(self, condition: threading.Condition) -> bool:
        buffer, future = self._buffer, self._future
        return condition.wait_for(
            lambda: bool(buffer.values) or buffer.restarted or future.done(), self._timeout
        )

    def __repr__(self) -> str:
        return f"<Stream of {self._future.label}>"
