"""`evener up`: a broker and an agent as children of this process, for as long as it lives.

Rules of this file: it decides when what starts and stops. How a child is started and ended stands
in `evener.children`, draining is the agent's. However this process ends, the lifelines end with it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from evener.cli import exits, logs
from evener.cli.banner import Ready, show_up
from evener.cli.bounds import bound_options
from evener.cli.care import care_options
from evener.cli.group import COMMANDS, Command
from evener.cli.journal import journal_options
from evener.cli.options import (
    app_argument,
    listen_options,
    log_options,
    refuse_open_host,
    worker_options,
)
from evener.cli.output import complain
from evener.cli.ports import PORTS_TRIED, free_port, is_taken, who_listens
from evener.discovery import PORT_DEFAULT
from evener.wakeups import Hangup, Meaning, signal_pipe

if TYPE_CHECKING:
    from evener.children import Child

_STOP_S: Final = 5.0
_ASKED_S: Final = 1.0  # who drains the host asks five times a second whether it has left
_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_IMPORT_S: Final = 3_600.0  # apps may load models; whoever waits can press Ctrl-C
_MENDING_S: Final = 30 * 86_400.0
_JOURNAL_S: Final = 3_600.0  # a journal of some gigabytes is read and checked; the same
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


@click.command(
    "up",
    cls=Command,
    help=f"""{COMMANDS["up"].summary}

    APP is module:attribute or path/file.py:attribute. Without it the workers run what is sent along
    with a task, such as the functions of a script. Ctrl-C finishes running tasks; pressed twice it
    stops now.
    """,
    examples=["evener up demo:app -n 4", "evener up jobs/app.py:app -q fast -q slow", "evener up"],
)
@app_argument(required=False, metavar="[APP]")
@worker_options
@care_options
@listen_options
@journal_options
@bound_options
@log_options
def command(
    app: str | None,
    workers: int | None,
    queues: tuple[str, ...],
    name: str | None,
    drain: float,
    start_timeout: float,
    stop_timeout: float,
    max_tasks_per_worker: int | None,
    max_worker_age: float | None,
    max_worker_memory: int | None,
    ping_timeout: float,
    reload: bool,
    host: str,
    port: int | None,
    insecure: bool,
    journal: str | None,
    journal_size: int,
    log_level: str,
    log_format: str,
    quiet: bool,
    **bounds: int | None,  # as `bound_options` names them
) -> int:
    refuse_open_host(host, insecure)
    level = "warning" if quiet else log_level
    form = logs.settled(log_format)  # here, because the children's stderr is a pipe
    agent = {
        "part": "agent",
        "log_format": form,
        "app": app or "evener.no_functions:app",
        "workers": workers or 0,
        "queues": list(queues) or ["default"],
        "name": name or "",
        "insecure": insecure,
        "drain_seconds": round(drain),
        "start_seconds": start_timeout,
        "stop_seconds": stop_timeout,
        "max_tasks_per_worker": max_tasks_per_worker or 0,
        "max_worker_age_seconds": max_worker_age or 0.0,
        "max_worker_memory": max_worker_memory or 0,
        "ping_seconds": ping_timeout,
        "reload": reload,
        "log_level": level,
    }
    # The banner says what the broker would say at its start.
    broker_level = "warning" if level == "info" else level
    broker = {
        "part": "broker",
        "log_format": form,
        "host": host,
        "insecure": insecure,
        "log_level": broker_level,
        "journal": journal,
        "journal_size": journal_size,
        **{name: bound or 0 for name, bound in bounds.items()},
    }
    tree = Tree(broker, port, agent)
    with tree.children():
        ready = tree.start()

        def show() -> None:
            if not quiet and log_format != "json":
                show_up(ready)

        return tree.run(drain, stop_timeout, show)


@dataclass(slots=True)
class Family:
    """The children, once each is started."""

    broker: Child | None = None
    agent: Child | None = None


class Tree:
    """The broker and the agent. Caller: `command`, in the order `children`, `start`, `run`."""

    def __init__(self, broker: dict[str, Any], port: int | None, agent: dict[str, Any]) -> None:
        self._broker_config = broker
        self._port = port
        self._agent_config = agent
        self._journal = ""
        self._family = Family()

    @contextmanager
    def children(self) -> Generator[None]:
        """Whatever happens inside, both are gone afterwards."""
        signal.signal(signal.SIGTERM, _leave)  # until `run` listens
        try:
            yield
        finally:
            # Until here Ctrl-C may interrupt; a broom that is interrupted leaves dirt.
            for number in _STOPS:
                signal.signal(number, signal.SIG_IGN)
            self.stop()

    def stop(self) -> None:
        """End both, and wait for them."""
        for child in (self._family.agent, self._family.broker):
            if child is not None:
                child.stop(_STOP_S)

    # --- Start ------------------------------------------------------------------------------------

    def start(self) -> Ready:
        """Start both; returns when all workers are ready."""
        from evener.children import Child, StartError

        try:
            address = self.start_broker()
            host, _, port = address.removeprefix("tcp://").rpartition(":")
            near = f"tcp://{_WILDCARDS.get(host.strip('[]'), host)}:{port}"
            self._family.agent = Child("evener.cli.child", {**self._agent_config, "broker": near})
            # Broken code is waited for, until somebody mends it.
            limit = _MENDING_S if self._agent_config["reload"] else _IMPORT_S
            deadline = time.monotonic() + limit
            ready = self._family.agent.wait_for("ready", deadline)
        except StartError as error:
            # Of an agent's trouble its own lines have been shown already, as they came.
            if self._family.agent is None or error.output:
                complain(str(error).partition("\n")[0], "evener up")
            raise click.exceptions.Exit(error.code) from error
        named = self._agent_config["app"] if ready["functions"] else None
        return Ready(address, named, ready["workers"], ready["functions"], self._journal)

    def start_broker(self) -> str:
        """Start the broker alone, on the port that was asked for, or else on a free one."""
        from evener.children import Child, StartError

        host = self._broker_config["host"]
        while True:
            port = free_port(host, PORT_DEFAULT) if self._port is None else self._port
            if port is None:
                last = PORT_DEFAULT + PORTS_TRIED - 1
                text = f"the ports from {PORT_DEFAULT} to {last} are taken; give one with --port"
                raise StartError(text, code=exits.UNREACHABLE)
            broker = Child("evener.cli.child", {**self._broker_config, "port": port})
            self._family.broker = broker
            try:
                limit = 30 if self._broker_config.get("journal") is None else _JOURNAL_S
                facts = broker.wait_for("ready", time.monotonic() + limit)
                address, self._journal = str(facts["address"]), str(facts["journal"])
                if self._broker_config.get("journal") is None:
                    self._journal = f"none: {self._journal}"
            except StartError:
                # Somebody may have been faster between our look and the broker's bind.
                if self._port is not None or not is_taken(host, port):
                    raise
                broker.stop(_STOP_S)
                continue
            if self._port is None and port != PORT_DEFAULT:
                owner = who_listens(PORT_DEFAULT)
                complain(f"port {PORT_DEFAULT} is taken by {owner}; using {port}", "evener up")
            return address

    # --- Run --------------------------------------------------------------------------------------

    def run(self, drain: float, stop_timeout: float, listening: Callable[[], None]) -> int:
        """Wait for a signal, or for the end of a child; then stop both. Returns the exit code.

        `listening` is called once signals are awaited: whoever sees the banner may send one.
        """
        broker, agent = self._family.broker, self._family.agent
        assert broker is not None
        assert agent is not None
        hangup = Hangup()
        with signal_pipe(_STOPS) as signals, _ends(broker) as broker_end, _ends(agent) as agent_end:
            listening()
            deadline: float | None = None
            while True:
                fds = _wait([signals, broker_end, agent_end], deadline)
                if agent_end in fds:
                    if deadline is None and agent.exit_code() == 0:
                        text = "the agent ended in order, told to stop (as by evener drain --stop)"
                        complain(f"{text}; stopping", "evener up")
                        _wait([signals, broker_end], time.monotonic() + _ASKED_S)
                        return exits.OK
                    return self._after_agent(stopping=deadline is not None)
                if broker_end in fds:
                    complain("the broker ended unexpectedly; stopping the workers", "evener up")
                    return exits.FAILED
                if signals in fds:
                    if self._pass_on(os.read(signals, 64), hangup):
                        limit = drain if deadline is None else 0
                        deadline = time.monotonic() + limit + stop_timeout + _STOP_S
                elif not fds:
                    complain("the workers did not stop in time: killed", "evener up")
                    return exits.FAILED

    def _pass_on(self, numbers: bytes, hangup: Hangup) -> bool:
        """Tell the agent of signals. Whether it is to stop."""
        stops = False
        for number in numbers:
            means = hangup.means() if number == signal.SIGHUP else Meaning.STOP
            if means is Meaning.RELOAD:
                self._tell_agent(signal.SIGHUP)
            elif means is Meaning.STOP:
                # Its own terminal is none: what SIGHUP means is known here alone.
                self._tell_agent(signal.SIGTERM if number == signal.SIGHUP else number)
                stops = True
        return stops

    def _tell_agent(self, number: int) -> None:
        agent = self._family.agent
        if agent is not None and agent.is_alive():
            with suppress(ProcessLookupError):
                os.kill(agent.pid, number)

    def _after_agent(self, *, stopping: bool) -> int:
        agent = self._family.agent
        assert agent is not None
        # The descriptor said that it ended, so there is a code.
        code = agent.exit_code() or 0
        if not stopping:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            complain(f"the agent ended unexpectedly ({how}); stopping", "evener up")
            return code if code > 0 else exits.FAILED
        # A signal that came while it was leaving already.
        return code if code >= 0 else 128 - code


def _leave(number: int, frame: object) -> None:
    """SIGTERM while the children start: nothing runs yet that could be drained."""
    raise click.exceptions.Exit(exits.TERMINATED)


@contextmanager
def _ends(child: Child) -> Generator[int]:
    """A descriptor that becomes readable when the child ends."""
    descriptor = os.pidfd_open(child.pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _wait(descriptors: list[int], deadline: float | None) -> list[int]:
    """Those that are readable; none when the time is over."""
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
    readable, _, _ = select.select(descriptors, [], [], timeout)
    return readable
