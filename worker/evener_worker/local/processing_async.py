"""A pool over anything that is a worker, fed from any source: the face whose callers await.

Rules of this file: everything happens in the event loop of who iterates; `Feeding` decides in it.
Only a source that may block, and is not async, has a thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from evener.errors import UsageError
from evener_worker.local import feed_steps as s
from evener_worker.local.errors import PoolClosed, WorkerStartError
from evener_worker.local.feed_effects import Performer, begin, check_active, is_active, size_of
from evener_worker.local.feed_limits import DESTROY_NS, ITEM_RETRIES
from evener_worker.local.outcome import Outcome
from evener_worker.local.protocol import AsyncPoolWorker
from evener_worker.local.pulling import Puller, check_source, puller_in_loop

In = TypeVar("In")
Out = TypeVar("Out")


class AsyncItemPool(Generic[In, Out]):
    """`ItemPool` for callers that await: its workers are `AsyncPoolWorker`s.

    Belongs to the event loop in which it is first used. A source that is neither async, nor a
    `PushSource`, nor one of Python's collections, is iterated in a thread, because it may block.
    """

    def __init__(
        self, factory: Callable[[int], AsyncPoolWorker[In, Out]], size: int | None = None
    ) -> None:
        self.size: Final[int] = size_of(size)
        """How many workers."""
        self._factory = factory
        self._core: _Core[In, Out] | None = None
        self._processing = False
        self._closed = False

    def process(
        self,
        source: Iterable[In] | AsyncIterable[In],
        *,
        ordered: bool = False,
        ahead: int | None = None,
        timeout: float | None = None,
        retries: int = ITEM_RETRIES,
    ) -> AsyncGenerator[Outcome[In, Out], None]:
        """The outcomes of all items of a source, as `ItemPool.process` gives them.

        `timeout`, `ahead` and `retries` mean the same.

        Cancelling who iterates, and `aclose()`, destroy the workers that are busy and wait until
        they are gone. `break` alone leaves that to the event loop, which does it soon.
        """
        check_source(source)
        return self._outcomes(source, begin(self.size, ordered, ahead, timeout, retries))

    async def _outcomes(self, source: Any, what: s.Begin) -> AsyncGenerator[Outcome[In, Out], None]:
        core = self._claim()
        finished = False
        outcomes = core.begin(source, what)
        try:
            while True:
                effect = await outcomes.get()
                if isinstance(effect, s.Finish):
                    finished = True
                    if effect.error is not None:
                        raise effect.error
                    return
                core.post(s.Taken())
                yield effect.outcome
        finally:
            if not finished:
                core.post(s.Stop())
                while not isinstance(await outcomes.get(), s.Finish):
                    pass
            self._processing = False

    def _claim(self) -> _Core[In, Out]:
        if self._closed:
            raise PoolClosed
        if self._processing:
            raise UsageError("the pool works on a source already: close that one, or wait")
        if self._core is None:
            self._core = _Core(self._factory, self.size)
        elif self._core.loop is not asyncio.get_running_loop():
            raise UsageError("the pool belongs to another event loop")
        self._processing = True
        return self._core

    async def shutdown(self) -> None:
        """Destroy all workers and wait until they are gone.

        Who iterates over outcomes gets those that are there, and then `PoolClosed`.
        """
        self._closed = True
        if self._core is not None:
            self._core.post(s.Shutdown())
            await self._core.closed.wait()

    async def __aenter__(self) -> AsyncItemPool[In, Out]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shutdown()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "idle" if self._core is None else repr(self._core)
        return f"<AsyncItemPool of {self.size}: {state}>"


Outcomes = asyncio.Queue[s.Deliver | s.Finish]


class _Core(Performer["_Life[In, Out]"], Generic[In, Out]):
    """Performs in the event loop what was decided."""

    def __init__(self, factory: Callable[[int], AsyncPoolWorker[In, Out]], size: int) -> None:
        self.loop: Final = asyncio.get_running_loop()
        self.closed: Final = asyncio.Event()
        self._factory = factory
        self._events: deque[s.Event] = deque()
        self._turn_planned = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        outcomes: Outcomes = asyncio.Queue()
        super().__init__(size, outcomes)

    def begin(self, source: Any, what: s.Begin) -> Outcomes:
        """Where the outcomes of a source will come."""
        outcomes: Outcomes = asyncio.Queue()
        self.connect(source, outcomes)
        self.post(what)
        return outcomes

    def post(self, event: s.Event) -> None:
        """An event, from the loop's own thread; handled soon, never at once."""
        if self.loop.is_closed():
            return  # a pool that was never shut down, when its loop was torn down
        self._events.append(event)
        if not self._turn_planned:
            self._turn_planned = True
            self.loop.call_soon(self._turn)

    def post_from_anywhere(self, event: s.Event) -> None:
        """An event, from any thread."""
        try:
            self.loop.call_soon_threadsafe(self.post, event)
        except RuntimeError:
            return  # the loop is closed, and nobody waits

    def _turn(self) -> None:
        self._turn_planned = False
        while self._events:
            self.perform(self._events.popleft())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait_s = self.wait_s()
        if wait_s is not None:
            self._timer = self.loop.call_later(wait_s, self.post, s.Tick())

    def _new_life(self, start: s.Start) -> _Life[In, Out]:
        life = _Life(self._factory, start, self.post)
        life.task = self._spawn(life.live())
        return life

    def _destroy(self, life: _Life[In, Out]) -> None:
        self._spawn(life.destroy())

    def _new_puller(self, source: Any, run: int) -> Puller:
        return puller_in_loop(source, run, self.post_from_anywhere)

    def _close(self) -> None:
        self.closed.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Life(Generic[In, Out]):
    """One worker from its making to its end."""

    def __init__(
        self,
        factory: Callable[[int], AsyncPoolWorker[In, Out]],
        start: s.Start,
        post: Callable[[s.Event], None],
    ) -> None:
        self._factory = factory
        self._key = (start.station, start.life)
        self._post = post
        self._worker: AsyncPoolWorker[In, Out] | None = None
        self.task: asyncio.Task[None] | None = None
        self._items: Final[asyncio.Queue[tuple[Any]]] = asyncio.Queue()

    async def live(self) -> None:
        """Make it, make it ready, give it items; ends by being cancelled."""
        try:
            self._worker = worker = self._factory(self._key[0])
            await worker.init()
            check_active(worker, self._key[0])
        except asyncio.CancelledError as error:
            self._post(s.StartFailed(*self._key, error))
            raise
        except BaseException as error:  # told to the pool, which decides
            self._post(s.StartFailed(*self._key, error))
            return
        self._post(s.Ready(*self._key))
        while True:
            (item,) = await self._items.get()
            self._post(await self._execute(worker, item))
            del item

    async def _execute(self, worker: AsyncPoolWorker[In, Out], item: In) -> s.Event:
        if not is_active(worker):
            error = WorkerStartError(self._key[0], "it was not active when it got an item")
            return s.Raised(*self._key, error, active=False, ran=False)
        try:
            value = await worker.execute(item)
        except BaseException as error:  # the item's, or the worker's
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return s.Raised(*self._key, error, active=is_active(worker))
        return s.Executed(*self._key, value, active=is_active(worker))

    def give(self, item: Any) -> None:
        """Have it execute an item."""
        self._items.put_nowait((item,))

    async def destroy(self) -> None:
        """End it; posts `Destroyed`. What it executes is cancelled."""
        try:
            if self.task is not None:
                self.task.cancel()
            if self._worker is not None:
                await self._worker.destroy()
            if self.task is not None:
                await asyncio.wait({self.task}, timeout=DESTROY_NS / 1e9)
        finally:
            self._post(s.Destroyed(*self._key))
