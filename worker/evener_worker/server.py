"""The shell of the agent: one loop, one epoll, one thread, performing what the core decides.

Rules of this file: no decisions. Each turn drains what is there up to a bound, lets the core step
once, and performs its effects. Signal handlers only write to a descriptor. Nothing here blocks.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from evener.wakeups import Hangup, Meaning, signal_pipe
from evener_wire.limits import GOODBYE_LINGER_NS, MILLISECOND_NS, SECOND_NS
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.config import AgentConfig
from evener_worker.core import AgentCore
from evener_worker.crew import Crew
from evener_worker.facts import host_facts
from evener_worker.reloading import TELL_VARIABLE
from evener_worker.titles import show_agent

if TYPE_CHECKING:
    from evener_worker.link import Link

_LEVELS: Final = ("debug", "info", "warning", "error")
_SIGNALS: Final = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
_READ: Final = select.EPOLLIN
_GC_THRESHOLD: Final = 50_000
_FILES_NAMED: Final = 3


Line = Callable[[str, str], str]
"""What the agent writes of a level and a text."""


def _bare(level: str, text: str) -> str:
    return text


def serve(config: AgentConfig, line: Line = _bare) -> int:
    """Run an agent until it is told to stop. Its exit code."""
    config = config.settled()
    # The loop makes no reference cycles per task; looking for them often costs more than it finds.
    gc.set_threshold(_GC_THRESHOLD, 20, 20)
    show_agent(config.name)
    if config.reload:
        os.environ[TELL_VARIABLE] = "1"
    with contextlib.ExitStack() as stack:
        return Agent(config, stack, line).run()


def now() -> int:
    """The one clock of the agent: nanoseconds that also count while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Agent:
    """Caller: `serve`, once."""

    def __init__(
        self, config: AgentConfig, stack: contextlib.ExitStack, line: Line = _bare
    ) -> None:
        self._config = config
        self._line = line
        self._epoll = select.epoll()
        stack.callback(self._epoll.close)
        self._on_fd: dict[int, Callable[[int], None]] = {}
        self._events: list[e.Event] = []
        self._rng = random.Random()  # jitter only; seeded by the system
        self._crew = Crew(config, self._epoll, self._on_fd, self._events, now)
        stack.callback(self._crew.bury_all)
        self._core = AgentCore(config, os.urandom(16), self._rng, host_facts())
        self._link: Link | None = None
        self._exit_code: int | None = None
        self._linger_ns = GOODBYE_LINGER_NS
        self._measure_at_ns = 0
        self._hangup = Hangup()
        self._install_signals(stack)
        if config.lifeline_fd is not None:
            self._watch(config.lifeline_fd, self._on_lifeline)
        self._perform: dict[type, Callable[[Any], None]] = {
            f.Send: self._send,
            f.SendResults: self._send_results,
            f.Reconnect: self._reconnect,
            f.Hand: self._crew.hand,
            f.TakeBack: self._crew.take_back,
            f.Flag: self._crew.flag,
            f.Take: self._crew.take,
            f.Terminate: self._crew.terminate,
            f.Interrupt: self._crew.interrupt,
            f.Kill: self._crew.kill,
            f.StartWorker: self._crew.start,
            f.Leave: self._crew.leave,
            f.Dump: self._crew.dump,
            f.ReadLog: self._crew.read_log,
            f.Ping: self._crew.ping,
            f.Tell: self._tell,
            f.Log: self._log,
            f.Exit: self._exit,
        }

    # --- The loop ---------------------------------------------------------------------------------

    def run(self) -> int:
        """Start, serve, stop."""
        effects = self._core.begin(now())
        # Workers first: they import their app while ZeroMQ is set up.
        self._apply([effect for effect in effects if isinstance(effect, f.StartWorker)])
        from evener_worker.link import Link

        self._link = Link(self._config.broker, self._rng)
        self._watch(self._link.fd, _nothing)
        self._apply([effect for effect in effects if not isinstance(effect, f.StartWorker)])
        while self._exit_code is None:
            self._turn(self._link)
        self._link.close(self._linger_ns // MILLISECOND_NS)
        return self._exit_code

    def _turn(self, link: Link) -> None:
        readable = self._look(link)
        timeout = 0.0 if readable or self._events else self._timeout()
        for fd, mask in self._epoll.poll(timeout):
            handler = self._on_fd.get(fd)
            if handler is not None:
                handler(mask)
        if readable or self._look(link):
            link.receive(self._events)
        self._crew.dumps.look()
        self._crew.logs.look()
        now_ns = now()
        if self._config.reload and (changed := self._crew.changes.look(now_ns)):
            names = ", ".join(os.path.basename(file) for file in changed[:_FILES_NAMED])
            self._events.append(e.RestartAsked(f"changed: {names}"))
        wake_at = self._core.wake_at()
        if wake_at is not None and wake_at <= now_ns:
            self._events.append(e.Tick(self._crew.pages(self._core.pool.lanes())))
        if now_ns >= self._measure_at_ns:
            self._measure_at_ns = now_ns + SECOND_NS
            self._events.append(e.Measured(self._crew.usage()))
        if self._events:
            events = self._events[:]
            self._events.clear()
            self._apply(self._core.step(now_ns, events))

    def _look(self, link: Link) -> bool:
        readable, writable = link.look()
        if writable:
            self._events.append(e.Writable())
        return readable

    def _apply(self, effects: Sequence[f.Effect]) -> None:
        """Perform effects; what comes of them at once is told to the core before anything else."""
        while effects:
            for effect in effects:
                self._perform[type(effect)](effect)
            if not self._events:
                return
            events = self._events[:]
            self._events.clear()
            effects = self._core.step(now(), events)

    def _timeout(self) -> float:
        wake_at = self._core.wake_at()
        at_ns = self._measure_at_ns if wake_at is None else min(wake_at, self._measure_at_ns)
        dump_at = self._crew.dumps.next_at()
        logs_at = self._crew.logs.next_at()
        at_ns = min(at for at in (at_ns, dump_at, logs_at) if at is not None)
        if self._config.reload:
            at_ns = min(at_ns, self._crew.changes.next_at())
        return max(0.0, (at_ns - now()) / 1e9)

    def _watch(self, fd: int, handler: Callable[[int], None]) -> None:
        self._on_fd[fd] = handler
        self._epoll.register(fd, _READ)

    # --- Signals and the parent -------------------------------------------------------------------

    def _install_signals(self, stack: contextlib.ExitStack) -> None:
        reader = stack.enter_context(signal_pipe(_SIGNALS))
        self._watch(reader, lambda _: self._on_signals(os.read(reader, 64)))

    def _on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            name, code = signal.Signals(number).name, _SIGNALS.get(signal.Signals(number))
            means = self._hangup.means() if number == signal.SIGHUP else Meaning.STOP
            if means is Meaning.RELOAD:
                self._events.append(e.RestartAsked(name))
            elif means is Meaning.STOP and code is not None:
                self._events.append(e.StopAsked(name, code))

    def _on_lifeline(self, mask: int) -> None:
        fd = self._config.lifeline_fd
        assert fd is not None
        if not mask & select.EPOLLHUP and os.read(fd, 64):
            return
        self._epoll.unregister(fd)
        # Its broker ends with it: there is nobody to take leave of.
        self._linger_ns = 0
        self._events.append(e.StopAsked("the process that started this agent ended", 0, True))

    # --- Effects ----------------------------------------------------------------------------------

    def _send(self, effect: f.Send) -> None:
        assert self._link is not None
        if not self._link.send(effect):
            self._events.append(e.SendFailed())

    def _send_results(self, effect: f.SendResults) -> None:
        assert self._link is not None
        if not self._link.send_results(effect):
            self._events.append(e.SendFailed())

    def _reconnect(self, effect: f.Reconnect) -> None:
        assert self._link is not None
        self._epoll.unregister(self._link.fd)
        del self._on_fd[self._link.fd]
        self._link.reopen(effect.window_ns)
        self._watch(self._link.fd, _nothing)

    def _tell(self, effect: f.Tell) -> None:
        if self._config.ready_fd is not None:
            line = json.dumps(effect.report).encode() + b"\n"
            with contextlib.suppress(OSError):  # whoever started this agent may be gone
                os.write(self._config.ready_fd, line)

    def _log(self, effect: f.Log) -> None:
        if _LEVELS.index(effect.level) >= _LEVELS.index(self._config.log_level):
            self._crew.say(self._line(effect.level, effect.text))

    def _exit(self, effect: f.Exit) -> None:
        if self._exit_code is None:
            self._exit_code = effect.code


def _nothing(mask: int) -> None:
    """The turn looks at the link anyway."""


def main(argv: list[str]) -> int:
    """The entry point: `python -m evener_worker '<json>'`."""
    from evener_wire.errors import UsageError
    from evener_worker.config import config_from_json

    if len(argv) != 2:
        sys.stderr.write("usage: python -m evener_worker '<json>'\n")
        return 2
    try:
        return serve(config_from_json(argv[1]))
    except UsageError as error:
        sys.stderr.write(f"evener worker: {error}\n")
        return 2
