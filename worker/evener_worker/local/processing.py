"""A pool over anything that is a worker, fed from any source: the face whose callers block.

Rules of this file: one thread decides, by `Feeding`; each worker has a thread of its own, in which
it is made, made ready and given items; so does a source that may block, and each worker that is
being destroyed. All are daemons: a pool never keeps its program from exiting.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterable, Callable, Generator, Iterable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from evener.errors import UsageError
from evener_worker.local import feed_steps as s
from evener_worker.local.errors import PoolClosed, WorkerStartError
from evener_worker.local.feed_effects import Performer, begin, check_active, is_active, size_of
from evener_worker.local.feed_limits import ITEM_RETRIES
from evener_worker.local.outcome import Outcome
from evener_worker.local.protocol import PoolWorker
from evener_worker.local.pulling import Puller, check_source, puller_in_threads

In = TypeVar("In")
Out = TypeVar("Out")

# How long a worker that is destroyed while it starts may take to notice.
_SETTLE_S: Final = 5.0

# How often who waits for an outcome looks whether there still is somebody who could send one.
_LOOK_S: Final = 1.0


class ItemPool(Generic[In, Out]):
    """Workers that are given the items of a source, each as soon as it is free.

    `factory(number)` makes the worker of a place, from 0 to `size` - 1 (without `size`: one for
    each CPU), and is called again when that worker failed. Anything with `id`, `active`, `init`,
    `execute` and `destroy` is a worker (`PoolWorker`). Factory, `init` and `execute` run in a
    thread of that worker; `destroy` in another one, at any time.

    Workers are started with the first source, and stay until `shutdown()` or the end of the `with`.
    """

    def __init__(
        self, factory: Callable[[int], PoolWorker[In, Out]], size: int | None = None
    ) -> None:
        self.size: Final[int] = size_of(size)
        """How many workers."""
        self._factory = factory
        self._lock = threading.Lock()
        self._loop: _Loop[In, Out] | None = None
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
    ) -> Generator[Outcome[In, Out], None, None]:
        """The outcomes of all items of a source: as they come, or in the order of the items.

        Nothing happens before the first one is asked for. An item is pulled only when a worker is
        free, and when fewer than `size` + `ahead` items (`ahead`: unless given, `size`) were pulled
        and not taken from here. So endless sources are welcome, and who takes slowly slows the
        source. The source is iterated in a thread of its own.

        An exception of `execute` becomes the item's `error`. If the worker is not `active` then, it
        failed: it is destroyed, another one takes its place, and the item is tried again, up to
        `retries` times. An item that takes longer than `timeout` seconds ends with `TaskTimeout`,
        and its worker with it. What the source raises is raised here, after all outcomes.

        Closing the generator early (`break` and dropping it, or `close()`) destroys the workers
        that are busy, and returns when they are gone. One source at a time (`UsageError`).

        Raises `PoolBroken` when no worker can be started, `PoolClosed` when the pool is shut down.
        """
        check_source(source)
        return self._outcomes(source, begin(self.size, ordered, ahead, timeout, retries))

    def _outcomes(self, source: Any, what: s.Begin) -> Generator[Outcome[In, Out], None, None]:
        loop = self._claim()
        finished = False
        try:
            outcomes = loop.begin(source, what)
            while True:
                effect = loop.next(outcomes)
                if isinstance(effect, s.Finish):
                    finished = True
                    if effect.error is not None:
                        raise effect.error
                    return
                loop.post(s.Taken())
                yield effect.outcome
        finally:
            if not finished:
                loop.stop()
            self._processing = False

    def _claim(self) -> _Loop[In, Out]:
        with self._lock:
            if self._closed:
                raise PoolClosed
            if self._processing:
                raise UsageError("the pool works on a source already: close that one, or wait")
            self._processing = True
            if self._loop is None:
                self._loop = _Loop(self._factory, self.size)
            return self._loop

    def shutdown(self, timeout: float | None = None) -> None:
        """Destroy all workers and wait until they are gone, at most `timeout` seconds.

        Who iterates over outcomes gets those that are there, and then `PoolClosed`. Raises
        `TimeoutError` when something was not gone in time; it is about to go all the same.
        """
        with self._lock:
            self._closed = True
            loop = self._loop
        if loop is not None:
            loop.post(s.Shutdown())
            loop.thread.join(timeout)
            if loop.thread.is_alive():
                raise TimeoutError(f"workers of the pool are not gone after {timeout:g} s")

    def __enter__(self) -> ItemPool[In, Out]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "idle" if self._loop is None else repr(self._loop)
        return f"<ItemPool of {self.size}: {state}>"


Outcomes = SimpleQueue[s.Deliver | s.Finish]


class _Loop(Performer["_Life[In, Out]"], Generic[In, Out]):
    """The thread that decides, and performs what was decided."""

    def __init__(self, factory: Callable[[int], PoolWorker[In, Out]], size: int) -> None:
        self._factory = factory
        self._events: SimpleQueue[s.Event] = SimpleQueue()
        self._outcomes: Outcomes = SimpleQueue()
        super().__init__(size, self._outcomes)
        self.thread: Final = threading.Thread(target=self._serve, name="evener-pool", daemon=True)
        self.thread.start()

    # --- Callers ----------------------------------------------------------------------------------

    def post(self, event: s.Event) -> None:
        """An event, from any thread."""
        self._events.put(event)

    def begin(self, source: Any, what: s.Begin) -> Outcomes:
        """Where the outcomes of a source will come. Caller: who claimed the pool."""
        self._outcomes = SimpleQueue()
        self.connect(source, self._outcomes)
        self.post(what)
        return self._outcomes

    def next(self, outcomes: Outcomes) -> s.Deliver | s.Finish:
        """The next outcome, or the end."""
        while True:
            alive = self.thread.is_alive()
            try:
                return outcomes.get(timeout=_LOOK_S)
            except Empty:
                if not alive:  # shut down before it took notice of the source
                    return s.Finish(PoolClosed())

    def stop(self) -> None:
        """End the work on a source, and wait for that end."""
        self.post(s.Stop())
        while not sys.is_finalizing() and not isinstance(self.next(self._outcomes), s.Finish):
            pass

    # --- The thread -------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            self._decide()
        except BaseException as error:
            self._outcomes.put(s.Finish(error))  # a bug here shall hang nobody
            raise

    def _decide(self) -> None:
        while not self.feeding.closed:
            event: s.Event
            try:
                event = self._events.get(timeout=self.wait_s())
            except Empty:
                event = s.Tick()
            self.perform(event)

    def _new_life(self, start: s.Start) -> _Life[In, Out]:
        return _Life(self._factory, start, self.post)

    def _destroy(self, life: _Life[In, Out]) -> None:
        life.destroy()

    def _new_puller(self, source: Any, run: int) -> Puller:
        return puller_in_threads(source, run, self.post)

    def _close(self) -> None:
        """The thread sees it by itself."""


class _Life(Generic[In, Out]):
    """One worker from its making to its end, and its thread."""

    def __init__(
        self,
        factory: Callable[[int], PoolWorker[In, Out]],
        start: s.Start,
        post: Callable[[s.Event], None],
    ) -> None:
        self._factory = factory
        self._key = (start.station, start.life)
        self._post = post
        self._lock = threading.Lock()
        self._worker: PoolWorker[In, Out] | None = None
        self._unwanted = False
        # Its `init` is over, or will never begin.
        self._settled: Final = threading.Event()
        # An item in a tuple; None is the end.
        self._items: Final[SimpleQueue[tuple[Any] | None]] = SimpleQueue()
        name = f"evener-place-{start.station}"
        threading.Thread(target=self._live, name=name, daemon=True).start()

    def _live(self) -> None:
        try:
            worker = self._factory(self._key[0])
            with self._lock:
                self._worker, unwanted = worker, self._unwanted
            if unwanted:
                worker.destroy()
                return
            worker.init()
            check_active(worker, self._key[0])
        except BaseException as error:  # told to the pool, which decides
            self._post(s.StartFailed(*self._key, error))
            return
        finally:
            self._settled.set()
        self._post(s.Ready(*self._key))
        while (given := self._items.get()) is not None:
            self._post(self._execute(worker, *given))
            del given

    def _execute(self, worker: PoolWorker[In, Out], item: In) -> s.Event:
        if not is_active(worker):
            error = WorkerStartError(self._key[0], "it was not active when it got an item")
            return s.Raised(*self._key, error, active=False, ran=False)
        try:
            value = worker.execute(item)
        except BaseException as error:  # the item's, or the worker's
            return s.Raised(*self._key, error, active=is_active(worker))
        return s.Executed(*self._key, value, active=is_active(worker))

    def give(self, item: Any) -> None:
        """Have it execute an item. Never blocks."""
        self._items.put((item,))

    def destroy(self) -> None:
        """End it; posts `Destroyed`. Never blocks."""
        self._items.put(None)
        with self._lock:
            self._unwanted = True
            worker = self._worker
        if worker is None:  # still being made: its thread destroys it
            self._post(s.Destroyed(*self._key))
            return
        name = f"evener-destroy-{self._key[0]}"
        threading.Thread(target=self._end, args=(worker,), name=name, daemon=True).start()

    def _end(self, worker: PoolWorker[In, Out]) -> None:
        was_settled = self._settled.is_set()
        try:
            worker.destroy()
            if not was_settled:
                # What it had just begun to start may have come too late for that.
                self._settled.wait(_SETTLE_S)
                worker.destroy()
        finally:
            self._post(s.Destroyed(*self._key))
