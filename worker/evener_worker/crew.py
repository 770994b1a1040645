"""The shell's side of the worker processes: descriptors in the epoll, frames to events, burials.

Rules of this file: no decisions. Whatever a worker wrote before its death is told before its death.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from typing import Final

import msgpack

from evener_wire import messages as m
from evener_worker import channel as c
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.config import AgentConfig
from evener_worker.facts import is_exiting, usage_of
from evener_worker.output import Lines, Sink
from evener_worker.process import WorkerProcess

_READ: Final = select.EPOLLIN
_PIPE_BYTES: Final = 64 * 1_024


class Crew:
    """All living worker processes, by slot. Caller: the agent's loop."""

    def __init__(
        self,
        config: AgentConfig,
        epoll: select.epoll,
        on_fd: dict[int, Callable[[int], None]],
        events: list[e.Event],
    ) -> None:
        self._config = config
        self._epoll = epoll
        self._on_fd = on_fd
        self._events = events
        self._processes: dict[int, WorkerProcess] = {}
        self._sinks = {1: Sink(1), 2: Sink(2)}
        self._paused: list[tuple[int, Callable[[int], None]]] = []
        self._waiting_sinks: set[int] = set()

    # --- Effects ----------------------------------------------------------------------------------

    def start(self, effect: f.StartWorker) -> None:
        """Start the process of a slot."""
        prefix = f"worker-{effect.slot} | ".encode() if self._config.prefix else b""
        process = WorkerProcess(
            effect.slot,
            effect.worker,
            self._config.app,
            trusted=self._config.trusted,
            prefix=prefix,
        )
        self._processes[effect.slot] = process
        self._watch(process.socket.fileno(), lambda mask: self._on_socket(process, mask))
        self._watch(process.pidfd, lambda _: self._bury(process))
        for fd in process.pipes:
            self._watch(fd, self._pipe_handler(process, fd))
        self._events.append(e.Spawned(effect.slot, process.pid))

    def hand(self, effect: f.Hand) -> None:
        """Give a worker a batch."""
        process = self._processes.get(effect.slot)
        if process is not None:
            process.hand(effect.first, effect.attempts)
            self._expect_room(process)

    def take_back(self, effect: f.TakeBack) -> None:
        """Take permits back; how many is told at once."""
        process = self._processes.get(effect.slot)
        count = 0 if process is None else process.take_back(effect.count)
        self._events.append(e.TakenBack(effect.slot, count))

    def flag(self, effect: f.Flag) -> None:
        """Note in the page that an attempt shall end."""
        process = self._processes.get(effect.slot)
        if process is not None:
            process.flag(effect.sequence, effect.outcome)

    def terminate(self, effect: f.Terminate) -> None:
        """SIGTERM to the process."""
        process = self._processes.get(effect.slot)
        if process is not None:
            process.signal(signal.SIGTERM)

    def kill(self, effect: f.Kill) -> None:
        """SIGKILL to the group."""
        process = self._processes.get(effect.slot)
        if process is not None:
            process.kill()

    def leave(self, effect: f.Leave) -> None:
        """Ask a worker to end."""
        process = self._processes.get(effect.slot)
        if process is not None:
            process.send(c.Frame(c.LEAVE))
            self._expect_room(process)

    def say(self, text: str) -> None:
        """A line of the agent itself."""
        self._sinks[2].write(text.encode("utf-8", "backslashreplace") + b"\n")
        self._expect_sink(2)

    # --- Looking ----------------------------------------------------------------------------------

    def pages(self) -> dict[int, e.Page]:
        """The page of every living worker."""
        return {number: process.page_now() for number, process in self._processes.items()}

    def usage(self) -> dict[int, tuple[int, int]]:
        """Memory and processor time of every living worker."""
        usage: dict[int, tuple[int, int]] = {}
        for number, process in self._processes.items():
            measured = usage_of(process.pid)
            if measured is not None:
                usage[number] = measured
        return usage

    # --- The sockets ------------------------------------------------------------------------------

    def _on_socket(self, process: WorkerProcess, mask: int) -> None:
        if mask & select.EPOLLOUT:
            process.flush()
            if not process.blocked:
                self._epoll.modify(process.socket.fileno(), _READ)
        if mask & ~select.EPOLLOUT:
            frames = process.receive()
            if frames is None:
                # It is dying, or its code closed what is not its own. Without a connection it is of
                # no use.
                self._forget(process.socket.fileno())
                if not is_exiting(process.pid):
                    process.note = "closed its connection to the agent"
                    process.kill()
            else:
                self._tell_frames(process.number, frames)

    def _tell_frames(self, slot: int, frames: list[c.Frame]) -> None:
        results: list[c.Frame] = []
        for frame in frames:
            if frame.kind == c.RESULT:
                results.append(frame)
                continue
            if results:
                self._events.append(e.Finished(slot, results))
                results = []
            if frame.kind == c.DROPPED:
                self._events.append(e.Dropped(slot, frame.sequence))
            elif frame.kind == c.READY:
                functions = [
                    (name, None if options is None else m.Options(*options))
                    for name, options in msgpack.unpackb(frame.body, use_list=False)
                ]
                self._events.append(e.Ready(slot, functions))
            elif frame.kind == c.FAILED_START:
                self._events.append(e.StartFailed(slot, msgpack.unpackb(frame.body)))
        if results:
            self._events.append(e.Finished(slot, results))

    def _expect_room(self, process: WorkerProcess) -> None:
        if process.blocked and process.socket.fileno() in self._on_fd:
            self._epoll.modify(process.socket.fileno(), _READ | select.EPOLLOUT)

    # --- The output -------------------------------------------------------------------------------

    def _pipe_handler(self, process: WorkerProcess, fd: int) -> Callable[[int], None]:
        def on_pipe(mask: int) -> None:
            to, lines = process.pipes[fd]
            sink = self._sinks[to]
            if sink.full:
                self._forget(fd)
                self._paused.append((fd, on_pipe))
                return
            try:
                data = os.read(fd, _PIPE_BYTES)
            except BlockingIOError:
                return
            if data:
                sink.write(lines.feed(data))
            else:
                sink.write(lines.end())
                self._forget(fd)
            self._expect_sink(to)

        return on_pipe

    def _expect_sink(self, to: int) -> None:
        if self._sinks[to].queued and to not in self._waiting_sinks:
            self._waiting_sinks.add(to)
            self._on_fd[to] = lambda _: self._on_sink(to)
            self._epoll.register(to, select.EPOLLOUT)

    def _on_sink(self, to: int) -> None:
        sink = self._sinks[to]
        sink.flush()
        if sink.queued:
            return
        self._waiting_sinks.discard(to)
        self._forget(to)
        paused, self._paused = self._paused, []
        for fd, handler in paused:
            self._watch(fd, handler)

    # --- The end of a process ---------------------------------------------------------------------

    def _bury(self, process: WorkerProcess) -> None:
        del self._processes[process.number]
        self._forget(process.socket.fileno())
        self._forget(process.pidfd)
        process.kill()  # whatever it started; its own id is not given to others before `wait`
        frames = process.receive()
        while frames:
            self._tell_frames(process.number, frames)
            frames = process.receive()
        for fd, (to, lines) in process.pipes.items():
            self._forget(fd)
            self._drain(fd, to, lines)
        self._paused = [(fd, on_pipe) for fd, on_pipe in self._paused if fd not in process.pipes]
        page = process.page_now()
        ended = process.wait()
        process.close()
        self._events.append(
            e.Died(
                process.number,
                page.started,
                ended["exit_code"],
                ended["signal"],
                tuple(process.lines),
                process.note,
            )
        )

    def _drain(self, fd: int, to: int, lines: Lines) -> None:
        sink = self._sinks[to]
        # Bounded: a pipe holds 64 KiB, and whoever else still writes to it was killed.
        for _ in range(16):
            try:
                data = os.read(fd, _PIPE_BYTES)
            except OSError:
                break
            if not data:
                break
            sink.write(lines.feed(data))
        sink.write(lines.end())
        self._expect_sink(to)

    def bury_all(self) -> None:
        """Kill what is left, and wait for it: nothing of this agent stays behind."""
        for process in list(self._processes.values()):
            process.kill()
            process.wait()
            self._bury(process)
        for sink in self._sinks.values():
            sink.flush()

    # --- Descriptors ------------------------------------------------------------------------------

    def _watch(self, fd: int, handler: Callable[[int], None]) -> None:
        self._on_fd[fd] = handler
        self._epoll.register(fd, _READ)

    def _forget(self, fd: int) -> None:
        if self._on_fd.pop(fd, None) is not None:
            self._epoll.unregister(fd)
