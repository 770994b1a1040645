"""A TCP proxy between agents or clients and a broker, for what can go wrong with one connection.

Rules of this file: one thread with its own event loop; nothing is lost unless it is asked for. What
is held back is not read either, so both ends see a connection that stands and says nothing.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Way = Literal["up", "down"]  # to the broker, and from it
_CHUNK = 65_536


class Proxy:
    """Listens on a port of loopback, and joins each connection to one of its own."""

    def __init__(self, target_port: int, seed: int = 0) -> None:
        self.delay_s = 0.0
        self.slice_bytes = 0
        """Forward so many bytes at a time; 0: all that is there."""
        self.bytes_per_s = 0
        self.accepts = True
        self.connections = 0
        self._target_port = target_port
        self._rng = random.Random(seed)
        self._held: set[Way] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    # --- For runs ---------------------------------------------------------------------------------

    @contextmanager
    def holding(self, *ways: Way) -> Iterator[None]:
        """Nothing passes these ways; it comes later."""
        self._call(self._held.update, ways)
        try:
            yield
        finally:
            self._call(self._held.difference_update, ways)

    def reset_all(self) -> None:
        """RST to both ends of every connection."""
        self._call(self._reset)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Every connection is reset, and so is each new one at once."""
        self.accepts = False
        self.reset_all()
        try:
            yield
        finally:
            self.accepts = True

    def close(self) -> None:
        self._call(self._reset)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    # --- The thread -------------------------------------------------------------------------------

    def _call(self, function: object, *arguments: object) -> None:
        done = threading.Event()

        def call() -> None:
            function(*arguments)  # type: ignore[operator]
            done.set()

        self._loop.call_soon_threadsafe(call)
        done.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, sock=self._listener)
        )
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._writers.add(writer)
        try:
            await self._join(reader, writer)
        except OSError:
            _reset(writer)  # the other end is not there: ours must not be, either
        except asyncio.CancelledError:
            return  # the proxy closes; asyncio would log it as an error
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.accepts:
            _reset(writer)
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers.add(far_writer)
        try:
            ways = [
                asyncio.ensure_future(self._pass(reader, far_writer, "up")),
                asyncio.ensure_future(self._pass(far_reader, writer, "down")),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._writers.discard(far_writer)
            _reset(far_writer)
            _reset(writer)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        while True:
            await self._wait_while_held(way)
            data = await reader.read(self.slice_bytes or _CHUNK)
            if not data:
                return
            await self._wait_while_held(way)
            if self.delay_s:
                await asyncio.sleep(self._rng.uniform(0, 2 * self.delay_s))
            if self.bytes_per_s:
                await asyncio.sleep(len(data) / self.bytes_per_s)
            writer.write(data)
            await writer.drain()

    async def _wait_while_held(self, way: Way) -> None:
        while way in self._held:
            await asyncio.sleep(0.005)

    def _reset(self) -> None:
        for writer in list(self._writers):
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    own = writer.get_extra_info("socket")
    if own is not None and own.fileno() >= 0:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
