"""Programs in any language as workers, over their pipes: the face whose callers block.

Rules of this file: the pipes are tended elsewhere (`command_link.py`); here callers wait. The
parent may destroy the program at any time; the program can only leave.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from types import TracebackType
from typing import Any, Final, TypeAlias

from evener.errors import UsageError
from evener_worker.local.command_errors import CommandEnded, CommandStartError, CommandTimeout
from evener_worker.local.command_link import Link
from evener_worker.local.command_tending import CommandSettings
from evener_worker.local.errors import PoolFull
from evener_worker.local.feed_limits import DESTROY_NS, LINE_MESSAGE_BYTES_MAX, READY_NS
from evener_worker.local.talk import Wanted, encode, fits

Argument: TypeAlias = str | os.PathLike[str]
"""A word of a command line."""


class CommandBase:
    """What both faces of a program share: how it is started, and what can be asked without waiting.

    `argv`: the program and its arguments; no shell is involved. `id`: which one it is, in a pool
    the number of its place. `name` stands before the lines of its stderr, and in errors. `env` is
    added to the environment of this process. With `handshake=False` it is ready as soon as it runs.
    `ready_timeout` and `grace` (between SIGTERM and SIGKILL) are seconds. A line of its stdout may
    have `line_bytes_max` bytes.
    """

    def __init__(
        self,
        argv: Sequence[Argument],
        *,
        id: int | str = 0,
        name: str | None = None,
        cwd: Argument | None = None,
        env: Mapping[str, str] | None = None,
        handshake: bool = True,
        ready_timeout: float = READY_NS / 1e9,
        grace: float = DESTROY_NS / 1e9,
        line_bytes_max: int = LINE_MESSAGE_BYTES_MAX,
    ) -> None:
        if isinstance(argv, str) or not argv:
            raise UsageError(f'argv is a list like ["node", "double.js"], and not {argv!r}')
        words = tuple(os.fspath(word) for word in argv)
        self._id: Final = id
        self.name: Final = name or f"{os.path.basename(words[0])}-{id}"
        self._ready_timeout = ready_timeout
        own = {"PYTHONUNBUFFERED": "1", "EVENER_WORKER_ID": str(id)}
        self._settings = CommandSettings(
            argv=words,
            name=self.name,
            prefix=f"{self.name} | ".encode(),
            cwd=None if cwd is None else os.fspath(cwd),
            environment={**os.environ, **own, **(env or {})},
            handshake=handshake,
            line_bytes_max=line_bytes_max,
            grace_ns=int(grace * 1e9),
        )
        self._link: Link | None = None
        self._greeting: Any = None

    @property
    def id(self) -> int | str:
        """Which one it is."""
        return self._id

    @property
    def active(self) -> bool:
        """Whether it said that it is ready, has not ended, and keeps to the protocol."""
        return self._link is not None and self._link.active

    @property
    def pid(self) -> int:
        """Of its process; 0 before there is one."""
        return 0 if self._link is None else self._link.pid

    @property
    def greeting(self) -> Any:
        """The message by which it said that it is ready; None before, and without a handshake."""
        return self._greeting

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines of its stderr."""
        return () if self._link is None else tuple(self._link.lines)

    def _begin(self) -> Link:
        if self._link is not None and not self._link.ended.done():
            raise UsageError(f"{self.name} is started already")
        self._link = Link(self._settings)
        return self._link

    def _started(self) -> Link:
        if self._link is None:
            raise UsageError(f"{self.name} is not started: call init() first")
        return self._link

    def _not_ready(self, link: Link) -> CommandStartError:
        reason = f"it did not say that it is ready within {self._ready_timeout:g} s"
        return CommandStartError(self.name, reason, tuple(link.lines))

    def _timed_out(self, what: str, timeout: float | None) -> CommandTimeout:
        return CommandTimeout(self.name, what, timeout or 0.0)

    def _next(self, link: Link, wanted: Wanted, seen: int) -> tuple[int, bool, Any]:
        """Look for a message: up to which was looked, whether there is one, and it."""
        for number, message in link.after(seen):
            seen = number
            if fits(message, wanted) and link.take(number):
                return seen, True, message
        return seen, False, None

    def __repr__(self) -> str:
        state = "active" if self.active else "not active"
        return f"<{type(self).__name__} {self.name}: {state}, pid {self.pid}>"


