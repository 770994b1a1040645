"""What commands tell of what did not go well: which limit, which broker, which task."""

from __future__ import annotations

import json
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
