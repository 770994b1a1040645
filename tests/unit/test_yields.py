"""Windows of generators side by side: each its own, who counts what, who waits for whom."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, cast

import pytest

from evener.execution import Executed, Execution
from evener.payload import decode_value, encode_call
from evener_wire.limits import STREAM_VALUES_MAX
from evener_wire.messages import CANCELLED, Frames, Payload
from evener_worker.limits import SHARED_STREAM_BYTES_MAX
from evener_worker.page import PAGE_BYTES
from evener_worker.sharing import Beside
from evener_worker.threads import Threads
from evener_worker.yields import LoopStream, ThreadStream
from tests.support import wait_until

HALF = bytes(SHARED_STREAM_BYTES_MAX // 2)


class Heard(list[tuple[int, bool, Payload]]):
    """What the agent was told."""

    def tell(self, index: int, more: bool, payload: Payload) -> None:
        self.append((index, more, payload))


# --- On the loop ----------------------------------------------------------------------------------


async def settled(task: asyncio.Task[Any]) -> bool:
    """Whether it has ended, once nothing on the loop is left to do for it."""
    for _ in range(2 * STREAM_VALUES_MAX + 10):
        await asyncio.sleep(0)
    return task.done()


async def give(stream: LoopStream, values: list[bytes]) -> None:
    for value in values:
        await stream.value(value)


@pytest.mark.parametrize(
    ("values", "fit"),
    [([b"x"] * (STREAM_VALUES_MAX + 1), STREAM_VALUES_MAX), ([HALF] * 3, 2)],
    ids=["number", "bytes"],
)
def test_a_full_window_makes_it_wait_until_one_is_taken(values: list[bytes], fit: int) -> None:
    async def check() -> None:
        heard = Heard()
        stream = LoopStream(heard.tell, lambda: None)
        giving = asyncio.create_task(give(stream, values))
        assert not await settled(giving)
        assert [index for index, *_ in heard] == [*range(fit)]
        stream.on_taken(1)
        assert await settled(giving)
        assert [index for index, *_ in heard] == [*range(fit + 1)]

    asyncio.run(check())


def test_one_value_may_be_larger_than_the_window() -> None:
    async def check() -> None:
        heard = Heard()
        stream = LoopStream(heard.tell, lambda: None)
        giving = asyncio.create_task(give(stream, [4 * HALF, b"x"]))
        assert not await settled(giving)
        assert len(heard) == 1
        stream.on_taken(1)
        assert await settled(giving)

    asyncio.run(check())


def test_the_end_has_a_number_and_waits_for_its_reader() -> None:
    async def check() -> None:
        heard = Heard()
        stream = LoopStream(heard.tell, lambda: None)
        await stream.value(b"x")
        ending = asyncio.create_task(stream.end())
        assert not await settled(ending)
        assert heard == [(0, True, b"x"), (1, False, b"")]
        stream.on_taken(1)
        assert not await settled(ending)
        stream.on_taken(2)
        assert await settled(ending)

    asyncio.run(check())


def test_old_and_wrong_word_of_the_reader_changes_nothing() -> None:
    heard = Heard()
    stream = LoopStream(heard.tell, lambda: None)
    for index in range(3):
        stream.yielded += 1
        stream.told(True, b"x")
        stream.on_taken(index)
    stream.on_taken(1)
    assert stream.taken == 2
    stream.on_taken(99)
    assert (stream.taken, [index for index, *_ in heard]) == (3, [0, 1, 2])


def test_the_others_have_their_turn_after_each_value() -> None:
    async def check() -> None:
        order: list[str] = []

        def tell(index: int, more: bool, payload: Payload) -> None:
            order.append(payload.decode() if isinstance(payload, bytes) else "")

        await asyncio.gather(
            *(give(LoopStream(tell, lambda: None), [name] * 3) for name in (b"a", b"b"))
        )
        assert "".join(order) == "ababab"

    asyncio.run(check())


def test_nobody_waits_for_the_reader_of_a_task_that_is_to_end() -> None:
    async def check() -> None:
        stream = LoopStream(Heard().tell, lambda: CANCELLED)
        await stream.value(b"x")
        await stream.drain()

    asyncio.run(check())


# --- In a thread ----------------------------------------------------------------------------------


class Loop:
    """What a thread calls goes here, and is done when the test says so."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], None]] = deque()

    def call_soon_threadsafe(self, call: Callable[..., None], *arguments: Any) -> None:
        self.calls.append(lambda: call(*arguments))

    def run(self) -> None:
        while self.calls:
            self.calls.popleft()()


