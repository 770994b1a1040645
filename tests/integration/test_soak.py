"""A cluster that works for long while its workers are replaced again and again: nothing grows.

SOAK_REPLACED=1000 for the long form: so many workers are replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

import evener
from tests.integration.care_cluster import Start, client_of, starting, workers
from tests.integration.cli_cluster import Starter, Up
from tests.support import children, descendants, is_worker, wait_until

_REPLACED = int(os.environ.get("SOAK_REPLACED", "12"))
_AT_ONCE = 500
_WORKERS = 3
_TASKS_PER_WORKER = 50

# What an allocator may keep, however long it goes on.
_GROWTH_BYTES_MAX = 16 << 20

APP = """
@app.task
def count(upto: int):
    for number in range(upto):
        evener.progress(number + 1, upto)
        yield number
    return upto

@app.task
def shout(text: str) -> str:
    print(text)
    return text
"""


@dataclass(frozen=True, slots=True)
class Held:
    """What the processes of a cluster hold, but for the workers, which come and go."""

    descriptors: dict[int, int]
    threads: dict[int, int]
    children: dict[int, int]
    resident: dict[int, int]


@pytest.fixture
def start(starter: Starter) -> Iterator[Start]:
    with starting(starter, APP) as started:
        yield started


def lasting(up: Up) -> list[int]:
    """Everything of the cluster but the workers: `up`, the broker, the agent and its guard."""
    pids = [up.process.pid, *descendants(up.process.pid)]
    return [pid for pid in pids if not is_worker(pid)]


def held(pids: list[int]) -> Held:
    processes = {pid: psutil.Process(pid) for pid in pids}
    return Held(
        {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids},
        {pid: process.num_threads() for pid, process in processes.items()},
        {pid: len(children(pid)) for pid in pids},
        {pid: process.memory_info().rss for pid, process in processes.items()},
    )


def is_whole(up: Up) -> bool:
    return sum(map(is_worker, descendants(up.process.pid))) == _WORKERS


def is_back(now: Held, before: Held) -> bool:
    return (now.descriptors, now.threads, now.children) == (
        before.descriptors,
        before.threads,
        before.children,
    )


def work(client: evener.Client) -> None:
    """Tasks of all kinds at once; each has its own result."""
    streams = [client.submit("care.count", 3) for _ in range(_AT_ONCE // 50)]
    lines = [client.submit("care.shout", f"{n}") for n in range(_AT_ONCE // 50)]
    futures = [client.submit("care.work") for _ in range(_AT_ONCE)]
    # First, because a generator waits for its reader.
    assert [[*stream.stream(60)] for stream in streams] == [[0, 1, 2]] * len(streams)
    assert all(version == 1 for version, _ in evener.gather(*futures, timeout=60))
    assert evener.gather(*lines, timeout=60) == [f"{n}" for n in range(len(lines))]


def replaced(client: evener.Client) -> int:
    return sum(worker["recycled"] for worker in workers(client))


def soak(client: evener.Client, replacements: int) -> int:
    """Work until so many more workers were replaced. Returns how many tasks that took."""
    until, rounds = replaced(client) + replacements, 0
    while replaced(client) < until:
        work(client)
        rounds += 1
    return rounds * (_AT_ONCE + 2 * (_AT_ONCE // 50))


@pytest.mark.timeout(max(240, 2 * _REPLACED))
def test_nothing_grows_while_workers_are_replaced(start: Start) -> None:
    up = start("-n", str(_WORKERS), "--max-tasks-per-worker", str(_TASKS_PER_WORKER))
    with client_of(up) as client:
        soak(client, 2 * _WORKERS)  # what is loaded and opened once is
        pids = lasting(up)
        wait_until(lambda: is_whole(up), why="all workers")
        before = held(pids)
        tasks = soak(client, _REPLACED)
        wait_until(lambda: is_whole(up) and is_back(held(pids), before), 30, f"{before}")
        assert lasting(up) == pids
        assert client.open_tasks == 0
        grown = {pid: size - before.resident[pid] for pid, size in held(pids).resident.items()}
        assert max(grown.values()) < _GROWTH_BYTES_MAX, grown
        print(f"{tasks} tasks, {_REPLACED} workers, {max(grown.values()) >> 10} KiB more")
