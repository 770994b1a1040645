"""Events and messages of all workers of a pool, present and future, subscribed to at once.

Rules of this file: no pool is asked for anything; it only is told who listens.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from evener_worker.local.stimuli import WorkerEvent

if TYPE_CHECKING:
    from typing import Self

    from evener_worker.local.base import PoolBase


class PoolEvents:
    """Handlers of what happens to the workers of a pool, from `start()` to `stop()`.

    `spawning`, `online`, `killing` and `exit` are called with a `WorkerEvent`: before there is a
    process, when it is ready, before it is asked to end or killed, and when it has ended (with exit
    code or signal). `message` is called with the worker's handle and what it sent. All are called
    in the order in which things happened, one at a time: in a thread of their own, or for an
    `AsyncWorkerPool` in its event loop, where they may be async.

        events = PoolEvents(pool, exit=lambda event: print(event.worker, event.reason))
        events.start()
    """

    def __init__(
        self,
        pool: PoolBase[Any, Any],
        *,
        spawning: Callable[[WorkerEvent], Any] | None = None,
        online: Callable[[WorkerEvent], Any] | None = None,
        killing: Callable[[WorkerEvent], Any] | None = None,
        exit: Callable[[WorkerEvent], Any] | None = None,
        message: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        given = {
            "spawning": spawning,
            "online": online,
            "killing": killing,
            "exit": exit,
            "message": message,
        }
        self._pool = pool
        self._handlers = {kind: handler for kind, handler in given.items() if handler is not None}
        self._started = False

    def start(self) -> None:
        """Listen from now on. Before `spawn_all()` nothing is missed."""
        if not self._started:
            self._started = True
            self._pool.handlers.subscribe(self._handlers)

    def stop(self) -> None:
        """Let go of all. A handler that runs now ends as it would."""
        if self._started:
            self._started = False
            self._pool.handlers.unsubscribe(self._handlers)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
