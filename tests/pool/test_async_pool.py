"""`AsyncWorkerPool` with real processes, and workers with async methods."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from evener_worker import (
    AsyncWorkerHandle,
    AsyncWorkerPool,
    PoolClosed,
    PoolError,
    PoolEvents,
    PoolFull,
    RequestTimeout,
    WorkerDied,
    WorkerEvent,
    WorkerPool,
    WorkerStartError,
)
from tests.pool.workers import Jack, Rude, Sleeper


async def _answer(handle: AsyncWorkerHandle[Any, Any], message: Any) -> Any:
    await asyncio.sleep(0)
    return [handle.id, message]


def test_hundred_items_and_requests_at_once() -> None:
    async def main() -> None:
        async with AsyncWorkerPool(Sleeper, 2, on_request=_answer) as pool:
            items = [0.05 + number / 10_000 for number in range(100)]
            assert await asyncio.gather(*map(pool.execute, items)) == items
            asked = [pool[number % 2 + 1].request(number) for number in range(100)]
            answers = await asyncio.gather(*asked)
            assert answers == [[number % 2 + 1, number] for number in range(100)]
            counts = [await handle.request("counts") for handle in pool]
            assert sum(most for most, _, _ in counts) > 20  # they ran side by side
            assert [now for _, now, _ in counts] == [0, 0]

    asyncio.run(main())


def test_cancelling_and_timeouts_reach_the_worker() -> None:
    async def main() -> None:
        async with AsyncWorkerPool(Sleeper, 1) as pool:
            with pytest.raises(RequestTimeout):
                await pool[1].execute(60, timeout=0.05)
            task = asyncio.create_task(pool.execute(60))
            while (await pool[1].request("counts"))[1] == 0:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while (await pool[1].request("counts"))[1]:
                await asyncio.sleep(0)
            assert (await pool[1].request("counts"))[2] == 2

    asyncio.run(main())


def test_plain_methods_restart_replace_and_kill() -> None:
    async def main() -> None:
        async with AsyncWorkerPool(Jack, 2, on_request=_answer) as pool:
            handle = pool[1]
            assert await handle.request("hello") == ["heard", "hello"]
            await handle.send("bye")
            assert await handle.execute(["tell", "heard"]) == ["start", "hello", "bye"]
            assert await handle.execute(["ask", "who"]) == [1, "who"]
            pids = [handle.pid]
            await handle.restart()
            pids.append(handle.pid)
            assert (await pool.replace(1)).pid not in pids
            with pytest.raises(WorkerDied, match="exit code 5"):
                await handle.execute(["leave", 5])
            await handle.init()
            await handle.kill()
            await handle.destroy()
            with pytest.raises(PoolError, match="worker 1 is stopped"):
                await handle.request("hello")
            assert await pool.execute(["echo", 1]) == 1
        with pytest.raises(PoolClosed):
            await pool.execute(["echo", 1])

    asyncio.run(main())


def test_who_does_not_wait_for_room_is_told(gate: Path) -> None:
    async def main() -> None:
        async with AsyncWorkerPool(Jack, 1, calls_max=1) as pool:
            busy = asyncio.create_task(pool[1].execute(["wait_for", gate]))
            await asyncio.sleep(0)
            with pytest.raises(PoolFull):
                await pool[1].send("now", timeout=0)
            sending = asyncio.create_task(pool[1].send("later"))
            await asyncio.sleep(0)
            gate.touch()
            await sending
            assert await busy is None

    asyncio.run(main())


def test_a_start_that_fails_leaves_nothing() -> None:
    async def main() -> None:
        pool = AsyncWorkerPool(Rude, 1, environment={"HOW": "raise"})
        with pytest.raises(WorkerStartError, match="no database"):
            await pool.spawn_all()

    asyncio.run(main())


def test_a_loop_that_ends_before_its_pool() -> None:
    async def start() -> AsyncWorkerPool[Any, Any]:
        pool = AsyncWorkerPool(Jack, 1)
        await pool.spawn_all()
        return pool

    asyncio.run(start()).close_now()


# --- Events ---------------------------------------------------------------------------------------


def test_events_come_in_order_and_before_messages() -> None:
    seen: list[Any] = []

    def on_message(handle: Any, message: Any) -> None:
        seen.append((handle.id, message))

    def on_event(event: WorkerEvent) -> None:
        seen.append(event.kind)

    handlers = dict.fromkeys(("spawning", "online", "killing", "exit"), on_event)
    pool = WorkerPool(Jack, 1)
    events = PoolEvents(pool, **handlers, message=on_message)
    events.start()
    with pool:
        pool.execute(["say", [1, 2]])
        with pytest.raises(WorkerDied):
            pool.execute(["leave", 3])
        pool.execute(["say", [3]])
    started = ["spawning", "online"]
    assert seen == [*started, (1, 1), (1, 2), "exit", *started, (1, 3), "killing", "exit"]


def test_an_exit_tells_how(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[WorkerEvent] = []
    with WorkerPool(Jack, 1) as pool:
        with PoolEvents(pool, exit=lambda _: 1 / 0), PoolEvents(pool, exit=seen.append):
            pid = pool[1].pid
            with pytest.raises(WorkerDied):
                pool.execute(["leave", 3])
            pool[1].kill()
            pool[1].restart()
        pool[1].restart()  # nobody listens any more
    assert [(e.worker, e.exit_code, e.signal) for e in seen] == [(1, 3, None), (1, None, 9)]
    assert seen[0].pid == pid
    assert seen[0].reason == "ended with exit code 3"
    assert seen[0].lines == ("leaving with 3",)
    assert "a handler for exit of a pool raised" in caplog.text


def test_async_handlers() -> None:
    async def main() -> None:
        seen: list[Any] = []

        async def on_message(handle: Any, message: Any) -> None:
            await asyncio.sleep(0)
            seen.append(message)

        pool = AsyncWorkerPool(Jack, 1)
        with PoolEvents(pool, online=lambda event: seen.append(event.worker), message=on_message):
            async with pool:
                await pool.execute(["say", [*range(50)]])
        assert seen == [1, *range(50)]

    asyncio.run(main())


def test_a_worker_that_says_more_than_is_heard_waits() -> None:
    heard: list[int] = []
    with WorkerPool(Jack, 1, calls_max=5) as pool:
        with PoolEvents(pool, message=lambda handle, message: heard.append(message)):
            pool.execute(["say", [*range(500)]])
        pool.execute(["say", [*range(20)]])  # to nobody: it must not wait for ever
    assert heard[:495] == [*range(495)]
