"""A broker that is killed under load while a crowd of peers lives on, and what comes of it.

Rules of this file: the broker is a process of its own, the crowd lives in this one. What must hold
is in `Outcome.faults`; figures are figures, and no test depends on them.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import zmq

from tests.integration.fault_cluster import steady_port
from tests.recovery.agents import RealAgent
from tests.recovery.books import Books
from tests.recovery.clients import RealClient
from tests.recovery.loop import Loop, now_ns
from tests.support import Processes

_READY_S: Final = 30.0
_BACK_S: Final = 60.0

# Descriptors of one peer: its connection and what wakes its socket, twice while it opens another.
# And of everything else.
_FILES_PER_PEER: Final = 4
_FILES_BESIDES: Final = 200

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen."""

    agents: int = 100
    clients: int = 20
    workers: int = 1
    tasks: int = 50  # that each client keeps open
    most_ms: int = 3_000  # the longest that a task runs
    kills: int = 3
    between_s: float = 2.0  # the longest time of load between two kills
    down_s: float = 0.0  # how long there is no broker
    seed: int = 0
    journal: bool = False


@dataclass(frozen=True, slots=True)
class Comeback:
    """How one broker was received."""

    what: str
    down_s: float
    all_back_s: float
    dispatch_s: float
    peak_hellos: int
    hellos: int
    cpu_s: float


@dataclass
class Outcome:
    """Of a whole run."""

    plan: Plan
    books: Books
    comebacks: list[Comeback] = field(default_factory=list[Comeback])
    counters: Counter[str] = field(default_factory=Counter[str])
    late_s: float = 0.0

    def faults(self) -> list[str]:
        """What broke a promise."""
        books = self.books
        found = list(books.wrong)
        missing = books.submitted - len(books.ends)
        if missing:
            found.append(f"{missing} of {books.submitted} tasks have no end")
        if books.overlaps and not self.counters["agents_lost"]:
            found.append(f"{books.overlaps} tasks began again while they ran")
        if books.again and self.plan.journal:
            found.append(
                f"{books.again} tasks began again after their end, in spite of the journal"
            )
        return found


