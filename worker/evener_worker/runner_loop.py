"""The loop of the worker process: read a batch, take a permit, run, write the result.

Rules of this file: between two tasks it does as little as possible; everything it does per task is
counted in microseconds. All failures of user code end in `Execution.run`; an error that reaches
this loop is of the process itself, and ends it.
"""

from __future__ import annotations

import gc
import os
import signal
from time import CLOCK_BOOTTIME, clock_gettime_ns
from types import FrameType
from typing import Final

import msgpack

from evener.errors import LoadError
from evener.execution import Executed, Execution, Interrupted, Place
from evener.loading import load_app
from evener_wire import messages as m
from evener_worker import channel as c
from evener_worker import page as p

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
        self._reader = c.FrameReader()
        self._pid = os.getpid()
        self._execution: Execution | None = None
        # Number of the attempt whose function runs: the only thing that may be interrupted.
        self._running = 0
        signal.signal(signal.SIGTERM, self._on_terminate)
        # Ctrl-C is the agent's business. A handler, not SIG_IGN, which programs would inherit.
        signal.signal(signal.SIGINT, _ignore)

    # --- Start ------------------------------------------------------------------------------------

    def load(self, target: str) -> bool:
        """Import the app and say ready, or say why not."""
        try:
            app = load_app(target)
        except LoadError as error:
            self._write(c.Frame(c.FAILED_START, body=msgpack.packb(error_text(error))))
            return False
        place = Place(os.uname().nodename, self._pid, self._worker)
        self._execution = Execution(app.callables(), trusted=self._trusted, place=place)
        offered = [(name, options and tuple(options)) for name, options in app.offered()]
        # What is loaded now stays: the collector need not look at it again.
        gc.freeze()
        self._write(c.Frame(c.READY, body=msgpack.packb(offered)))
        return True

    # --- Signals ----------------------------------------------------------------------------------

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        # Other senders than the agent (a service manager that signals everybody) change nothing:
        # the agent drains, and ends its workers when they are done.
        page = self._page
        if self._running and page[p.STOP] == self._running:
            self._running = 0
            raise Interrupted(page[p.STOP_OUTCOME])

    # --- The loop ---------------------------------------------------------------------------------

    def serve(self) -> None:
        """Until the agent says LEAVE or is gone."""
        assert self._execution is not None
        while True:
            for frame in self._read():
                if frame.kind == c.RUN:
                    self._run_batch(frame)
                elif frame.kind == c.LEAVE:
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
        taken = 0
        sequence = frame.sequence - 1
        last = sequence + len(items)
        for task_id, fence, function, payload, _, _ in items:
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
            try:
                self._running = sequence
                executed = run(function, payload, self._on_item)
                self._running = 0
            except Interrupted as interrupted:  # it came a moment before or after the function
                executed = Executed(interrupted.outcome, b"", 0, None)
            if os.getpid() != self._pid:
                os._exit(0)  # a child that user code forked and did not end
            outcome, result, run_ns, facts = executed
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

    def _on_item(self, index: int) -> None:
        page = self._page
        page[p.STARTED_NS] = clock_gettime_ns(CLOCK_BOOTTIME)
        page[p.ITEM] = index

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


def error_text(error: LoadError) -> str:
    """Their traceback first, our sentence last."""
    return f"{error.traceback}{error.text}"


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing, but be no SIG_IGN."""
