"""Local clusters: real processes that come, work, and are gone afterwards, whoever ended how."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import evener
from evener.children import StartError
from evener.errors import ClientClosed
from tests.support import Processes, descendants, is_running, wait_until

GONE_WITHIN_S = 1.0

SCRIPT = """
import os, signal, sys, time
import evener

app = evener.App("script")

@app.task
def square(number):
    return number * number

def pid_of_worker(_):
    return os.getpid()

def hold():
    evener.progress(1)
    signal.pause()

# No `if __name__ == "__main__"`: workers never run this file.
with evener.LocalCluster(app, workers=2) as cluster, cluster.client() as client:
    assert client.submit(square, 4).result(30) == 16
    assert square.submit(5).result(30) == 25
    assert list(client.map(lambda n: n + 1, range(1000))) == list(range(1, 1001))
    pids = {client.submit(pid_of_worker, n).result(30) for n in range(20)}
    print(*cluster.pids, *pids, flush=True)
    REST
"""


def write(tmp_path: Path, rest: str) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.replace("REST", rest))
    return path


def start(processes: Processes, path: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join(sys.path)
    return processes.start(sys.executable, str(path), env={"PYTHONPATH": paths})


def test_a_plain_script_runs_its_own_functions_on_it(processes: Processes, tmp_path: Path) -> None:
    child = start(processes, write(tmp_path, "pass"))
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    assert not any(is_running(int(pid)) for pid in out.split())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_program_is_killed(
    processes: Processes, tmp_path: Path, number: int
) -> None:
    child = start(processes, write(tmp_path, "signal.pause()"))
    assert child.stdout is not None
    pids = [int(pid) for pid in child.stdout.readline().split()]
    assert len(pids) >= 3
    assert all(is_running(pid) for pid in pids)
    processes.kill(child, number)
    wait_until(lambda: not any(is_running(pid) for pid in pids), why="the children to end")


def test_nobody_stays_for_the_results_of_a_program_that_was_killed(
    processes: Processes, tmp_path: Path
) -> None:
    busy = """held = client.submit(hold)
    while held.progress() is None:
        time.sleep(0.01)
    print("busy", flush=True)
    signal.pause()"""
    child = start(processes, write(tmp_path, busy))
    assert child.stdout is not None
    pids = [int(pid) for pid in child.stdout.readline().split()]
    assert child.stdout.readline() == "busy\n"
    processes.kill(child)
    since = time.monotonic()
    wait_until(lambda: not any(is_running(pid) for pid in pids), why="the children to end")
    assert time.monotonic() - since < GONE_WITHIN_S


def test_nothing_is_left_when_the_block_raises() -> None:
    with pytest.raises(KeyError), evener.LocalCluster(workers=1) as cluster:  # noqa: PT012
        client = cluster.client()
        future = client.submit(pow, 2, 5)
        assert future.result(30) == 32
        assert len(descendants()) >= 3
        raise KeyError
    assert descendants() == []
    with pytest.raises(ClientClosed):
        client.submit(pow, 1, 1)
    with pytest.raises(ClientClosed):
        cluster.client()


def test_a_bad_app_is_told_in_its_own_words() -> None:
    with pytest.raises(StartError, match="no_such_module"):
        evener.LocalCluster("no_such_module:app", workers=1)


def test_a_part_that_is_never_ready_is_given_up() -> None:
    with pytest.raises(StartError, match="not ready in time"):
        evener.LocalCluster(workers=1, timeout=0.01)


def test_what_workers_print_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    def say() -> None:
        print("hello from a worker", flush=True)

    with evener.LocalCluster(workers=1) as cluster, cluster.client() as client:
        client.submit(say).result(30)
        out = ""

        def shown() -> bool:
            nonlocal out
            captured = capfd.readouterr()
            out += captured.out + captured.err
            return "hello from a worker" in out

        wait_until(shown)