class Broker:
    """One broker after the other on one port."""

    def __init__(self, processes: Processes, config: dict[str, Any], log: Path) -> None:
        self._processes = processes
        self._config = {"port": steady_port(), "log_level": "info", **config}
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._ready = -1
        self.address = f"tcp://127.0.0.1:{self._config['port']}"

    def start(self) -> None:
        """The next broker. It is not waited for."""
        self._ready, theirs = os.pipe2(os.O_NONBLOCK)
        with self._log.open("a") as output:
            self._process = self._processes.start(
                sys.executable,
                "-m",
                "evener_broker",
                json.dumps({**self._config, "ready_fd": theirs}),
                stdout=output,
                stderr=output,
                pass_fds=(theirs,),
            )
        os.close(theirs)

    def is_ready(self) -> bool:
        """Whether it listens by now."""
        with contextlib.suppress(BlockingIOError):
            told = os.read(self._ready, 4_096)
            assert b'"ready"' in told, f"{told!r}\n{self._log.read_text()}"
            return True
        return False

    def cpu_s(self) -> float:
        """Processor time that it has used."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._processes.kill(self._process)
        os.close(self._ready)


class Crowd:
    """Broker, agents and clients of one run."""

    def __init__(self, plan: Plan, processes: Processes, folder: Path) -> None:
        self.plan = plan
        self.books = Books()
        self.loop = Loop()
        config = {"journal": str(folder / "tasks.journal")} if plan.journal else {}
        self.broker = Broker(processes, config, folder / "broker.log")
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # Those that were closed count until ZeroMQ has cleared them away.
        self.context.max_sockets = 4 * (plan.agents + plan.clients) + 64
        self.agents: list[RealAgent] = []
        self.clients: list[RealClient] = []
        self.outcome = Outcome(plan, self.books)

    def begin(self) -> None:
        """All peers, all at once: the worst that can happen to a broker."""
        plan, address = self.plan, self.broker.address
        for number in range(plan.agents):
            agent = RealAgent(number, address, self.context, self.books, plan.workers, now_ns())
            self.agents.append(agent)
            self.loop.add(agent)
        for number in range(plan.clients):
            tasks, most_us = plan.tasks, plan.most_ms * 1_000
            client = RealClient(number, address, self.context, self.books, tasks, most_us)
            self.clients.append(client)
            self.loop.add(client)

    def peers(self) -> Iterator[RealAgent | RealClient]:
        """Everybody but the broker."""
        yield from self.agents
        yield from self.clients

    def all_back(self) -> bool:
        """Whether everybody has a session with a broker that came after the last one."""
        return all(peer.epoch() > self.books.epoch for peer in self.peers())

    def receive_broker(self, what: str, down_s: float) -> None:
        """Start the next broker, and note how long it takes until all is well."""
        books = self.books
        self.loop.run_for(down_s)
        books.dispatched_ns = 0
        started_ns = now_ns()
        hellos = len(books.hellos)
        self.broker.start()
        self.loop.run_until(self.broker.is_ready, _READY_S, "the broker to be ready")
        if not self.agents:
            self.begin()
            started_ns = now_ns()
        self.loop.run_until(self.all_back, _BACK_S, "all peers to be back")
        back_ns = now_ns()
        if self.clients:
            self.loop.run_until(lambda: books.dispatched_ns > 0, _BACK_S, "a first dispatch")
        books.epoch = self.agents[0].epoch()
        cpu_s = self.broker.cpu_s()
        self.outcome.comebacks.append(
            Comeback(
                what,
                down_s,
                (back_ns - started_ns) / 1e9,
                (books.dispatched_ns - started_ns) / 1e9 if self.clients else 0.0,
                books.peak_hellos(started_ns),
                len(books.hellos) - hellos,
                cpu_s,
            )
        )

    def load_until(self, more: int) -> None:
        """Let so many more tasks end."""
        wanted = len(self.books.ends) + more
        self.loop.run_until(lambda: len(self.books.ends) >= wanted, 120, f"{more} more results")

    def ask_counters(self) -> None:
        """Add up the counters of the broker of now."""
        client = self.clients[0]
        client.ask("status")
        client.turn(now_ns())
        self.loop.run_until(lambda: bool(client.answers), 20, "an answer")
        self.outcome.counters.update(client.answers.pop()["broker"]["counters"])

    def rest(self) -> None:
        """No more tasks; the ones under way end."""
        for client in self.clients:
            client.resting = True
        seconds = 60 + self.plan.most_ms / 1_000
        self.loop.run_until(lambda: not any(c.open for c in self.clients), seconds, "all results")

    def close(self) -> None:
        """Nothing is left."""
        for peer in self.peers():
            peer.close()
        self.context.term()
        self.loop.close()


@contextlib.contextmanager
def crowd(plan: Plan, processes: Processes, folder: Path) -> Iterator[Crowd]:
    """A crowd that ends with the block."""
    need_files(plan)
    made = Crowd(plan, processes, folder)
    try:
        yield made
    finally:
        made.close()


def recover(plan: Plan, processes: Processes, folder: Path) -> Outcome:
    """Kill the broker again and again under load."""
    rng = random.Random(plan.seed)
    with crowd(plan, processes, folder) as all_:
        all_.receive_broker("first start", 0.0)
        for number in range(plan.kills):
            all_.load_until(plan.agents // 2)
            all_.loop.run_for(rng.random() * plan.between_s)
            all_.ask_counters()
            all_.broker.kill()
            all_.receive_broker(f"kill {number + 1}", plan.down_s)
        all_.load_until(plan.agents // 2)
        all_.rest()
        all_.ask_counters()
        all_.broker.kill()
        all_.outcome.late_s = all_.loop.late_ns / 1e9
        return all_.outcome


def idle(plan: Plan, processes: Processes, folder: Path, seconds: float) -> float:
    """The broker's share of one processor while all agents have nothing to do."""
    with crowd(plan, processes, folder) as all_:
        all_.receive_broker("first start", 0.0)
        all_.loop.run_for(3.0)
        before_s, began_s = all_.broker.cpu_s(), time.monotonic()
        all_.loop.run_for(seconds)
        share = (all_.broker.cpu_s() - before_s) / (time.monotonic() - began_s)
        all_.broker.kill()
        return share


def need_files(plan: Plan) -> None:
    """Allow this process as many descriptors as it needs. AssertionError when it may not."""
    needed = (plan.agents + plan.clients) * _FILES_PER_PEER + _FILES_BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        assert hard >= needed, f"{needed} descriptors are needed, and {hard} allowed (ulimit -Hn)"
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
