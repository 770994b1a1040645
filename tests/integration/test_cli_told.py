"""What commands tell of what did not go well: which limit, which broker, which task."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from tests.integration.cli_cluster import Starter, Up
from tests.support import wait_until


def columns(table: str, function: str) -> dict[str, str]:
    """The row of a function, by the titles of the table."""
    lines = table.splitlines()
    (head,) = (line.split() for line in lines if line.startswith("FUNCTION"))
    (row,) = (line.split() for line in lines if line.split()[:1] == [function])
    return dict(zip(head, row, strict=False))


def test_tasks_that_ended_otherwise_are_in_the_tables(up: Up) -> None:
    assert "EXPIRED" not in up.evener("ls", "functions").stdout
    flag = str(up.folder / "never")
    late = up.evener("submit", "demo.hold", flag, "--timeout", "200ms", "--wait")
    assert late.returncode == 75, late.stderr
    for table in (up.evener("status").stdout, up.evener("ls", "functions").stdout):
        row = columns(table, "demo.hold")
        assert (row["DONE"], row["FAILED"], row["EXPIRED"]) == ("0", "0", "1")
        assert "LOST" not in row
    assert up.evener("submit", "demo.crash", "--wait").returncode == 1
    row = columns(up.evener("ls", "functions").stdout, "demo.crash")
    assert (row["EXPIRED"], row["LOST"]) == ("0", "1")


def host_of(up: Up) -> dict[str, Any]:
    host: dict[str, Any]
    (host,) = json.loads(up.evener("ls", "hosts", "--json").stdout)["rows"]
    return host


def test_up_ends_in_order_when_its_host_is_drained_and_stopped(up: Up, starter: Starter) -> None:
    up.start_held_task()
    name = host_of(up)["name"]
    drain = starter.follow(up, "drain", name, "--wait", "--stop")
    wait_until(lambda: host_of(up)["draining"], why="it to drain")
    up.release()
    assert up.process.wait(30) == 0, up.text()
    assert (
        "the agent ended in order, told to stop (as by evener drain --stop); stopping" in up.text()
    )
    assert "unexpectedly" not in up.text()
    assert starter.processes.started[-1].wait(30) == 0
    assert drain.lines() == [f"{name}: nothing runs, and its agent has ended"]


def test_errors_name_the_broker_that_was_asked(up: Up, starter: Starter) -> None:
    address = f"tcp://127.0.0.1:{up.port}"
    for command in ("show", "result", "cancel", "retry", "why"):
        told = up.evener(command, "0123abcd")
        assert told.returncode == 1
        assert f"the broker at {address}" in told.stderr
        assert "brokers run on this host" not in told.stderr
    assert f"connected to the broker at {address}" in up.evener("drain", "nowhere").stderr
    task_id = up.evener("submit", "demo.add", "1", "2").stdout.strip()

    newer = starter.ready()
    told = newer.evener("show", task_id)
    assert told.returncode == 1
    line = f"2 brokers run on this host; this is about the newest, tcp://127.0.0.1:{newer.port}."
    assert f"{line} Another: {address} (--broker or EVENER_BROKER)" in told.stderr
    assert f"the broker at tcp://127.0.0.1:{newer.port} has no task" in told.stderr
    named = newer.evener("show", task_id, "--broker", address)
    assert (named.returncode, named.stderr) == (0, "")
    newer.process.send_signal(signal.SIGINT)
    assert newer.process.wait(20) == 0


def test_logs_of_a_task_that_nobody_knows(up: Up) -> None:
    for more in ((), ("--follow",), ("--json",)):
        told = up.evener("logs", "0123abcd", *more)
        assert (told.returncode, told.stdout) == (1, "")
        assert 'has no task whose id begins with "0123abcd"' in told.stderr
    silent = up.evener("submit", "demo.add", "1", "2").stdout.strip()
    told = up.evener("logs", silent[:8])
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_a_wait_for_a_worker_is_bounded_by_expires_and_not_by_timeout(
    up: Up, starter: Starter
) -> None:
    helps = [up.evener(name, "--help").stdout for name in ("submit", "result")]
    assert "Run time of one attempt; waiting does not count." in helps[0]
    assert "Wait no longer than this; the task goes on." in helps[1]
    errors = up.folder / "waiting.txt"
    with errors.open("w") as stderr:
        command = (sys.executable, "-m", "evener", "submit", "demo.add", "1", "2", "-q", "gpu")
        limits = ("--wait", "--timeout", "50ms")
        waiting = starter.processes.start(
            *command, *limits, cwd=up.folder, stderr=stderr, stdout=subprocess.DEVNULL
        )
    wait_until(lambda: "no connected worker serves it" in errors.read_text(), why="the warning")
    assert "bound the wait with the option expires or deadline" in errors.read_text()
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(20) == 130
    (row,) = json.loads(up.evener("ls", "tasks", "--json").stdout)["rows"]
    assert row["state"] == "queued"
    assert up.evener("cancel", row["id"]).returncode == 0
    bounded = up.evener("submit", "demo.add", "1", "2", "-q", "gpu", "--wait", "--expires", "50ms")
    assert bounded.returncode == 75, bounded.stderr


def test_only_names_that_are_near_are_suggested(starter: Starter) -> None:
    for wanted, closest in (("nope:app", ""), ("demo_ap:app", "Closest: demo_app")):
        up = starter.start(app=wanted)
        assert up.process.wait(30) == 1
        assert f'no module "{wanted.partition(":")[0]}"' in up.text()
        assert closest in up.text()
        assert "opcode" not in up.text()
