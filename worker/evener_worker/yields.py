"""Values of generators that run side by side: how many may be on their way, and who counts them.

Each attempt that yields has a stream, and a window of its own in it. A stream is open; then its end
is told, which has a number as a value has; and it is over once its reader took all, or nobody wants
the task any more. What stops the task stops it wherever it waits here.

Owners: the generator's side, on the loop or in a thread, writes what was yielded; the loop alone
what was told to the agent and what was taken. Each number has one writer, so nothing is locked: who
reads one that is old waits for the bell once more. Rules of this file: the loop tells the agent,
in the order in which the generator gave.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from evener_wire.limits import STREAM_VALUES_MAX
from evener_wire.messages import Frames, Payload
from evener_worker.limits import SHARED_STREAM_BYTES_MAX

Tell = Callable[[int, bool, Payload], None]
"""Tells the agent a value, or the end: its number in the attempt, whether more come, and itself."""

Stopping = Callable[[], "int | None"]
"""How the task ends, if it was told to end."""


class Stream:
    """What the loop knows of the values of one attempt."""

    __slots__ = (
        "_sizes",
        "_stopping",
        "_taken_bytes",
        "_tell",
        "_yielded_bytes",
        "taken",
        "yielded",
    )

    def __init__(self, tell: Tell, stopping: Stopping) -> None:
        self._tell: Final = tell
        self._stopping: Final = stopping
        self.yielded = self._yielded_bytes = 0  # written by the generator's side
        self.taken = self._taken_bytes = 0  # written by the loop
        self._sizes: deque[int] = deque()  # by the loop, too: of what was told and is not taken

    # --- The loop ---------------------------------------------------------------------------------

    def told(self, more: bool, payload: Payload) -> None:
        """Tell the agent the next value, or that there is none."""
        index = self.taken + len(self._sizes)
        self._sizes.append(len(payload))
        self._tell(index, more, payload)

    def on_taken(self, upto: int) -> None:
        """Its reader has so many."""
        while self._sizes and self.taken < upto:
            self._taken_bytes += self._sizes.popleft()
            self.taken += 1
        self.ring()

    def ring(self) -> None:
        """Whoever waits shall look again."""
        raise NotImplementedError

    # --- The generator's side ---------------------------------------------------------------------

    def _is_full(self) -> bool:
        untaken_bytes = self._yielded_bytes - self._taken_bytes
        return (
            self.yielded - self.taken >= STREAM_VALUES_MAX
            or untaken_bytes >= SHARED_STREAM_BYTES_MAX
        )

    def _is_open(self) -> bool:
        """Whether somebody is still to take something, and wants it."""
        return self.yielded > self.taken and self._stopping() is None

    def _count(self, payload: Payload) -> None:
        self.yielded += 1
        self._yielded_bytes += len(payload)


class LoopStream(Stream):
    """Of an async generator. What it does, it does on the loop."""

    __slots__ = ("_bell",)

    def __init__(self, tell: Tell, stopping: Stopping) -> None:
        super().__init__(tell, stopping)
        self._bell: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """See `Stream`."""
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    async def _wait(self) -> None:
        self._bell = asyncio.get_running_loop().create_future()
        await self._bell

    async def value(self, payload: Payload) -> None:
        """See `evener.generators`. The others have their turn after each."""
        while self._is_full():
            await self._wait()
        self._count(payload)
        self.told(True, payload)
        await asyncio.sleep(0)

    async def end(self) -> None:
        """See `evener.generators`."""
        self._count(b"")
        self.told(False, b"")
        await self.drain()

    async def drain(self) -> None:
        """See `evener.generators`."""
        while self._is_open():
            await self._wait()


class ThreadStream(Stream):
    """Of a generator in a thread.

    It may be interrupted between any two steps. Then it is not used again but for `drain`, which
    returns at once as the task is to end; so a value that was counted and not told does no harm.
    """

    __slots__ = ("_bell", "_call")

    def __init__(self, tell: Tell, stopping: Stopping, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(tell, stopping)
        self._call: Final = loop.call_soon_threadsafe
        self._bell: Final = threading.Lock()  # free: it rang
        self._bell.acquire()

    def ring(self) -> None:
        """See `Stream`. Who interrupts its thread rings as well: a lock lets nothing through."""
        with suppress(RuntimeError):  # it rang before, and nobody waited
            self._bell.release()

    def begin(self) -> None:
        """See `evener.generators`."""

    def value(self, payload: Payload) -> None:
        """See `evener.generators`."""
        while self._is_full():
            self._bell.acquire()
        self._give(True, payload)

    def end(self) -> None:
        """See `evener.generators`."""
        self._give(False, b"")
        self.drain()

    def drain(self) -> None:
        """See `evener.generators`."""
        while self._is_open():
            self._bell.acquire()

    def _give(self, more: bool, payload: Payload) -> None:
        self._count(payload)
        self._call(self.told, more, _own(payload))


def _own(payload: Payload) -> Payload:
    """A value that stays as it is while its generator goes on, which may use its memory again."""
    if type(payload) is not Frames:
        return payload
    return Frames([it if type(it) is bytes else bytes(it) for it in payload.buffers])
