"""Care of workers with real processes: recycling, restart, scaling and draining, under load."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import evener
from tests.integration.care_cluster import (
    Start,
    agent_of,
    care,
    client_of,
    pids_of,
    starting,
    workers,
    write_version,
)
from tests.integration.cli_cluster import Starter, Up
from tests.support import Processes, descendants, wait_until


@pytest.fixture
def start(starter: Starter) -> Iterator[Start]:
    with starting(starter) as starts:
        yield starts


class Load:
    """Tasks all the time, so that whatever is lost meanwhile is noticed; and what they returned."""

    def __init__(self, client: evener.Client, seconds: float) -> None:
        self._client = client
        self._seconds = seconds
        self._stop = threading.Event()
        self.results: list[tuple[int, int]] = []
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                batch = [self._client.submit("care.work", self._seconds) for _ in range(8)]
                self.results += [tuple(future.result(60)) for future in batch]
        except BaseException as error:
            self._error = error

    def wait_for(self, more: int) -> None:
        """So many results from now on."""
        before = len(self.results)
        wait_until(lambda: len(self.results) >= before + more, 30, "results")

    def end(self) -> list[tuple[int, int]]:
        self._stop.set()
        self._thread.join(60)
        if self._error is not None:
            raise self._error
        return self.results


@contextmanager
def loaded(up: Up, seconds: float = 0.002) -> Iterator[tuple[evener.Client, Load]]:
    with client_of(up) as client:
        load = Load(client, seconds)
        try:
            yield client, load
        finally:
            load.end()


# --- Recycling ------------------------------------------------------------------------------------


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_two_thousand_tasks_with_workers_that_live_for_five(start: Start) -> None:
    up = start("-n", "4", "--max-tasks-per-worker", "5")
    with client_of(up) as client:
        agent = agent_of(up)
        files = open_files(agent)
        pids: set[int] = set()
        count = 0
        # Where processes start slowly, workers go on beyond their limit, so it may take more tasks.
        while count < 2_000 or len(pids) < 20:
            futures = [client.submit("care.work", 0.001) for _ in range(200)]
            pids |= {future.result(60)[1] for future in futures}
            count += 200
        wait_until(lambda: care(client)["ready"] == 4, 30, "all workers")
        assert care(client)["recycled"]["tasks"] >= len(pids) - 4
        # What the broker knows of workers is told once a second.
        wait_until(lambda: sum(row["tasks"] for row in workers(client)) == count, 30, "news")
        assert sum(row["restarts"] for row in workers(client)) == 0
        wait_until(lambda: open_files(agent) <= files, 30, "the agent to close what it opened")
        wait_until(
            lambda: pids & set(descendants(up.process.pid)) <= pids_of(client),
            30,
            "processes of earlier generations to end",
        )
    # Only a machine that is short of processors may be told of.
    warnings = [line for line in up.text().splitlines() if "WARNING" in line]
    assert [line for line in warnings if "stood still" not in line] == []
    assert "ERROR" not in up.text()


def test_a_worker_that_grows_is_replaced_between_two_tasks(start: Start) -> None:
    up = start("-n", "2", "--max-worker-memory", "100MiB")
    with client_of(up) as client:
        large = client.submit("care.leak", 120).result(60)
        wait_until(lambda: large not in pids_of(client), 30, "the large one to leave")
        wait_until(lambda: care(client)["ready"] == 2, 30, "the next one")
        assert care(client)["recycled"] == {"memory": 1}
        assert max(worker["recycled"] for worker in workers(client)) == 1


def test_an_age_is_reached_without_work(start: Start) -> None:
    up = start("-n", "2", "--max-worker-age", "300ms")
    with client_of(up) as client:
        wait_until(lambda: care(client)["recycled"].get("age", 0) >= 4, 30, "two generations")
        assert client.submit("care.work").result(60)[0] == 1


# --- Restart --------------------------------------------------------------------------------------


def test_new_code_comes_in_without_loss_and_broken_code_does_not(start: Start) -> None:
    up = start("-n", "3")
    with loaded(up) as (client, load):
        before = pids_of(client)
        wait_until(lambda: len(load.results) > 20, 30, "some results")
        write_version(up, 2)
        done = up.evener("restart", "here", "--json", "-b", client.address)
        assert done.returncode == 0, done.stderr
        (answer,) = json.loads(done.stdout)["hosts"]
        assert (answer["restart"]["state"], answer["restart"]["done"]) == ("done", 3)
        wait_until(lambda: len(pids_of(client)) == 3 and not pids_of(client) & before, 30, "news")
        count = len(load.results)
        load.wait_for(20)
        places = {client.submit("care.place").result(60) for _ in range(30)}
        assert places <= {1, 2, 3}, "a successor has the number of the one before"
        assert {version for version, _ in load.results[count + 10 :]} == {2}
        now = pids_of(client)
        write_version(up, 3, "\nimport no_such_module\n")
        done = up.evener("restart", "-b", client.address)
        assert done.returncode == 1
        assert "stopped after 0 of 3 workers replaced; the others go on" in done.stderr
        assert "ModuleNotFoundError: No module named 'no_such_module'" in done.stderr
        assert pids_of(client) == now
        load.wait_for(20)
    assert {version for version, _ in load.results} == {1, 2}


def test_sighup_loads_new_code_and_waits_for_a_long_task(start: Start) -> None:
    up = start("-n", "2")
    with client_of(up) as client:
        before = pids_of(client)
        long = client.submit("care.work", 3.0)
        wait_until(lambda: care(client)["running"] == 1, 30, "the task to start")
        write_version(up, 2)
        up.process.send_signal(signal.SIGHUP)
        wait_until(lambda: care(client)["restart"] is not None, 30, "the restart")
        # The other ones are new while it still runs.
        wait_until(lambda: care(client)["restart"]["finishing"] == 1, 30, "only it is left")
        assert client.submit("care.work").result(60)[0] == 2
        assert not long.done()
        version, pid = long.result(60)
        assert version == 1
        assert pid in before
        wait_until(lambda: care(client)["restart"]["state"] == "done", 30, "the end")
        wait_until(lambda: pid not in pids_of(client), 30, "the old one to leave")


def test_all_hosts_one_after_the_other(start: Start, processes: Processes) -> None:
    up = start("-n", "1")
    with client_of(up) as client:
        options = ("--name", "there", "-n", "1", "-b", client.address)
        evener_worker = (sys.executable, "-m", "evener", "worker", "care_app:app")
        other = processes.start(*evener_worker, *options, cwd=up.folder)
        wait_until(lambda: len(pids_of(client)) == 2, 30, "the second host")
        before = pids_of(client)
        done = up.evener("restart", "-b", client.address)
        assert done.returncode == 2
        assert "which host?" in done.stderr
        done = up.evener("restart", "--all", "-b", client.address)
        assert done.returncode == 0, done.stderr
        assert re.sub(r"in .*", "", done.stdout).split("\n") == [
            "here: 1 worker replaced ",
            "there: 1 worker replaced ",
            "",
        ]
        wait_until(lambda: not pids_of(client) & before, 30, "the new ones to be told of")
        # What waits on a host that is drained runs on the other one; with --stop it ends.
        done = up.evener("drain", "there", "--wait", "--stop", "-b", client.address)
        assert done.returncode == 0, done.stderr
        assert other.wait(30) == 0
        (pid,) = pids_of(client)
        results = [client.submit("care.work") for _ in range(10)]
        assert {future.result(60)[1] for future in results} == {pid}


# --- Scaling and draining -------------------------------------------------------------------------


def test_a_host_is_scaled_under_load(start: Start) -> None:
    up = start("-n", "2")
    with loaded(up) as (client, load):
        for size in (5, 1, 3):
            done = up.evener("scale", "here", str(size), "--wait", "-b", client.address)
            assert done.returncode == 0, done.stderr
            assert done.stdout == f"here: {size} of {size} worker{'s' * (size > 1)} ready\n"
            (host,) = client.query("ls", kind="hosts")["rows"]
            assert host["slots"] == size
            load.wait_for(1)
        assert {worker["name"] for worker in workers(client)} == {"here:1", "here:2", "here:3"}
    refused = up.evener("scale", "here", "0", "-b", f"tcp://127.0.0.1:{up.port}")
    assert refused.returncode == 2
    assert "0 is not in the range" in refused.stderr


def test_a_drained_host_gives_work_back_and_takes_it_again(start: Start) -> None:
    up = start("-n", "2")
    with client_of(up) as client:
        go = up.folder / "go"
        running = [client.submit("care.hold", str(go)) for _ in range(2)]
        waiting = [client.submit("care.work") for _ in range(20)]
        wait_until(lambda: care(client)["running"] == 2, 30, "both to start")
        assert up.evener("drain", "here", "-b", client.address).returncode == 0
        go.touch()
        done = up.evener("drain", "here", "--wait", "-b", client.address)
        assert (done.returncode, done.stdout) == (
            0,
            "here: nothing runs, and nothing new is taken\n",
        )
        assert len({future.result(60) for future in running}) == 2
        time.sleep(0.1)  # whatever would run now would be done
        assert not any(future.done() for future in waiting)
        (host,) = client.query("ls", kind="hosts")["rows"]
        assert (host["draining"], host["slots"]) == (True, 0)
        done = up.evener("drain", "--undo", "-b", client.address)
        assert (done.returncode, done.stdout) == (0, "here: takes work again\n")
        assert [future.result(60)[0] for future in waiting] == [1] * 20


def test_questions_about_hosts_that_are_not_there(start: Start) -> None:
    up = start("-n", "2")
    with client_of(up) as client:
        done = up.evener("drain", "nowhere", "-b", client.address)
        assert done.returncode == 1
        assert (
            f'no host "nowhere" is connected to the broker at {client.address}; there is here'
            in done.stderr
        )
        with pytest.raises(evener.UsageError, match='no host has the name "nowhere"'):
            client.query("scale", host="nowhere", workers=3)
        with pytest.raises(evener.UsageError, match="can have 1 to 4,096 workers"):
            client.query("scale", host="here", workers=0)
        with pytest.raises(evener.UsageError, match="which host"):
            client.query("care")
