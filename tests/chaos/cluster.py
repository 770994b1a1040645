"""A cluster of one chaos run: what runs, what was done to it, and the end of it.

Rules of this file: every fault goes through `fault`, so that the checker knows it; who is a worker
of which agent, and when it died, is watched by a thread of the run, not asked of evener.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos.history import note_fact, now_ns
from tests.chaos.network import Network
from tests.chaos.parts import (
    READY_S,
    Part,
    RowError,
    await_true,
    import_path,
    python_module,
    send_signal,
)
from tests.integration.fault_cluster import steady_port
from tests.support import ROOT, is_running

APP = str(ROOT / "tests" / "chaos" / "app.py") + ":app"
CHECKER = ROOT / "tests" / "chaos" / "checker.py"
WATCH_S = 0.02


class Cluster:
    """One broker at a time, agents, clients; in one network namespace each, or all on loopback."""

    def __init__(self, folder: Path, *, network: Network | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.network = network
        self.port = steady_port()
        self.host = network.address("broker") if network else "127.0.0.1"
        self.address = f"tcp://{self.host}:{self.port}"
        self.broker_node = "broker"
        """The host it runs on, where hosts are namespaces."""
        self.durable = False
        self.roots: dict[str, Path] = {}
        """Which checkout a role runs from: "broker", "agent"; by default this one."""
        self.broker: Part
        self.agents: dict[str, Part] = {}
        self.clients: list[Part] = []
        self._parts: list[Part] = []
        self._known: dict[int, int] = {}
        self._read_to = 0
        self._seen: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    # --- Starting ---------------------------------------------------------------------------------

    def _environment(self, role: str) -> dict[str, str]:
        return {
            "CHAOS_FOLDER": str(self.folder),
            "PYTHONPATH": import_path(self.roots.get(role, ROOT)),
            "PYTHONUNBUFFERED": "1",
            "EVENER_RUNTIME_DIR": str(self.folder / "run"),
        }

    def start_broker(self, **config: Any) -> Part:
        """The broker, or the next one on the same port. `prefix`: a program that starts it."""
        self.begin_broker(**config).wait_for("ready")
        return self.broker

    def try_broker(self, **config: Any) -> int | None:
        """The same where it may be refused: what it ended with, or None if it is ready."""
        self.begin_broker(**config)
        await_true(
            lambda: self.broker.has_told("ready") or self.broker.process.poll() is not None,
            READY_S, "the broker to start, or to end",
        )  # fmt: skip
        return self.broker.process.poll()

    def begin_broker(self, *, prefix: Sequence[str] = (), **config: Any) -> Part:
        """A broker that is not waited for."""
        listen = {"host": "0.0.0.0", "insecure": True} if self.network else {}
        settings = {"port": self.port, "log_level": "info", "ready_fd": 1, "lifeline_fd": 0}
        settings |= listen | config
        self.durable = "journal" in settings
        if not (self.folder / "facts").exists():
            wall_ns, ns = time.time_ns(), now_ns()
            note_fact(self.folder, "clock", wall_ns=wall_ns, ns=ns, durable=self.durable)
        self.broker = self._start(
            python_module("evener_broker", settings), "broker", self.broker_node, prefix
        )
        return self.broker

    def begin_agent(
        self, name: str, workers: int = 2, *, node: str = "", alias: str = "",
        prefix: Sequence[str] = (), **config: Any,
    ) -> Part:  # fmt: skip
        """An agent that is not waited for. `alias`: what it is called here, if not by its name."""
        settings = {
            "app": APP, "broker": self.address, "workers": workers, "name": name, "ready_fd": 1,
            "lifeline_fd": 0, "insecure": True, **config,
        }  # fmt: skip
        alias = alias or name
        argv = python_module("evener_worker", settings)
        agent = self._start(argv, alias, node or alias, prefix, name)
        self.agents[alias] = agent
        return agent

    def start_client(
        self, name: str, mode: str = "idle", *, alias: str = "", **config: Any
    ) -> Part:
        settings = {
            "broker": self.address, "folder": str(self.folder), "name": name, "mode": mode,
            "tokens": alias or name, **config,
        }  # fmt: skip
        argv = python_module("tests.chaos.load", settings)
        client = self._start(argv, alias or name, "client", ())
        client.wait_for("connected")
        self.clients.append(client)
        return client

    def start(
        self, load: str = "idle", *, agents: int = 2, workers: int = 2, ordered: bool = False,
        **broker: Any,
    ) -> Part:  # fmt: skip
        """A whole cluster with its load; the client that takes orders, which has no load.

        `ordered`: one more agent, with one worker, and a client whose tasks must begin in order.
        """
        self.start_broker(**broker)
        for number in range(1, agents + 1):
            self.begin_agent(f"host{number}", workers)
        if ordered:
            self.begin_agent("line", 1, queues=["line"])
        client = self.start_client("main")
        self.wait_for_slots(agents * workers + ordered)
        if load != "idle":
            self.start_client("load", load)
        if ordered:
            self.start_client("lineup", "ordered")
        return client

    def _start(
        self, argv: list[str], alias: str, node: str, prefix: Sequence[str], name: str = ""
    ) -> Part:
        role = "agent" if "evener_worker" in argv else alias
        part = Part(
            argv, self.folder / f"{alias}.log", self._environment(role), name=name or alias,
            prefix=prefix,
            node=self.network.node(node) if self.network else "",
        )  # fmt: skip
        self._parts.append(part)
        return part

    # --- Looking ----------------------------------------------------------------------------------

    def slots(self, client: Part | None = None) -> int:
        """Ready workers of connected agents, as the broker sees them; -1: it does not answer."""
        try:
            answer = (client or self.clients[0]).order(
                do="query", what="ls", arguments={"kind": "hosts"}
            )
        except RowError:
            return -1
        return sum(host["slots"] for host in answer["rows"] if host["connected"])

    def wait_for_slots(self, slots: int, seconds: float = READY_S) -> None:
        await_true(lambda: self.slots() == slots, seconds, f"{slots} ready workers")

    def lines(self, token: str, what: str = "start") -> list[tuple[int, int]]:
        """(pid, ns) of each such line of a task; not of those that the loads submit."""
        path = self.folder / "history"
        if path.exists():
            with path.open("rb") as file:
                file.seek(self._read_to)
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self._read_to += len(whole) + 1
                for line in whole.decode().split("\n"):
                    parts = line.split(" ", 4)
                    if not parts[1].startswith(("load.", "lineup.")):
                        key = parts[0], parts[1]
                        self._seen.setdefault(key, []).append((int(parts[2]), int(parts[3])))
        return self._seen.get((what, token), [])

    def wait_started(self, token: str, times: int = 1, seconds: float = 30.0) -> int:
        """The process that runs a task."""
        lines = await_true(
            lambda: self.lines(token)[times - 1 :], seconds, f"start {times} of {token}"
        )
        return int(lines[0][0])

    def wait_answered(self, token: str, seconds: float = 30.0) -> None:
        await_true(
            lambda: self.lines(token, what="ok") or self.lines(token, what="fail"),
            seconds, f"the end of {token}",
        )  # fmt: skip

    # --- Doing harm -------------------------------------------------------------------------------

    def submit(self, function: str, token: str, *args: Any, **order: Any) -> str:
        """By the main client; the task's id."""
        told = self.clients[0].order(
            do="submit", function=function, token=token, args=list(args), **order
        )
        return str(told)

    def release(self, name: str) -> None:
        (self.folder / name).touch()

    @contextmanager
    def fault(self, kind: str, agents: Any = (), pids: Any = (), **facts: Any) -> Iterator[None]:
        """What happens inside is one fault, with its beginning and its end."""
        pids = list(pids)
        began_ns = now_ns()
        try:
            yield
        finally:
            note_fact(
                self.folder, "fault", kind=kind, ns=began_ns, until_ns=now_ns(),
                agents=list(agents), pids=pids, **facts,
            )  # fmt: skip

    def kill_worker(self, pid: int) -> None:
        self._tell_worker(pid)
        with self.fault("kill worker", pids=[pid]):
            self._note_death(pid)
            send_signal(pid, signal.SIGKILL)

    def kill_agent(self, name: str) -> None:
        """SIGKILL; its workers die with it."""
        agent = self.agents.pop(name)
        agent.stop()  # or it starts another worker while we look
        workers = agent.workers()
        for pid in workers:
            self._tell_worker(pid, agent.name)
        with self.fault("kill agent", [agent.name], workers):
            for pid in workers:
                self._note_death(pid)
            agent.kill()
        await_true(lambda: not any(map(is_running, workers)), 2.0, "the workers to die")

    def restart_broker(self, gap_s: float = 0.0, **config: Any) -> float:
        """SIGKILL, and a new one on the same port; how long until that was ready."""
        with self.fault("kill broker"):
            self.broker.kill()
            time.sleep(gap_s)
            began = time.monotonic()
            self.start_broker(**config)
            return time.monotonic() - began

    # --- Who is whose worker, and when it died ----------------------------------------------------

    def _tell_worker(self, pid: int, agent: str = "") -> None:
        """Make sure that the checker knows a worker before it is harmed."""
        if pid not in self._known:
            owners = (a.name for a in self.agents.values() if pid in a.workers())
            name = agent or next(owners, "")
            self.know(pid, name)

    def know(self, pid: int, agent: str) -> None:
        """From now on the checker knows whose worker a process is, and when it dies."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            fd = -1
        if pid not in self._known:
            self._known[pid] = fd
            note_fact(self.folder, "worker", pid=pid, agent=agent)
        elif fd >= 0:
            os.close(fd)

    def _note_death(self, pid: int) -> None:
        note_fact(self.folder, "death", pid=pid, ns=now_ns())

    def _watch(self) -> None:
        while not self._ending.is_set():
            for agent in list(self.agents.values()):
                for pid in agent.workers() if agent.process.returncode is None else ():
                    if pid not in self._known:
                        self.know(pid, agent.name)
            poll = select.poll()
            alive = {fd: pid for pid, fd in list(self._known.items()) if fd >= 0}
            for fd in alive:
                poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll(WATCH_S * 1000):
                self._note_death(alive[fd])
                self._known[alive[fd]] = -1
                os.close(fd)
            self._ending.wait(WATCH_S / 2)

    # --- The end ----------------------------------------------------------------------------------

    def finish(self, seconds: float = 60.0) -> None:
        """Every client waits for all it submitted; who has open tasks then, has lost them."""
        for client in self.clients:
            if client.process.poll() is None:
                client.send(do="finish", seconds=seconds)
        deadline = time.monotonic() + seconds + 10
        for client in self.clients:
            try:
                client.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise RowError(f"client {client.name} does not end: {client.tail()}") from None

    def close(self) -> None:
        """All processes end, clients first."""
        self._ending.set()
        self._watcher.join(5)
        for part in sorted(self._parts, key=lambda part: part not in self.clients):
            part.close()
        for fd in self._known.values():
            if fd >= 0:
                os.close(fd)
        self._known.clear()

    def judge(self) -> dict[str, Any]:
        """What the checker, a program of its own, says."""
        done = subprocess.run(
            [sys.executable, str(CHECKER), str(self.folder)], capture_output=True, text=True
        )
        if not done.stdout:
            raise RowError(f"the checker failed: {done.stderr}")
        judgement: dict[str, Any] = json.loads(done.stdout)
        return judgement
