"""A pool of worker processes for callers that await: `AsyncWorkerPool`, and its handles.

Rules of this file: no decisions, and nothing that blocks. The same machine and the same thread as
behind `WorkerPool`; what is waited for there is awaited here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from evener.errors import UsageError
from evener_wire.messages import Payload
from evener_worker.channel import EXECUTE, MESSAGE, REQUEST
from evener_worker.local.async_front import LoopFront, call_in
from evener_worker.local.base import HandleBase, PoolBase, ask, check_id, wait_for
from evener_worker.local.calls import Wait
from evener_worker.local.errors import PoolError
from evener_worker.local.letters import value_of
from evener_worker.local.stimuli import (
    AwaitReady,
    Event,
    GaveUp,
    KillWorker,
    Replace,
    Restart,
    StartAll,
)

if TYPE_CHECKING:
    from typing import Self

In = TypeVar("In")
Out = TypeVar("Out")

_HANDLERS_END_S = 5.0


class _Awaiter:
    """Somebody who awaits. Told in the pool's thread, woken in their own."""

    def __init__(self, *, by_room: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._by_room = by_room
        self.future: asyncio.Future[tuple[int, Payload]] = self._loop.create_future()

    def admitted(self) -> None:
        if self._by_room:
            call_in(self._loop, self._resolve, 0, b"")

    def answered(self, outcome: int, payload: Payload) -> None:
        call_in(self._loop, self._resolve, outcome, payload)

    def failed(self, error: Exception) -> None:
        call_in(self._loop, self._fail, error)

    def _resolve(self, outcome: int, payload: Payload) -> None:
        if not self.future.done():
            self.future.set_result((outcome, payload))

    def _fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class AsyncWorkerHandle(HandleBase[In, Out]):
    """One worker. Made by `AsyncWorkerPool`. To be used in the pool's event loop.

    What each method raises, and what its `timeout` does, is told at `WorkerHandle`. Who is
    cancelled while it waits stops waiting; a process that starts or ends goes on to do so.
    """

    async def execute(self, item: In, /, *, timeout: float | None = None) -> Out:
        """Have `run(item)` called; its result. Cancelling this cancels an async `run` too."""
        result: Out = await _asked(self._pool, EXECUTE, item, self.id, timeout)
        return result

    async def request(self, message: Any, /, *, timeout: float | None = 60.0) -> Any:
        """Have `on_message(message)` called; what it returns. `timeout`: seconds, None for ever."""
        return await _asked(self._pool, REQUEST, message, self.id, timeout)

    async def send(self, message: Any, /, *, timeout: float | None = None) -> None:
        """Have `on_message(message)` called. Waits for room, `timeout` seconds, or `PoolFull`."""
        await _asked(self._pool, MESSAGE, message, self.id, timeout)

    # --- Its process ------------------------------------------------------------------------------

    async def init(self, timeout: float | None = None) -> None:
        """Wait until it is ready; start it if it is stopped. Raises `WorkerStartError`.

        What is not ready after `timeout` seconds is killed.
        """
        await self._wait(AwaitReady, f"the start of worker {self.id}", timeout)

    async def restart(self, timeout: float | None = None) -> None:
        """End its process when that is done with what it has, and wait for a new one.

        Raises `RequestTimeout` or `WorkerStartError` after `timeout` seconds.
        """
        await self._wait(Restart, f"the restart of worker {self.id}", timeout)

    async def replace(self, timeout: float | None = None) -> None:
        """The same without a gap: the old process leaves when the new one is ready.

        If that is not so in `timeout` seconds, the old one stays, and this raises.
        """
        await self._wait(Replace, f"the replacement of worker {self.id}", timeout)

    async def kill(self) -> None:
        """End its process now, with all that it started, and leave it stopped."""
        await self._wait(KillWorker, f"the end of worker {self.id}", None)

    async def destroy(self) -> None:
        """The same; never raises."""
        try:
            await self.kill()
        except (PoolError, UsageError):
            return

    async def _wait(
        self, kind: Callable[[Wait, int], Event], text: str, timeout: float | None
    ) -> None:
        awaiter = _Awaiter()
        self._pool.running_loop().post(kind(wait_for(awaiter, text, timeout), self.id))
        await awaiter.future


class AsyncWorkerPool(PoolBase[In, Out]):
    """`WorkerPool` for asyncio: the same settings, and everything that waits is awaited.

        async with AsyncWorkerPool(Resizer, 4) as pool:
            images = await asyncio.gather(*map(pool.execute, files))

    `on_request` and the handlers of `PoolEvents` are called in the event loop and may be async.
    """

    _front: LoopFront | None = None
    _handles: dict[int, AsyncWorkerHandle[In, Out]] | None = None

    # --- The start --------------------------------------------------------------------------------

    async def spawn_all(self, timeout: float | None = None) -> list[AsyncWorkerHandle[In, Out]]:
        """Start all workers; their handles when all are ready, in `timeout` seconds at most.

        Raises `WorkerStartError`; then no process is left.
        """
        try:
            loop = self._open(self._make_front)
            awaiter = _Awaiter()
            loop.post(StartAll(wait_for(awaiter, "the start of the workers", timeout)))
            await awaiter.future
        except BaseException:
            await self.close()
            raise
        return self.handles

    def _make_front(self) -> LoopFront:
        self._front = LoopFront(self._handlers, asyncio.get_running_loop())
        return self._front

    @property
    def handles(self) -> list[AsyncWorkerHandle[In, Out]]:
        """One for each worker, by id."""
        if self._handles is None:
            numbers = range(1, self.size + 1)
            self._handles = {number: AsyncWorkerHandle(self, number) for number in numbers}
        return [*self._handles.values()]

    def _handle_of(self, number: int) -> AsyncWorkerHandle[In, Out]:
        return self[number]

    def __getitem__(self, number: int) -> AsyncWorkerHandle[In, Out]:
        """The handle of the worker with this id."""
        return self.handles[check_id(number, self.size) - 1]

    def __iter__(self) -> Iterator[AsyncWorkerHandle[In, Out]]:
        return iter(self.handles)

    # --- Work -------------------------------------------------------------------------------------

    async def execute(self, item: In, /, *, timeout: float | None = None) -> Out:
        """Have the next free worker run an item; its result.

        Raises `RequestTimeout` after `timeout` seconds, and as `WorkerHandle.execute` does.
        Cancelling this cancels an async `run` too.
        """
        result: Out = await _asked(self, EXECUTE, item, 0, timeout)
        return result

    async def replace(
        self, number: int, timeout: float | None = None
    ) -> AsyncWorkerHandle[In, Out]:
        """Replace the process of a worker: the new one is ready before the old one leaves.

        Within `timeout` seconds; raises as `WorkerHandle.replace` does.
        """
        await self[number].replace(timeout)
        return self[number]

    # --- The end ----------------------------------------------------------------------------------

    async def shutdown(self, timeout: float | None = 30.0) -> None:
        """Finish what is open, let all workers `stop()`, and wait until they are gone.

        What is still there after `timeout` seconds is killed, and at once if this is cancelled.
        """
        try:
            loop = self._stop(timeout)
            if loop is not None:
                await asyncio.to_thread(loop.join, None)
        finally:
            await self.close()

    async def close(self) -> None:
        """Kill all workers and wait until they are gone. What is open raises `PoolClosed`."""
        await asyncio.to_thread(self.close_now)
        if self._front is not None:
            await self._front.join(_HANDLERS_END_S)

    async def __aenter__(self) -> Self:
        await self.spawn_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.shutdown()
        else:
            await self.close()


async def _asked(
    pool: PoolBase[Any, Any], kind: int, value: object, seat: int, timeout: float | None
) -> Any:
    awaiter = _Awaiter(by_room=kind == MESSAGE)
    name = {EXECUTE: "an item", REQUEST: "a request", MESSAGE: "a message"}[kind]
    what = f"{name} to worker {seat}" if seat else f"{name} to the pool"
    at_once = kind == MESSAGE and timeout == 0
    loop = pool.running_loop()
    call = ask(pool, kind, value, awaiter, what, seat, timeout, at_once=at_once)
    try:
        outcome, payload = await awaiter.future
    except asyncio.CancelledError:
        loop.post_quietly(GaveUp(call))
        raise
    return None if kind == MESSAGE else value_of(outcome, payload)
