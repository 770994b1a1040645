"""`evener stack` and `evener why` on real workers that hang in every way a worker can."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import evener
from tests.integration.cli_cluster import Starter, Up
from tests.support import Processes, is_running, wait_until

APP = '''
"""Functions that hang."""
import faulthandler, os, re, signal, threading, time
import evener

app = evener.App("hang")

def begun(path: str) -> None:
    with open(path + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".new", path)

@app.task
def sleep(path: str) -> str:
    begun(path)
    while not os.path.exists(path + ".enough"):
        time.sleep(0.3)
    return "slept"

@app.task
def deadlock(path: str) -> None:
    lock = threading.Lock()
    with lock:
        threading.Thread(target=wait_for, args=(lock,), daemon=True, name="second").start()
        begun(path)
        lock.acquire()

def wait_for(lock: threading.Lock) -> None:
    lock.acquire()

@app.task
def spin(path: str) -> None:
    begun(path)
    while True:
        pass

@app.task
def in_c(path: str) -> None:
    """A loop in C that never lets go of the GIL."""
    begun(path)
    sum(range(10**13))

@app.task
def in_regex(path: str) -> None:
    begun(path)
    re.match(r"(a+)+$", "a" * 64 + "b")

@app.task
def ignores(path: str) -> None:
    signal.signal(signal.SIGURG, signal.SIG_IGN)
    begun(path)
    time.sleep(60)

@app.task
def default(path: str) -> None:
    faulthandler.unregister(signal.SIGURG)
    begun(path)
    time.sleep(60)

@app.task
def blocks(path: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
    begun(path)
    time.sleep(60)

@app.task
def reuses(path: str) -> None:
    """The descriptor that stacks are written to belongs to a file of its own by now."""
    for name in os.listdir("/proc/self/fd"):
        path_of = f"/proc/self/fd/{name}"
        if os.path.islink(path_of) and "evener-stack" in os.readlink(path_of):
            break
    file = os.open(path + ".mine", os.O_RDWR | os.O_CREAT)
    os.dup2(file, int(name))
    begun(path)
    time.sleep(60)

@app.task
def quick() -> str:
    return "quick"
'''


class Hanging:
    """A cluster of three workers, and what is asked about it."""

    def __init__(self, up: Up) -> None:
        self.up = up

    def start(self, function: str, *arguments: str) -> tuple[int, str]:
        """Pid of the worker that runs a function by now, and the id of the task."""
        flag = self.up.folder / f"begun-{function}"
        done = self.up.evener("submit", f"hang.{function}", str(flag), *arguments)
        assert done.returncode == 0, done.stderr
        wait_until(flag.exists, why="the task to start")
        return int(flag.read_text()), done.stdout.strip()

    def wake_sleeper(self) -> None:
        """Let the task that sleeps end."""
        (self.up.folder / "begun-sleep.enough").touch()

    def stack(self, worker: object) -> dict[str, Any]:
        """What `evener stack --json` says."""
        done = self.up.evener("stack", str(worker), "--json")
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if found["stack"] else 1)
        return found

    def seen(self, worker: object) -> dict[str, Any]:
        """The same of a worker that can answer; one that gets no processor time may be late."""
        return wait_until(lambda: (found := self.stack(worker))["stack"] and found, 30, "a stack")

    def why(self, task: str) -> dict[str, Any]:
        """What `evener why --json` says."""
        done = self.up.evener("why", task, "--json")
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def told(self, pid: int) -> None:
        """Wait until the broker knows that this worker runs something."""
        with evener.Client(f"tcp://127.0.0.1:{self.up.port}") as client:

            def is_told() -> bool:
                rows = client.query("ls", kind="workers")["rows"]
                return any(row["pid"] == pid and row["task"] for row in rows)

            wait_until(is_told, why="a heartbeat with the task")


@pytest.fixture
def hanging(processes: Processes, tmp_path: Path) -> Iterator[Hanging]:
    starter = Starter(processes, tmp_path)
    (tmp_path / "demo_app.py").write_text(APP)
    up = starter.ready("-n", "3")
    yield Hanging(up)
    end(up)


def end(up: Up) -> None:
    """What hangs does not end in order: the first signal asks, any later one insists."""
    while up.process.poll() is None:
        up.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            up.process.wait(0.5)


def test_a_deadlock_shows_where_each_thread_waits(hanging: Hanging) -> None:
    pid, task = hanging.start("deadlock")
    by_pid = hanging.seen(pid)
    assert (by_pid["pid"], by_pid["function"], by_pid["task"]) == (pid, "hang.deadlock", task)
    assert by_pid["reason"] is None
    assert "in deadlock" in by_pid["stack"]
    assert "in wait_for" in by_pid["stack"]
    assert by_pid["kernel"]["threads"] == 2
    assert by_pid["kernel"]["state"][0] in "SR"
    by_task = hanging.seen(task[:12])
    assert by_task["pid"] == pid
    assert "in deadlock" in by_task["stack"]


def test_workers_that_hold_the_gil_are_seen(hanging: Hanging) -> None:
    pids = {name: hanging.start(name)[0] for name in ("spin", "in_c", "in_regex")}
    for name, pid in 2 * list(pids.items()):
        found = hanging.seen(pid)
        assert f"in {name}" in found["stack"]
        assert found["reason"] is None
    assert all(map(is_running, pids.values()))


def test_a_sleeper_is_not_disturbed(hanging: Hanging) -> None:
    pid, task = hanging.start("sleep")
    seen = 0
    with evener.Client(f"tcp://127.0.0.1:{hanging.up.port}") as client:
        while seen < 20:
            seen += "in sleep" in client.query("stack", worker=str(pid))["stack"]
        hanging.wake_sleeper()
        wait_until(lambda: client.why(task)["state"] == "done", why="the end of its sleep")
        assert client.query("show", id=task)["failures"] == 0
    assert is_running(pid)
    idle = hanging.seen(pid)
    assert (idle["task"], idle["function"], idle["state"]) == (None, None, "ready")
    assert "in _read" in idle["stack"], "it waits for its agent"


def test_code_that_takes_the_signal_away_is_left_alone(hanging: Hanging) -> None:
    reasons = {
        "ignores": "does not take SIGURG",
        "default": "does not take SIGURG",
        "blocks": "did not handle SIGURG within 2 s",
    }
    for function, reason in reasons.items():
        pid, _ = hanging.start(function)
        found = hanging.stack(pid)
        assert found["stack"] == ""
        assert reason in found["reason"]
        assert found["kernel"]["state"][0] in "SR"
        assert is_running(pid)
    text = hanging.up.evener("stack", str(pid))
    assert text.returncode == 1
    assert f"(pid {pid})" in text.stdout
    assert "no Python stack" in text.stderr


def test_a_descriptor_that_user_code_reused_is_not_written_to(hanging: Hanging) -> None:
    pid, _ = hanging.start("reuses")
    assert "closed the descriptor" in hanging.stack(pid)["reason"]
    written = [path.stat().st_size for path in hanging.up.folder.glob("begun-reuses.*")]
    assert len(written) == 1
    assert not any(written)


def test_a_stopped_worker_is_said_to_be_stopped(hanging: Hanging) -> None:
    pid, task = hanging.start("sleep")
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "T")
    found = hanging.stack(pid)
    assert "is stopped" in found["reason"]
    assert found["kernel"]["state"].startswith("T")
    os.kill(pid, signal.SIGCONT)
    hanging.wake_sleeper()
    wait_until(lambda: hanging.why(task)["state"] == "done", why="the end of its sleep")


def test_what_the_command_prints(hanging: Hanging) -> None:
    pid, task = hanging.start("deadlock")
    done = hanging.up.evener("stack", str(pid))
    assert done.returncode == 0, done.stderr
    first, blank, *rest = done.stdout.splitlines()
    assert first.startswith("worker ")
    assert f"(pid {pid}): runs hang.deadlock[{task[:8]}] since " in first
    assert first.endswith("2 threads")
    assert blank == ""
    assert any(line.endswith("in deadlock") for line in rest)
    assert done.stderr == ""


def test_an_app_that_hangs_while_it_is_imported(processes: Processes, tmp_path: Path) -> None:
    starter = Starter(processes, tmp_path)
    (tmp_path / "slow_app.py").write_text("import time\n\ntime.sleep(60)\n")
    up = starter.start("-n", "1", app="slow_app:app")
    with evener.Client(f"tcp://127.0.0.1:{up.port}", connect_timeout=30) as client:

        def pid_of() -> int:
            return sum(row["pid"] for row in client.query("ls", kind="workers")["rows"])

        pid = wait_until(pid_of, why="the first heartbeat")

        def hangs() -> bool:
            found = client.query("stack", worker=str(pid))
            assert found["state"] == "starting"
            return 'slow_app.py", line 3 in <module>' in found["stack"]

        wait_until(hangs, why="its import")
    end(up)


def test_an_agent_that_stands_still_is_not_waited_for_for_ever(hanging: Hanging) -> None:
    pid, _ = hanging.start("deadlock")
    hanging.told(pid)
    agent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(agent, signal.SIGSTOP)
    try:
        done = hanging.up.evener("stack", str(pid))
    finally:
        os.kill(agent, signal.SIGCONT)
    assert done.returncode == 2
    assert "the agent on " in done.stderr
    assert "did not answer within 4 s" in done.stderr or "lost its connection" in done.stderr


def test_workers_that_are_not_there(hanging: Hanging) -> None:
    for worker in ("999999999", "nowhere/1", "deadbeef", "x"):
        done = hanging.up.evener("stack", worker)
        assert done.returncode == 2
        assert "no worker has the pid or name" in done.stderr


# --- Why ------------------------------------------------------------------------------------------


def test_why_tells_where_a_task_runs_and_what_others_wait_for(hanging: Hanging) -> None:
    pid, first = hanging.start("deadlock")
    other, second = hanging.start("spin")
    hanging.start("ignores")
    hanging.told(pid)
    hanging.told(other)
    waiting = hanging.up.evener("submit", "hang.quick").stdout.strip()
    unserved = hanging.up.evener("submit", "hang.quick", "--queue", "gpu").stdout.strip()
    running = hanging.why(first[:10])
    assert (running["state"], running["reason"], running["pid"]) == ("running", "running", pid)
    assert hanging.why(second)["pid"] == other
    queued = hanging.why(f"hang.quick[{waiting}]")
    assert queued["reason"] == "busy"
    assert "all 3 workers for it are busy (longest with hang.deadlock[" in queued["text"]
    assert "in queue gpu, which no connected worker serves" in hanging.why(unserved)["text"]
    plain = hanging.up.evener("why", first)
    assert plain.returncode == 0
    assert plain.stdout.startswith(f"hang.deadlock[{first[:8]}] runs on host ")
    assert plain.stderr == ""


def test_why_of_what_nobody_knows(hanging: Hanging) -> None:
    done = hanging.up.evener("why", "feedfeed")
    assert done.returncode == 1
    assert 'no task has an id that begins with "feedfeed"' in done.stderr
    assert done.stdout == ""
    assert hanging.up.evener("why", "xyz").returncode == 2
    assert hanging.why("feedfeed")["reason"] == "unknown"
