"""What type checkers see of pools that are fed from sources, and of commands. Never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, assert_type

import evener
from evener_worker import (
    AsyncCommandWorker,
    AsyncItemPool,
    AsyncPoolWorker,
    CommandWorker,
    ItemPool,
    Outcome,
    PoolWorker,
    PushSource,
    WorkerPool,
)


class Length:
    """A worker of a user, which names no base class."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.active = False

    def init(self) -> None: ...

    def execute(self, item: str) -> int:
        return len(item)

    def destroy(self) -> None: ...


class AsyncLength:
    """The same, awaited."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.active = False

    async def init(self) -> None: ...

    async def execute(self, item: str) -> int:
        return len(item)

    async def destroy(self) -> None: ...


class Lengths(evener.Worker[str, int]):
    """And as a class that runs in a process of its own."""

    def run(self, item: str) -> int:
        return len(item)


def pools() -> None:
    pool = ItemPool(Length, 2)
    assert_type(pool, ItemPool[str, int])
    assert_type(pool.process(["a"]), Generator[Outcome[str, int], None, None])
    for outcome in pool.process(iter("ab"), ordered=True, ahead=3, timeout=1, retries=0):
        assert_type(outcome.item, str)
        assert_type(outcome.result(), int)
        assert_type(outcome.value, int | None)
        assert_type(outcome.error, BaseException | None)
    pool.process([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    pool.process("ab", odered=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ItemPool(AsyncLength)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def pools_of_processes(workers: WorkerPool[str, int]) -> None:
    pool = ItemPool(lambda number: workers[number + 1], 2)
    for outcome in pool.process(["a"]):
        assert_type(outcome.result(), int)


async def async_pools(words: AsyncIterator[str]) -> None:
    async with AsyncItemPool(AsyncLength, 2) as pool:
        assert_type(pool.process(words), AsyncGenerator[Outcome[str, int], None])
        async for outcome in pool.process(words):
            assert_type(outcome.result(), int)
        await pool.shutdown()


async def sources(source: PushSource[str]) -> None:
    source.put("a", timeout=1)
    source.put_nowait("a")
    await source.put_async("a")
    source.put(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(list(source), list[str])
    assert_type([item async for item in source], list[str])
    assert_type(ItemPool(Length).process(source), Generator[Outcome[str, int], None, None])


def commands() -> PoolWorker[Any, Any]:
    worker = CommandWorker(["cat"], id=1, env={"A": "b"})
    assert_type(worker.listen_for("kind", timeout=1), Iterator[Any])
    worker.listen_once(lambda message: message == 1)
    worker.listen_once(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return worker


async def async_commands() -> AsyncPoolWorker[Any, Any]:
    worker = AsyncCommandWorker(["cat"])
    async for _ in worker.listen_for("kind"):
        await worker.send({"kind": "x"})
    return worker
