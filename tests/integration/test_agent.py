"""The agent with real workers, and a scripted broker on a real socket."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import msgpack
import pytest

from evener_wire import messages as m
from tests.integration.scripted_broker import ScriptedBroker
from tests.support import ROOT, Processes, descendants, is_running, wait_until

FOLDER = ROOT / "tests" / "integration"
ROOTS = os.pathsep.join(str(ROOT / name) for name in ("wire", "broker", "client", "worker"))


def call(*args: object) -> bytes:
    """The payload of a call."""
    return msgpack.packb([list(args), None])


def value(payload: bytes) -> object:
    """What a payload of a result holds."""
    return msgpack.unpackb(payload)[0]


class Agent:
    """An agent process, and what its workers' functions need to be observed."""

    def __init__(self, processes: Processes, broker: ScriptedBroker, folder: Path) -> None:
        self.processes = processes
        self.broker = broker
        self.folder = folder
        self.process: Popen[str]

    def start(self, workers: int = 2, app: str = "agent_app:app", **config: Any) -> Agent:
        """Start it, without waiting for it."""
        passed = config.pop("pass_fds", ())
        settings = {"app": app, "broker": self.broker.address, "workers": workers, "name": "n"}
        self.process = self.processes.start(
            sys.executable,
            "-m",
            "evener_worker",
            json.dumps(settings | config),
            cwd=FOLDER,
            env={"PYTHONPATH": ROOTS},
            pass_fds=passed,
        )
        return self

    def up(self, workers: int = 2, **config: Any) -> Agent:
        """Start it, and wait until all workers are offered."""
        self.start(workers, **config)
        self.broker.offered(workers)
        return self

    def running(self, name: str = "pid", function: str = "t.write_pid_and_wait") -> Running:
        """Run a function that tells its pid and does not end."""
        path = self.folder / name
        key = self.broker.run(function, call(str(path)))
        done = path.with_name(name + ".done")
        self.broker.until(done.exists)
        return Running(key, int(done.read_text()))

    def stop(self) -> tuple[str, str]:
        """SIGTERM; its outputs."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended(0)

    def ended(self, code: int) -> tuple[str, str]:
        """Wait for its end; its outputs."""
        self.broker.until(lambda: self.process.poll() is not None)
        out, err = self.process.communicate()
        assert self.process.returncode == code, err
        return out, err


class Running:
    """An attempt that runs, and in which process."""

    def __init__(self, key: tuple[bytes, int], pid: int) -> None:
        self.key = key
        self.pid = pid


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    broker = ScriptedBroker()
    yield broker
    broker.close()


@pytest.fixture
def agent(processes: Processes, broker: ScriptedBroker, tmp_path: Path) -> Agent:
    return Agent(processes, broker, tmp_path)


# --- Running --------------------------------------------------------------------------------------


def test_functions_run_and_their_output_appears(agent: Agent, broker: ScriptedBroker) -> None:
    agent.up()
    outcome, payload, run_us, facts = broker.result(broker.run("t.add", call(1, 2)))
    assert (outcome, value(payload), facts) == (m.DONE, 3, None)
    assert run_us < 1_000_000
    assert broker.outcome(broker.run("t.say", call("to out", "to err"))) == m.DONE
    outcome, payload, _, facts = broker.result(broker.run("t.fail", call("boom")))
    assert outcome == m.FAILED
    assert facts["message"] == "boom"
    assert value(broker.result(broker.run("t.later", call(5)))[1]) == 5
    out, err = agent.stop()
    assert re.fullmatch(r"worker-[12] \| to out\n", out)
    assert re.search(r"^worker-[12] \| to err$", err, re.MULTILINE)
    assert "done: 3 ok, 1 failed\n" in err


def test_many_tasks_end_once_each_whatever_their_length(
    agent: Agent, broker: ScriptedBroker
) -> None:
    agent.up(3)
    keys: list[tuple[bytes, int]] = []
    for _ in range(20):
        keys += broker.run_many("t.nothing", [call()] * 100)
        keys += broker.run_many("t.sometimes_long", [call(n) for n in range(60)])
    broker.until(lambda: len(broker.results) == len(keys), 60)
    assert broker.results.keys() == set(keys)
    assert {outcome for outcome, *_ in broker.results.values()} == {m.DONE}
    assert f"done: {len(keys):,} ok, 0 failed\n" in agent.stop()[1]


def test_large_payloads_come_back_whole(agent: Agent, broker: ScriptedBroker) -> None:
    agent.up(1)
    data = os.urandom(3 << 20)
    outcome, payload, *_ = broker.result(
        broker.run("t.echo", m.Frames([msgpack.packb([[data], None])]))
    )
    assert outcome == m.DONE
    assert isinstance(payload, m.Frames)
    assert data in b"".join(bytes(buffer) for buffer in payload.buffers)
    agent.stop()


def test_an_app_that_does_not_import_shows_its_own_traceback(
    agent: Agent, broker: ScriptedBroker
) -> None:
    (agent.folder / "broken.py").write_text("import evener\n1 / 0\n")
    agent.start(2, app=str(agent.folder / "broken.py"))
    _, err = agent.ended(1)
    assert err.count("ZeroDivisionError: division by zero") <= 2
    assert "broken.py" in err
    assert "evener_worker" not in err


# --- Deaths ---------------------------------------------------------------------------------------


def test_a_killed_worker_costs_only_what_it_ran(agent: Agent, broker: ScriptedBroker) -> None:
    agent.up(1)
    broker.outcome(broker.run("t.nothing", call()))
    victim = agent.running()
    behind = broker.run_many("t.nothing", [call()] * 3)
    broker.until(lambda: len(broker.heard(m.Started)) > 0)
    os.kill(victim.pid, signal.SIGKILL)
    outcome, _, _, facts = broker.result(victim.key)
    assert outcome == m.LOST
    assert facts["reason"] == "died by SIGKILL"
    assert (facts["signal"], facts["pid"], facts["worker"]) == (9, victim.pid, "n:1")
    assert {broker.outcome(key) for key in behind} <= {m.DONE, m.RETURNED}
    broker.offered(1)
    assert broker.outcome(broker.run("t.nothing", call())) == m.DONE
    agent.stop()


@pytest.mark.parametrize(
    ("function", "args", "code", "number", "says"),
    [
        ("t.leave", (3,), 3, None, ""),
        ("t.crash", (), None, signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
    ],
)
def test_a_worker_that_dies_by_its_task_is_replaced(
    agent: Agent,
    broker: ScriptedBroker,
    function: str,
    args: tuple[int, ...],
    code: int | None,
    number: int | None,
    says: str,
) -> None:
    agent.up(1)
    outcome, _, _, facts = broker.result(broker.run(function, call(*args)))
    assert outcome == m.LOST
    assert (facts["exit_code"], facts["signal"]) == (code, number)
    assert says in "\n".join(facts["lines"])
    broker.offered(0)
    broker.offered(1)
    assert broker.outcome(broker.run("t.nothing", call())) == m.DONE
    agent.stop()


def test_a_worker_without_its_descriptors_is_replaced(agent: Agent, broker: ScriptedBroker) -> None:
    agent.up(1)
    assert broker.outcome(broker.run("t.close_everything", call())) == m.LOST
    broker.offered(0)
    broker.offered(1)
    agent.stop()


def test_a_child_that_returns_from_the_task_is_no_second_worker(
    agent: Agent, broker: ScriptedBroker
) -> None:
    agent.up(1)
    for _ in range(3):
        assert broker.outcome(broker.run("t.fork_and_return", call())) == m.DONE
    assert "3 ok" in agent.stop()[1]


# --- Stopping attempts ----------------------------------------------------------------------------


def test_cancel_of_what_runs_frees_the_worker(agent: Agent, broker: ScriptedBroker) -> None:
    agent.up(1)
    victim = agent.running()
    broker.say(m.Cancel([victim.key]))
    assert broker.outcome(victim.key) == m.CANCELLED
    assert value(broker.result(broker.run("t.pid", call()))[1]) == victim.pid
    agent.stop()


def test_cancel_of_what_will_not_end_kills_it(agent: Agent, broker: ScriptedBroker) -> None:
    agent.up(1)
    victim = agent.running(function="t.refuse_to_end")
    broker.say(m.Cancel([victim.key]))
    assert broker.outcome(victim.key) == m.CANCELLED
    assert not is_running(victim.pid)
    broker.offered(1)
    agent.stop()


def test_a_run_timeout_gives_the_slot_back(agent: Agent, broker: ScriptedBroker) -> None:
    agent.up(1)
    path = str(agent.folder / "never")
    outcome, _, run_us, _ = broker.result(broker.run("t.wait_for", call(path), timeout_ms=50))
    assert outcome == m.TIMED_OUT
    assert 50_000 <= run_us < 2_000_000
    assert broker.outcome(broker.run("t.nothing", call())) == m.DONE
    agent.stop()


def test_nothing_waits_behind_a_long_task(agent: Agent, broker: ScriptedBroker) -> None:
    agent.up(1)
    broker.outcome(broker.run("t.sometimes_long", call(1)))  # it is known as short now
    gate = agent.folder / "gate"
    long, *short = broker.run_many("t.wait_if", [call(str(gate)), *[call("")] * 5])
    broker.until(lambda: any(long in started.items for started in broker.heard(m.Started)))
    broker.say(m.Recall([*short, long]))
    assert {broker.outcome(key) for key in short} <= {m.RETURNED, m.DONE}
    assert long not in broker.results
    gate.touch()
    assert broker.outcome(long) == m.DONE
    agent.stop()


# --- The end --------------------------------------------------------------------------------------


def test_drain_finishes_what_runs(agent: Agent, broker: ScriptedBroker) -> None:
    agent.up(1)
    gate = agent.folder / "gate"
    key = broker.run("t.wait_for", call(str(gate)))
    broker.until(lambda: broker.heard(m.Started))
    agent.process.send_signal(signal.SIGTERM)
    broker.until(lambda: broker.heard(m.Offer)[-1].draining)
    gate.touch()
    assert broker.outcome(key) == m.DONE
    broker.until(lambda: broker.heard(m.Goodbye))
    _, err = agent.ended(0)
    assert "stopping: 1 task still running, up to 30 s (Ctrl-C again to stop now)\n" in err
    assert err.endswith("done: 1 ok, 0 failed\n")


def test_a_second_signal_stops_at_once(agent: Agent, broker: ScriptedBroker) -> None:
    agent.up(1)
    victim = agent.running(function="t.refuse_to_end")
    agent.process.send_signal(signal.SIGINT)
    broker.until(lambda: broker.heard(m.Offer)[-1].draining)
    beats = len(broker.heard(m.Heartbeat))
    broker.until(lambda: len(broker.heard(m.Heartbeat)) > beats)
    agent.process.send_signal(signal.SIGINT)
    assert broker.outcome(victim.key) == m.LOST
    agent.ended(130)
    assert not is_running(victim.pid)


def test_a_killed_agent_leaves_no_orphan(agent: Agent, broker: ScriptedBroker) -> None:
    agent.up(2)
    agent.running(function="t.refuse_to_end")
    pids = descendants(agent.process.pid)
    assert len(pids) == 2
    agent.process.kill()
    wait_until(lambda: not any(is_running(pid) for pid in pids), 1.0, "the workers' end")


def test_the_end_of_its_parent_ends_it(agent: Agent, broker: ScriptedBroker) -> None:
    reader, writer = os.pipe()
    agent.start(1, lifeline_fd=reader, pass_fds=[reader])
    os.close(reader)
    broker.offered(1)
    agent.running(function="t.refuse_to_end")
    os.close(writer)
    agent.ended(0)


# --- The broker goes ------------------------------------------------------------------------------


def test_another_broker_adopts_what_runs(
    agent: Agent, broker: ScriptedBroker, tmp_path: Path
) -> None:
    agent.up(1)
    gate = tmp_path / "gate"
    runs, *waits = broker.run_many("t.wait_for", [call(str(gate))] * 3)
    broker.until(lambda: broker.heard(m.Started))
    broker.close()
    second = ScriptedBroker(broker.port)
    try:
        second.offered(1)
        assert second.heard(m.Offer)[0].held == (runs,)
        gate.touch()
        assert second.outcome(runs) == m.DONE
        assert not set(waits) & set(second.results)
        agent.broker = second
        agent.stop()
    finally:
        second.close()


def test_a_broker_that_comes_later_is_found(
    processes: Processes, tmp_path: Path, port: int
) -> None:
    late = ScriptedBroker(port)
    late.close()
    agent = Agent(processes, late, tmp_path).start(1)
    wait_until(lambda: len(descendants(agent.process.pid)) == 1)
    agent.broker = late = ScriptedBroker(port)
    try:
        late.offered(1)
        agent.stop()
    finally:
        late.close()
