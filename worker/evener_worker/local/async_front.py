"""The handlers of a program with an event loop: called there, in order; they may be async.

Rules of this file: the pool's thread only queues. Requests are answered side by side, since an
async handler may wait for the very worker that asks; events and messages one after the other.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from evener_worker.channel import REQUEST
from evener_worker.limits import POOL_EVENTS_MAX
from evener_worker.local.front import Handlers, Item, complain
from evener_worker.local.stimuli import FromWorker, WorkerEvent


class LoopFront:
    """Caller: the pool's thread, and one task on the event loop."""

    def __init__(self, handlers: Handlers, loop: asyncio.AbstractEventLoop) -> None:
        self._handlers: Final = handlers
        self._loop: Final = loop
        self._lock = threading.Lock()
        self._queue: deque[Item] = deque()
        self._events = 0
        self._closed = False
        self._wake = asyncio.Event()
        self._requests: set[asyncio.Task[None]] = set()
        self._task = loop.create_task(self._run())

    def deliver(self, item: Item) -> None:
        """Caller: the pool's thread."""
        if not self._handlers.wanted(item):
            if isinstance(item, FromWorker):
                self._handlers.taken(item)
            return
        with self._lock:
            if isinstance(item, WorkerEvent):
                if self._events >= POOL_EVENTS_MAX:
                    self._handlers.missed += 1
                    return
                self._events += 1
            self._queue.append(item)
        self._rouse()

    def close(self) -> None:
        """Caller: the pool's thread."""
        self._closed = True
        self._rouse()

    def _rouse(self) -> None:
        call_in(self._loop, self._wake.set)

    async def join(self, seconds: float) -> None:
        """Wait until all handlers were called."""
        if self._task is not asyncio.current_task():
            await asyncio.wait([self._task, *self._requests], timeout=seconds)

    # --- On the event loop ------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            while self._queue:
                with self._lock:
                    item = self._queue.popleft()
                    self._events -= isinstance(item, WorkerEvent)
                await self._handle(item)
            if self._closed and not self._queue:
                return
            await self._wake.wait()
            self._wake.clear()

    async def _handle(self, item: Item) -> None:
        if isinstance(item, WorkerEvent):
            for call in self._handlers.calls(item):
                await _guarded(call, item.kind)
        elif item.kind == REQUEST:
            task = self._loop.create_task(self._answer(item))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)
        else:
            await self._hear(item)

    async def _hear(self, item: FromWorker) -> None:
        try:
            for call in self._handlers.message_calls(item):
                await _guarded(call, "messages")
        except Exception:
            complain("messages")
        finally:
            self._handlers.taken(item)

    async def _answer(self, item: FromWorker) -> None:
        try:
            value = await _value(self._handlers.request_call(item)())
        except BaseException as error:  # whatever it is, the worker waits for an answer
            self._handlers.failed(item, error)
        else:
            self._handlers.done(item, value)


async def _guarded(call: Callable[[], Any], kind: str) -> None:
    try:
        await _value(call())
    except Exception:
        complain(kind)


async def _value(value: Any) -> Any:
    return await value if hasattr(value, "__await__") else value


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *args: Any) -> None:
    """Call a function in a loop of another thread; nothing happens if that loop is closed."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # the program left its loop before it left the pool
        return
