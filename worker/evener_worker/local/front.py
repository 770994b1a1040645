"""Who hears of events and messages: the handlers of a program, called in order, in one thread.

Rules of this file: the pool's loop only queues here. A message counts as open until its handler
returned, so the bound of open messages per worker bounds this queue too; events of processes have a
bound of their own.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from evener.failure import Place, encode_failure
from evener.payload import decode_value, encode_value
from evener_wire.messages import DONE, FAILED
from evener_worker.channel import REPLY, REQUEST, TAKEN, Frame
from evener_worker.limits import POOL_EVENTS_MAX
from evener_worker.local.calls import frame_of
from evener_worker.local.errors import PoolError
from evener_worker.local.stimuli import FromWorker, WorkerEvent

logger: Final = logging.getLogger("evener.pool")

Handler: TypeAlias = Callable[..., Any]
"""Called as `on_request(handle, message)`; for an async pool it may be async."""
KINDS: Final = ("spawning", "online", "killing", "exit", "message")


Item: TypeAlias = WorkerEvent | FromWorker
Reply: TypeAlias = Callable[[int, Frame], None]


class Front(Protocol):
    """What the loop sees."""

    def deliver(self, item: Item) -> None:
        """Queue it for the handlers."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class Handlers:
    """Who subscribed to what. Caller: any thread."""

    def __init__(
        self, handle_of: Callable[[int], Any], reply: Reply, on_request: Handler | None
    ) -> None:
        self._handle_of: Final = handle_of
        self._reply: Final = reply
        self._on_request: Final = on_request
        self._lock = threading.Lock()
        self._table: dict[str, tuple[Handler, ...]] = dict.fromkeys(KINDS, ())
        self.missed = 0
        """Events that were dropped, because handlers were too slow."""

    def subscribe(self, handlers: Mapping[str, Handler]) -> None:
        """From now on."""
        with self._lock:
            for kind, handler in handlers.items():
                self._table[kind] = (*self._table[kind], handler)

    def unsubscribe(self, handlers: Mapping[str, Handler]) -> None:
        """Not any more; what runs ends."""
        with self._lock:
            for kind, handler in handlers.items():
                # One only, and the same one: two objects may subscribe one function each.
                kept = [*self._table[kind]]
                if handler in kept:
                    kept.remove(handler)
                self._table[kind] = tuple(kept)

    def wanted(self, item: Item) -> bool:
        """Whether anybody may hear of it."""
        if isinstance(item, WorkerEvent):
            return bool(self._table[item.kind])
        return bool(self._table["message"]) or item.kind == REQUEST

    def calls(self, item: WorkerEvent) -> list[Callable[[], Any]]:
        """What to call for an event."""
        return [_bound(handler, item) for handler in self._table[item.kind]]

    def message_calls(self, item: FromWorker) -> list[Callable[[], Any]]:
        """What to call for a message."""
        handle = self._handle_of(item.worker)
        value = decode_value(item.payload, True)
        return [_bound(handler, handle, value) for handler in self._table["message"]]

    def request_call(self, item: FromWorker) -> Callable[[], Any]:
        """What to call for a request."""
        if self._on_request is None:
            raise PoolError("the program takes no requests: WorkerPool(on_request=...)")
        return _bound(
            self._on_request, self._handle_of(item.worker), decode_value(item.payload, True)
        )

    # --- Answers ----------------------------------------------------------------------------------

    def taken(self, item: FromWorker) -> None:
        """The message was handled, or nobody wanted it."""
        self._reply(item.place, Frame(TAKEN, item.number))

    def done(self, item: FromWorker, value: object) -> None:
        """The answer to a request."""
        try:
            payload = encode_value(value, function="on_request")
        except Exception as error:
            self.failed(item, error)
        else:
            self._reply(item.place, frame_of(REPLY, item.number, payload, DONE))

    def failed(self, item: FromWorker, error: BaseException) -> None:
        """The request's handler raised."""
        place = Place(os.uname().nodename, os.getpid())
        payload, _ = encode_failure(error, place, None)
        self._reply(item.place, frame_of(REPLY, item.number, payload, FAILED))


def _bound(handler: Handler, *arguments: object) -> Callable[[], Any]:
    return lambda: handler(*arguments)


def complain(kind: str) -> None:
    """A handler raised: told where the program's log goes, by default stderr."""
    logger.exception("a handler for %s of a pool raised", kind)


class ThreadFront:
    """Handlers are called in a thread of their own, one at a time."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers: Final = handlers
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # Each is changed by one thread only.
        self._events_put = 0
        self._events_taken = 0

    def deliver(self, item: Item) -> None:
        """Caller: the loop."""
        if not self._handlers.wanted(item):
            if isinstance(item, FromWorker):
                self._handlers.taken(item)
            return
        if isinstance(item, WorkerEvent):
            if self._events_put - self._events_taken >= POOL_EVENTS_MAX:
                self._handlers.missed += 1
                return
            self._events_put += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="evener-pool-front", daemon=True)
            self._thread.start()
        self._queue.put(item)

    def close(self) -> None:
        """Caller: the loop."""
        self._queue.put(None)

    def join(self, seconds: float) -> None:
        """Wait until all handlers were called."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, WorkerEvent):
                self._events_taken += 1
                for call in self._handlers.calls(item):
                    _guarded(call, item.kind)
            elif item.kind == REQUEST:
                self._answer(item)
            else:
                self._hear(item)

    def _hear(self, item: FromWorker) -> None:
        try:
            for call in self._handlers.message_calls(item):
                _guarded(call, "messages")
        except Exception:
            complain("messages")
        finally:
            self._handlers.taken(item)

    def _answer(self, item: FromWorker) -> None:
        try:
            value = self._handlers.request_call(item)()
        except BaseException as error:  # whatever it is, the worker waits for an answer
            self._handlers.failed(item, error)
        else:
            self._handlers.done(item, value)


def _guarded(call: Callable[[], Any], kind: str) -> None:
    try:
        call()
    except BaseException:  # SystemExit too: the next handlers are to be called
        complain(kind)
