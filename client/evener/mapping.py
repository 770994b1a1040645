"""`map`: many small calls as few tasks. Lazy, in order, with a bounded number of tasks on the way.

Rules of this file: a chunk is one task whose payload holds many items; each item succeeds or fails
by itself. A chunk grows until its run takes about as long as a worker may hold others up. A chunk
starts once: if its worker dies, its items are tried again each by itself, with one start less than
they may have, so that only the guilty one ends, and takes down no more workers than it may.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from evener.calls import Target, encode
from evener.errors import EvenerError, TaskLost, TaskTimeout, UsageError
from evener.failure import decode_failure
from evener.future import Future
from evener.payload import ARGUMENT_LISTS, ONE_ARGUMENT, decode_chunk_result, encode_chunk
from evener_wire.limits import KIB
from evener_wire.messages import DEFAULT_OPTIONS, Payload

if TYPE_CHECKING:
    from evener.client import Client

# How long a chunk should run. Longer: less overhead per item, and a longer wait behind it.
_RUN_MIN_S: Final = 0.005
_RUN_MAX_S: Final = 0.020
_ITEMS_MAX: Final = 4_096
_BYTES_MAX: Final = 64 * KIB

# Chunks on the way for each worker, beside those that it runs: one waits at its side, one travels.
_CHUNKS_BEHIND: Final = 2
_WORKERS_UNKNOWN: Final = 4
_WORKERS_TIMEOUT_S: Final = 1.0


class _Chunk(NamedTuple):
    future: Future[Any]
    items: Sequence[Any]
    sent_s: float


class ChunkFuture(Future[Any]):
    """The future of a chunk: its result is a `ChunkResult`."""

    items: int = 0

    def _decode_value(self, payload: Payload) -> Any:
        return decode_chunk_result(payload, self._holder.trusted, self.items)


class Mapped(Iterator[Any]):
    """The results of a `map`, as an iterator. Made by `Client.map`.

    It tells `operator.length_hint` how much is left, where the iterables know. One thread may take.
    """

    def __init__(
        self,
        client: Client,
        target: Target,
        iterables: Sequence[Iterable[Any]],
        chunk: int | None,
    ) -> None:
        if not iterables:
            raise UsageError("map needs at least one iterable")
        if chunk is not None and (type(chunk) is not int or not 1 <= chunk <= _ITEMS_MAX):
            raise UsageError(f"chunk={chunk!r} is not a whole number from 1 to {_ITEMS_MAX}")
        self._client = client
        self._target = target
        self._options = target.options or DEFAULT_OPTIONS
        self._once = target._replace(options=self._options._replace(max_starts=1))
        self._form = ONE_ARGUMENT if len(iterables) == 1 else ARGUMENT_LISTS
        self._left = _length_hint(iterables)
        source = iterables[0] if self._form == ONE_ARGUMENT else zip(*iterables, strict=False)
        self._source: Iterator[Any] = iter(source)
        self._alone = _one_by_one(target)
        self._fixed = 1 if self._alone else chunk
        self._size = self._fixed or 1
        self._workers = 0
        known = target.function if target.code is None else None
        self._at_once = 1 if known is None else known.at_once
        self._chunks: deque[_Chunk] = deque()
        self._values: Iterator[Any] = iter(())
        self._ready: deque[Any] = deque()  # outcomes of a chunk that had failures
        self._last_s = 0.0
        self._per_item_s = 0.0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for value in self._values:
            return value
        return self._next_slowly()

    def _next_slowly(self) -> Any:
        while True:
            for value in self._values:
                return value
            if self._ready:
                outcome = self._ready.popleft()
                if isinstance(outcome, _Failed):
                    raise outcome.error()
                return outcome
            self._fill()
            if not self._chunks:
                raise StopIteration
            self._take(self._chunks.popleft())
            self._fill()

    # --- Sending ----------------------------------------------------------------------------------

    def _fill(self) -> None:
        if not self._workers:
            self._workers = self._count_workers()
        most = max(4, (self._at_once + _CHUNKS_BEHIND) * self._workers)
        while len(self._chunks) < most:
            items = list(islice(self._source, self._size))
            if not items:
                return
            self._chunks.append(self._send(items))

    def _count_workers(self) -> int:
        return self._client.count_workers(_WORKERS_TIMEOUT_S) or _WORKERS_UNKNOWN

    def _send(self, items: Sequence[Any]) -> _Chunk:
        client, target = self._client, self._target
        if self._alone or len(items) == 1:
            future = self._send_alone(items[0], target)
        else:
            payload = encode_chunk(
                target.name, items, self._form, trusted=client.trusted, code=target.code
            )
            if self._fixed is None and len(payload) > _BYTES_MAX and self._size > 1:
                self._size = max(1, self._size * _BYTES_MAX // len(payload))
            chunk = ChunkFuture(client.holder, client.new_item(self._once, payload))
            chunk.items = len(items)
            client.submit_future(chunk)
            future = chunk
        return _Chunk(future, items, time.monotonic())

    def _send_alone(self, item: Any, target: Target) -> Future[Any]:
        args = (item,) if self._form == ONE_ARGUMENT else item
        payload = encode(target, args, {}, self._client.trusted)
        return self._client.submit_encoded(target, payload)

    # --- Taking in --------------------------------------------------------------------------------

    def _take(self, chunk: _Chunk) -> None:
        future, items = chunk.future, chunk.items
        if type(future) is not ChunkFuture:
            self._ready.append(_Failed.of(future))
        else:
            waited = not future.done()
            try:
                result = future.result()
            except TaskLost:
                self._split(chunk)
                return
            except EvenerError as error:
                # A limit that passed has passed for each item, too.
                self._ready.extend(_Failed(error) for _ in items)
                self._count(len(items))
                return
            if result.failures:
                for index, value in enumerate(result.values):
                    failure = result.failures.get(index)
                    self._ready.append(
                        value if failure is None else _Failed(self._error(future, failure))
                    )
            else:
                self._values = iter(result.values)
            self._adapt(chunk, waited)
            self._count(len(items))
            return
        self._adapt(chunk, waited=True)
        self._count(len(items))

    def _count(self, items: int) -> None:
        if self._left is not None:
            self._left = max(0, self._left - items)

    def _split(self, chunk: _Chunk) -> None:
        """Items of a chunk that did not survive, each as a task of its own, first of all."""
        now_s = time.monotonic()
        # The start and the time that they had together count for each; they did start in time.
        options = self._options._replace(
            max_starts=max(1, self._options.max_starts - 1), expires_ms=0
        )
        if deadline_ms := options.deadline_ms:
            left_ms = deadline_ms - int((now_s - chunk.sent_s) * 1000)
            if left_ms <= 0:
                late = TaskTimeout("total", deadline_ms / 1000, chunk.future.label)
                self._ready.extend(_Failed(late) for _ in chunk.items)
                self._count(len(chunk.items))
                return
            options = options._replace(deadline_ms=left_ms)
        target = self._target._replace(options=options)
        again = [_Chunk(self._send_alone(item, target), [item], now_s) for item in chunk.items]
        self._chunks.extendleft(reversed(again))

    def _error(self, future: Future[Any], failure: bytes) -> Exception:
        return decode_failure(failure, trusted=self._client.trusted, task=future.label)

    def _adapt(self, chunk: _Chunk, waited: bool) -> None:
        """Chooses the size of the next chunks from how long the last one took."""
        if self._fixed is not None:
            return
        now_s = time.monotonic()
        since_s = now_s - (self._last_s or chunk.sent_s)
        self._last_s = now_s
        if waited:
            # Chunks of several workers end at the same moment: a mean of them tells the pace.
            latest_s = since_s / len(chunk.items)
            self._per_item_s += (latest_s - self._per_item_s) / (2 * self._workers)
        run_s = now_s - chunk.sent_s
        if waited:
            run_s = min(run_s, self._per_item_s * self._size * self._workers)
        if run_s < _RUN_MIN_S:
            self._size = min(2 * max(self._size, 1), _ITEMS_MAX)
        elif run_s > _RUN_MAX_S and waited:
            self._size = max(1, self._size // 2)

    # --- For tqdm and others ----------------------------------------------------------------------

    def __length_hint__(self) -> Any:  # an int, or NotImplemented
        if self._left is None:
            return NotImplemented
        return self._left + length_hint(self._values) + len(self._ready)

    def close(self) -> None:
        """Cancels what is on the way, and ends."""
        self._source = iter(())
        self._values = iter(())
        self._ready.clear()
        chunks, self._chunks = self._chunks, deque()
        if open_ := [chunk.future for chunk in chunks if not chunk.future.done()]:
            self._client.cancel(open_)

    def __repr__(self) -> str:
        return f"<Mapped {self._target.name}, {len(self._chunks)} tasks on the way>"


class _Failed(NamedTuple):
    """An item whose turn raises."""

    exception: Exception

    def error(self) -> Exception:
        return self.exception

    @staticmethod
    def of(future: Future[Any]) -> Any:
        """The outcome of a task of one item."""
        try:
            return future.result()
        except Exception as error:
            return _Failed(error)


def _one_by_one(target: Target) -> bool:
    """Whether the options speak of single calls, so that several in one task would change them."""
    options = target.options
    return options is not None and bool(
        options.timeout_ms or options.at_most_once or options.retries
    )


def _length_hint(iterables: Sequence[Iterable[Any]]) -> int | None:
    lengths: list[int] = []
    for iterable in iterables:
        try:
            lengths.append(len(iterable))  # type: ignore[arg-type]
        except TypeError:
            hint = getattr(iterable, "__length_hint__", None)
            found = hint() if hint is not None else NotImplemented
            if found is NotImplemented:
                return None
            lengths.append(found)
    return min(lengths)
