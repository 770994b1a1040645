"""Beginnings and ends with real processes and signals: hooks run, tasks finish, nobody stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli_cluster import READY, Starter, Up
from tests.support import ROOT, Processes, children, descendants, is_running, wait_until

APP = str(ROOT / "tests" / "integration" / "hooks_app.py")
ROOTS = os.pathsep.join(str(ROOT / name) for name in ("wire", "broker", "client", "worker"))


class Hooks:
    """`evener up` with the app, and what its hooks wrote."""

    def __init__(self, starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = starter.folder
        self._starter = starter
        self._notes = starter.folder / "notes.txt"
        self._notes.touch()
        starter.processes.environment["HOOKS_NOTES"] = str(self._notes)
        monkeypatch.setenv("HOOKS_NOTES", str(self._notes))

    def start(self, *arguments: str, broken: str = "") -> Up:
        self._starter.processes.environment["HOOKS_BROKEN"] = broken
        return self._starter.start(*arguments, app=f"{APP}:app")

    def ready(self, *arguments: str, broken: str = "") -> Up:
        up = self.start(*arguments, broken=broken)
        wait_until(lambda: READY in up.text(), 30, "the banner")
        return up

    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines()

    def hold(self, up: Up) -> Path:
        """A task that runs until the file is made that this returns."""
        until = self.folder / "until"
        done = up.evener("submit", "hooks.hold", str(until))
        assert done.returncode == 0, done.stderr
        wait_until(lambda: "holding" in self.notes(), 20, "the task to start")
        return until


@pytest.fixture
def hooks(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    return Hooks(starter, monkeypatch)


# --- Hooks in worker processes --------------------------------------------------------------------


def test_each_worker_begins_and_ends(hooks: Hooks) -> None:
    up = hooks.ready("-n", "2")
    assert sorted(hooks.notes()) == ["start worker 1 second", "start worker 2 second"]
    shown = up.evener("submit", "hooks.opened", "--wait").stdout
    assert shown in ('["worker 1", "second"]\n', '["worker 2", "second"]\n')
    up.process.terminate()
    assert up.process.wait(20) == 0, up.text()
    assert sorted(hooks.notes()[2:]) == ["stop worker 1 of 1", "stop worker 2 of 2"]


def test_a_worker_that_is_killed_runs_no_stop_hooks_and_its_successor_begins(hooks: Hooks) -> None:
    up = hooks.ready("-n", "1")
    first = up.evener("submit", "hooks.who", "--wait").stdout
    pid = int(first.rpartition(" ")[2].rstrip("]\n"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(hooks.notes()) == 2, 20, "the next worker")
    assert hooks.notes() == ["start worker 1 second"] * 2
    second = up.evener("submit", "hooks.who", "--wait").stdout
    assert second.startswith('[1, "worker", ')
    assert second != first
    up.process.terminate()
    assert up.process.wait(20) == 0, up.text()
    assert hooks.notes()[2:] == ["stop worker 1 of 1"]


def test_a_start_hook_that_fails_ends_the_agent_with_its_traceback(hooks: Hooks) -> None:
    up = hooks.start("-n", "2", broken="start")
    assert up.process.wait(30) == 1
    text = up.text()
    assert "on_worker_start hook open_first failed: ConnectionError: no database\n" in text
    assert text.count('raise ConnectionError("no database")') == 1
    assert "runner_loop" not in text
    assert "evener/hooks.py" not in text
    assert hooks.notes() == [], "neither the next start hook, nor a stop hook"


def test_a_stop_hook_that_fails_is_shown_and_the_others_run(hooks: Hooks) -> None:
    up = hooks.ready("-n", "1", broken="stop")
    up.process.terminate()
    assert up.process.wait(20) == 0, up.text()
    assert (
        "worker-1 | on_worker_stop hook close_second failed: ValueError: half closed\n" in up.text()
    )
    assert hooks.notes()[1:] == ["stop worker 1 of 1"]


def test_stop_hooks_that_hang_are_ended(hooks: Hooks) -> None:
    up = hooks.ready("-n", "1", "--stop-timeout", "500ms", broken="hang")
    up.process.terminate()
    assert up.process.wait(20) == 0, up.text()
    assert re.search(r"worker \S+:1 did not finish its stop hooks in time: killed\n", up.text())
    assert hooks.notes()[1:] == ["hangs"], "what was registered before it waits for its turn"


def test_a_start_that_takes_too_long_is_ended(hooks: Hooks) -> None:
    up = hooks.start("-n", "1", "--start-timeout", "2s", broken="never")
    wait_until(lambda: up.text().count("was not ready in time: killed") == 2, 30, "two tries")
    below = descendants(up.process.pid)
    up.process.terminate()
    assert up.process.wait(20) == 143, "it never was up"
    assert not any(map(is_running, below))
    assert hooks.notes()[0] == "hangs"


# --- Ends of `evener up` --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_running_task_ends_before_the_hooks_run(hooks: Hooks, number: int) -> None:
    up = hooks.ready("-n", "1")
    until = hooks.hold(up)
    up.process.send_signal(number)
    wait_until(lambda: "stopping: 1 task still running" in up.text(), 20)
    assert hooks.notes() == ["start worker 1 second", "holding"]
    until.touch()
    assert up.process.wait(20) == 0, up.text()
    assert hooks.notes()[2:] == ["held", "stop worker 1 of 1"]
    assert "1 ok" in up.text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_it_now(hooks: Hooks, number: int, code: int) -> None:
    up = hooks.ready("-n", "1")
    hooks.hold(up)
    below = descendants(up.process.pid)
    up.process.send_signal(number)
    wait_until(lambda: "stopping: 1 task still running" in up.text(), 20)

    def force() -> bool:
        up.process.send_signal(number)  # one that comes too soon after the first counts as the same
        return up.process.poll() is not None

    wait_until(force, 20, "the end")
    assert up.process.wait() == code, up.text()
    assert hooks.notes() == ["start worker 1 second", "holding"]
    assert not any(map(is_running, below))


def test_the_drain_time_bounds_a_task(hooks: Hooks) -> None:
    up = hooks.ready("-n", "2", "--drain", "1s")
    hooks.hold(up)
    up.process.terminate()
    assert up.process.wait(20) == 0, up.text()
    assert "still running after 1 s: killed" in up.text()
    assert len([line for line in hooks.notes() if line.startswith("stop worker")]) == 1


# --- Programs -------------------------------------------------------------------------------------

PROGRAM = """
import signal, sys
from pathlib import Path
import evener
import hooks_app

