"""Workers as classes: what a process of a pool does, written as `start`, `run` and `stop`.

Rules of this file: no I/O. The class runs in a process of its own; its connection to the program is
handed in there, and what the methods here do is to ask it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from evener.errors import UsageError

In = TypeVar("In")
Out = TypeVar("Out")


class Parent(Protocol):
    """The worker's connection to the program that started it."""

    def send(self, message: Any, timeout: float | None) -> None:
        """Queue a message; waits while too many are under way."""
        ...

    def request(self, message: Any, timeout: float | None) -> Any:
        """Ask, and wait for the answer."""
        ...

    async def request_async(self, message: Any, timeout: float | None) -> Any:
        """The same, awaited."""
        ...


class Worker(Generic[In, Out]):
    """Base of a worker that runs in a process of its own: `WorkerPool(Resizer, 4)`.

    Override `run`, and what else is needed; any method may be `async`. Plain ones are called one
    at a time, in the main thread of the process. With an async method the process has an event
    loop: messages are handled side by side, and up to `concurrency` items.

        class Resizer(evener.Worker[bytes, bytes]):
            def start(self) -> None:
                self.model = load()

            def run(self, item: bytes) -> bytes:
                return self.model.resize(item)
    """

    concurrency: ClassVar[int] = 1
    """How many items an async `run` gets at a time."""

    id: int = 0
    """Which worker of its pool this is, from 1; a replacement has the same."""

    _parent: Parent | None = None

    # --- To override ------------------------------------------------------------------------------

    def start(self) -> Awaitable[None] | None:
        """Set up. The worker counts as started when this returns; an exception is told."""
        return None

    def run(self, item: In, /) -> Out | Awaitable[Out]:
        """Process one item and return its result. What it raises is raised at the caller."""
        raise NotImplementedError(f"{type(self).__qualname__} has no run(item)")

    def on_message(self, message: Any, /) -> Any:
        """Take a message of the program; for a request, what this returns is the answer."""
        raise NotImplementedError(f"{type(self).__qualname__} has no on_message(message)")

    def stop(self) -> Awaitable[None] | None:
        """Tear down. Called before the process ends, unless it is killed."""
        return None

    # --- To the program ---------------------------------------------------------------------------

    def send(self, message: Any, *, timeout: float | None = None) -> None:
        """Send a message to the program. Waits for room up to `timeout` seconds (None: for ever).

        Raises `PoolFull` when there was none, and `NotSendable`.
        """
        self._connected().send(message, timeout)

    def request(self, message: Any, *, timeout: float | None = 60.0) -> Any:
        """Ask the program, and wait for its answer. From any thread but not in an async method.

        Raises `RequestTimeout` after `timeout` seconds, what the program's handler raised, and
        `NotSendable`.
        """
        return self._connected().request(message, timeout)

    async def request_async(self, message: Any, *, timeout: float | None = 60.0) -> Any:
        """`request` for async methods, with its `timeout`. Who is cancelled only stops waiting."""
        return await self._connected().request_async(message, timeout)

    def connect(self, parent: Parent) -> None:
        """Internal: the connection to the program."""
        self._parent = parent

    def _connected(self) -> Parent:
        if self._parent is None:
            text = "has no program to speak to: it was not started by a pool, or not yet (__init__)"
            raise UsageError(f"{type(self).__qualname__} {text}")
        return self._parent


_BASE: Any = Worker


def lacks_run(kind: Any) -> bool:
    """Internal: whether a worker class has only the `run` of its base, which takes no item."""
    return bool(kind.run is _BASE.run)
