"""What type checkers see of the public face. Checked by mypy and basedpyright, never run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, assert_type

import evener
from evener import App, AsyncFunction, Function, Future
from evener_worker import (
    AsyncPoolWorker,
    AsyncWorkerHandle,
    AsyncWorkerPool,
    PoolEvents,
    PoolWorker,
    WorkerEvent,
    WorkerHandle,
    WorkerPool,
)

app = App("typed")


@app.task
def add(a: int, b: int = 2, *, scale: float = 1.0) -> float:
    return (a + b) * scale


@app.task(queue="slow", timeout="5m", retries=3, retry_on=(ValueError, "x.Y"), at_most_once=False)
def name(number: int) -> str:
    return str(number)


@app.on_worker_start
async def connect() -> int:
    return evener.current_worker().id


@app.on_shutdown
def leave() -> None:
    assert_type(evener.current_worker(), evener.WorkerInfo)


@app.task
async def fetch(address: str) -> bytes:
    return address.encode()


@app.task(timeout=1.5)
async def count(*parts: bytes) -> int:
    return len(parts)


root = app.task(math.sqrt, name="typed.root", priority=9)


def calls() -> None:
    assert_type(add(1, 2, scale=3), float)
    assert_type(name(1), str)
    assert_type(root(2.0), float)
    add("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    add(1, 2, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def awaits() -> None:
    assert_type(await fetch("x"), bytes)
    assert_type(await count(b"x"), int)
    assert_type(await fetch.options(retries=1)("x"), bytes)


def submits() -> None:
    assert_type(add.submit(1, scale=2), Future[float])
    assert_type(name.submit(1), Future[str])
    assert_type(fetch.submit("x"), Future[bytes])
    assert_type(count.submit(b"x"), Future[int])
    assert_type(fetch.submit("x").result(), bytes)
    add.submit("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    fetch.submit()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def maps() -> None:
    assert_type(name.map([1, 2]), Iterator[str])
    assert_type(fetch.map(["x"]), Iterator[bytes])


def options() -> None:
    assert_type(name.options(priority=9).submit(1), Future[str])
    assert_type(fetch.options(deadline=None).submit("x"), Future[bytes])
    name.options(priority="high")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    name.options(retrys=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def passes_on(plain: Function[[int], str], later: AsyncFunction[[str], bytes]) -> None:
    assert_type(plain(1), str)
    assert_type(later.submit("x"), Future[bytes])


def takes_both() -> None:
    passes_on(name, fetch)
    passes_on(fetch, fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def gathers(one: Future[int], other: Future[str], client: evener.Client) -> None:
    assert_type(evener.gather(one, one), list[int])
    assert_type(evener.gather([one, one], timeout=1), list[int])
    assert_type(client.gather([other]), list[str])


def later(client: evener.Client, old: Future[int]) -> None:
    assert_type(client.fetch("7f3a12bc7f3a12bc7f3a12bc7f3a12bc"), Future[Any])
    assert_type(client.fetch(old), Future[Any])
    assert_type(client.retry(old), Future[Any])
    assert_type(client.purge(state="lost", older_than="1h"), int)
    assert_type(client.show(old), dict[str, Any])
    assert_type(client.why(old), dict[str, Any])
    assert_type(client.status(), dict[str, Any])
    assert_type(client.durable, bool | None)
    client.fetch(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def submits_without_blocking(client: evener.Client) -> None:
    assert_type(await client.submit_async(name, 1), Future[Any])


def inside() -> None:
    assert_type(evener.cancelled(), bool)
    assert_type(evener.time_left(), float | None)
    evener.progress(1, 2.5, note="half")


def streams(future: Future[int]) -> None:
    for value in future.stream(timeout=1.5):
        assert_type(value, Any)


def progress(future: Future[int]) -> None:
    assert_type(future.progress(), evener.Progress | None)
    future.on_progress(lambda progress: assert_type(progress.fraction, float | None))


def errors(error: evener.TaskError) -> None:
    if isinstance(error, evener.RemoteError):
        assert_type(error.traceback, str)
    if isinstance(error, evener.TaskTimeout):
        assert_type(error.limit, str)
        assert_type(error.seconds, float)
    assert_type(evener.__version__, str)


# --- A pool inside a program ----------------------------------------------------------------------


class Measure(evener.Worker[str, int]):
    def start(self) -> None:
        self.unit = "characters"

    def run(self, item: str) -> int:
        return len(item)


class Fetch(evener.Worker[str, bytes]):
    async def start(self) -> None: ...

    async def run(self, item: str) -> bytes:
        return item.encode()

    async def on_message(self, message: Any) -> Any:
        return await self.request_async(message)


class Wrong(evener.Worker[str, int]):
    def run(self, item: str) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return item


def made(number: int) -> Measure:
    return Measure()


def pools(fetchers: WorkerPool[str, bytes]) -> None:
    pool = WorkerPool(Measure, 2)
    assert_type(pool, WorkerPool[str, int])
    assert_type(WorkerPool(made, 2), WorkerPool[str, int])
    assert_type(WorkerPool(Fetch, 2), WorkerPool[str, bytes])
    assert_type(pool.execute("x"), int)
    assert_type(pool.submit("x").result(), int)
    assert_type(pool.spawn_all(5.0), list[WorkerHandle[str, int]])
    assert_type(pool[1].execute("x", timeout=1), int)
    assert_type(fetchers[1].execute("x"), bytes)
    pool.execute(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    any_worker: PoolWorker[str, int] = pool[1]
    assert_type(any_worker.execute("x"), int)


async def async_pools() -> None:
    pool = AsyncWorkerPool(Fetch, 2)
    assert_type(await pool.execute("x"), bytes)
    assert_type(await pool[1].execute("x", timeout=1), bytes)
    assert_type(await pool.replace(1), AsyncWorkerHandle[str, bytes])
    any_worker: AsyncPoolWorker[str, bytes] = pool[1]
    assert_type(await any_worker.execute("x"), bytes)
    await pool.execute(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def pool_events(pool: WorkerPool[str, int], async_pool: AsyncWorkerPool[str, bytes]) -> None:
    def on_exit(event: WorkerEvent) -> None:
        assert_type(event.exit_code, int | None)

    PoolEvents(pool, exit=on_exit).start()
    PoolEvents(async_pool, message=lambda worker, message: None).stop()
