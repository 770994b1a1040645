"""The loop of the worker process: read a batch, take a permit, run, write the result.

Rules of this file: between two tasks it does as little as possible; everything it does per task is
counted in microseconds. All failures of user code end in `Execution.run`; an error that reaches
this loop is of the process itself, and ends it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from time import CLOCK_BOOTTIME, clock_gettime_ns
from types import FrameType
from typing import TYPE_CHECKING, Final

import msgpack

from evener import inside
from evener.errors import LoadError
from evener.execution import Executed, Execution, Interrupted, Place
from evener.hooks import Hook, HookFailed, run_starts, run_stops
from evener.loading import load_app
from evener_wire import messages as m
from evener_wire.limits import MILLISECOND_NS
from evener_worker import channel as c
from evener_worker import page as p
from evener_worker.marking import Scope
from evener_worker.outlet import Outlet
from evener_worker.reloading import TELL_VARIABLE, files_here
from evener_worker.titles import LONG_NS, Titles

if TYPE_CHECKING:
    from evener_worker.attempts import Item
    from evener_worker.sharing import Sharing

_READ_BYTES: Final = 256 * 1_024


class Runner:
    """Caller: `runner.main`, once."""

    def __init__(
        self, socket_fd: int, page_fd: int, permits_fd: int, *, trusted: bool, worker: str
    ) -> None:
        self._fd = socket_fd
        self._permits_fd = permits_fd
        self._page = p.map_page(page_fd)
        os.close(page_fd)
        self._trusted = trusted
        self._worker = worker
        self._titles = Titles(worker)
        self.scope = Scope()
        self._reader = c.FrameReader()
        self._pid = os.getpid()
        self._execution: Execution | None = None
        self._stops: list[Hook] = []
        # Number of the attempt whose function runs: the only thing that may be interrupted.
        self._running = 0
        # What it was handed as, and the number of the attempt that asked and heard that it is over.
        self._item: Item | None = None
        self._told = 0
        self._reporting = threading.RLock()
        self._sharing: Sharing | None = None
        self._running_beside: Callable[[], bytes | None] | None = None
        self._outlet = Outlet(socket_fd, self._page, self._read, self._write)
        signal.signal(signal.SIGTERM, self._on_terminate)
        # Ctrl-C is the agent's business. A handler, not SIG_IGN, which programs would inherit.
        signal.signal(signal.SIGINT, _ignore)

    # --- Start ------------------------------------------------------------------------------------

    def load(self, target: str) -> bool:
        """Import the app, run its start hooks and say ready, or say why not."""
        try:
            app = load_app(target)
        except LoadError as error:
            self._tell_files(error.traceback)
            self._write(c.Frame(c.FAILED_START, body=msgpack.packb(error_text(error))))
            return False
        place = Place(os.uname().nodename, self._pid, self._worker)
        self._execution = Execution(app.callables(), trusted=self._trusted, place=place)
        self._stops = app.worker_stops
        try:
            run_starts("on_worker_start", app.worker_starts, self._execution.complete)
        except HookFailed as failed:
            self._tell_files(failed.traceback)
            self._write(c.Frame(c.FAILED_START, body=msgpack.packb(error_text(failed))))
            return False
        inside.enter(self)
        self._execution.outlet = self._outlet
        graces, shares = app.graces(), app.shares()
        functions = [
            (name, options and tuple(options), graces.get(name), shares.get(name))
            for name, options in app.offered()
        ]
        offered = functions, [tuple(schedule) for schedule in app.schedules()]
        # What is loaded now stays: the collector need not look at it again.
        gc.freeze()
        self._tell_files("")
        self._write(c.Frame(c.READY, body=msgpack.packb(offered)))
        return True

    def _tell_files(self, trace: str) -> None:
        if os.environ.get(TELL_VARIABLE):
            self._write(c.Frame(c.FILES, body=msgpack.packb(files_here(trace))))

    # --- Signals ----------------------------------------------------------------------------------

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        # Other senders than the agent (a service manager that signals everybody) change nothing:
        # the agent drains, and ends its workers when they are done.
        page = self._page
        if self._running and page[p.STOP] == self._running:
            if self._outlet.busy:
                self._outlet.missed = True
                return
            self._running = 0
            raise Interrupted(page[p.STOP_OUTCOME])

    # --- The loop ---------------------------------------------------------------------------------

    def serve(self) -> None:
        """Until the agent says LEAVE or is gone."""
        assert self._execution is not None
        frames = self._outlet.waiting
        while True:
            if not frames:
                frames.extend(self._read())
                continue
            frame = frames.popleft()
            if frame.kind == c.RUN:
                self._run_batch(frame)
            elif frame.kind == c.PING:
                self._write(c.Frame(c.PONG, frame.sequence))
            elif frame.kind == c.SHARE:
                self._share(frame)
            elif frame.kind == c.LEAVE:
                run_stops("on_worker_stop", self._stops, self._execution.complete, _tell)
                self._execution.close()
                return

    def _run_batch(self, frame: c.Frame) -> None:
        assert self._execution is not None
        items = msgpack.unpackb(frame.body, use_list=False)
        run = self._execution.run
        page = self._page
        permits_fd = self._permits_fd
        eventfd_read = os.eventfd_read
        pack = msgpack.Packer(autoreset=True).pack
        titles = self._titles
        is_long = titles.is_long
        taken = 0
        sequence = frame.sequence - 1
        last = sequence + len(items)
        forward = frame.outcome
        for item in items:
            task_id, fence, function, payload, _, _ = self._item = item
            sequence += 1
            if type(payload) is int:
                taken, count = taken + payload, payload
                payload = m.Frames(frame.buffers[taken - count : taken])
            try:
                eventfd_read(permits_fd)
            except BlockingIOError:
                self._write(c.Frame(c.DROPPED, sequence=last))
                return
            page[p.STARTED_NS] = clock_gettime_ns(CLOCK_BOOTTIME)
            page[p.STARTED] = sequence
            shown = is_long.get(function, True)
            if shown:
                titles.running(function)
            if forward:
                self.scope.begin(task_id)
            try:
                self._running = sequence
                executed = run(function, payload, self._on_item)
                self._running = 0
            except Interrupted as interrupted:  # it came a moment before or after the function
                executed = Executed(interrupted.outcome, b"", 0, None)
            if self._told == sequence:  # it stopped because it was told to, whatever it returned
                executed = Executed(page[p.STOP_OUTCOME], b"", executed.run_ns, None)
            if os.getpid() != self._pid:
                os._exit(0)  # a child that user code forked and did not end
            if forward:
                self.scope.end()
            outcome, result, run_ns, facts = executed
            if shown or run_ns > LONG_NS:
                titles.ended(function, run_ns)
            run_us = run_ns // 1_000
            if type(result) is bytes:
                body = pack((task_id, fence, outcome, result, run_us, facts))
                short_us = run_us if run_us < c.RUN_US_MAX else c.RUN_US_MAX
                data = c.result_head(sequence, outcome, short_us, body)
                written = os.write(self._fd, data)
                if written != len(data):
                    self._write_all(data[written:])
            else:
                body, buffers = c.pack_items((task_id, fence, outcome, result, run_us, facts))
                self._write(
                    c.Frame(c.RESULT, sequence, outcome, min(run_us, c.RUN_US_MAX), body, buffers)
                )

    def _share(self, frame: c.Frame) -> None:
        assert self._execution is not None
        if self._sharing is None:
            from evener_worker import sharing  # here: it imports asyncio, which few workers need

            self._sharing = sharing.Sharing(
                self._fd,
                self._page,
                self._permits_fd,
                self._execution,
                self._titles,
                self._read,
                self._write,
                self._outlet.waiting,
            )
            self._running_beside = sharing.running_task
        self._sharing.serve(frame)

    def _on_item(self, index: int) -> None:
        page = self._page
        if page[p.STOP] == page[p.STARTED]:
            raise Interrupted(page[p.STOP_OUTCOME])
        page[p.STARTED_NS] = clock_gettime_ns(CLOCK_BOOTTIME)
        page[p.ITEM] = index

    # --- What a task asks -------------------------------------------------------------------------

    def is_stopping(self) -> bool:
        """Whether the agent wants the attempt that started last to end. See `evener.cancelled`."""
        page = self._page
        started = page[p.STARTED]
        if not started or page[p.STOP] != started:
            return False
        self._told = started
        return True

    def left_s(self) -> float | None:
        """Until the agent will want that. See `evener.time_left`."""
        if self._item is None:
            return None
        *_, timeout_ms, deadline_ns = self._item
        ends = [self._page[p.STARTED_NS] + timeout_ms * MILLISECOND_NS] if timeout_ms else []
        if deadline_ns:
            ends.append(deadline_ns)
        if not ends:
            return None
        return max(0, min(ends) - clock_gettime_ns(CLOCK_BOOTTIME)) / 1e9

    def running_task(self) -> bytes | None:
        """The id of the task whose function runs."""
        item = self._item
        if self._running and item is not None:
            return item[0]
        return None if self._running_beside is None else self._running_beside()

    def report(self, done: float, total: float | None, note: str) -> None:
        """How far the attempt is that started last. See `evener.progress`."""
        with self._reporting:
            p.write_report(self._page, p.Said(self._page[p.STARTED], done, total, note))

    # --- The socket -------------------------------------------------------------------------------

    def _read(self) -> list[c.Frame]:
        target = self._reader.target()
        if target is None:
            data = os.read(self._fd, _READ_BYTES)
            if not data:
                os._exit(0)  # the agent is gone: nobody waits for anything
            return self._reader.feed(data)
        count = os.readv(self._fd, [target])
        if not count:
            os._exit(0)
        frame = self._reader.filled(count)
        return [] if frame is None else [frame]

    def _write(self, frame: c.Frame) -> None:
        for part in (c.head_of(frame), *frame.buffers):
            self._write_all(part)

    def _write_all(self, data: m.Buffer) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(self._fd, view) :]


def error_text(error: LoadError | HookFailed) -> str:
    """Our sentence, which stands behind the name of who says it; then their traceback."""
    return f"{error.text}\n{error.traceback}".rstrip()


def _tell(text: str) -> None:
    """On stderr, which the agent shows with the worker's name in front."""
    sys.stderr.write(f"{text}\n")


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing, but be no SIG_IGN."""
