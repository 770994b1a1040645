"""Programs as workers, over their pipes, for callers that await."""

from __future__ import annotations

import asyncio
import sys

import pytest

from evener.errors import RemoteError
from evener_worker import (
    AsyncCommandWorker,
    AsyncItemPool,
    CommandEnded,
    CommandStartError,
    CommandTimeout,
    PoolFull,
)
from tests.support import is_running

READY = """echo '{"kind":"ready"}'; """


def python(script: str, number: int | str = 0) -> AsyncCommandWorker:
    """A program in Python that has `child`."""
    code = "from evener_worker import child\n" + script
    return AsyncCommandWorker([sys.executable, "-c", code], id=number)


def test_a_pool_of_programs() -> None:
    async def main() -> None:
        async with AsyncItemPool(lambda n: python("child.serve(lambda n: 6 // n)", n), 2) as pool:
            outcomes = {o.item: o async for o in pool.process(range(4))}
        assert [outcomes[number].result() for number in (1, 2, 3)] == [6, 3, 2]
        assert isinstance(outcomes[0].error, RemoteError)

    asyncio.run(main())


def test_its_life() -> None:
    script = """
child.ready(version=1)
for message in child.listen():
    if message == "go":
        for n in range(3):
            child.send({"kind": "n", "n": n})
        child.send("other")
    elif message == "leave":
        child.leave()
    elif message["value"] == "answer":
        child.answer(message, 42)
"""

    async def main() -> None:
        async with python(script) as worker:
            assert worker.greeting["version"] == 1
            assert await worker.execute("answer") == 42
            with pytest.raises(CommandTimeout, match="did not answer"):
                await worker.request("nothing", timeout=0.01)
            listening = asyncio.ensure_future(worker.listen_once("n", timeout=60))
            await asyncio.sleep(0)
            await worker.send("go")
            assert (await listening)["n"] == 0
            assert await worker.listen_once(lambda message: message == "other", timeout=60)
            with pytest.raises(CommandTimeout, match="sent no such message"):
                await worker.listen_once("nothing", timeout=0.01)
            await worker.send("leave")
            assert [message["n"] async for message in worker.listen_for("n", timeout=60)] == [1, 2]
            with pytest.raises(CommandEnded, match="exit code 0"):
                await worker.execute("answer")

    asyncio.run(main())


def test_who_is_cancelled_leaves_the_program_as_it_is() -> None:
    async def main() -> None:
        script = """
child.ready()
first, second = (next(child.listen()) for _ in range(2))
child.answer(first, 1)
child.answer(second, 2)
"""
        async with python(script) as worker:
            first = asyncio.ensure_future(worker.execute("first"))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert await worker.execute("second") == 2

    asyncio.run(main())


def test_starts_that_fail_and_starts_that_are_given_up() -> None:
    async def main() -> None:
        with pytest.raises(CommandStartError, match="exit code 1"):
            await AsyncCommandWorker(["false"]).init()
        slow = AsyncCommandWorker(["sleep", "300"], ready_timeout=0.05)
        with pytest.raises(CommandStartError, match=r"not say that it is ready within 0\.05 s"):
            await slow.init()
        assert not is_running(slow.pid)
        given_up = AsyncCommandWorker(["sleep", "300"])
        starting = asyncio.ensure_future(given_up.init())
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not is_running(given_up.pid)

    asyncio.run(main())


def test_one_that_does_not_read_holds_up_who_sends() -> None:
    async def main() -> None:
        async with AsyncCommandWorker(["sh", "-c", READY + "sleep 60"]) as worker:

            async def send_all() -> None:
                for _ in range(100):
                    await worker.send("x" * 1_000_000, timeout=0.01)

            with pytest.raises(PoolFull, match="did not read"):
                await send_all()

    asyncio.run(main())
