"""Inside the process of a worker class: make it, start it, give it what comes, let it stop.

Rules of this file: a thread of its own reads the socket, so that answers and the program's end are
noticed whatever the class does; all methods of the class are called in the main thread. What they
raise is an answer; an error that reaches this file's loop is of the process, and ends it.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, Final, cast

import msgpack

from evener import inside as tasks
from evener.errors import NotLoadable, UsageError
from evener.failure import Place, encode_failure, traceback_text
from evener.payload import decode_value, encode_value
from evener.pickling import type_label
from evener.worker_class import Worker, lacks_run
from evener_wire.errors import PeerError
from evener_wire.messages import DONE, FAILED, Payload
from evener_worker import channel as c
from evener_worker.local.calls import frame_of, payload_of
from evener_worker.local.connection import Connection

if TYPE_CHECKING:
    import asyncio

_CO_COROUTINE: Final = 0x80

loading = False
"""Whether the class is being loaded: a pool started now would be started by every worker."""


def serve(fd: int, name: str) -> int:
    """Until the program says LEAVE. The exit code."""
    # Ctrl-C is the program's business. A handler, not SIG_IGN, which programs would inherit.
    signal.signal(signal.SIGINT, _ignore)
    connection = Connection(fd)
    setup = connection.setup()
    folders, number, bounds = msgpack.unpackb(setup.body)
    sys.path[:] = folders
    connection.begin(*bounds)
    try:
        worker = _make(setup, number)
    except BaseException as error:  # SystemExit of their module too
        return _tell_failure(connection, _loading_text(error), error)
    worker.id = number
    worker.connect(connection)
    host = Host(worker, connection, name)
    return host.run_async() if _is_async(worker) else host.run_plain()


def _make(setup: c.Frame, number: int) -> Worker[Any, Any]:
    global loading
    loading = True
    stream, *buffers = setup.buffers
    factory: Any = pickle.loads(stream, buffers=buffers)
    worker: Worker[Any, Any] = factory() if isinstance(factory, type) else factory(number)
    loading = False
    if not issubclass(type(worker), Worker):
        raise TypeError(f"the factory made a {type_label(worker)}, which is no evener.Worker")
    if lacks_run(type(worker)) and "run" not in vars(worker):
        raise TypeError(f"{type(worker).__qualname__} has no run(item)")
    return worker


def _loading_text(error: BaseException) -> str:
    return f"its class cannot be loaded or made: {type(error).__name__}: {error}"


def _tell_failure(connection: Connection, text: str, error: BaseException) -> int:
    body = msgpack.packb(f"{text}\n{traceback_text(error)}".rstrip())
    connection.write(c.Frame(c.FAILED_START, body=body))
    return 1


def _is_async(worker: Worker[Any, Any]) -> bool:
    methods = (worker.start, worker.run, worker.on_message, worker.stop)
    flags = [getattr(getattr(method, "__code__", None), "co_flags", 0) for method in methods]
    return any(flag & _CO_COROUTINE for flag in flags)


class _Standing:
    """What `evener.cancelled()` and its like say inside of a plain method."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def is_stopping(self) -> bool:
        return self._connection.is_given_up()

    def left_s(self) -> float | None:
        return None

    def report(self, done: float, total: float | None, note: str) -> None:
        raise UsageError("progress() is for tasks; a worker of a pool says it by self.send(...)")


