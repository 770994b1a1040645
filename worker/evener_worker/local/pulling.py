"""How one item after the other comes out of a source, whatever kind of source it is.

Rules of this file: an item is pulled when `pull()` was called, and not before. What the source
gives or raises goes to `post`. User code of a source runs in a thread of its own, or, if source
and pool are async, in the pool's event loop; never in the thread that decides.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from queue import SimpleQueue
from typing import Any, Protocol

from evener.errors import UsageError
from evener_worker.local import feed_steps as s
from evener_worker.local.sources import PushSource

Post = Callable[[s.Event], None]

# What cannot block in `next()`.
_COLLECTIONS = (list, tuple, range, set, frozenset, dict, deque, str, bytes)


class Puller(Protocol):
    """Takes items from one source."""

    def pull(self) -> None:
        """Take one; it is posted as `Pulled`, or the end as `SourceEnded`. Never blocks."""
        ...

    def stop(self) -> None:
        """No more are needed. An iterator that was made here is closed. Never blocks."""
        ...

    def give_back(self, item: Any) -> None:
        """An item was pulled and not begun. Only what is filled by hand takes it back."""
        ...


def check_source(source: Any) -> None:
    """Refuse what is no source, where its caller sees it."""
    if not any(hasattr(source, name) for name in ("__iter__", "__aiter__", "__getitem__")):
        raise UsageError(
            f"{type(source).__name__} is no source: give an iterable, an iterator, a generator, "
            "an async iterable or a PushSource"
        )


class _Pulling:
    """What most pullers share: an item that came out of an iterator cannot go back."""

    def give_back(self, item: Any) -> None:
        """As the protocol says."""


class PushPuller:
    """From a source that is filled by hand: no thread waits for it."""

    def __init__(self, source: PushSource[Any], run: int, post: Post) -> None:
        self._source = source
        self._run = run
        self._post = post
        self._stopped = False
        self._lock = threading.Lock()

    def pull(self) -> None:
        """As the protocol says."""
        self._source.request(self._receive)

    def _receive(self, there: bool, item: Any) -> None:
        with self._lock:
            if not self._stopped:
                self._post(s.Pulled(self._run, item) if there else s.SourceEnded(self._run))
                return
        if there:
            self._source.give_back(item)

    def stop(self) -> None:
        """As the protocol says. What was put and not pulled stays in the source."""
        with self._lock:
            self._stopped = True
        self._source.cancel(self._receive)

    def give_back(self, item: Any) -> None:
        """As the protocol says."""
        self._source.give_back(item)


class ThreadPuller(_Pulling):
    """From anything that can be iterated: in a thread, for `next()` may block.

    That thread cannot be interrupted inside `next()`; it ends when that returns, and until then
    keeps nothing from exiting.
    """

    def __init__(self, source: Any, run: int, post: Post) -> None:
        self._source = source
        self._run = run
        self._post = post
        self._orders: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="evener-source", daemon=True)
        self._thread.start()

    def pull(self) -> None:
        """As the protocol says."""
        self._orders.put(True)

    def stop(self) -> None:
        """As the protocol says."""
        self._orders.put(False)

    def _serve(self) -> None:
        iterator: Iterator[Any] | None = None
        try:
            iterator = iter(self._source)
            while self._orders.get():
                try:
                    item = next(iterator)
                except StopIteration:
                    self._post(s.SourceEnded(self._run))
                    return
                self._post(s.Pulled(self._run, item))
                del item
        except BaseException as error:  # the source's own, told to who iterates over the results
            self._post(s.SourceEnded(self._run, error))
        finally:
            if iterator is not None and iterator is not self._source:
                _close(iterator)


class DirectPuller(_Pulling):
    """From a collection, which cannot block: in the caller's own thread."""

    def __init__(self, source: Any, run: int, post: Post) -> None:
        self._iterator: Iterator[Any] = iter(source)
        self._run = run
        self._post = post

    def pull(self) -> None:
        """As the protocol says."""
        try:
            item = next(self._iterator)
        except StopIteration:
            self._post(s.SourceEnded(self._run))
        except Exception as error:
            self._post(s.SourceEnded(self._run, error))
        else:
            self._post(s.Pulled(self._run, item))

    def stop(self) -> None:
        """As the protocol says: there is nothing to close."""


class AsyncPuller(_Pulling):
    """From an async iterable, as a task of the running loop."""

    def __init__(self, source: AsyncIterable[Any], run: int, post: Post) -> None:
        self._orders: asyncio.Queue[None] = asyncio.Queue()
        self.task = asyncio.ensure_future(_pull_all(source, self._orders, run, post))

    def pull(self) -> None:
        """As the protocol says."""
        self._orders.put_nowait(None)

    def stop(self) -> None:
        """As the protocol says. A source that is waiting is cancelled."""
        self.task.cancel()


class AsyncThreadPuller(_Pulling):
    """From an async iterable for a pool that is not async: an event loop in a thread."""

    def __init__(self, source: AsyncIterable[Any], run: int, post: Post) -> None:
        self._source = source
        self._run = run
        self._post = post
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._puller: AsyncPuller | None = None
        self._thread = threading.Thread(target=self._serve, name="evener-source", daemon=True)
        self._thread.start()
        self._started.wait()

    def pull(self) -> None:
        """As the protocol says."""
        self._call(lambda puller: puller.pull())

    def stop(self) -> None:
        """As the protocol says."""
        self._call(lambda puller: puller.stop())

    def _call(self, what: Callable[[AsyncPuller], None]) -> None:
        loop, puller = self._loop, self._puller
        assert loop is not None
        assert puller is not None
        try:
            loop.call_soon_threadsafe(what, puller)
        except RuntimeError:
            return  # the source has ended, and its loop with it

    def _serve(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve_async())

    async def _serve_async(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._puller = AsyncPuller(self._source, self._run, self._post)
        self._started.set()
        await asyncio.wait({self._puller.task})


async def _pull_all(
    source: AsyncIterable[Any], orders: asyncio.Queue[None], run: int, post: Post
) -> None:
    iterator: AsyncIterator[Any] | None = None
    try:
        iterator = aiter(source)
        while True:
            await orders.get()
            try:
                item = await anext(iterator)
            except StopAsyncIteration:
                post(s.SourceEnded(run))
                return
            post(s.Pulled(run, item))
            del item
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # the source's own, told to who iterates over the results
        post(s.SourceEnded(run, error))
    finally:
        if iterator is not None and iterator is not source:
            await _close_async(iterator)


def _close(iterator: Iterator[Any]) -> None:
    """Close an iterator that was made here; what its caller made, its caller closes."""
    close = getattr(iterator, "close", None)
    if close is not None:
        close()


async def _close_async(iterator: AsyncIterator[Any]) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()


def puller_in_threads(source: Any, run: int, post: Post) -> Puller:
    """For a pool whose callers block."""
    if _is_push_source(source):
        return PushPuller(source, run, post)
    if hasattr(source, "__aiter__") and not hasattr(source, "__iter__"):
        return AsyncThreadPuller(source, run, post)
    return ThreadPuller(source, run, post)


def puller_in_loop(source: Any, run: int, post: Post) -> Puller:
    """For a pool whose callers await. `post` may come from another thread."""
    if _is_push_source(source):
        return PushPuller(source, run, post)
    if hasattr(source, "__aiter__"):
        return AsyncPuller(source, run, post)
    if type(source) in _COLLECTIONS:
        return DirectPuller(source, run, post)
    return ThreadPuller(source, run, post)


def _is_push_source(source: object) -> bool:
    return isinstance(source, PushSource)
