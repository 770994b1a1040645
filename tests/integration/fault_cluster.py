"""Broker and agents as child processes of a test, to be killed, stopped and started again.

Rules of this file: real processes by their entry points, a real client. Nothing waits without a
deadline, and nothing sleeps in the hope that it was long enough.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import evener
from tests.integration import fault_app
from tests.integration.history import Death, History
from tests.support import ROOT, Processes, children, is_running, is_worker, wait_until

APP = str(Path(fault_app.__file__).resolve()) + ":app"
READY_S = 20.0


def steady_port() -> int:
    """A free port that no outgoing connection takes while the broker is away.

    Ports of the usual range may be taken as somebody's source port; a peer that tries to reach its
    broker there may even connect to itself.
    """
    for _ in range(100):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port below the range of outgoing connections")


class Part:
    """A broker or an agent: its process, what it told on its ready pipe, what it wrote."""

    def __init__(
        self,
        processes: Processes,
        module: str,
        config: dict[str, Any],
        log: Path,
        env: dict[str, str],
    ) -> None:
        self.log = log
        self._told = b""
        self.events: list[dict[str, Any]] = []
        self._ready, theirs = os.pipe()
        with log.open("a") as output:
            self.process: subprocess.Popen[str] = processes.start(
                sys.executable,
                "-m",
                module,
                json.dumps({**config, "ready_fd": theirs}),
                stdout=output,
                stderr=output,
                pass_fds=(theirs,),
                env=env,
            )
        os.close(theirs)

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        """What it wrote to stdout and stderr."""
        return self.log.read_text()

    def wait_for(self, event: str, seconds: float = READY_S) -> dict[str, Any]:
        """The first event of this kind on its ready pipe."""
        deadline = time.monotonic() + seconds
        while True:
            for told in self.events:
                if told["event"] == event:
                    return told
            left = deadline - time.monotonic()
            assert left > 0, f"no {event!r} in time: {self.events}\n{self.text()}"
            if select.select([self._ready], [], [], left)[0]:
                part = os.read(self._ready, 65_536)
                assert part, f"ended without {event!r}: {self.events}\n{self.text()}"
                *lines, self._told = (self._told + part).split(b"\n")
                self.events += [json.loads(line) for line in lines]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """SIGSTOP, and wait until it stands still."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: _state(self.pid) == "T", 5, "the process to stop")

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def workers(self) -> list[int]:
        """The pids of an agent's worker processes."""
        return [p for p in children(self.pid) if is_worker(p)]

    def close(self) -> None:
        os.close(self._ready)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class FaultCluster:
    """One broker at a time on one port, any number of agents, clients of the test's process."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.processes = processes
        self.folder = folder
        self.history = History(folder)
        self.port = steady_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.environment = {
            "FAULT_FOLDER": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        self.parts: list[Part] = []
        self.agents: list[Part] = []
        self.clients: list[evener.Client] = []
        self.deaths: list[Death] = []
        self.broker: Part

    # --- Starting ---------------------------------------------------------------------------------

    def start_broker(self, **config: Any) -> Part:
        """The broker, or the next one on the same port."""
        self.broker = self._start(
            "evener_broker", {"port": self.port, "log_level": "info", **config}, "broker.log"
        )
        told = self.broker.wait_for("ready")
        assert told["address"] == self.address
        return self.broker

    def begin_agent(self, workers: int = 1, **config: Any) -> Part:
        """An agent that is not waited for."""
        name = f"host{len(self.agents) + 1}"
        agent = self._start(
            "evener_worker",
            {"app": APP, "broker": self.address, "workers": workers, "name": name, **config},
            f"{name}.log",
        )
        self.agents.append(agent)
        return agent

    def start_agent(self, workers: int = 1, **config: Any) -> Part:
        """An agent whose workers are all ready and offered."""
        agent = self.begin_agent(workers, **config)
        agent.wait_for("ready")
        agent.wait_for("connected")
        return agent

    def start(self, *, agents: int = 1, workers: int = 1) -> evener.Client:
        """A whole cluster, and a client of it that knows all workers are offered."""
        self.start_broker()
        started = [self.begin_agent(workers) for _ in range(agents)]
        for agent in started:
            agent.wait_for("ready")
        client = self.client()
        self.wait_for_slots(client, agents * workers)
        return client

    def _start(self, module: str, config: dict[str, Any], log: str) -> Part:
        part = Part(self.processes, module, config, self.folder / log, self.environment)
        self.parts.append(part)
        return part

    def client(self, **settings: Any) -> evener.Client:
        client = evener.Client(self.address, connect_timeout=READY_S, **settings)
        self.clients.append(client)
        return client

    # --- Looking ----------------------------------------------------------------------------------

    def wait_for_slots(self, client: evener.Client, slots: int) -> None:
        """Until the broker offers so many ready workers."""
        wait_until(lambda: self.slots(client) == slots, READY_S, f"{slots} ready workers")

    def slots(self, client: evener.Client) -> int:
        """Ready workers of connected agents, as the broker sees them."""
        hosts = client.query("ls", kind="hosts")["rows"]
        return sum(host["slots"] for host in hosts if host["connected"])

    def counter(self, client: evener.Client, name: str) -> int:
        """One of the broker's counters."""
        return int(client.query("status")["broker"]["counters"].get(name, 0))

    def state(self, client: evener.Client, future: evener.Future[Any]) -> str | None:
        """How a task stands at the broker; None while it does not have it: questions may overtake
        submissions."""
        for row in client.query("ls", kind="tasks", id=future.task_id)["rows"]:
            return str(row["state"])
        return None

    def wait_begun(self, *tokens: str, times: int = 1) -> None:
        """Until these tasks have begun so often."""
        for token in tokens:
            wait_until(lambda t=token: len(self.history.of(t)) >= times, 20, f"{token} to begin")  # type: ignore[misc]

    # --- Acting -----------------------------------------------------------------------------------

    def release(self, name: str) -> None:
        """Make the file that `stay` waits for."""
        (self.folder / name).touch()

    def kill_worker(self, pid: int) -> int:
        """SIGKILL to one worker; when, by the clock of the history."""
        at_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        self.deaths.append(Death(pid, at_ns))
        return at_ns

    def kill_agent(self, agent: Part) -> int:
        """SIGKILL to an agent; its workers die with it."""
        agent.stop()  # or it starts another worker while we look
        workers = agent.workers()
        at_ns = time.monotonic_ns()
        agent.process.kill()
        self.deaths += [Death(pid, at_ns) for pid in workers]
        agent.process.wait(10)
        wait_until(lambda: not any(map(is_running, workers)), 1.0, "its workers to die")
        return at_ns

    def restart_broker(self) -> None:
        """SIGKILL, and a new one on the same port."""
        self.broker.kill()
        self.start_broker()

    def close(self) -> None:
        """Clients first, so that none waits for what is gone."""
        for part in self.parts:
            if part.process.poll() is None:
                part.go_on()
        for client in self.clients:
            client.close(0.5)
        self.processes.close()
        for part in self.parts:
            part.close()