class CommandWorker(CommandBase):
    """A program in any language, as a worker of a pool or on its own.

    It gets one JSON message per line on its stdin and writes one per line to its stdout; lines of
    its stderr appear in this program's terminal, each behind its name. `docs/commands.md` says what
    such a program must do. It ends with this program, however that ends.

    All methods may be called from any thread. What waits raises when the program ends:
    `CommandEnded`, or `BadMessage` when it wrote a line that is no message.
    """

    def init(self) -> None:
        """Start it and wait until it is ready. Raises `CommandStartError`, with its last output."""
        link = self._begin()
        try:
            self._greeting = link.ready.result(self._ready_timeout)
        except FutureTimeout:
            error = self._not_ready(link)
            self.destroy()
            raise error from None
        except BaseException:
            self.destroy()
            raise

    def execute(self, item: Any, /) -> Any:
        """Have it process an item; returns the value that it answers.

        Raises `RemoteError` for an error that it answers, and stays active then.
        """
        return self.request(item)

    def request(self, value: Any, timeout: float | None = None) -> Any:
        """`execute`, but raises `CommandTimeout` after `timeout` seconds. A late answer is dropped.

        Several threads may do so at once; each gets its own answer.
        """
        link = self._started()
        number, future = link.ask(value)
        try:
            return future.result(timeout)
        except FutureTimeout:
            if future.done():
                return future.result()
            raise self._timed_out("did not answer", timeout) from None
        finally:
            link.abandon(number)

    def send(self, message: Any, timeout: float | None = None) -> None:
        """Send a message that needs no answer. Blocks while it does not read what it was sent.

        Raises `PoolFull` after `timeout` seconds of that, `NotSendable` for what is no JSON.
        """
        link = self._started()
        line = encode(message, self._settings.line_bytes_max)
        with _Watch(link, timeout) as watch:
            while not link.try_send(line):
                if not watch.wait():
                    raise PoolFull(f"{self.name} did not read for {timeout:g} s")

    def listen_once(self, wanted: Wanted = None, timeout: float | None = None) -> Any:
        """The next message of a kind, or for which a function is true, or any.

        Messages that are not wanted stay for others who listen. Raises `CommandTimeout` after
        `timeout` seconds (None: never).
        """
        return self._listen(self._started(), wanted, timeout)

    def _listen(self, link: Link, wanted: Wanted, timeout: float | None) -> Any:
        seen = 0
        with _Watch(link, timeout) as watch:
            while True:
                seen, there, message = self._next(link, wanted, seen)
                if there:
                    return message
                if not watch.wait():
                    raise self._timed_out("sent no such message", timeout)

    def listen_for(self, wanted: Wanted = None, timeout: float | None = None) -> Iterator[Any]:
        """All messages of a kind, as they come, until it has left with exit code 0.

        `timeout` is for each of them. Raises what `listen_once` raises.
        """
        link = self._started()
        while True:
            try:
                message = self._listen(link, wanted, timeout)
            except CommandEnded as ended:
                if ended.exit_code == 0:
                    return
                raise
            yield message

    def destroy(self) -> None:
        """End it and what it started: SIGTERM, and SIGKILL after the grace. Waits for that."""
        if self._link is not None:
            self._link.terminate()
            self._link.thread.join()

    def __enter__(self) -> CommandWorker:
        self.init()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.destroy()


class _Watch:
    """Waits for changes at a link, for a time in all."""

    def __init__(self, link: Link, timeout: float | None) -> None:
        self._link = link
        self._until = None if timeout is None else time.monotonic() + timeout
        self._changed = threading.Event()

    def __enter__(self) -> _Watch:
        self._link.watch(self._changed.set)
        return self

    def __exit__(self, *_: object) -> None:
        self._link.unwatch(self._changed.set)

    def wait(self) -> bool:
        """Until the next change; False when the time is over."""
        left = None if self._until is None else max(0.0, self._until - time.monotonic())
        changed = self._changed.wait(left)
        self._changed.clear()
        return changed
