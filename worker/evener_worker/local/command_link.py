"""A program that was started, and what its thread (`command_tending.py`) shares with callers.

Rules of this file: all that is shared is behind one lock, held for moments. The thread starts the
program itself, because the kernel kills the program when the *thread* that started it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any, Final

from evener_worker.local.command_errors import BadMessage, CommandEnded, CommandStartError
from evener_worker.local.command_tending import CommandSettings, Tending
from evener_worker.local.errors import PoolFull
from evener_worker.local.feed_limits import OUTBOX_BYTES_MAX
from evener_worker.local.talk import Answered, BadLine, Greeted, Heard, Talk, TalkState
from evener_worker.output import kept_lines

_STARTER: Final = str(Path(__file__).with_name("command_start.py"))
_DESTROYED: Final = "was destroyed"


class Link:
    """One life of a program."""

    def __init__(self, settings: CommandSettings) -> None:
        self._settings: Final = settings
        self.lock: Final = threading.Lock()
        self.talk: Final = Talk(greets=settings.handshake, line_bytes_max=settings.line_bytes_max)
        self.ready: Final[Future[Any]] = Future()
        self.ended: Final[Future[None]] = Future()
        self.error: BaseException | None = None  # once set, nothing goes any more
        self.lines: Final = kept_lines()
        self.pid = 0
        self._answers: dict[int, Future[Any]] = {}
        self._outgoing: deque[memoryview] = deque()
        self._outgoing_bytes = 0
        self._watchers: list[Callable[[], object]] = []
        self._terminate = False
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._over = False
        name = f"evener-{settings.name}"
        self.thread: Final = threading.Thread(target=self._serve, name=name, daemon=True)
        self.thread.start()

    # --- Callers ----------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether it is ready and can still be talked to."""
        return self.error is None and self.talk.state is TalkState.OPEN

    def ask(self, value: Any) -> tuple[int, Future[Any]]:
        """Send a request: its number, and where its answer will be. Raises `PoolFull`."""
        future: Future[Any] = Future()
        with self.lock:
            self.raise_error()
            if self._outgoing_bytes > OUTBOX_BYTES_MAX:
                name, nbytes = self._settings.name, self._outgoing_bytes
                raise PoolFull(f"{name} does not read: {nbytes:,} bytes wait for it")
            number, line = self.talk.ask(value)
            self._answers[number] = future
            self._queue(line)
        self._wake()
        return number, future

    def abandon(self, number: int) -> None:
        """Nobody waits for the answer to a request any more."""
        with self.lock:
            self._answers.pop(number, None)
            self.talk.abandon(number)

    def try_send(self, line: bytes) -> bool:
        """Queue a line; False while there is no room for it."""
        with self.lock:
            self.raise_error()
            if self._outgoing_bytes and self._outgoing_bytes + len(line) > OUTBOX_BYTES_MAX:
                return False
            self._queue(line)
        self._wake()
        return True

    def after(self, seen: int) -> list[tuple[int, Any]]:
        """The messages for listeners that came after a number; raises when no more will come."""
        with self.lock:
            messages = self.talk.after(seen)
            if not messages:
                self.raise_error()
            return messages

    def take(self, number: int) -> bool:
        """Take a message; False when somebody else was quicker."""
        with self.lock:
            resumes = self.talk.overflows
            taken = self.talk.take(number)
        if resumes:
            self._wake()
        return taken

    def watch(self, wake: Callable[[], object]) -> None:
        """Have `wake` called, in the thread, whenever something changes. It must not block."""
        with self.lock:
            self._watchers.append(wake)

    def unwatch(self, wake: Callable[[], object]) -> None:
        """Let go of it."""
        with self.lock:
            self._watchers.remove(wake)

    def terminate(self, note: str = _DESTROYED) -> None:
        """End the program; whoever waits for something of it is told at once."""
        self._fail(CommandEnded(self._settings.name, lines=tuple(self.lines), note=note))
        with self.lock:
            self._terminate = True
        self._wake()

    def raise_error(self) -> None:
        """Raise what ended the conversation, if it is over."""
        if self.error is not None:
            raise self.error.with_traceback(None)

    def _queue(self, line: bytes) -> None:
        self._outgoing.append(memoryview(line))
        self._outgoing_bytes += len(line)

    def _wake(self) -> None:
        with self.lock:
            if not self._over:
                os.eventfd_write(self._wake_fd, 1)

    def _fail(self, error: BaseException) -> None:
        with self.lock:
            if self.error is not None:
                return
            self.error = error
            self.talk.move(TalkState.OVER)
            answers, self._answers = list(self._answers.values()), {}
            self._outgoing.clear()
            self._outgoing_bytes = 0
        for future in [self.ready, *answers]:
            _settle(future, error)
        self._tell()

    def _tell(self) -> None:
        with self.lock:
            watchers = list(self._watchers)
        for wake in watchers:
            wake()

    # --- The thread -------------------------------------------------------------------------------

    def _serve(self) -> None:
        process: subprocess.Popen[bytes] | None = None
        try:
            process = self._start()
            self.pid = process.pid
            if not self._settings.handshake:
                _settle(self.ready, None)
            Tending(self, self._settings, process, self._wake_fd).run()
        except BaseException as error:
            self._fail(CommandStartError(self._settings.name, str(error)))
            if process is not None:  # a bug here shall leave nothing behind
                process.kill()
                process.wait()
            if not isinstance(error, OSError | ValueError):
                raise
        finally:
            with self.lock:
                self._over = True
                os.close(self._wake_fd)
            _settle(self.ended, None)
            self._tell()

    def _start(self) -> subprocess.Popen[bytes]:
        settings = self._settings
        guard = [sys.executable, "-I", "-S", _STARTER, str(os.getpid())]
        return subprocess.Popen(
            [*guard, *settings.argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=settings.cwd,
            env=dict(settings.environment),
            process_group=0,
        )

    # What the thread reads and writes is told by these.

    def hear(self, data: bytes | None) -> None:
        """Bytes of the program; None is the end of them. A bad line ends the conversation."""
        heard: list[Heard] = []
        bad: BadLine | None = None
        with self.lock:
            if self.error is not None:
                return
            try:
                for one in self.talk.end() if data is None else self.talk.feed(data):
                    heard.append(one)
            except BadLine as error:
                bad = error
            answered = [one for one in heard if isinstance(one, Answered)]
            answers = [(one, self._answers.pop(one.request, None)) for one in answered]
        for one in heard:
            if isinstance(one, Greeted):
                _settle(self.ready, one.message)
        for answer, future in answers:
            if future is not None:
                _settle(future, answer.error or answer.value)
        if bad is not None:
            name, lines = self._settings.name, tuple(self.lines)
            self._fail(BadMessage(name, bad.line, bad.reason, lines))
        elif heard:
            self._tell()

    def has_outgoing(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._outgoing)

    def write_some(self, fd: int) -> None:
        """Write what the pipe takes."""
        with self.lock:
            while self._outgoing:
                part = self._outgoing[0]
                try:
                    count = os.write(fd, part)
                except BlockingIOError:
                    break
                except OSError:  # it reads no more; what it does about that shows soon
                    self._outgoing.clear()
                    self._outgoing_bytes = 0
                    break
                self._outgoing_bytes -= count
                if count == len(part):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = part[count:]
                    break
        self._tell()

    def ended_with(self, code: int) -> None:
        """The program has ended; nothing more comes from it."""
        settings, lines = self._settings, tuple(self.lines)
        exit_code, number = (code, None) if code >= 0 else (None, -code)
        ended = CommandEnded(settings.name, exit_code, number, lines)
        if self.talk.state is TalkState.GREETING:
            how = str(CommandEnded("it", exit_code, number))
            reason = f"{how} before it said that it is ready"
            self._fail(CommandStartError(settings.name, reason, lines))
        else:
            self._fail(ended)

    @property
    def doomed(self) -> bool:
        """Whether the program shall end."""
        return self._terminate or isinstance(self.error, BadMessage)

    @property
    def full(self) -> bool:
        """Whether no more should be read."""
        return self.talk.overflows


def _settle(future: Future[Any], outcome: Any) -> None:
    """End a future, unless it has ended, or nobody wants it any more."""
    try:
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:
        return
