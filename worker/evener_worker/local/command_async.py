"""Programs in any language as workers, over their pipes: the face whose callers await.

Rules of this file: the pipes are tended elsewhere (`command_link.py`); here coroutines wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any

from evener_worker.local.command import CommandBase
from evener_worker.local.command_errors import CommandEnded
from evener_worker.local.command_link import Link
from evener_worker.local.errors import PoolFull
from evener_worker.local.talk import Wanted, encode


class AsyncCommandWorker(CommandBase):
    """`CommandWorker` for callers that await. It may be used from one event loop at a time.

    Its thread starts the program and tends the pipes, so nothing here blocks the event loop.
    """

    async def init(self) -> None:
        """Start it and wait until it is ready. Raises `CommandStartError`, with its last output."""
        link = self._begin()
        ready = asyncio.wrap_future(link.ready)
        try:
            done, _ = await asyncio.wait({ready}, timeout=self._ready_timeout)
            if not done:
                raise self._not_ready(link)
            self._greeting = ready.result()
        except BaseException:
            ready.cancel()
            await self.destroy()
            raise

    async def execute(self, item: Any, /) -> Any:
        """Have it process an item; returns the value that it answers.

        Raises `RemoteError` for an error that it answers, and stays active then.
        """
        return await self.request(item)

    async def request(self, value: Any, timeout: float | None = None) -> Any:
        """`execute`, but raises `CommandTimeout` after `timeout` seconds. A late answer is dropped.

        Several tasks may do so at once; each gets its own answer.
        """
        link = self._started()
        number, future = link.ask(value)
        answer = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait({answer}, timeout=timeout)
            if not done:
                raise self._timed_out("did not answer", timeout)
            return answer.result()
        finally:
            link.abandon(number)
            answer.cancel()

    async def send(self, message: Any, timeout: float | None = None) -> None:
        """Send a message that needs no answer. Waits while it does not read what it was sent.

        Raises `PoolFull` after `timeout` seconds of that, `NotSendable` for what is no JSON.
        """
        link = self._started()
        line = encode(message, self._settings.line_bytes_max)
        with _Watch(link, timeout) as watch:
            while not link.try_send(line):
                if not await watch.wait():
                    raise PoolFull(f"{self.name} did not read for {timeout:g} s")

    async def listen_once(self, wanted: Wanted = None, timeout: float | None = None) -> Any:
        """The next message of a kind, or for which a function is true, or any.

        Messages that are not wanted stay for others who listen. Raises `CommandTimeout` after
        `timeout` seconds (None: never).
        """
        return await self._listen(self._started(), wanted, timeout)

    async def _listen(self, link: Link, wanted: Wanted, timeout: float | None) -> Any:
        seen = 0
        with _Watch(link, timeout) as watch:
            while True:
                seen, there, message = self._next(link, wanted, seen)
                if there:
                    return message
                if not await watch.wait():
                    raise self._timed_out("sent no such message", timeout)

    async def listen_for(
        self, wanted: Wanted = None, timeout: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """All messages of a kind, as they come, until it has left with exit code 0.

        `timeout` is for each of them. Raises what `listen_once` raises.
        """
        link = self._started()
        while True:
            try:
                message = await self._listen(link, wanted, timeout)
            except CommandEnded as ended:
                if ended.exit_code == 0:
                    return
                raise
            yield message

    async def destroy(self) -> None:
        """End it and what it started: SIGTERM, and SIGKILL after the grace. Waits for that."""
        if self._link is not None:
            self._link.terminate()
            await asyncio.wait({asyncio.wrap_future(self._link.ended)})

    async def __aenter__(self) -> AsyncCommandWorker:
        await self.init()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.destroy()


class _Watch:
    """Waits for changes at a link, for a time in all."""

    def __init__(self, link: Link, timeout: float | None) -> None:
        self._link = link
        self._until = None if timeout is None else time.monotonic() + timeout
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def __enter__(self) -> _Watch:
        self._link.watch(self._wake)
        return self

    def __exit__(self, *_: object) -> None:
        self._link.unwatch(self._wake)

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:
            return  # the loop is closed, and nobody waits

    async def wait(self) -> bool:
        """Until the next change; False when the time is over."""
        left = None if self._until is None else max(0.0, self._until - time.monotonic())
        try:
            await asyncio.wait_for(self._changed.wait(), left)
        except TimeoutError:
            return False
        self._changed.clear()
        return True