until = sys.argv[1]
with evener.LocalCluster(hooks_app.app, workers=int(sys.argv[2]), drain="20s") as cluster:
    with cluster.client() as client:
        if until != "none":
            future = client.submit(hooks_app.hold, until)
        print(client.submit(hooks_app.who).result(), flush=True)
        if until == "none":
            print("left", flush=True)
            sys.exit(0)
        while not Path(until).exists():
            signal.pause()
"""


class Program:
    """A program with a local cluster, in which a task runs."""

    def __init__(self, processes: Processes, hooks: Hooks, until: str, workers: int = 2) -> None:
        self.hooks = hooks
        self.process: subprocess.Popen[str] = processes.start(
            *(sys.executable, "-c", PROGRAM, until, str(workers)),
            env={"PYTHONPATH": os.pathsep.join([ROOTS, str(Path(APP).parent)])},
        )

    def holding(self) -> None:
        assert self.process.stdout is not None
        assert '"worker"' in self.process.stdout.readline().replace("'", '"')
        wait_until(lambda: "holding" in self.hooks.notes(), 20, "the task to start")


def test_a_program_runs_main_hooks_around_those_of_its_workers(
    hooks: Hooks, processes: Processes
) -> None:
    program = Program(processes, hooks, "none")
    out, err = program.process.communicate(timeout=60)
    assert program.process.returncode == 0, err
    assert out.endswith("left\n")
    notes = hooks.notes()
    assert notes[0] == "main start main"
    assert sorted(notes[1:3]) == ["start worker 1 second", "start worker 2 second"]
    assert sorted(notes[3:5]) == ["stop worker 1 of 1", "stop worker 2 of 2"]
    assert notes[5:] == ["shutdown"]


def test_the_same_program_without_workers(hooks: Hooks, processes: Processes) -> None:
    program = Program(processes, hooks, "none", 0)
    out, err = program.process.communicate(timeout=60)
    assert out == f"[0, 'main', {program.process.pid}]\nleft\n", err
    expected = ["main start main", "start main 0 second", "stop main 0 of main", "shutdown"]
    assert hooks.notes() == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -2), (signal.SIGTERM, 143)])
def test_a_signal_unwinds_a_program(
    hooks: Hooks, processes: Processes, number: int, code: int
) -> None:
    until = hooks.folder / "until"
    program = Program(processes, hooks, str(until))
    program.holding()
    agent = _agent_of(program.process.pid)
    program.process.send_signal(number)
    wait_until(lambda: "stop worker" in "".join(hooks.notes()), 20, "the idle worker to leave")
    assert is_running(agent), "the other one has its task"
    until.touch()
    assert program.process.wait(30) == code
    notes = hooks.notes()
    assert notes.index("held") < len(notes) - 2
    assert sum(line.startswith("stop worker") for line in notes) == 2
    assert notes[-1] == "shutdown"


CLIENT = """
import signal, sys
import evener
import hooks_app

with evener.Client(sys.argv[1]) as client:
    future = client.submit("hooks.hold", sys.argv[2])
    print("submitted", flush=True)
    signal.pause()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -2), (signal.SIGTERM, 143)])
def test_a_signal_unwinds_a_client_and_its_task_goes_on(
    hooks: Hooks, processes: Processes, number: int, code: int
) -> None:
    up = hooks.ready("-n", "1")
    until = hooks.folder / "until"
    program = processes.start(
        *(sys.executable, "-c", CLIENT, f"tcp://127.0.0.1:{up.port}", str(until)),
        env={"PYTHONPATH": os.pathsep.join([ROOTS, str(Path(APP).parent)])},
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "submitted\n"
    program.send_signal(number)
    assert program.wait(20) == code
    wait_until(lambda: "holding" in hooks.notes(), 20, "the task, which was handed over")
    assert {"main start main", "shutdown"} < set(hooks.notes())
    until.touch()
    wait_until(lambda: "held" in hooks.notes(), 20, "its end")
    up.process.terminate()
    assert up.process.wait(20) == 0, up.text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_program_now(
    hooks: Hooks, processes: Processes, number: int
) -> None:
    program = Program(processes, hooks, str(hooks.folder / "until"))
    program.holding()
    below = descendants(program.process.pid)
    program.process.send_signal(number)
    wait_until(lambda: "stop worker" in "".join(hooks.notes()), 20, "the drain")
    program.process.send_signal(number)
    assert program.process.wait(20) == -number
    wait_until(lambda: not any(map(is_running, below)), 20, "the children to end")
    assert "held" not in hooks.notes()


def _agent_of(pid: int) -> int:
    """The child that has children of its own."""
    (agent,) = (child for child in children(pid) if children(child))
    return agent
