"""A pool that is fed from sources, with workers that are coroutines: callers that await."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from evener.errors import TaskTimeout, UsageError
from evener_worker import AsyncItemPool, PoolBroken, PoolClosed, PushSource


class Doubler:
    """A worker that awaits; an item "break" breaks it."""

    def __init__(self, number: int, work: Callable[[Any], Awaitable[Any]]) -> None:
        self.id = number
        self.active = False
        self.destroyed = False
        self._work = work

    async def init(self) -> None:
        self.active = True

    async def execute(self, item: Any) -> Any:
        if item == "break":
            self.active = False
            raise OSError("broken")
        return await self._work(item)

    async def destroy(self) -> None:
        self.active = False
        self.destroyed = True


async def double(item: Any) -> Any:
    await asyncio.sleep(0)
    return 2 * item


class Factory:
    """Makes workers, and remembers them."""

    def __init__(self, work: Callable[[Any], Awaitable[Any]] = double) -> None:
        self.made: list[Doubler] = []
        self._work = work

    def __call__(self, number: int) -> Doubler:
        worker = Doubler(number, self._work)
        self.made.append(worker)
        return worker


def generated() -> Iterator[int]:
    yield from range(20)


async def generated_later() -> AsyncIterator[int]:
    for number in range(20):
        await asyncio.sleep(0)
        yield number


def test_a_hundred_items_at_once() -> None:
    async def main() -> None:
        together = asyncio.Barrier(100)

        async def work(item: int) -> int:
            await together.wait()
            return 2 * item

        async with AsyncItemPool(Factory(work), 100) as pool:
            values = {o.item: o.result() async for o in pool.process(range(100))}
        assert values == {number: 2 * number for number in range(100)}

    asyncio.run(main())


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    "source",
    [lambda: list(range(20)), generated, generated_later],
)
def test_any_source(source: Callable[[], Any], ordered: bool) -> None:
    async def main() -> None:
        async with AsyncItemPool(Factory(), 3) as pool:
            for _ in range(2):
                values = [o.result() async for o in pool.process(source(), ordered=ordered)]
                assert values if ordered else sorted(values) == [2 * n for n in range(20)]

    asyncio.run(main())


def test_an_endless_async_source_and_its_early_end() -> None:
    pulled: list[int] = []
    closed: list[str] = []

    class Endless:
        """Not a generator itself, so that the pool makes the iterator, and closes it."""

        async def __aiter__(self) -> AsyncIterator[int]:
            try:
                for number in itertools.count():
                    pulled.append(number)
                    yield number
            finally:
                closed.append("closed")

    async def main() -> None:
        async with AsyncItemPool(Factory(), 2) as pool:
            results = pool.process(Endless(), ahead=1)
            for _ in range(10):
                await anext(results)
            await results.aclose()
            assert len(pulled) <= 13
            assert [o.item async for o in pool.process([1])] == [1]

    asyncio.run(main())
    assert closed == ["closed"]


def test_a_source_that_is_filled_by_a_thread_and_by_a_coroutine() -> None:
    async def main() -> None:
        source: PushSource[int] = PushSource(2)

        def fill() -> None:
            for number in range(50):
                source.put(number)

        async with AsyncItemPool(Factory(), 2) as pool:
            results = pool.process(source, ordered=True)
            filling = threading.Thread(target=fill)
            filling.start()
            assert [(await anext(results)).item for _ in range(50)] == list(range(50))
            filling.join()
            await source.put_async(50)
            assert (await anext(results)).result() == 100
            source.close()
            assert [o async for o in results] == []

    asyncio.run(main())


def test_errors_of_items_workers_and_sources() -> None:
    async def broken() -> AsyncIterator[Any]:
        for item in (1, "break", None):
            yield item
        raise LookupError("no more")

    async def main() -> None:
        factory = Factory()
        async with AsyncItemPool(factory, 2) as pool:
            outcomes: dict[Any, Any] = {}

            async def iterate() -> None:
                async for outcome in pool.process(broken(), retries=1):
                    outcomes[outcome.item] = outcome

            with pytest.raises(LookupError, match="no more"):
                await iterate()
            assert outcomes[1].result() == 2
            assert isinstance(outcomes["break"].error, OSError)
            assert outcomes["break"].tries == 2
            assert isinstance(outcomes[None].error, TypeError)
            assert outcomes[None].tries == 1
        assert all(worker.destroyed for worker in factory.made)
        assert len(factory.made) >= 3

    asyncio.run(main())


def test_a_timeout_cancels_what_runs() -> None:
    cancelled: list[int] = []

    async def work(item: int) -> int:
        try:
            await asyncio.sleep(60 if item == 1 else 0)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        return item

    async def main() -> None:
        async with AsyncItemPool(Factory(work), 1) as pool:
            outcomes = [o async for o in pool.process(range(3), timeout=0.05)]
        assert [outcome.item for outcome in outcomes if outcome.ok] == [0, 2]
        assert isinstance(outcomes[1].error, TaskTimeout)

    asyncio.run(main())
    assert cancelled == [1]


def test_cancelling_who_iterates_ends_what_runs() -> None:
    async def main() -> None:
        begun = asyncio.Event()
        ended: list[str] = []

        async def work(_: int) -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("ended")

        factory = Factory(work)

        async with AsyncItemPool(factory, 1) as pool:

            async def iterate() -> None:
                async for _ in pool.process([1]):
                    raise AssertionError

            iterating = asyncio.ensure_future(iterate())
            await begun.wait()
            iterating.cancel()
            with pytest.raises(asyncio.CancelledError):
                await iterating
            assert ended == ["ended"]
            assert factory.made[0].destroyed

    asyncio.run(main())


def test_shutdown_ends_who_iterates() -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def work(_: int) -> None:
            begun.set()
            await asyncio.sleep(60)

        pool = AsyncItemPool(Factory(work), 1)

        async def iterate() -> None:
            async for _ in pool.process([1]):
                raise AssertionError

        iterating = asyncio.ensure_future(iterate())
        await begun.wait()
        await pool.shutdown()
        with pytest.raises(PoolClosed):
            await iterating
        await pool.shutdown()
        with pytest.raises(PoolClosed):
            await anext(pool.process([1]))

    asyncio.run(main())


def test_workers_that_cannot_start() -> None:
    class Broken(Doubler):
        async def init(self) -> None:
            raise FileNotFoundError("no such model")

    async def main() -> None:
        async with AsyncItemPool(lambda number: Broken(number, double), 1) as pool:
            with pytest.raises(PoolBroken, match="no such model"):
                await anext(pool.process([1]))

    asyncio.run(main())


def test_one_source_at_a_time_in_one_loop() -> None:
    pool = AsyncItemPool(Factory(), 1)

    async def begin() -> None:
        results = pool.process([1, 2])
        await anext(results)
        with pytest.raises(UsageError, match="a source already"):
            await anext(pool.process([3]))
        await results.aclose()

    async def elsewhere() -> None:
        with pytest.raises(UsageError, match="another event loop"):
            await anext(pool.process([1]))

    asyncio.run(begin())
    asyncio.run(elsewhere())
