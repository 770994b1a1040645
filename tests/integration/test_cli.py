"""The command line with real processes: `evener up` and all that is asked of it from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli_cluster import Starter, Up
from tests.support import (
    Processes,
    command_line,
    descendants,
    free_port,
    is_agent,
    is_running,
    wait_until,
)

# --- What `up` says and does ----------------------------------------------------------------------


def test_banner_says_where_and_what_next(up: Up) -> None:
    text = up.text()
    assert f"broker ready on tcp://127.0.0.1:{up.port}" in text
    assert "loopback only; --host 0.0.0.0" in text
    assert "workers     2 on this host" in text
    assert "functions   5: demo.add, demo.hold, demo.boom, demo.crash, demo.pair" in text
    assert "evener submit demo.add" in text


def test_next_free_port_is_taken_only_when_none_was_asked_for(up: Up, starter: Starter) -> None:
    second = starter.start("-n", "1", port=up.port)
    assert second.process.wait(20) == 69
    assert f"cannot listen on 127.0.0.1:{up.port}" in second.text()
    assert "Free: --port" in second.text()


def test_an_app_that_does_not_exist_is_told_once(starter: Starter) -> None:
    failed = starter.start("-n", "2", app="demo_ap:app")
    assert failed.process.wait(30) not in (0, None)
    assert failed.text().count('no module "demo_ap"') == 1
    assert "demo_app" in failed.text()  # the closest


def test_their_traceback_is_shown_and_not_ours(starter: Starter) -> None:
    (starter.folder / "broken.py").write_text("import evener\nimport nothing_like_this\n")
    failed = starter.start("-n", "1", app="broken:app")
    assert failed.process.wait(30) not in (0, None)
    text = failed.text()
    assert "No module named 'nothing_like_this'" in text
    assert 'broken.py", line 2' in text
    assert "evener/loading.py" not in text


# --- What is asked of it --------------------------------------------------------------------------


def test_submit_and_wait(up: Up) -> None:
    done = up.evener("submit", "demo.add", "1", "-3", "--wait")
    assert (done.returncode, done.stdout, done.stderr) == (0, "-2\n", "")


def test_submit_prints_the_id(up: Up) -> None:
    done = up.evener("submit", "demo.add", "1", "2")
    assert done.returncode == 0
    assert len(bytes.fromhex(done.stdout.strip())) == 16


def test_submit_a_function_of_a_module(up: Up) -> None:
    registered = up.evener("submit", "demo_app:add", "1", "2", "--wait", "--json")
    assert json.loads(registered.stdout)["function"] == "demo.add"
    by_value = up.evener("submit", "demo_app:double", "21", "--wait")
    assert by_value.stdout == "42\n", by_value.stderr
    builtin = up.evener("submit", "math:sqrt", "4", "--wait", "--json")
    answer = json.loads(builtin.stdout)
    assert (answer["schema"], answer["state"], answer["result"]) == (1, "done", 2.0)


def test_submit_lines_of_stdin(up: Up) -> None:
    done = up.evener("submit", "demo.add", "--stdin", "--wait", stdin="[1, 2]\n\n[3, 4]\n")
    assert done.stdout == "3\n7\n", done.stderr


def test_a_failed_task_is_exit_code_1_with_their_traceback(up: Up) -> None:
    done = up.evener("submit", "demo.boom", "--wait")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ValueError: boom" in done.stderr
    assert 'raise ValueError("boom")' in done.stderr
    assert "attempt 1/1" in done.stderr
    answer = json.loads(up.evener("submit", "demo.boom", "--wait", "--json").stdout)
    assert (answer["state"], answer["error"]["type"]) == ("failed", "ValueError")


def test_a_task_that_timed_out_is_exit_code_75(up: Up) -> None:
    flag = str(up.folder / "flag")
    done = up.evener("submit", "demo.hold", flag, "--wait", "--timeout", "200ms")
    assert done.returncode == 75
    assert "timeout of 0.2 s" in done.stderr


def test_an_unknown_function_names_the_closest(up: Up) -> None:
    done = up.evener("submit", "demo.ad", "1", "2", "--wait")
    assert done.returncode == 1
    assert 'no worker knows "demo.ad". Closest: demo.add' in done.stderr


def test_ping(up: Up) -> None:
    done = up.evener("ping")
    assert done.returncode == 0
    assert done.stdout.startswith(f"tcp://127.0.0.1:{up.port} answered in ")
    assert up.evener("ping", "--quiet").stdout == ""
    assert json.loads(up.evener("ping", "--json").stdout)["round_trip_ms"] > 0


def test_status(up: Up) -> None:
    up.evener("submit", "demo.add", "1", "2", "--wait")
    text = up.evener("status").stdout
    assert f"broker  tcp://127.0.0.1:{up.port}" in text
    assert "workers 2 on 1 host" in text
    assert "demo.add" in text
    answer = json.loads(up.evener("status", "--json").stdout)
    assert answer["schema"] == 1
    assert answer["hosts"][0]["slots"] == 2


def test_status_warns_of_a_queue_that_nobody_serves(up: Up) -> None:
    up.evener("submit", "demo.add", "1", "2", "--queue", "gpu")
    text = up.evener("status").stdout
    assert 'warning: 1 task waits for queue "gpu" but no connected worker serves it' in text
    assert "(workers serve: default)" in text


@pytest.mark.parametrize("kind", ["tasks", "workers", "queues", "hosts", "clients", "functions"])
def test_ls(up: Up, kind: str) -> None:
    up.evener("submit", "demo.add", "1", "2", "--queue", "gpu")  # stays, as nobody serves it

    def answer() -> dict[str, Any]:
        told: dict[str, Any] = json.loads(up.evener("ls", kind, "--json").stdout)
        return told

    wait_until(lambda: answer()["rows"], why="rows")  # workers come with the first heartbeat
    assert (answer()["schema"], answer()["kind"]) == (1, kind)
    shown = up.evener("ls", kind)
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 1 + len(answer()["rows"])


def test_cancel_by_the_beginning_of_an_id(up: Up) -> None:
    task_id = up.start_held_task()
    assert f"\n{task_id[:8]}  demo.hold" in up.evener("ls", "tasks").stdout
    done = up.evener("cancel", task_id[:8])
    assert (done.returncode, done.stdout) == (0, f"asked to cancel {task_id[:8]}\n")

    def state() -> str:
        rows = json.loads(up.evener("ls", "tasks", "--json").stdout)["rows"]
        return str(next(row["state"] for row in rows if row["id"] == task_id))

    wait_until(lambda: state() == "cancelled", why="the task to be cancelled")
    assert up.evener("cancel", "00000000").returncode == 1


# --- No broker ------------------------------------------------------------------------------------


def test_without_any_broker(starter: Starter) -> None:
    nobody = Up(subprocess.Popen.__new__(subprocess.Popen), Path(), starter.folder, 0)
    done = nobody.evener("ping")
    assert done.returncode == 69
    assert "Start one: evener up module:app" in done.stderr
    address = f"127.0.0.1:{free_port()}"
    done = nobody.evener("ping", "--broker", address, "--connect-timeout", "300ms")
    assert done.returncode == 69
    assert f"tcp://{address}: connection refused" in done.stderr


# --- The end --------------------------------------------------------------------------------------


def test_ctrl_c_lets_running_tasks_end(starter: Starter) -> None:
    up = starter.ready()
    up.start_held_task()
    up.process.send_signal(signal.SIGINT)
    wait_until(lambda: "1 task still running" in up.text(), why="the agent to stop")
    up.release()
    assert up.process.wait(20) == 0
    assert "stopping: 1 task still running, up to 30 s (Ctrl-C again to stop now)" in up.text()
    assert "done: 1 ok, 0 failed" in up.text()
    assert "Traceback" not in up.text()


def test_ctrl_c_twice_stops_now(starter: Starter) -> None:
    up = starter.ready()
    up.start_held_task()
    up.process.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping" in up.text())

    def interrupt_again() -> bool:
        # Two within 0.3 s count as one, so the second may have to be pressed again.
        if up.process.poll() is None:
            up.process.send_signal(signal.SIGINT)
        try:
            return up.process.wait(0.4) is not None
        except subprocess.TimeoutExpired:
            return False

    wait_until(interrupt_again, 10, "the end")
    assert up.process.returncode == 130


def test_sigterm_drains(starter: Starter) -> None:
    up = starter.ready()
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(20) == 0
    assert "done: 0 ok, 0 failed" in up.text()


def test_no_orphan_when_up_is_killed(starter: Starter) -> None:
    up = starter.ready()
    up.start_held_task()
    below = descendants(up.process.pid)
    assert len(below) == 4, [command_line(pid) for pid in below]  # broker, agent, two workers
    up.process.kill()
    up.process.wait(10)
    wait_until(lambda: not any(map(is_running, below)), 10, "all descendants to end")


def is_broker(pid: int) -> bool:
    return '"part": "broker"' in command_line(pid)


@pytest.mark.parametrize("is_part", [is_broker, is_agent])
def test_up_ends_when_a_part_dies(starter: Starter, is_part: Callable[[int], bool]) -> None:
    up = starter.ready()
    pid = next(p for p in descendants(up.process.pid) if is_part(p))
    os.kill(pid, signal.SIGKILL)
    assert up.process.wait(20) == 1
    assert "ended unexpectedly" in up.text()


def test_broker_and_worker_commands(processes: Processes, starter: Starter) -> None:
    port = free_port()
    folder = starter.folder
    base = [sys.executable, "-m", "evener"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    broker = processes.start(*base, "broker", "--port", str(port), "--quiet", **quiet)
    address = f"tcp://127.0.0.1:{port}"
    worker = processes.start(
        *base, "worker", "demo_app:app", "-n", "1", "--broker", address, **quiet
    )
    both = Up(broker, Path(), folder, port)
    wait_until(lambda: "demo.add" in both.evener("ls", "functions", "-b", address).stdout)
    done = both.evener("submit", "demo.add", "2", "3", "--wait", "-b", address)
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
    worker.send_signal(signal.SIGINT)
    assert worker.wait(20) == 0
    broker.send_signal(signal.SIGTERM)
    assert broker.wait(20) == 0
