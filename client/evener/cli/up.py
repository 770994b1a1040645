"""`evener up`: a broker and an agent as children of this process, for as long as it lives.

Rules of this file: it decides when what starts and stops. How a child is started and ended stands
in `evener.children`, draining is the agent's. However this process ends, the lifelines end with it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from evener.cli import exits, logs
from evener.cli.banner import Ready, show_up
from evener.cli.group import COMMANDS, Command
from evener.cli.options import (
    PORT_DEFAULT,
    listen_options,
    log_options,
    refuse_open_host,
    worker_options,
)
from evener.cli.output import complain
from evener.cli.ports import PORTS_TRIED, free_port, is_taken, who_listens

if TYPE_CHECKING:
    from evener.children import Child

_STOP_S: Final = 5.0
_IMPORT_S: Final = 3_600.0  # apps may load models; whoever waits can press Ctrl-C
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
@click.argument("app", required=False, metavar="[APP]")
@worker_options
@listen_options
@log_options
def command(
    app: str | None,
    workers: int | None,
    queues: tuple[str, ...],
    name: str | None,
    drain: float,
    host: str,
    port: int | None,
    insecure: bool,
    log_level: str,
    log_format: str,
    quiet: bool,
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
    }
    tree = Tree(broker, port, agent)
    with tree.children():
        ready = tree.start()
        if not quiet and log_format != "json":
            show_up(ready)
        return tree.run(drain)


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
        self._family = Family()

    @contextmanager
    def children(self) -> Generator[None]:
        """Whatever happens inside, both are gone afterwards."""
        try:
            yield
        finally:
            # Until here Ctrl-C may interrupt; a broom that is interrupted leaves dirt.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
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
            deadline = time.monotonic() + _IMPORT_S
            ready = self._family.agent.wait_for("ready", deadline)
        except StartError as error:
            # Of an agent's trouble its own lines have been shown already, as they came.
            if self._family.agent is None or error.output:
                complain(str(error).partition("\n")[0], "evener up")
            raise click.exceptions.Exit(error.code) from error
        named = self._agent_config["app"] if ready["functions"] else None
        return Ready(address, named, ready["workers"], ready["functions"])

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
                address = str(broker.wait_for("ready", time.monotonic() + 30)["address"])
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

    def run(self, drain: float) -> int:
        """Wait for a signal, or for the end of a child; then stop both. Returns the exit code."""
        broker, agent = self._family.broker, self._family.agent
        assert broker is not None
        assert agent is not None
        with _signals() as signals, _ends(broker) as broker_end, _ends(agent) as agent_end:
            deadline: float | None = None
            while True:
                fds = _wait([signals, broker_end, agent_end], deadline)
                if agent_end in fds:
                    return self._after_agent(stopping=deadline is not None)
                if broker_end in fds:
                    complain("the broker ended unexpectedly; stopping the workers", "evener up")
                    return exits.FAILED
                if signals in fds:
                    for number in os.read(signals, 64):
                        self._tell_agent(number)
                    limit = drain if deadline is None else 0
                    deadline = time.monotonic() + limit + _STOP_S
                elif not fds:
                    complain("the workers did not stop in time: killed", "evener up")
                    return exits.FAILED

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
        return code if code > 0 or stopping else exits.FAILED


@contextmanager
def _signals() -> Generator[int]:
    """A descriptor with the number of each SIGINT and SIGTERM that came."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note_nothing)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)


def _note_nothing(number: int, frame: object) -> None:
    """Without a handler of ours Python would not write to the descriptor."""


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
