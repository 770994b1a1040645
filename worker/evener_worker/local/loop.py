"""The one thread of a pool: descriptors to events, effects to processes.

Rules of this file: no decisions, no user code, nothing that blocks. The thread is a daemon and
never holds up the end of the program; when it ends, for whatever reason, no process is left and
nobody waits for an answer.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgpack

from evener_wire.messages import Buffer
from evener_worker import channel as c
from evener_worker.facts import is_exiting
from evener_worker.local import stimuli as s
from evener_worker.local.calls import frame_of, payload_of
from evener_worker.local.errors import PoolClosed, PoolError
from evener_worker.local.front import Front
from evener_worker.local.guard import Guard
from evener_worker.local.machine import PoolMachine
from evener_worker.local.orphans import LOOK_AGAIN_S, Orphans
from evener_worker.process import WorkerProcess
from evener_worker.runner import LOCAL
from evener_worker.terminal import Descriptors, Terminal


@dataclass(frozen=True, slots=True)
class SendFrame:
    """An answer for a worker, which needs no decision."""

    place: int
    frame: c.Frame


Posted: TypeAlias = s.Event | SendFrame


@dataclass(frozen=True, slots=True)
class Launch:
    """How processes are started: the class as bytes, where imports are found, their settings."""

    code: Sequence[Buffer]
    folders: Sequence[str]
    bounds: tuple[int, int]
    environment: dict[str, str]
    prefix: bool


def now() -> int:
    """The clock of a pool, in nanoseconds."""
    return time.monotonic_ns()


class PoolLoop:
    """Caller: the faces, by `post`; everything else runs in its thread."""

    def __init__(self, machine: PoolMachine, launch: Launch, front: Front) -> None:
        self._machine = machine
        self._launch = launch
        self._front = front
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._inbox: list[Posted] = []
        self._awake = False
        self._closed = False
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._events: list[s.Event] = []
        self._handled: list[s.Event] = []  # in this step
        self._descriptors = Descriptors(select.epoll(), {})
        self._descriptors.watch(self._wake_fd, self._on_wake)
        self._terminal = Terminal(self._descriptors)
        self._processes: dict[int, WorkerProcess] = {}
        self._guard: Guard | None = None
        self._orphans = Orphans()
        self.ended = threading.Event()
        self._perform: dict[type, Callable[[Any], None]] = {
            s.Spawn: self._spawn,
            s.Hand: self._hand,
            s.Forget: lambda effect: self._send(effect.place, c.Frame(c.DROP, effect.number)),
            s.Leave: lambda effect: self._send(effect.place, c.Frame(c.LEAVE)),
            s.Kill: self._kill,
            s.Admit: lambda effect: effect.call.waiter.admitted(),
            s.Answer: self._answer,
            s.Fail: lambda effect: effect.asked.waiter.failed(effect.error),
            s.Tell: lambda effect: self._front.deliver(effect.event),
            s.End: lambda _: self.ended.set(),
        }
        self._thread = threading.Thread(target=self._run, name="evener-pool", daemon=True)
        self._thread.start()

    # --- From other threads -----------------------------------------------------------------------

    def post(self, event: Posted) -> None:
        """Tell the machine. Raises `PoolClosed`."""
        if os.getpid() != self._pid:
            raise PoolClosed("this is the child of a fork: the pool belongs to its parent")
        with self._lock:
            if self._closed:
                raise PoolClosed
            self._inbox.append(event)
            awake, self._awake = self._awake, True
            if not awake:
                os.eventfd_write(self._wake_fd, 1)

    def post_quietly(self, event: Posted) -> None:
        """The same where it does not matter that the pool has ended."""
        try:
            self.post(event)
        except PoolClosed:
            return

    def reply(self, place: int, frame: c.Frame) -> None:
        """An answer for a worker."""
        self.post_quietly(SendFrame(place, frame))

    def join(self, seconds: float | None) -> None:
        """Wait for the thread's end."""
        if os.getpid() == self._pid:
            self._thread.join(seconds)

    @property
    def is_current(self) -> bool:
        """Whether the caller is the loop's own thread (a callback of a future)."""
        return threading.current_thread() is self._thread

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._closed

    # --- The thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        reason: PoolError = PoolClosed()
        try:
            while not self.ended.is_set():
                self._descriptors.turn(self._patience())
                self._step()
        except BaseException as error:
            reason = PoolError(f"the pool failed, please report this: {error!r}")
            raise
        finally:
            self._close(reason)

    def _patience(self) -> float | None:
        """How long nothing has to be done, if nothing happens."""
        at_most = LOOK_AGAIN_S if self._orphans.look() else None
        wake_at = self._machine.wake_at()
        if wake_at is None:
            return at_most
        wait_s = max(0.0, (wake_at - now()) / 1e9)
        return wait_s if at_most is None else min(wait_s, at_most)

    def _step(self) -> None:
        while True:
            self._handled, self._events = self._events, []
            for effect in self._machine.step(now(), self._handled):
                self._perform[type(effect)](effect)
            if not self._events:
                return

    def _on_wake(self, mask: int) -> None:
        with self._lock:
            os.eventfd_read(self._wake_fd)
            posted, self._inbox = self._inbox, []
            self._awake = False
        for event in posted:
            if isinstance(event, SendFrame):
                self._send(event.place, event.frame)
            else:
                self._events.append(event)

    def _close(self, reason: PoolError) -> None:
        with self._lock:
            self._closed = True
            posted, self._inbox = self._inbox, []
        for process in [*self._processes.values()]:
            process.kill()
        for place, process in [*self._processes.items()]:
            process.wait()
            self._bury(place, process)
        if self._guard is not None:
            self._descriptors.forget(self._guard.fd)
            self._guard.close()
        self._orphans.look()
        self._terminal.flush()
        for asked in self._machine.all_open():
            asked.waiter.failed(reason)
        for event in [*self._handled, *self._events, *posted]:
            waiting = getattr(event, "call", None) or getattr(event, "wait", None)
            if waiting is not None and not isinstance(event, s.GaveUp):
                waiting.waiter.failed(reason)
        self._front.close()
        self._descriptors.epoll.close()
        os.close(self._wake_fd)
        self.ended.set()

    # --- Effects ----------------------------------------------------------------------------------

    def _spawn(self, effect: s.Spawn) -> None:
        launch, name = self._launch, f"worker-{effect.seat}"
        try:
            if self._guard is None:
                self._guard = Guard()
            process = WorkerProcess(
                effect.seat,
                name,
                LOCAL,
                trusted=True,
                prefix=f"{name} | ".encode() if launch.prefix else b"",
                environment=launch.environment,
            )
        except OSError as error:  # no process, no descriptor, no memory to be had
            note = f"could not be started: {error}"
            self._events.append(s.Died(effect.place, None, None, (), note))
            return
        self._hold(self._guard, process.pid)
        self._processes[effect.place] = process
        watch = self._descriptors.watch
        watch(process.socket.fileno(), lambda mask: self._on_socket(effect.place, process, mask))
        watch(process.pidfd, lambda _: self._bury(effect.place, process))
        self._terminal.add(process)
        self._events.append(s.Spawned(effect.place, process.pid))
        body = msgpack.packb([[*launch.folders], effect.seat, [*launch.bounds]])
        self._send(effect.place, c.Frame(c.SETUP, body=body, buffers=launch.code))

    def _hold(self, guard: Guard, group: int) -> None:
        guard.hold(group)
        if guard.fd >= 0 and not self._descriptors.watches(guard.fd):
            self._descriptors.watch(guard.fd, lambda _: self._on_guard(guard))

    def _on_guard(self, guard: Guard) -> None:
        """Somebody killed it: what the workers started must not outlive the program."""
        self._descriptors.forget(guard.fd)
        guard.mend()
        if guard.fd >= 0:
            self._descriptors.watch(guard.fd, lambda _: self._on_guard(guard))

    def _hand(self, effect: s.Hand) -> None:
        call = effect.call
        self._send(effect.place, frame_of(call.kind, call.number, call.payload))
        call.payload = b""

    def _send(self, place: int, frame: c.Frame) -> None:
        process = self._processes.get(place)
        if process is not None:
            process.send(frame)
            if process.blocked:
                self._descriptors.expect_room(process.socket.fileno(), True)

    def _kill(self, effect: s.Kill) -> None:
        process = self._processes.get(effect.place)
        if process is not None:
            process.kill()

    def _answer(self, effect: s.Answer) -> None:
        effect.asked.waiter.answered(effect.outcome, effect.payload)

    # --- Processes --------------------------------------------------------------------------------

    def _on_socket(self, place: int, process: WorkerProcess, mask: int) -> None:
        if mask & select.EPOLLOUT:
            process.flush()
            if not process.blocked:
                self._descriptors.expect_room(process.socket.fileno(), False)
        if mask & ~select.EPOLLOUT:
            frames = process.receive()
            if frames is not None:
                self._take(place, frames)
                return
            # It is dying, or its code closed what is not its own: it is of no use any more.
            self._descriptors.forget(process.socket.fileno())
            if not is_exiting(process.pid):
                process.note = "closed its connection to the program"
                process.kill()

    def _take(self, place: int, frames: Sequence[c.Frame]) -> None:
        for frame in frames:
            kind, number = frame.kind, frame.sequence
            if kind in (c.REPLY, c.TAKEN):
                self._events.append(s.Replied(place, number, frame.outcome, payload_of(frame)))
            elif kind in (c.MESSAGE, c.REQUEST):
                self._events.append(s.Heard(place, number, kind, payload_of(frame)))
            elif kind == c.READY:
                self._events.append(s.Ready(place, msgpack.unpackb(frame.body)))
            elif kind == c.FAILED_START:
                self._events.append(s.StartFailed(place, msgpack.unpackb(frame.body)))

    def _bury(self, place: int, process: WorkerProcess) -> None:
        del self._processes[place]
        self._descriptors.forget(process.socket.fileno())
        self._descriptors.forget(process.pidfd)
        process.kill()  # what it started; its own id is not given to others before `wait`
        frames = process.receive()
        while frames:
            self._take(place, frames)
            frames = process.receive()
        self._terminal.remove(process)
        ended = process.wait()
        if self._guard is not None:
            self._guard.release(process.pid)
        self._orphans.add(process.pid)
        process.close()
        self._events.append(
            s.Died(place, ended["exit_code"], ended["signal"], tuple(process.lines), process.note)
        )
