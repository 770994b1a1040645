"""A live broker with good peers, and what must be true of it whatever bad ones do.

One cluster of real processes serves most tests of a file. Around each of them a good client goes on
working and tells how long its tasks took: reported, never asserted, as the machine may be busy.
What is asserted: the broker lives, its memory stays below a ceiling, good tasks go on and end well,
its tables are as before, and exactly the counters that a test names grew by exactly so much.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import evener
from tests.bad_inputs import bad_app as app
from tests.bad_inputs.attackers import AttackerMaker, attackers
from tests.integration.fault_cluster import FaultCluster
from tests.support import Processes, is_running, wait_until

# What a broker may take whatever is sent to it, in MiB. An idle one has about 40.
RSS_MAX_MIB: Final = 400

# What grows by itself on a busy machine, and where many peers come and go in one test.
_NOT_COMPARED: Final = frozenset(("stalls", "log_lines_dropped", "sessions_deferred"))

APP: Final = str(Path(app.__file__).resolve()) + ":app"

# The good client rests so long between two tasks.
_PAUSE_S: Final = 0.005


class Flow(threading.Thread):
    """A good client that submits a task, waits for its result, and goes on."""

    def __init__(self, client: evener.Client) -> None:
        super().__init__(name="good-client")
        self._client = client
        self._ended = threading.Event()
        self.took_s: list[float] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            begun = time.monotonic()
            try:
                if self._client.submit(app.echo, number).result(30) != number:
                    self.wrong.append(f"task {number} gave another's result")
            except Exception as error:
                self.wrong.append(f"task {number}: {error!r}")
                return
            self.took_s.append(time.monotonic() - begun)
            self._ended.wait(_PAUSE_S)

    def wait_for_more(self, count: int = 3) -> None:
        """Until it got so many more results: good peers go on."""
        wanted = len(self.took_s) + count
        wait_until(lambda: len(self.took_s) >= wanted or self.wrong, 30, "results of good tasks")
        assert not self.wrong, self.wrong

    def stop(self) -> None:
        self._ended.set()
        self.join(40)
        assert not self.is_alive()

    def latencies(self) -> str:
        """What its tasks took, for the report."""
        took = sorted(self.took_s)
        if not took:
            return "no task"
        p99 = took[len(took) * 99 // 100]
        return (
            f"{len(took)} tasks, p50 {took[len(took) // 2] * 1e3:.1f} ms, "
            f"p99 {p99 * 1e3:.1f} ms, worst {took[-1] * 1e3:.1f} ms"
        )


class Live:
    """The cluster, as tests of bad inputs see it."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "EVENER_RUNTIME_DIR": str(folder / "run")}
        self.processes = Processes(environment)
        self.cluster = FaultCluster(self.processes, folder)
        self.client: evener.Client
        self.flow: Flow | None = None
        self.reports: list[str] = []

    def start(self) -> None:
        self.cluster.start_broker()
        agent = self.cluster.begin_agent(2, app=APP)
        agent.wait_for("ready")
        self.client = self.cluster.client()
        self.cluster.wait_for_slots(self.client, 2)
        assert self.client.submit(app.echo, 0).result(20) == 0

    def close(self) -> None:
        self.cluster.close()

    # --- Looking ----------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return self.cluster.port

    @property
    def pid(self) -> int:
        return self.cluster.broker.pid

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.query("status", query_timeout=30.0)
        return found

    def counters(self) -> Counter[str]:
        found: dict[str, int] = self.status()["broker"]["counters"]
        return Counter({k: n for k, n in found.items() if k not in _NOT_COMPARED})

    def memory_mib(self, field: str = "VmRSS") -> float:
        """Memory of the broker; `VmHWM` is the most it ever had."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1_024
        raise AssertionError(field)

    def descriptors(self) -> int:
        """Open file descriptors of the broker."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def log_lines(self) -> list[bytes]:
        """What the broker wrote, as bytes."""
        return self.cluster.broker.log.read_bytes().split(b"\n")

    def state(self) -> dict[str, Any]:
        """What bad peers must leave as it was, when nothing good is under way."""
        status = self.status()
        return {
            "tasks": {name: count for name, count in status["tasks"].items() if count},
            "payload_bytes": status["broker"]["payload_bytes"],
            "sessions": status["broker"]["sessions"],
            "hosts": [(host["name"], host["slots"], host["held"]) for host in status["hosts"]],
            "clients": [client["instance"] for client in status["clients"]],
        }

    # --- Acting -----------------------------------------------------------------------------------

    @contextmanager
    def attacked(self, *maybe: str, **grown: int) -> Iterator[AttackerMaker]:
        """A block that attacks. Afterwards exactly these counters must have grown, by so much.

        `maybe` are those of which nobody can say, as libzmq may drop what begins a connection.
        """
        self.rest()
        wait_until(lambda: not self.state()["tasks"], 20, "good tasks to be over")
        before, began = self.counters(), self.state()
        self.work()
        with attackers(self.cluster.address) as maker:
            yield maker
            # While they are still connected: what they sent must have been counted.
            wanted = Counter(grown)
            wait_until(lambda: _reached(self.counters() - before, wanted), 20, f"{grown}")
        self.settle(began)
        after = self.quiet()
        found = {k: after[k] - before[k] for k in after if after[k] != before[k]}
        certain = {k: n for k, n in found.items() if k not in maybe}
        assert certain == grown, f"grew by {certain}, not by {grown}"

    def settle(self, state: dict[str, Any]) -> None:
        """Until the tables of the broker are as they were."""
        self.rest()
        deadline = time.monotonic() + 20
        while (found := self.state()) != state:
            assert time.monotonic() < deadline, f"the broker has {found}, and had {state}"
            time.sleep(0.02)
        self.work()

    def quiet(self) -> Counter[str]:
        """The counters once nothing of what was sent is left unread.

        The broker takes from all connections in turn, so that each answer to us comes with some of
        what waits there: two answers alike mean that nothing did, unless it was put off.
        """
        found = self.counters()
        while self.status()["broker"]["put_off"] or (later := self.counters()) != found:
            found = self.counters()
        return later

    def rest(self) -> None:
        """Stop the good client, so that states can be compared."""
        if self.flow is not None:
            self.flow.stop()
            assert not self.flow.wrong, self.flow.wrong
            self.reports.append(self.flow.latencies())
            self.flow = None

    def work(self) -> None:
        """Start the good client."""
        self.rest()
        self.flow = Flow(self.client)
        self.flow.start()

    def check(self) -> None:
        """What must be true after every attack."""
        assert is_running(self.pid), self.cluster.broker.text()
        assert self.cluster.broker.process.poll() is None
        assert self.memory_mib("VmHWM") < RSS_MAX_MIB
        if self.flow is not None:
            self.flow.wait_for_more()
        for line in self.log_lines():
            assert line.decode().isprintable(), line
            assert len(line) < 1_000


def _reached(grown: Counter[str], wanted: Counter[str]) -> bool:
    return all(grown[name] >= count for name, count in wanted.items())