class Host:
    """The worker's methods, called as frames ask for it. Caller: `serve`, once."""

    def __init__(self, worker: Worker[Any, Any], connection: Connection, name: str) -> None:
        self._worker = worker
        self._connection = connection
        self._pid = os.getpid()
        self._place = Place(os.uname().nodename, self._pid, name)
        self._label = type(worker).__qualname__
        self._runner: asyncio.Runner | None = None

    # --- Plain methods, one after the other -------------------------------------------------------

    def run_plain(self) -> int:
        """Start, work, stop."""
        try:
            self._finish(self._worker.start())
        except BaseException as error:
            return _tell_failure(self._connection, _start_text(error), error)
        tasks.enter(_Standing(self._connection))
        inbox: queue.SimpleQueue[c.Frame] = queue.SimpleQueue()
        self._connection.deliver = inbox.put
        self._ready(1)
        while (frame := inbox.get()).kind != c.LEAVE:
            if self._connection.is_dropped(frame.sequence):
                self._answer(frame, FAILED, b"")
                continue
            self._connection.enter(frame.sequence)
            outcome, payload = self._called(frame)
            self._connection.enter(0)
            if os.getpid() != self._pid:
                os._exit(0)  # a child that user code forked and did not end
            self._answer(frame, outcome, payload)
        return self._stopped(lambda: self._finish(self._worker.stop()))

    def _finish(self, value: Any) -> Any:
        """The value, also where a plain method returned a coroutine."""
        if value.__class__ is not CoroutineType:
            return value
        import asyncio

        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(cast("Coroutine[Any, Any, Any]", value))

    def _called(self, frame: c.Frame) -> tuple[int, Payload]:
        try:
            method, label, value = self._call_of(frame)
            return DONE, encode_value(self._finish(method(value)), function=label)
        # SystemExit, KeyboardInterrupt and what else user code raises is an answer.
        except BaseException as error:
            return self._raised(frame, error)

    # --- Async methods, side by side --------------------------------------------------------------

    def run_async(self) -> int:
        """The same on an event loop."""
        import asyncio

        return asyncio.run(self._serve())

    async def _serve(self) -> int:
        import asyncio

        try:
            await _value(self._worker.start())
        except BaseException as error:
            return _tell_failure(self._connection, _start_text(error), error)
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[c.Frame] = asyncio.Queue()
        running: dict[int, asyncio.Task[None]] = {}

        def drop(number: int) -> None:
            if number in running:
                running[number].cancel()
            else:
                self._connection.note_dropped(number)

        self._connection.deliver = lambda frame: loop.call_soon_threadsafe(inbox.put_nowait, frame)
        self._connection.drop = lambda number: loop.call_soon_threadsafe(drop, number)
        self._ready(max(1, self._worker.concurrency))
        while (frame := await inbox.get()).kind != c.LEAVE:
            number = frame.sequence
            if self._connection.is_dropped(number):
                self._answer(frame, FAILED, b"")
                continue
            task = running[number] = loop.create_task(self._run_one(frame))
            task.add_done_callback(partial(_on_done, running, number))
        while running:
            await asyncio.wait([*running.values()])
        try:
            await _value(self._worker.stop())
        except BaseException as error:
            return self._stop_failed(error)
        return 0

    async def _run_one(self, frame: c.Frame) -> None:
        try:
            method, label, value = self._call_of(frame)
            result = await _value(method(value))
            outcome, payload = DONE, encode_value(result, function=label)
        except BaseException as error:
            outcome, payload = self._raised(frame, error)
        self._answer(frame, outcome, payload)

    # --- Both -------------------------------------------------------------------------------------

    def _ready(self, concurrency: int) -> None:
        # What is loaded now stays: the collector need not look at it again.
        gc.freeze()
        self._connection.write(c.Frame(c.READY, body=msgpack.packb(concurrency)))

    def _call_of(self, frame: c.Frame) -> tuple[Callable[[Any], Any], str, Any]:
        name = "run" if frame.kind == c.EXECUTE else "on_message"
        label = f"{self._label}.{name}"
        try:
            value = decode_value(payload_of(frame), True)
        except PeerError as error:
            what = f"the argument of {label}"
            raise NotLoadable(what, str(error), self._place.worker) from error
        return getattr(self._worker, name), label, value

    def _raised(self, frame: c.Frame, error: BaseException) -> tuple[int, Payload]:
        if frame.kind == c.MESSAGE:
            # Nobody waits for it, so the terminal is where it is told.
            sys.stderr.write(f"{self._place.worker}: a message raised\n{traceback_text(error)}")
        payload, _ = encode_failure(error, self._place, None)
        return FAILED, payload

    def _answer(self, frame: c.Frame, outcome: int, payload: Payload) -> None:
        if frame.kind == c.MESSAGE:
            self._connection.write(c.Frame(c.TAKEN, frame.sequence))
        else:
            self._connection.write(frame_of(c.REPLY, frame.sequence, payload, outcome))

    def _stopped(self, stop: Callable[[], Any]) -> int:
        try:
            stop()
        except BaseException as error:
            return self._stop_failed(error)
        if self._runner is not None:
            self._runner.close()
        return 0

    def _stop_failed(self, error: BaseException) -> int:
        sys.stderr.write(f"{self._place.worker}: stop() raised\n{traceback_text(error)}")
        return 1


def _on_done(tasks: dict[int, asyncio.Task[None]], number: int, task: asyncio.Task[None]) -> None:
    del tasks[number]
    if not task.cancelled():
        task.result()  # an error here is of this process, and ends it


async def _value(value: Any) -> Any:
    return await value if hasattr(value, "__await__") else value


def _start_text(error: BaseException) -> str:
    return f"start() raised {type(error).__name__}: {error}"


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing, but be no SIG_IGN."""
