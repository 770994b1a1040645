"""The shell's side of the worker processes: descriptors in the epoll, frames to events, burials.

Rules of this file: no decisions. Whatever a worker wrote before its death is told before its death.
"""

from __future__ import annotations

import select
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Final

import msgpack

from evener_wire import messages as m
from evener_worker import channel as c
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.config import AgentConfig
from evener_worker.deaths import why_not_started
from evener_worker.dumps import Dumps
from evener_worker.facts import is_exiting, usage_of
from evener_worker.logs import Logs
from evener_worker.process import WorkerProcess
from evener_worker.reloading import Changes
from evener_worker.slots import index_of
from evener_worker.terminal import Descriptors, Terminal


class Crew:
    """All living worker processes, by slot. Caller: the agent's loop."""

    def __init__(
        self,
        config: AgentConfig,
        epoll: select.epoll,
        on_fd: dict[int, Callable[[int], None]],
        events: list[e.Event],
        clock: Callable[[], int],
    ) -> None:
        self._config = config
        self._descriptors = Descriptors(epoll, on_fd)
        self._terminal = Terminal(self._descriptors)
        self._events = events
        self.dumps: Final = Dumps(clock, events)
        self.logs: Final = Logs(clock, events)
        self.changes: Final = Changes()
        self._processes: dict[int, WorkerProcess] = {}
        # Those that were handed attempts whose clients want to see what they write.
        self._forwarding: set[int] = set()

    # --- Effects ----------------------------------------------------------------------------------

    def start(self, effect: f.StartWorker) -> None:
        """Start the process of a slot."""
        # Its place, which its successors have too; the number of the slot is of this process alone.
        index = index_of(effect.worker)
        prefix = f"worker-{index} | ".encode() if self._config.prefix else b""
        try:
            process = WorkerProcess(
                effect.slot,
                effect.worker,
                self._config.app,
                trusted=self._config.trusted,
                prefix=prefix,
                environment={"EVENER_WORKER_ID": str(index)},
            )
        except OSError as error:
            why = why_not_started(error)
            self._events.append(e.Died(effect.slot, 0, None, None, note=why, spawned=False))
            return
        self._processes[effect.slot] = process
        self._descriptors.watch(process.socket.fileno(), partial(self._on_socket, process))
        self._descriptors.watch(process.pidfd, lambda _: self._bury(process))
        for to, lines in process.pipes.values():
            log = self.logs.taker(effect.worker, process.pid, to)
            lines.taker = partial(self._take_lines, effect.slot, to, log)
        self._terminal.add(process)
        self._events.append(e.Spawned(effect.slot, process.pid))

    def hand(self, effect: f.Hand) -> None:
        """Give a worker a batch."""
        process = self._processes.get(effect.slot)
        if process is None:
            return
        forwards = [attempt.forward for attempt in effect.attempts]
        if True in forwards:
            self._forwarding.add(effect.slot)
        if effect.lanes:
            process.share(effect.first, effect.attempts, effect.lanes)
        elif True in forwards:
            first = effect.first
            for forward, group in groupby(effect.attempts, lambda attempt: attempt.forward):
                attempts = [*group]
                process.hand(first, attempts, forward=forward)
                first += len(attempts)
        else:
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
            process.flag(effect.sequence, effect.outcome, effect.lane)

    def take(self, effect: f.Take) -> None:
        """Tell a worker how many of its values are taken."""
        process = self._processes.get(effect.slot)
        if process is not None:
            process.send(c.Frame(c.VALUES_TAKEN, effect.sequence, body=msgpack.packb(effect.upto)))
            self._expect_room(process)

    def terminate(self, effect: f.Terminate) -> None:
        """SIGTERM to the process."""
        process = self._processes.get(effect.slot)
        if process is not None:
            process.signal(signal.SIGTERM)

    def interrupt(self, effect: f.Interrupt) -> None:
        """Tell a worker to end one of the attempts that run side by side."""
        process = self._processes.get(effect.slot)
        if process is not None:
            process.send(c.Frame(c.INTERRUPT, effect.sequence))
            self._expect_room(process)

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

    def ping(self, effect: f.Ping) -> None:
        """Ask a worker whether it is there."""
        process = self._processes.get(effect.slot)
        if process is not None:
            process.send(c.Frame(c.PING, effect.number))
            self._expect_room(process)

    def dump(self, effect: f.Dump) -> None:
        """Have a worker write its stack."""
        process = self._processes.get(effect.slot)
        if process is None:
            self._events.append(e.Dumped(effect.number, "", "the process has ended", {}))
        else:
            self.dumps.ask(effect.number, process)

    def read_log(self, effect: f.ReadLog) -> None:
        """Look for what workers wrote."""
        self.logs.ask(effect.number, effect.wanted)

    def say(self, text: str) -> None:
        """A line of the agent itself."""
        self._terminal.write(2, text.encode("utf-8", "backslashreplace") + b"\n")

    # --- Looking ----------------------------------------------------------------------------------

    def pages(self, lanes: Mapping[int, Sequence[int]]) -> dict[int, e.Page]:
        """The page of every living worker, with these of its lanes."""
        return {n: process.page_now(lanes.get(n, ())) for n, process in self._processes.items()}

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
                self._descriptors.expect_room(process.socket.fileno(), expected=False)
        if mask & ~select.EPOLLOUT:
            frames = process.receive()
            if frames is None:
                # It is dying, or its code closed what is not its own. Without a connection it is of
                # no use.
                self._descriptors.forget(process.socket.fileno())
                if not is_exiting(process.pid):
                    process.note = "closed its connection to the agent"
                    process.kill()
            else:
                if process.number in self._forwarding:
                    self._terminal.read_before(process)
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
            if frame.kind == c.YIELDED:
                self._events.append(_yielded(slot, frame))
            elif frame.kind == c.DROPPED:
                self._events.append(e.Dropped(slot, frame.sequence))
            elif frame.kind == c.PONG:
                self._events.append(e.Ponged(slot, frame.sequence))
            elif frame.kind == c.FILES:
                self.changes.add(msgpack.unpackb(frame.body))
            elif frame.kind == c.READY:
                offered, wanted = msgpack.unpackb(frame.body, use_list=False)
                schedules = tuple(m.Schedule(*schedule) for schedule in wanted)
                functions = [
                    (name, None if options is None else m.Options(*options))
                    for name, options, *_ in offered
                ]
                graces = {name: grace for name, _, grace, _ in offered if grace is not None}
                shares = {name: at_once for name, *_, at_once in offered if at_once is not None}
                self._events.append(e.Ready(slot, functions, graces, schedules, shares))
            elif frame.kind == c.FAILED_START:
                text = msgpack.unpackb(frame.body)
                self._events.append(e.StartFailed(slot, text, bool(self.changes)))
        if results:
            self._events.append(e.Finished(slot, results))

    def _expect_room(self, process: WorkerProcess) -> None:
        if process.blocked:
            self._descriptors.expect_room(process.socket.fileno(), expected=True)

    # --- The output -------------------------------------------------------------------------------

    def _take_lines(
        self,
        slot: int,
        stream: int,
        log: Callable[[Sequence[tuple[str, str]]], None],
        lines: Sequence[tuple[str, str]],
    ) -> None:
        log(lines)
        if slot in self._forwarding:
            self._events.append(e.Printed(slot, stream, [line for line in lines if line[0]]))

    # --- The end of a process ---------------------------------------------------------------------

    def _bury(self, process: WorkerProcess) -> None:
        del self._processes[process.number]
        self._descriptors.forget(process.socket.fileno())
        self._descriptors.forget(process.pidfd)
        process.kill()  # whatever it started; its own id is not given to others before `wait`
        frames = process.receive()
        while frames:
            self._tell_frames(process.number, frames)
            frames = process.receive()
        self._terminal.remove(process)
        self._forwarding.discard(process.number)
        self.dumps.forget(process)
        page, lanes = process.page_now(), process.started_on_lanes()
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
                lanes=lanes,
            )
        )

    def bury_all(self) -> None:
        """Kill what is left, and wait for it: nothing of this agent stays behind."""
        for process in list(self._processes.values()):
            process.kill()
            process.wait()
            self._bury(process)
        self._terminal.flush()


def _yielded(slot: int, frame: c.Frame) -> e.Yielded:
    index, more, payload = msgpack.unpackb(frame.body)
    if type(payload) is int:
        payload = m.Frames(frame.buffers)
    return e.Yielded(slot, frame.sequence, index, more, payload)
