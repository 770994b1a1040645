"""The worker's end of the connection to its program: frames in and out, calls of its own.

Rules of this file: any thread may write; one thread reads. When the program is gone, so is this
process, with what it started.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn

from evener_wire.messages import Buffer, Payload
from evener_worker import channel as c
from evener_worker.local.calls import Room, frame_of, payload_of
from evener_worker.local.errors import PoolFull, RequestTimeout
from evener_worker.local.letters import encode, value_of

_READ_BYTES: Final = 256 * 1_024
_NUMBER_MAX: Final = (1 << 32) - 1

Told = Callable[[int, Payload], None]


class Connection:
    """What `Worker.send` and `Worker.request` speak to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._reader = c.FrameReader()
        self._write_lock = threading.Lock()
        self._changed = threading.Condition()
        self._room = Room(1, 1)
        self._open: dict[int, tuple[int, Told | None]] = {}
        self._last = 0
        self._waiting: set[int] = set()  # calls that were read and not yet begun
        self._dropped: set[int] = set()
        self._current = 0  # the call that a plain method works on
        self._early: list[c.Frame] = []
        self.deliver: Callable[[c.Frame], object] = self._early.append
        self.drop: Callable[[int], object] = self.note_dropped

    # --- Reading ----------------------------------------------------------------------------------

    def setup(self) -> c.Frame:
        """The first frame."""
        while True:
            frames = self._read()
            if frames:
                assert len(frames) == 1
                assert frames[0].kind == c.SETUP
                return frames[0]

    def begin(self, calls_max: int, bytes_max: int) -> None:
        """From here on a thread reads."""
        self._room = Room(calls_max, bytes_max)
        threading.Thread(target=self._listen, name="evener-connection", daemon=True).start()

    def _listen(self) -> None:
        while True:
            for frame in self._read():
                if frame.kind in (c.REPLY, c.TAKEN):
                    self._end(frame.sequence, frame.outcome, payload_of(frame))
                elif frame.kind == c.DROP:
                    self.drop(frame.sequence)
                else:
                    self._waiting.add(frame.sequence)
                    self.deliver(frame)

    def _read(self) -> list[c.Frame]:
        try:
            target = self._reader.target()
            if target is None:
                data = os.read(self._fd, _READ_BYTES)
                if data:
                    return self._reader.feed(data)
                _die()
            count = os.readv(self._fd, [target])
        except OSError:  # their code closed what is not its own
            _die()
        if not count:
            _die()
        frame = self._reader.filled(count)
        return [] if frame is None else [frame]

    def note_dropped(self, number: int) -> None:
        """Nobody waits for this call any more; of interest if it has not ended."""
        if number in self._waiting or number == self._current:
            self._dropped.add(number)

    def enter(self, number: int) -> None:
        """A plain method begins with a call, or with 0 has ended."""
        ended, self._current = self._current, number
        self._dropped.discard(ended)

    def is_given_up(self) -> bool:
        """Whether nobody waits for the call that a plain method works on."""
        return self._current in self._dropped

    def is_dropped(self, number: int) -> bool:
        """Whether nobody waits for a call that is about to begin."""
        self._waiting.discard(number)
        if number not in self._dropped:
            return False
        self._dropped.discard(number)
        return True

    # --- Writing ----------------------------------------------------------------------------------

    def write(self, frame: c.Frame) -> None:
        """Write a frame; waits while the program does not read."""
        with self._write_lock:
            for part in (c.head_of(frame), *frame.buffers):
                self._write_all(part)

    def _write_all(self, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(self._fd, view) :]

    # --- Calls of the worker ----------------------------------------------------------------------

    def send(self, message: Any, timeout: float | None) -> None:
        """See `Worker.send`."""
        payload = encode(message, "a message to the program")
        self.write(frame_of(c.MESSAGE, self._enter(payload, timeout, None), payload))

    def request(self, message: Any, timeout: float | None) -> Any:
        """See `Worker.request`."""
        payload = encode(message, "a request to the program")
        done = threading.Event()
        answer: list[tuple[int, Payload]] = []

        def told(outcome: int, payload: Payload) -> None:
            answer.append((outcome, payload))
            done.set()

        number = self._enter(payload, timeout, told)
        self.write(frame_of(c.REQUEST, number, payload))
        if not done.wait(timeout):
            self._forget(number)
            raise RequestTimeout("the request to the program", timeout or 0.0)
        return value_of(*answer[0])

    async def request_async(self, message: Any, timeout: float | None) -> Any:
        """See `Worker.request_async`."""
        import asyncio

        payload = encode(message, "a request to the program")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[int, Payload]] = loop.create_future()

        def resolve(outcome: int, payload: Payload) -> None:
            if not future.done():
                future.set_result((outcome, payload))

        def told(outcome: int, payload: Payload) -> None:
            loop.call_soon_threadsafe(resolve, outcome, payload)

        try:
            number = self._enter(payload, 0.0, told)
        except PoolFull:  # wait for room where it holds up nobody
            number = await asyncio.to_thread(self._enter, payload, timeout, told)
        self.write(frame_of(c.REQUEST, number, payload))
        try:
            async with asyncio.timeout(timeout):
                outcome, answer = await future
        except TimeoutError:
            raise RequestTimeout("the request to the program", timeout or 0.0) from None
        finally:
            self._forget(number)
        return value_of(outcome, answer)

    def _enter(self, payload: Payload, timeout: float | None, told: Told | None) -> int:
        nbytes = len(payload) if isinstance(payload, bytes) else payload.nbytes
        with self._changed:
            if not self._changed.wait_for(lambda: self._room.fits(nbytes), timeout):
                text = f"{self._room.count:,} messages are not yet handled by the program"
                raise PoolFull(f"no room for a message: {text}")
            self._room.take(nbytes)
            self._last = self._last % _NUMBER_MAX + 1
            self._open[self._last] = (nbytes, told)
            return self._last

    def _forget(self, number: int) -> None:
        """Nobody waits for it any more; it takes its room until the program is done with it."""
        with self._changed:
            if number in self._open:
                self._open[number] = (self._open[number][0], None)

    def _end(self, number: int, outcome: int, payload: Payload) -> None:
        with self._changed:
            nbytes, told = self._open.pop(number)
            self._room.give_back(nbytes)
            self._changed.notify_all()
        if told is not None:
            told(outcome, payload)


def _die() -> NoReturn:
    """The program is gone: nobody waits for anything."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)
