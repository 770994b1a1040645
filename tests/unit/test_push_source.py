"""A source that is filled by hand: its bounds, its order, and that nothing gets lost."""

from __future__ import annotations

import asyncio
import threading

import pytest

from evener import UsageError
from evener_worker.local import feed_steps as s
from evener_worker.local.errors import PoolFull
from evener_worker.local.outcome import SourceClosed
from evener_worker.local.pulling import PushPuller
from evener_worker.local.sources import PushSource
from tests.support import wait_until


def test_first_in_first_out_until_it_is_closed() -> None:
    source: PushSource[int] = PushSource(3)
    for item in range(3):
        source.put(item)
    source.close()
    source.close()
    assert source.closed
    assert list(source) == [0, 1, 2]
    with pytest.raises(SourceClosed):
        source.put(3)
    with pytest.raises(SourceClosed):
        source.put_nowait(3)


def test_a_full_source_raises_or_waits() -> None:
    source: PushSource[int] = PushSource(1)
    source.put_nowait(0)
    with pytest.raises(PoolFull, match="holds 1 item"):
        source.put_nowait(1)
    with pytest.raises(PoolFull, match=r"full for 0\.01 s"):
        source.put(1, timeout=0.01)
    assert len(source) == 1
    waiting = threading.Thread(target=source.put, args=(2,))
    waiting.start()
    assert [next(source), next(source)] == [0, 2]
    waiting.join(10)


def test_who_waits_for_room_is_told_of_the_end() -> None:
    source: PushSource[int] = PushSource(1)
    source.put(0)
    errors: list[BaseException] = []

    def put() -> None:
        try:
            source.put(1)
        except SourceClosed as error:
            errors.append(error)

    waiting = threading.Thread(target=put)
    waiting.start()
    wait_until(lambda: source._putters)
    source.close()
    waiting.join(10)
    assert len(errors) == 1
    assert list(source) == [0]


def test_many_threads_on_both_sides_lose_nothing() -> None:
    source: PushSource[int] = PushSource(4)
    taken: list[int] = []
    takers = [threading.Thread(target=lambda: taken.extend(source)) for _ in range(3)]

    def put(base: int) -> None:
        for number in range(200):
            source.put(base + number)

    putters = [threading.Thread(target=put, args=(base,)) for base in (0, 1_000, 2_000)]
    for thread in takers + putters:
        thread.start()
    for thread in putters:
        thread.join(30)
    source.close()
    for thread in takers:
        thread.join(30)
    assert sorted(taken) == sorted(base + i for base in (0, 1_000, 2_000) for i in range(200))


def test_coroutines_wait_for_room_and_for_items() -> None:
    async def main() -> list[int]:
        source: PushSource[int] = PushSource(1)

        async def fill() -> None:
            for item in range(5):
                await source.put_async(item)
            source.close()
            with pytest.raises(SourceClosed):
                await source.put_async(5)

        filling = asyncio.ensure_future(fill())
        items = [item async for item in source]
        await filling
        return items

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]


def test_who_is_cancelled_takes_nothing_along() -> None:
    async def main() -> None:
        source: PushSource[int] = PushSource(1)
        taking = asyncio.ensure_future(anext(source))
        await asyncio.sleep(0)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        # Cancelled at the very moment at which the item came: it goes back.
        taking = asyncio.ensure_future(anext(source))
        await asyncio.sleep(0)
        source.put(1)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert len(source) == 1
        putting = asyncio.ensure_future(source.put_async(2))
        await asyncio.sleep(0)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        source.close()
        assert [item async for item in source] == [1]

    asyncio.run(main())


def test_a_request_is_answered_once_or_taken_back() -> None:
    source: PushSource[str] = PushSource(2)
    answers: list[tuple[bool, str | None]] = []

    def receive(there: bool, item: str | None) -> None:
        answers.append((there, item))

    source.request(receive)
    source.put("a")
    assert answers == [(True, "a")]
    assert not source.cancel(receive)
    source.request(receive)
    assert source.cancel(receive)
    source.put("b")
    source.give_back("a")
    assert next(source) == "a"
    assert repr(source) == "<PushSource open, 1 of 2 items>"
    with source:
        pass
    assert list(source) == ["b"]
    source.request(receive)
    assert answers[1:] == [(False, None)]


def test_a_source_holds_something() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        PushSource(0)


def test_an_item_that_comes_while_the_pool_lets_go_of_the_source_goes_back() -> None:
    source: PushSource[int] = PushSource()
    posted: list[s.Event] = []
    puller = PushPuller(source, 1, posted.append)
    puller.pull()
    puller.stop()
    puller._receive(True, 7)  # another thread was about to
    assert posted == []
    assert next(source) == 7
