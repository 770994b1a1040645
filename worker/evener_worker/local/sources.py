"""A source that is filled by hand, from any thread or coroutine, while a pool works it off.

Rules of this file: one lock for each source, held for moments; whoever waits is woken outside it.
An item goes straight from who puts it to who waits for it, so nothing is lost when a waiter leaves.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, TypeVar

from evener.errors import UsageError
from evener_worker.local.errors import PoolFull
from evener_worker.local.feed_limits import SOURCE_ITEMS_MAX
from evener_worker.local.outcome import SourceClosed

T = TypeVar("T")

# Who waits for an item gets it by this, with `True`; or, at the end of the source, `False`.
Receiver = Callable[[bool, "T | None"], None]


class _Putter(Generic[T]):
    """An item for which there was no room yet."""

    __slots__ = ("item", "refused", "wake")

    def __init__(self, item: T, wake: Callable[[], object]) -> None:
        self.item = item
        self.wake = wake
        self.refused = False


class PushSource(Generic[T]):
    """Items that come from outside: `put` them, a pool pulls them, and `close()` is the end.

    Holds at most `size` items, 1 or more (`UsageError`). When it is full, `put` blocks, `await
    put_async` waits, and `put_nowait` raises `PoolFull`. After `close()` no item can be put
    (`SourceClosed`, also for those who wait for room); what is in it is still given out, and then
    the source is at its end.

    Works as an iterator and as an async iterator, too. When several take from it, each item goes
    to one of them.
    """

    def __init__(self, size: int = SOURCE_ITEMS_MAX) -> None:
        if size < 1:
            raise UsageError(f"a source holds at least 1 item, not {size}")
        self.size = size
        self._lock = threading.Lock()
        self._items: deque[T] = deque()
        self._putters: deque[_Putter[T]] = deque()
        self._receivers: deque[Receiver[T]] = deque()
        self._closed = False

    # --- Filling ----------------------------------------------------------------------------------

    def put(self, item: T, timeout: float | None = None) -> None:
        """Put an item; blocks while the source is full. In a coroutine use `put_async`.

        Raises `PoolFull` when there was no room for `timeout` seconds, `SourceClosed`.
        """
        woken = threading.Event()
        putter = self._offer(item, woken.set)
        if putter is None:
            return
        try:
            woken.wait(timeout)
        finally:
            left = self._withdraw(putter)
        if putter.refused:
            raise SourceClosed
        if left:
            raise PoolFull(f"the source was full for {timeout:g} s")

    async def put_async(self, item: T) -> None:
        """Put an item; waits while the source is full. Raises `SourceClosed`.

        Whoever is cancelled while it waits has put nothing, unless room came at the same moment.
        """
        loop = asyncio.get_running_loop()
        room: asyncio.Future[None] = loop.create_future()
        putter = self._offer(item, lambda: _call_in(loop, lambda: _settle(room)))
        if putter is None:
            return
        try:
            await room
        except asyncio.CancelledError:
            self._withdraw(putter)
            raise
        if putter.refused:
            raise SourceClosed

    def put_nowait(self, item: T) -> None:
        """Put an item, or raise `PoolFull` at once. Raises `SourceClosed`."""
        putter = self._offer(item, None)
        if putter is not None:
            raise PoolFull(f"the source is full: it holds {self.size} items")

    def close(self) -> None:
        """No more items will come. A second time it does nothing."""
        with self._lock:
            self._closed = True
            putters, self._putters = self._putters, deque()
            receivers, self._receivers = self._receivers, deque()
        for putter in putters:
            putter.refused = True
            putter.wake()
        for receive in receivers:
            receive(False, None)

    @property
    def closed(self) -> bool:
        """Whether `close()` was called. There may still be items."""
        return self._closed

    def __len__(self) -> int:
        """How many items wait in it."""
        return len(self._items)

    def __enter__(self) -> PushSource[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _offer(self, item: T, wake: Callable[[], object] | None) -> _Putter[T] | None:
        """None if the item is in. Without `wake` an item that does not fit is not kept."""
        with self._lock:
            if self._closed:
                raise SourceClosed
            receive = self._receivers.popleft() if self._receivers else None
            if receive is None:
                if len(self._items) < self.size:
                    self._items.append(item)
                    return None
                putter = _Putter(item, wake or _nothing)
                if wake is not None:
                    self._putters.append(putter)
                return putter
        receive(True, item)
        return None

    def _withdraw(self, putter: _Putter[T]) -> bool:
        """Whether the item had to be taken back: it never got in."""
        with self._lock:
            try:
                self._putters.remove(putter)
            except ValueError:
                return False
            return True

    # --- Taking -----------------------------------------------------------------------------------

    def request(self, receive: Receiver[T]) -> None:
        """Internal: have `receive(True, item)` called for one item, now or once there is one.

        Or `receive(False, None)` at the end. It must not block.
        """
        putter: _Putter[T] | None = None
        item: T | None = None
        with self._lock:
            there = bool(self._items)
            if there:
                item = self._items.popleft()
                if self._putters:
                    putter = self._putters.popleft()
                    self._items.append(putter.item)
            elif not self._closed:
                self._receivers.append(receive)
                return
        if putter is not None:
            putter.wake()
        receive(there, item)

    def cancel(self, receive: Receiver[T]) -> bool:
        """Internal: take a request back; False when it is answered, or about to be."""
        with self._lock:
            try:
                self._receivers.remove(receive)
            except ValueError:
                return False
            return True

    def give_back(self, item: T) -> None:
        """Internal: put an item in front that was not needed; the bound may be exceeded."""
        with self._lock:
            receive = self._receivers.popleft() if self._receivers else None
            if receive is None:
                self._items.appendleft(item)
                return
        receive(True, item)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        came = threading.Event()
        answer: list[tuple[bool, T | None]] = []

        def receive(there: bool, item: T | None) -> None:
            answer.append((there, item))
            came.set()

        self.request(receive)
        try:
            came.wait()
        except BaseException:  # a signal handler raised
            self._leave(receive, answer)
            raise
        there, item = answer[0]
        if not there:
            raise StopIteration
        return item  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        loop = asyncio.get_running_loop()
        came: asyncio.Future[None] = loop.create_future()
        answer: list[tuple[bool, T | None]] = []

        def receive(there: bool, item: T | None) -> None:
            answer.append((there, item))
            if not _call_in(loop, lambda: _settle(came)) and there:
                self.give_back(item)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

        self.request(receive)
        try:
            await came
        except asyncio.CancelledError:
            self._leave(receive, answer)
            raise
        there, item = answer[0]
        if not there:
            raise StopAsyncIteration
        return item  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def _leave(self, receive: Receiver[T], answer: list[tuple[bool, T | None]]) -> None:
        if not self.cancel(receive) and answer and answer[0][0]:
            self.give_back(answer[0][1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<PushSource {state}, {len(self._items)} of {self.size} items>"


def _nothing() -> None:
    return


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> bool:
    """Call it in a loop, from whichever thread; False when the loop is closed."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return False
    return True
