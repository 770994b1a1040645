"""Attempts side by side in one worker: async functions on its event loop, others in threads.

While there are some, the main thread runs an event loop that also reads what the agent sends: more
attempts, pings, interruptions. It is the loop of plain async functions and of hooks, so what those
made for it can be used here. It goes on when the last attempt ended, and ends when the agent sends
something for the plain loop, which has none of these at that moment.

Owners: the loop's thread owns every table here, reads and writes the socket, and alone ends an
attempt. A thread of the pool owns nothing but its attempt's run, and gives back what came of it.
Which attempt something belongs to is asked through a context variable, in both.

States of an attempt: started (it has its permit, and its lane says so), then over, once. In between
it may be flagged by the agent (its lane says so; it may ask), and interrupted by it: its asyncio
task is cancelled, or `Interrupted` raised into its thread. One that goes on nevertheless is ended
by the agent, together with this process.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from time import CLOCK_BOOTTIME, clock_gettime_ns
from typing import TYPE_CHECKING, Final

import msgpack

from evener import inside
from evener.execution import Executed, Execution, Interrupted
from evener_wire import messages as m
from evener_wire.limits import MILLISECOND_NS
from evener_worker import channel as c
from evener_worker import page as p
from evener_worker.marking import side_by_side, spill
from evener_worker.threads import Threads
from evener_worker.yields import LoopStream, Stream, ThreadStream

if TYPE_CHECKING:
    from evener_worker.attempts import Item
    from evener_worker.titles import Titles


class Beside:
    """One attempt that runs beside others; it answers what its function asks."""

    __slots__ = (
        "_cells",
        "aside",
        "interrupted",
        "item",
        "number",
        "over",
        "since_ns",
        "stream",
        "task",
        "told",
    )

    def __init__(self, number: int, cells: memoryview, item: Item) -> None:
        self.number: Final = number
        self.item: Final = item
        self._cells = cells
        self.since_ns = clock_gettime_ns(CLOCK_BOOTTIME)
        self.told = False  # it asked, and heard that it is to end
        self.interrupted = False
        self.over = False
        self.task: asyncio.Task[Executed] | None = None  # or it runs in a thread
        self.stream: Stream | None = None  # once it yields
        self.aside: dict[int, str] = {}  # what it wrote of a line that is not whole, by descriptor
        cells[p.STARTED_NS] = self.since_ns
        cells[p.STARTED] = number

    @property
    def outcome(self) -> int:
        """How it ends, if it ends because it was told to."""
        return self._cells[p.STOP_OUTCOME]

    def stopping(self) -> int | None:
        """The same, if it was."""
        return self.outcome if self._cells[p.STOP] == self.number else None

    def on_item(self, index: int) -> None:
        """An item of a chunk begins."""
        outcome = self.stopping()
        if outcome is not None:
            raise Interrupted(outcome)
        self._cells[p.STARTED_NS] = clock_gettime_ns(CLOCK_BOOTTIME)
        self._cells[p.ITEM] = index

    def is_stopping(self) -> bool:
        """See `evener.cancelled`."""
        if self._cells[p.STOP] != self.number:
            return False
        self.told = True
        return True

    def left_s(self) -> float | None:
        """See `evener.time_left`."""
        *_, timeout_ms, deadline_ns = self.item
        ends = [self._cells[p.STARTED_NS] + timeout_ms * MILLISECOND_NS] if timeout_ms else []
        if deadline_ns:
            ends.append(deadline_ns)
        if not ends:
            return None
        return max(0, min(ends) - clock_gettime_ns(CLOCK_BOOTTIME)) / 1e9

    def report(self, done: float, total: float | None, note: str) -> None:
        """See `evener.progress`. Threads that it left behind have nothing to say any more."""
        if not self.over:
            p.write_report(self._cells, p.Said(self.number, done, total, note))


current: Final[ContextVar[Beside | None]] = ContextVar("evener_attempt", default=None)
"""The attempt that this asyncio task or thread belongs to."""


class Sharing:
    """Caller: the loop of the worker process. What it lends: see `Runner`."""

    def __init__(
        self,
        fd: int,
        page: memoryview,
        permits_fd: int,
        execution: Execution,
        titles: Titles,
        read: Callable[[], list[c.Frame]],
        write: Callable[[c.Frame], None],
        waiting: deque[c.Frame],
    ) -> None:
        self._fd = fd
        self._page = page
        self._permits_fd = permits_fd
        self._execution = execution
        self._titles = titles
        self._read = read
        self._write = write
        self._waiting = waiting
        self._pid = os.getpid()
        self._running: dict[int, Beside] = {}
        self._loop = execution.loop()
        self._threads = Threads(execution, self._stream_in_thread, self._on_thread_over)
        self._left: asyncio.Future[None] | None = None
        side_by_side(_aside)

    # --- The loop ---------------------------------------------------------------------------------

    def serve(self, frame: c.Frame) -> None:
        """Run these and what follows, until the agent sends something for the plain loop."""
        before = inside.enter(self)
        self._left = left = self._loop.create_future()
        self._loop.add_reader(self._fd, self._on_readable)
        try:
            # What came with it stands there already, in order.
            frames = [frame, *self._waiting]
            self._waiting.clear()
            for came in frames:
                self._on_frame(came)
            self._leave_if_done()
            while not left.done():
                try:
                    self._loop.run_until_complete(left)
                except (SystemExit, KeyboardInterrupt):
                    if left.done():
                        raise
                    # Of a task that user code made on this loop: who awaits that task gets it too.
        finally:
            self._loop.remove_reader(self._fd)
            inside.enter(before)
            self._left = None

    def _on_readable(self) -> None:
        if os.getpid() != self._pid:
            os._exit(0)  # a child that user code forked and did not end
        try:
            for frame in self._read():
                self._on_frame(frame)
        except Exception as error:  # of this process, not of a task: it cannot go on
            self._fail(error)
        self._leave_if_done()

    def _on_frame(self, frame: c.Frame) -> None:
        if frame.kind == c.PING:
            self._write(c.Frame(c.PONG, frame.sequence))
        elif frame.kind == c.INTERRUPT:
            self._interrupt(frame.sequence)
        elif frame.kind == c.VALUES_TAKEN:
            self._on_taken(frame)
        elif frame.kind == c.SHARE and not self._waiting:
            self._take(frame)
        else:
            self._waiting.append(frame)

    def _leave_if_done(self) -> None:
        left = self._left
        if self._waiting and not self._running and left is not None and not left.done():
            left.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if self._left is not None and not self._left.done():
            self._left.set_exception(error)

    # --- Attempts ---------------------------------------------------------------------------------

    def _take(self, frame: c.Frame) -> None:
        items = msgpack.unpackb(frame.body, use_list=False)
        taken = 0
        last = frame.sequence + len(items) - 1
        for number, (lane, *item) in enumerate(items, frame.sequence):
            payload = item[3]
            if type(payload) is int:
                taken, count = taken + payload, payload
                item[3] = m.Frames(frame.buffers[taken - count : taken])
            try:
                os.eventfd_read(self._permits_fd)
            except BlockingIOError:
                self._write(c.Frame(c.DROPPED, sequence=last))
                return
            self._begin(Beside(number, p.lane(self._page, lane), tuple(item)))

    def _begin(self, attempt: Beside) -> None:
        function = attempt.item[2]
        if not self._running:
            self._titles.running(function)
        self._running[attempt.number] = attempt
        if self._execution.is_async(function):
            task = attempt.task = self._loop.create_task(self._run(attempt))
            task.add_done_callback(lambda done: self._on_task_over(attempt, done))
            return
        try:
            self._threads.start(attempt)
        except RuntimeError as error:  # the system has no thread left
            self._end(attempt, self._execution.failed(error))

    async def _run(self, attempt: Beside) -> Executed:
        current.set(attempt)
        _, _, function, payload, _, _ = attempt.item
        executed = await self._execution.run_beside(
            function,
            payload,
            attempt.on_item,
            attempt.stopping,
            partial(self._stream_on_loop, attempt),
        )
        spill(attempt.aside)
        return executed

    def _on_task_over(self, attempt: Beside, task: asyncio.Task[Executed]) -> None:
        if not task.cancelled():
            error = task.exception()
            if error is None:
                self._end(attempt, task.result())
            else:
                self._fail(error)
        elif attempt.interrupted:  # before its first step
            self._end(attempt, Executed(attempt.outcome, b"", 0, None))
        else:
            why = RuntimeError("something in its worker cancelled it before it began")
            self._end(attempt, self._execution.failed(why))

    def _on_thread_over(self, attempt: Beside, executed: Executed) -> None:
        """In the thread that ran it: the rest is done on the loop."""
        if os.getpid() != self._pid:
            os._exit(0)
        self._loop.call_soon_threadsafe(self._end, attempt, executed)

    def _interrupt(self, number: int) -> None:
        attempt = self._running.get(number)
        if attempt is None or attempt.interrupted:
            return  # its result is on its way
        attempt.interrupted = True
        if attempt.task is not None:
            attempt.task.cancel()
        else:
            self._threads.interrupt(attempt)

    def _end(self, attempt: Beside, executed: Executed) -> None:
        try:
            self._tell_end(attempt, executed)
        except Exception as error:
            self._fail(error)

    def _tell_end(self, attempt: Beside, executed: Executed) -> None:
        if os.getpid() != self._pid:
            os._exit(0)  # a child that user code forked and did not end
        attempt.over = True
        attempt.stream = None  # it holds the attempt, and so the attempt itself
        if attempt.task is None:
            self._threads.ended(attempt)
        if attempt.told:  # it stopped because it was told to, whatever it returned
            executed = Executed(attempt.outcome, b"", executed.run_ns, None)
        task_id, fence, function, *_ = attempt.item
        outcome, result, run_ns, facts = executed
        run_us = run_ns // 1_000
        body, buffers = c.pack_items((task_id, fence, outcome, result, run_us, facts))
        short_us = min(run_us, c.RUN_US_MAX)
        del self._running[attempt.number]
        if not self._running:
            self._titles.ended(function, run_ns)
        self._write(c.Frame(c.RESULT, attempt.number, outcome, short_us, body, buffers))
        self._leave_if_done()

    # --- Generators -------------------------------------------------------------------------------

    def _stream_on_loop(self, attempt: Beside) -> LoopStream:
        attempt.stream = stream = LoopStream(partial(self._yield, attempt), attempt.stopping)
        return stream

    def _stream_in_thread(self, attempt: Beside) -> ThreadStream:
        tell = partial(self._yield, attempt)
        attempt.stream = stream = ThreadStream(tell, attempt.stopping, self._loop)
        return stream

    def _yield(self, attempt: Beside, index: int, more: bool, payload: m.Payload) -> None:
        if os.getpid() != self._pid:
            os._exit(0)  # a child that user code forked and did not end
        try:
            body, buffers = c.pack_items([index, more, payload])
            self._write(c.Frame(c.YIELDED, attempt.number, body=body, buffers=buffers))
        except Exception as error:
            self._fail(error)

    def _on_taken(self, frame: c.Frame) -> None:
        attempt = self._running.get(frame.sequence)
        if attempt is not None and attempt.stream is not None:  # or it has ended meanwhile
            attempt.stream.on_taken(msgpack.unpackb(frame.body))

    # --- What a task asks -------------------------------------------------------------------------

    def is_stopping(self) -> bool:
        """See `evener.cancelled`."""
        attempt = current.get()
        return attempt is not None and attempt.is_stopping()

    def left_s(self) -> float | None:
        """See `evener.time_left`."""
        attempt = current.get()
        return None if attempt is None else attempt.left_s()

    def report(self, done: float, total: float | None, note: str) -> None:
        """See `evener.progress`."""
        attempt = current.get()
        if attempt is not None:
            attempt.report(done, total, note)


def _aside() -> dict[int, str] | None:
    """For what it wrote of a line that is not whole."""
    attempt = current.get()
    return None if attempt is None or attempt.over else attempt.aside


def running_task() -> bytes | None:
    """The id of the task that what runs here belongs to."""
    attempt = current.get()
    return None if attempt is None or attempt.over else attempt.item[0]
