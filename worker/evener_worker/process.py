"""One worker process as the agent's shell holds it: how it is started, fed, read and buried.

Rules of this file: never blocks, decides nothing. A process is its own group and is killed as a
group. The order of a burial matters: kill the group while the process id cannot belong to anybody
else, read what the process wrote, then read the page, then wait for the process.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from evener_wire.messages import Buffer
from evener_worker import page as p
from evener_worker.attempts import Attempt
from evener_worker.channel import RUN, SHARE, Frame, FrameReader, head_of, pack_items
from evener_worker.events import Page
from evener_worker.limits import RECEIVE_BYTES_MAX
from evener_worker.output import Lines, kept_lines
from evener_worker.stack import StackFile

# One thread per worker in libraries that would start one per CPU: there is one worker per CPU.
_SINGLE_THREADED: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def worker_environment(number: int) -> dict[str, str]:
    """The environment of a worker process; what the user set stays."""
    environment = dict.fromkeys(_SINGLE_THREADED, "1") | dict(os.environ)
    return environment | {
        "PYTHONUNBUFFERED": "1",
        "EVENER_WORKER_ID": str(number),
    }


def _end(popen: subprocess.Popen[bytes]) -> None:
    """End a process that nobody can watch."""
    popen.kill()
    popen.wait()
    for stream in (popen.stdout, popen.stderr):
        assert stream is not None
        stream.close()


class WorkerProcess:
    """A living worker process, and what connects it with the agent."""

    __slots__ = (
        "_outgoing",
        "_permits_fd",
        "_popen",
        "_reader",
        "_reports",
        "lines",
        "note",
        "number",
        "page",
        "pid",
        "pidfd",
        "pipes",
        "socket",
        "stack",
    )

    def __init__(
        self,
        number: int,
        worker: str,
        target: str,
        *,
        trusted: bool,
        prefix: bytes,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.number: Final = number
        # What is opened is closed again where the next step fails: no process, no descriptor or no
        # memory to be had.
        with ExitStack() as passed_on, ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            passed_on.callback(theirs.close)
            ours.setblocking(False)
            page_fd = p.create_page()
            passed_on.callback(os.close, page_fd)
            self._permits_fd = p.create_permits()
            undo.callback(os.close, self._permits_fd)
            self.page = p.map_page(page_fd)
            undo.callback(self.page.release)
            self.stack: Final = StackFile()
            undo.callback(self.stack.close)
            passed = (theirs.fileno(), page_fd, self._permits_fd, self.stack.fd)
            arguments = [*map(str, passed), str(os.getpid()), str(int(trusted)), worker, target]
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "evener_worker.runner", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=passed,
                process_group=0,
                env=worker_environment(number) | dict(environment or {}),
            )
            undo.callback(_end, self._popen)
            self.pidfd: Final = os.pidfd_open(self._popen.pid)
            undo.pop_all()
        self._reports = {0: 0}  # by lane: the last one that was told
        self.pid: Final = self._popen.pid
        self.socket: Final = ours
        self._reader = FrameReader()
        self._outgoing: deque[memoryview] = deque()
        self.note = ""  # why it was killed, when nobody asked for it
        self.lines: Final = kept_lines()
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        # By descriptor: where its lines go (1 or 2), and the lines.
        self.pipes: dict[int, tuple[int, Lines]] = {
            self._popen.stdout.fileno(): (1, Lines(prefix, self.lines)),
            self._popen.stderr.fileno(): (2, Lines(prefix, self.lines)),
        }
        for fd in self.pipes:
            os.set_blocking(fd, False)

    # --- To the worker ----------------------------------------------------------------------------

    def hand(self, first: int, attempts: Sequence[Attempt], *, forward: bool = False) -> None:
        """Send a batch, and as many permits. `forward`: its client wants to see what it writes."""
        body, buffers = pack_items([attempt.item for attempt in attempts])
        # Permits first: the worker may be quicker than the next line.
        os.eventfd_write(self._permits_fd, len(attempts))
        self.send(Frame(RUN, first, int(forward), body=body, buffers=buffers))

    def share(self, first: int, attempts: Sequence[Attempt], lanes: Sequence[int]) -> None:
        """Send attempts that run side by side, and as many permits."""
        for lane in lanes:
            self._reports.setdefault(lane, 0)
        pairs = zip(lanes, attempts, strict=True)
        body, buffers = pack_items([(lane, *(it.item or ())) for lane, it in pairs])
        os.eventfd_write(self._permits_fd, len(attempts))
        self.send(Frame(SHARE, first, body=body, buffers=buffers))

    def take_back(self, most: int) -> int:
        """Take back up to `most` permits; how many there were."""
        return p.take_permits(self._permits_fd, most)

    def send(self, frame: Frame) -> None:
        """Send a frame, or queue what the socket does not take."""
        parts: list[Buffer] = [head_of(frame), *frame.buffers]
        if not self._outgoing and not frame.buffers:
            sent = self._send_some(parts[0])
            if sent == len(parts[0]):
                return
            parts[0] = memoryview(parts[0])[sent:]
        self._outgoing.extend(memoryview(part).cast("B") for part in parts)
        self.flush()

    def flush(self) -> None:
        """Send what is queued, as far as the socket takes it."""
        while self._outgoing:
            part = self._outgoing[0]
            sent = self._send_some(part)
            if sent == len(part):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = part[sent:]
                return

    def _send_some(self, part: Buffer) -> int:
        try:
            return self.socket.send(part)
        except BlockingIOError:
            return 0
        except OSError:  # it is dying: what it was sent goes with it
            self._outgoing.clear()
            return len(part)

    @property
    def blocked(self) -> bool:
        """Whether something waits until the socket takes more."""
        return bool(self._outgoing)

    def signal(self, number: int) -> None:
        """A signal to the process alone."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the process and everything it started."""
        if self._popen.returncode is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                # Just forked: it has no group yet.
                self._popen.kill()

    # --- From the worker --------------------------------------------------------------------------

    def receive(self, most: int = RECEIVE_BYTES_MAX) -> list[Frame] | None:
        """Frames that have come, up to about `most` bytes; None at the end."""
        frames: list[Frame] = []
        while most > 0:
            target = self._reader.target()
            try:
                if target is None:
                    data = self.socket.recv(RECEIVE_BYTES_MAX)
                    count = len(data)
                    if count:
                        frames += self._reader.feed(data)
                else:
                    count = self.socket.recv_into(target)
                    frame = self._reader.filled(count) if count else None
                    if frame is not None:
                        frames.append(frame)
            except BlockingIOError:
                break
            except OSError:
                count = 0
            if not count:
                return frames or None
            most -= count
            if target is None and count < RECEIVE_BYTES_MAX:
                break
        return frames

    def page_now(self, lanes: Sequence[int] = ()) -> Page:
        """What the worker noted in its page, and on these lanes; a report only when it is news."""
        page = self._page_of(0)
        if lanes:
            return page._replace(lanes={lane: self._page_of(lane) for lane in lanes})
        return page

    def _page_of(self, lane: int) -> Page:
        page = p.lane(self.page, lane) if lane else self.page
        report = None
        cell = page[p.REPORT]
        if cell != self._reports[lane]:
            report = p.read_report(page, cell)
            if report is not None:
                self._reports[lane] = cell
        return Page(page[p.STARTED], page[p.STARTED_NS], report)

    def started_on_lanes(self) -> dict[int, int]:
        """The number of the attempt that was started last on each lane that was ever used."""
        return {lane: p.lane(self.page, lane)[p.STARTED] for lane in self._reports if lane}

    def flag(self, sequence: int, outcome: int, lane: int = 0) -> None:
        """Note that attempt `sequence` shall end."""
        page = p.lane(self.page, lane) if lane else self.page
        page[p.STOP_OUTCOME] = outcome
        page[p.STOP] = sequence

    # --- The end ----------------------------------------------------------------------------------

    def wait(self) -> Mapping[str, int | None]:
        """Wait for a process that ended: its exit code and signal."""
        code = self._popen.wait()
        return {"exit_code": code if code >= 0 else None, "signal": -code if code < 0 else None}

    def close(self) -> None:
        """Close everything that connected it with the agent."""
        self.socket.close()
        self.page.release()  # it holds a descriptor, and this object may be part of a cycle
        os.close(self.pidfd)
        os.close(self._permits_fd)
        self.stack.close()
        for stream in (self._popen.stdout, self._popen.stderr):
            assert stream is not None
            stream.close()
        self._outgoing.clear()
