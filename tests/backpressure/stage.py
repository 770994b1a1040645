"""What the tests stand on: a cluster, a client that behaves, and attackers in processes beside it.

Rules of this file: latencies are measured and printed, never asserted; what is asserted is that
nothing got lost and that the broker stayed below a ceiling that follows from its bounds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

import evener
from evener_wire import messages as m
from evener_wire.limits import KIB, MIB, PARKED_BYTES_MAX
from tests.backpressure import work
from tests.backpressure.peer import RawPeer
from tests.integration.fault_cluster import READY_S, FaultCluster, Part
from tests.support import Processes, wait_until

APP = str(Path(work.__file__).resolve()) + ":app"

# More time makes a p99 that means something; the tests need none.
SECONDS = float(os.environ.get("BACKPRESSURE_SECONDS", "0.4"))

# What a broker takes before it holds anything, with what its allocator and its connections keep:
# generous, because what is looked for are hundreds of megabytes.
IDLE_BYTES = 120 * MIB

# Bounds of a broker for these tests: small enough to be reached in a second.
SMALL = {
    "max_tasks": 40_000,
    "max_bytes": 96 * MIB,
    "max_client_tasks": 10_000,
    "max_client_bytes": 32 * MIB,
}
CEILING = IDLE_BYTES + SMALL["max_bytes"] + SMALL["max_tasks"] * KIB + PARKED_BYTES_MAX // 4


class Stage:
    """A broker, an agent of two workers, and a good client."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.processes = processes
        self.cluster = FaultCluster(processes, folder)
        self.attackers: list[subprocess.Popen[str]] = []
        self.alive: list[RawPeer] = []
        self._beaten = 0.0

    def start(self, *, workers: int = 2, **broker: Any) -> evener.Client:
        """All of it; returns the good client."""
        self.cluster.start_broker(**{**SMALL, "log_level": "warning", **broker})
        if workers:
            self.agent(workers)
        self.good = self.cluster.client()
        self.cluster.wait_for_slots(self.good, workers)
        self.process = psutil.Process(self.cluster.broker.pid)
        return self.good

    def agent(self, workers: int = 2, **config: Any) -> Part:
        agent = self.cluster.begin_agent(workers, app=APP, **config)
        agent.wait_for("ready")
        return agent

    @property
    def address(self) -> str:
        return self.cluster.address

    def attack(self, kind: str) -> subprocess.Popen[str]:
        """Begin an attack that goes on until `end` or the test's end."""
        attacker = self.processes.start(
            sys.executable,
            "-m",
            "tests.backpressure.attacker",
            kind,
            self.address,
            env=self.cluster.environment,
        )
        self.attackers.append(attacker)
        assert attacker.stdout is not None
        line = attacker.stdout.readline()
        assert line == "begun\n", attacker.stderr and attacker.stderr.read()
        return attacker

    def end(self, attacker: subprocess.Popen[str]) -> None:
        """The attacker must have been at it until now."""
        assert attacker.poll() is None, attacker.stderr and attacker.stderr.read()
        self.processes.kill(attacker)

    def keep_alive(self, *peers: RawPeer) -> None:
        """From now on these say each second that they live, whatever else is waited for."""
        self.alive += peers

    def _beat(self) -> None:
        if time.monotonic() > self._beaten + 0.5:
            self._beaten = time.monotonic()
            for peer in self.alive:
                peer.send(m.Heartbeat())

    # --- The good client --------------------------------------------------------------------------

    def round_trips(self, seconds: float = SECONDS) -> list[float]:
        """How long each task took, one after the other, in milliseconds."""
        took: list[float] = []
        until = time.perf_counter() + seconds
        while (start := time.perf_counter()) < until or len(took) < 5:
            assert self.good.submit("w.noop").result(READY_S) is None
            took.append(1e3 * (time.perf_counter() - start))
            self._beat()
        return took

    def compare(self, kind: str) -> int:
        """Round trips without and with an attack, printed; returns what the broker took then.

        An attacker also takes a processor, so they are measured beside one that does only that.
        """
        alone = self.round_trips()
        burner = self.attack("burn")
        burned = self.round_trips()
        self.end(burner)
        attacker = self.attack(kind)
        beside = self.round_trips(2 * SECONDS)
        rss = self.rss()
        self.end(attacker)
        self.tell(kind, alone, beside, rss)
        self.tell(f"{kind}, where alone is beside a busy process", burned, beside, rss)
        return rss

    @staticmethod
    def tell(what: str, alone: list[float], beside: list[float], rss: int) -> None:
        """For people: `pytest -s`."""
        shown = [f"{_p(alone, n):.2f} -> {_p(beside, n):.2f}" for n in (50, 99)]
        print(f"\n{what}: p50 {shown[0]} ms, p99 {shown[1]} ms; broker {rss / MIB:.0f} MiB")

    # --- The broker -------------------------------------------------------------------------------

    def rss(self) -> int:
        """What the broker's process takes now."""
        return int(self.process.memory_info().rss)

    def status(self) -> dict[str, Any]:
        return dict(self.good.query("status", query_timeout=READY_S))

    def counter(self, name: str) -> int:
        return int(self.status()["broker"]["counters"].get(name, 0))

    def unfetched(self, name: str = "raw") -> int:
        """Ends that clients of this name have not taken."""
        self._beat()
        rows = self.good.query("ls", kind="clients", query_timeout=READY_S)["rows"]
        return sum(row["unfetched"] for row in rows if row["name"] == name)

    def wait_for_leaving(self) -> None:
        """Until only the good client and the agents have sessions."""
        count = 1 + len(self.cluster.agents)
        wait_until(lambda: self.status()["broker"]["sessions"] == count, 10, "attackers to be gone")

    def close(self) -> None:
        self.cluster.close()


def _p(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else values[0]
