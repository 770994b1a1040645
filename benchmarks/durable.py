"""What the journal costs: the broker with one and without one, and SQLite with nothing around.

The files lie in the folder for temporary files: on another disk, and above all on another kind of
disk, the syncs take another time. Of the broker's threads only the loop is counted as CPU time; the
syncs are in another one, which mostly waits.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

import zmq

from benchmarks import brokers
from benchmarks.measure import Measure, Sample
from evener_wire import messages as m

_BATCH: Final = 500
_ROW: Final = 120
_SLOTS: Final = 4


@contextmanager
def submits(count: int, journal: bool) -> Iterator[Measure]:
    """Tasks until the last of them is accepted. Each round has a fresh broker."""

    def measure() -> Sample:
        with ExitStack() as stack:
            broker = _broker(stack, journal)
            client = broker.peer("client")
            brokers.submit(client, 5_000)
            before, start = _loop_us(broker), time.perf_counter()
            brokers.submit(client, count)
            seconds = time.perf_counter() - start
            return {
                "submits_per_s": count / seconds,
                "loop_us_per_task": (_loop_us(broker) - before) / count,
            }

    yield measure


@contextmanager
def lives(count: int, depth: int, journal: bool) -> Iterator[Measure]:
    """Whole lives of no-op tasks: submitted, run, ended, taken. Each round has a fresh broker."""

    def measure() -> Sample:
        with ExitStack() as stack:
            broker = _broker(stack, journal)
            client, agent = broker.peer("client"), broker.peer("agent")
            agent.send(m.Offer(_SLOTS, False, ("default",), [("work.noop", None)], ()))
            poller = zmq.Poller()
            poller.register(client.socket, zmq.POLLIN)
            poller.register(agent.socket, zmq.POLLIN)
            brokers.live(client, agent, poller, 2_000, depth)
            before, start = _loop_us(broker), time.perf_counter()
            brokers.live(client, agent, poller, count, depth)
            seconds = time.perf_counter() - start
            return {
                "tasks_per_s": count / seconds,
                "loop_us_per_task": (_loop_us(broker) - before) / count,
            }

    yield measure


@contextmanager
def restarts(count: int) -> Iterator[Measure]:
    """A broker is killed with so many open tasks, and the next one starts on what it left.

    Until it listens, with the processor time of that, and until an agent that nobody knows has the
    first of the tasks.
    """

    def measure() -> Sample:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="evener-bench-"))
            journal = str(Path(folder) / "tasks.journal")
            broker = brokers.Broker(stack, journal=journal)
            brokers.submit(broker.peer("client"), count)
            broker.process.kill()
            broker.process.wait()
            log_bytes = Path(f"{journal}-wal").stat().st_size
            start = time.perf_counter()
            broker = brokers.Broker(stack, journal=journal)
            ready_s, times = time.perf_counter() - start, broker.process.cpu_times()
            agent = broker.peer("agent")
            agent.send(m.Offer(_SLOTS, False, ("default",), [("work.noop", None)], ()))
            while type(agent.receive()) is not m.Run:
                pass
            return {
                "ready_s": ready_s,
                "ready_cpu_s": times.user + times.system,
                "first_run_s": time.perf_counter() - start,
                "log_mib": log_bytes / (1 << 20),
            }

    yield measure


@contextmanager
def bare(count: int) -> Iterator[Measure]:
    """SQLite alone: rows of the size of a small task, a synced transaction for each batch."""

    def measure() -> Sample:
        with (
            tempfile.TemporaryDirectory(prefix="evener-bench-") as folder,
            closing(sqlite3.connect(Path(folder) / "rows", isolation_level=None)) as db,
        ):
            db.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
            db.execute("PRAGMA journal_mode=WAL").fetchall()
            db.execute("PRAGMA synchronous=FULL")
            db.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, data BLOB)")
            data = os.urandom(_ROW)
            start = time.perf_counter()
            for first in range(0, count, _BATCH):
                db.execute("BEGIN IMMEDIATE")
                batch = [(number, data) for number in range(first, first + _BATCH)]
                db.executemany("INSERT INTO rows VALUES (?,?)", batch)
                db.execute("COMMIT")
            return {"rows_per_s": count / (time.perf_counter() - start)}

    yield measure


def _broker(stack: ExitStack, journal: bool) -> brokers.Broker:
    if not journal:
        return brokers.Broker(stack)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="evener-bench-"))
    return brokers.Broker(stack, journal=str(Path(folder) / "tasks.journal"))


def _loop_us(broker: brokers.Broker) -> float:
    """CPU time of the broker's first thread, which is its loop."""
    pid = broker.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e3
