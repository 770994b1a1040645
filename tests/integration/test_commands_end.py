"""How programs over pipes end: when they are destroyed, by themselves, and with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from evener_worker import CommandWorker
from evener_worker.local import guard
from tests.support import children, is_running, wait_until

READY = """echo '{"kind":"ready"}'; """


def shell(script: str, grace: float = 2.0) -> CommandWorker:
    """A program of a few lines that says ready first."""
    return CommandWorker(["sh", "-c", READY + script], grace=grace)


def test_destroying_ends_the_whole_group_even_if_it_is_stubborn() -> None:
    script = """trap '' TERM; sleep 300 & echo $!; while true; do sleep 300; done"""
    worker = shell(script, grace=0.1)
    worker.init()
    below = worker.listen_once(timeout=60)
    assert is_running(below)
    worker.destroy()
    assert not is_running(worker.pid)
    wait_until(lambda: not is_running(below))


def test_what_a_program_left_behind_ends_with_it() -> None:
    with shell("sleep 300 & echo $!") as worker:
        (below,) = worker.listen_for(timeout=60)  # and then it left, with exit code 0
        wait_until(lambda: not is_running(below))


def test_a_program_that_is_told_may_clean_up(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    # A signal interrupts `wait`, and not a program in front.
    script = f"trap 'echo clean > {mark}; exit' TERM; {READY} sleep 300 & wait"
    worker = CommandWorker(["sh", "-c", script], grace=60)
    worker.init()
    worker.destroy()
    assert mark.read_text() == "clean\n"


def test_it_ends_with_its_parent_and_so_does_what_it_started(tmp_path: Path) -> None:
    """The parent is killed: neither the program, which ignores its pipe, nor its child stays."""
    script = f"""
import os, signal
from evener_worker import CommandWorker
worker = CommandWorker(["sh", "-c", '''{READY} sleep 300 & echo $!; exec sleep 301'''])
worker.init()
pids = [worker.pid, worker.listen_once()]
open({str(tmp_path / "pids")!r}, "w").write(" ".join(map(str, pids)))
os.kill(os.getpid(), signal.SIGKILL)
"""
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", script])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    wait_until(lambda: not any(map(is_running, pids)), 10, "the end of orphans")


def test_the_guard_ends_what_it_was_told_of_before_it_ran() -> None:
    """A program may die so early that its guard finds it gone."""
    gone = "0"
    below = subprocess.Popen(["sleep", "300"], process_group=0)
    argv = [sys.executable, "-I", "-S", "-c", guard._PROGRAM, gone]
    subprocess.run(
        argv, input=b"+1000000000\n-1000000000\n+%d\n" % below.pid, timeout=60, check=True
    )
    assert below.wait(60) == -signal.SIGKILL


def test_a_guard_that_was_killed_is_replaced() -> None:
    with CommandWorker(["cat"], handshake=False) as worker:
        wait_until(lambda: len(children()) == 2, why="the guard")  # the program may be quicker
        (killed,) = {*children()} - {worker.pid}
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in children(), why="the burial of the guard")
        wait_until(lambda: len(children()) == 2, why="another guard")
    assert children() == []


def test_it_keeps_no_program_from_exiting() -> None:
    script = """
from evener_worker import CommandWorker
CommandWorker(["sleep", "300"], handshake=False).init()
"""
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", script])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_thread_that_started_it_may_end() -> None:
    """The kernel ties a program to the thread that started it; callers need not know."""
    worker = CommandWorker(["cat"], handshake=False)
    starting = threading.Thread(target=worker.init)
    starting.start()
    starting.join(60)
    worker.send(1)
    assert worker.listen_once(timeout=60) == 1
    worker.destroy()
    assert worker.pid not in children()
