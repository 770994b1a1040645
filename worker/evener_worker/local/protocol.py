"""What a pool needs of a worker: anything with `id`, `active`, `init`, `execute` and `destroy`.

Rules of this file: two protocols, the same one for callers that wait and for callers that await.
The handles of `WorkerPool` and `AsyncWorkerPool` have these, and so does whatever a user writes.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


class PoolWorker(Protocol[In, Out]):
    """A worker whose calls block. Each call may come from another thread, one at a time."""

    @property
    def id(self) -> int | str:
        """Which one it is; unique in its pool, and the same for its replacement."""
        ...

    @property
    def active(self) -> bool:
        """Whether it can execute now; False before `init`, after `destroy`, and once it failed."""
        ...

    def init(self) -> None:
        """Make it ready. Raises when it cannot be."""
        ...

    def execute(self, item: In, /) -> Out:
        """Process one item. Raises what the work raised; if not `active` then, it is broken."""
        ...

    def destroy(self) -> None:
        """End it, at once and whatever it does. Never raises; a second time it does nothing."""
        ...


class AsyncPoolWorker(Protocol[In, Out]):
    """The same, for callers that await."""

    @property
    def id(self) -> int | str:
        """Which one it is; unique in its pool, and the same for its replacement."""
        ...

    @property
    def active(self) -> bool:
        """Whether it can execute now; False before `init`, after `destroy`, and once it failed."""
        ...

    async def init(self) -> None:
        """Make it ready. Raises when it cannot be."""
        ...

    async def execute(self, item: In, /) -> Out:
        """Process one item. Raises what the work raised; if not `active` then, it is broken."""
        ...

    async def destroy(self) -> None:
        """End it, at once and whatever it does. Never raises; a second time it does nothing."""
        ...
