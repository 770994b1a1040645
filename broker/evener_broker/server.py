"""The broker as a process: configuration, address, signals, files, and the way out.

`serve` is what `evener broker` and `python -m evener_broker` run. It returns an exit code.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import logging
import os
import random
import resource
import signal
import socket as sockets
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from evener_broker.core import BrokerCore
from evener_broker.journal import Journal
from evener_broker.journal_damage import JournalError
from evener_broker.journaling import Contents
from evener_broker.memory import Gauge, bounds_for, default_limit
from evener_broker.roster import Roster
from evener_broker.roster_file import RosterFile
from evener_broker.runtime import RuntimeFiles, runtime_folder
from evener_broker.shell import Shell, router
from evener_broker.tables import Bounds
from evener_wire.errors import EvenerError, UsageError
from evener_wire.limits import MIB

_log = logging.getLogger("evener.broker")

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_UNREACHABLE = 69
EXIT_SIGINT = 130

_PORTS_TRIED_MAX = 100

# With fewer open files libzmq may end the process by abort().
_FILES_MIN = 64

# How large a journal may become unless somebody says otherwise.
JOURNAL_BYTES = 4 * 1024 * MIB


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """How a broker is started.

    `port` 0 takes any free port. `insecure` allows addresses that other machines reach, without
    encryption and without keys. `ready_fd` gets one JSON line once the broker listens, or why it
    does not. The broker stops when `lifeline_fd` reaches its end of file: its parent is gone.
    `journal` is the file that keeps what was accepted, up to `journal_size` bytes; without it that
    lives in memory alone. The `max_*` bound tasks and payload bytes, of all clients and of each;
    `memory_limit` bounds the whole process. 0: as the memory of this machine allows.
    """

    host: str = "127.0.0.1"
    port: int = 7450
    insecure: bool = False
    ready_fd: int | None = None
    lifeline_fd: int | None = None
    log_level: str = "info"
    runtime_dir: str | None = None
    journal: str | None = None
    journal_size: int = JOURNAL_BYTES
    max_tasks: int = 0
    max_bytes: int = 0
    max_client_tasks: int = 0
    max_client_bytes: int = 0
    memory_limit: int = 0


class AddressError(EvenerError):
    """Raised when the broker cannot listen where it should."""


def serve(config: BrokerConfig) -> int:
    """Run a broker until SIGTERM, SIGINT, or the end of its parent. Returns the exit code."""
    with contextlib.ExitStack() as stack:
        try:
            refuse_open_host(config.host, config.insecure)
            _raise_file_limit()
            folder = Path(config.runtime_dir) if config.runtime_dir else runtime_folder()
            files = RuntimeFiles(folder)
            context = stack.enter_context(_context())
            socket = router(context)
            stack.callback(socket.close, linger=0)
            address = _bind(socket, config)
            epoch = files.next_epoch()
            journal = _open_journal(config, stack, epoch)
            if journal is not None and journal.epoch > epoch:
                epoch = journal.epoch
                files.note_epoch(epoch)
            files.publish(address, epoch)
            stack.callback(files.remove)
        except (EvenerError, OSError) as error:
            return _report_failure(config, error)
        return _run(config, stack, socket, address, epoch, journal, files)


def _open_journal(config: BrokerConfig, stack: contextlib.ExitStack, epoch: int) -> Journal | None:
    if config.journal is None:
        return None
    # Reading a million tasks makes no garbage, and a collector that looks for it doubles the time.
    gc.disable()
    journal = Journal.open(Path(config.journal), config.journal_size, epoch)
    stack.callback(journal.close)
    return journal


def _open_roster(
    config: BrokerConfig, files: RuntimeFiles, broker: bytes, stack: contextlib.ExitStack
) -> RosterFile | None:
    """For the next broker on this address; None where nobody could come after this one."""
    if config.port == 0:
        return None
    path = files.roster(config.host, config.port)
    try:
        roster = RosterFile(path, broker)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()  # of an earlier broker: it would not know whom this one knew
        _log.warning("cannot note agents in %s: %s", path, error)
        return None
    stack.callback(roster.close)
    return roster


def _run(
    config: BrokerConfig,
    stack: contextlib.ExitStack,
    socket: zmq.Socket[bytes],
    address: str,
    epoch: int,
    journal: Journal | None,
    files: RuntimeFiles,
) -> int:
    facts = {"host": sockets.gethostname(), "pid": os.getpid()}
    contents = journal.take_contents() if journal is not None else None
    promise = _promise(config, contents)
    rng = random.Random(os.urandom(16))
    limit = config.memory_limit or default_limit()
    bounds = _bounds(config, limit)
    broker = os.urandom(16)
    noter = None if journal is not None else _open_roster(config, files, broker, stack)
    roster = Roster(noter.before) if noter is not None else None
    core = BrokerCore(broker, epoch, rng, bounds, facts, contents, roster)
    del contents
    code = EXIT_OK

    def on_signal() -> None:
        nonlocal code
        numbers = os.read(signal_fd, 64)
        code = EXIT_SIGINT if signal.SIGINT in numbers else EXIT_OK
        shell.stop()

    def on_lifeline() -> None:
        shell.stop()

    signal_fd = stack.enter_context(_signals())
    wakers = {signal_fd: on_signal}
    if config.lifeline_fd is not None:
        wakers[config.lifeline_fd] = on_lifeline
    gauge = stack.enter_context(contextlib.closing(Gauge(limit)))
    shell = Shell(core, socket, wakers, journal, gauge, noter)
    # The tables hold no cycles once a task ended, and a collector that walks a million queued tasks
    # would stop the loop for a second.
    gc.collect()
    gc.freeze()
    gc.disable()
    _log.info("broker ready on %s", address)
    _log.info("%s", f"journal {promise}" if journal is not None else f"no journal: {promise}")
    ready = {"event": "ready", "address": address, "pid": os.getpid(), "journal": promise}
    _tell_parent(config, ready)
    shell.run()
    _log.info("broker stopped: %r", core)
    return code


def _bounds(config: BrokerConfig, limit: int) -> Bounds:
    return bounds_for(
        limit,
        tasks=config.max_tasks,
        payload_bytes=config.max_bytes,
        client_tasks=config.max_client_tasks,
        client_bytes=config.max_client_bytes,
        durable=config.journal is not None,
    )


def _promise(config: BrokerConfig, contents: Contents | None) -> str:
    """What becomes of accepted tasks when this process ends."""
    if contents is None:
        return "accepted tasks and results live as long as this broker"
    ended = sum(task.state is not None for task in contents.tasks)
    count = len(contents.tasks) - ended
    tasks, results = "task" if count == 1 else "tasks", "result" if ended == 1 else "results"
    return f"{config.journal}: {count} open {tasks}, {ended} {results}"


@contextlib.contextmanager
def _context() -> Generator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        yield context
    finally:
        context.term()


def refuse_open_host(host: str, insecure: bool) -> None:
    """Raises `UsageError` for an address that other machines reach, unless that is wanted."""
    parts = host.split(".")
    here = len(parts) == 4 and parts[0] == "127" and all(part.isdecimal() for part in parts)
    if not (insecure or here or host in ("localhost", "::1")):
        raise UsageError(
            f"--host {host} lets other machines connect, and this version has neither encryption "
            "nor keys (a later one will): whoever reaches the port can run code on the workers. "
            "Keep 127.0.0.1 and use a tunnel (ssh -L), or add --insecure where you trust the whole "
            "network"
        )


def _bind(socket: zmq.Socket[bytes], config: BrokerConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    try:
        socket.bind(f"tcp://{host}:{config.port or '*'}")
    except zmq.ZMQError as error:
        raise AddressError(_why_not(config, error)) from error
    port = str(socket.getsockopt_string(zmq.LAST_ENDPOINT)).rpartition(":")[2]
    return f"tcp://{host}:{port}"


def _why_not(config: BrokerConfig, error: zmq.ZMQError) -> str:
    place = f"{config.host}:{config.port}"
    if error.errno == zmq.EADDRINUSE:
        free = _next_free_port(config)
        other = f" Free: --port {free}" if free else ""
        return f"cannot listen on {place}: {_who_listens(config.port)} has this port.{other}"
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return f"cannot listen on {place}: this machine has no such address"
    return f"cannot listen on {place}: {error.strerror}"


def _who_listens(port: int) -> str:
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr
            if connection.status == psutil.CONN_LISTEN and here and here.port == port:
                if connection.pid is None:
                    break
                name = psutil.Process(connection.pid).name()
                return f"{name} (pid {connection.pid})"
    return "another process"


def _next_free_port(config: BrokerConfig) -> int | None:
    family = sockets.AF_INET6 if ":" in config.host else sockets.AF_INET
    for port in range(config.port + 1, min(config.port + _PORTS_TRIED_MAX, 65_536)):
        with sockets.socket(family, sockets.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((config.host, port))
            return port
    return None


def _raise_file_limit() -> None:
    """Each connection takes a file descriptor: allow as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES_MIN:
        raise UsageError(
            f"this process may have {hard} open files, and each connection takes one: a broker "
            f"needs {_FILES_MIN} at the least (ulimit -n, or LimitNOFILE= of systemd)"
        )
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def _signals() -> Generator[int]:
    """A pipe that gets the number of each SIGINT and SIGTERM; nothing is raised anywhere."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handlers = {n: signal.signal(n, _ignore) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield reader
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def _ignore(number: int, frame: object) -> None:
    """Without a handler of ours Python would not write to the pipe."""


def _report_failure(config: BrokerConfig, error: Exception) -> int:
    code = EXIT_USAGE if isinstance(error, UsageError) else EXIT_UNREACHABLE
    if isinstance(error, JournalError):
        code = error.code
    if config.ready_fd is None:
        _log.error("%s", error)
    _tell_parent(config, {"event": "error", "code": code, "text": str(error)})
    return code


def _tell_parent(config: BrokerConfig, facts: dict[str, Any]) -> None:
    if config.ready_fd is not None:
        with contextlib.suppress(OSError):
            os.write(config.ready_fd, json.dumps(facts).encode() + b"\n")