class Threaded:
    """A generator's thread that gives values, and the loop beside it."""

    def __init__(self, give: Callable[[ThreadStream], None], outcome: int | None = None) -> None:
        self.outcome = outcome
        self.loop = Loop()
        self.heard = Heard()
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.stream = ThreadStream(self.heard.tell, lambda: self.outcome, loop)
        self.thread = threading.Thread(target=give, args=(self.stream,))
        self.thread.start()

    def gave(self, count: int) -> None:
        """Until it gave so many."""
        wait_until(lambda: len(self.loop.calls) == count, 20, "its values")
        self.loop.run()

    def over(self) -> None:
        self.thread.join(20)
        assert not self.thread.is_alive()


def test_a_thread_waits_while_its_window_is_full() -> None:
    def give_all(stream: ThreadStream) -> None:
        for _ in range(STREAM_VALUES_MAX + 1):
            stream.value(b"x")
        stream.end()

    threaded = Threaded(give_all)
    threaded.gave(STREAM_VALUES_MAX)
    assert threaded.thread.is_alive()
    threaded.stream.ring()  # for nothing
    threaded.stream.ring()
    threaded.stream.on_taken(2)
    threaded.gave(2)
    assert threaded.heard[-1] == (STREAM_VALUES_MAX + 1, False, b"")
    assert threaded.thread.is_alive(), "its reader lacks some"
    threaded.stream.on_taken(STREAM_VALUES_MAX + 2)
    threaded.over()


def test_a_thread_whose_task_is_to_end_waits_no_more_once_it_is_rung() -> None:
    threaded = Threaded(lambda stream: stream.end())
    threaded.gave(1)
    threaded.outcome = CANCELLED
    threaded.stream.ring()
    threaded.over()


class Collecting:
    """An outlet that takes all at once."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def begin(self) -> None:
        self._values.append("begins")

    def value(self, payload: Payload) -> None:
        self._values.append(decode_value(payload, trusted=True))

    def end(self) -> None:
        self._values.append("ends")

    def drain(self) -> None:
        self._values.append("drained")


def test_an_idle_thread_keeps_nothing_of_what_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt may have large arguments, and the next one may come tomorrow."""
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # see `on_over`
    values: list[Any] = []
    outlets: list[weakref.ref[Collecting]] = []
    over: SimpleQueue[tuple[Beside, bool]] = SimpleQueue()

    def outlet_of(attempt: Beside) -> Collecting:
        outlet = Collecting(values)
        outlets.append(weakref.ref(outlet))
        return outlet

    def on_over(attempt: Beside, executed: Executed) -> None:
        over.put((attempt, any(outlet() for outlet in outlets)))
        if attempt.number == 2:
            raise SystemExit  # it ends its thread, which would wait for ever

    threads = Threads(Execution({"f": iter_two}), outlet_of, on_over)
    cells = memoryview(bytearray(PAGE_BYTES)).cast("Q")
    for number in (1, 2):
        threads.start(Beside(number, cells, (bytes(16), 1, "f", encode_call("f", ()), 0, 0)))
        attempt, is_kept = over.get(timeout=20)
        assert not is_kept
        threads.ended(attempt)
    assert values == ["begins", 1, 2, "ends"] * 2


def iter_two() -> Iterator[int]:
    yield from (1, 2)


def test_memory_that_its_generator_uses_again_is_copied() -> None:
    """The loop tells it later, when the generator has gone on."""
    memory, fixed = bytearray(b"before"), b"bytes never change"

    def give_and_change(stream: ThreadStream) -> None:
        stream.value(Frames([fixed, memoryview(memory)]))
        memory[:] = b"after!"

    threaded = Threaded(give_and_change)
    threaded.over()
    threaded.loop.run()
    ((_, _, payload),) = threaded.heard
    assert isinstance(payload, Frames)
    assert payload.buffers == (fixed, b"before")
    assert payload.buffers[0] is fixed
