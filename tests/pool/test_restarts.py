"""Many restarts of workers, and nothing that stays: POOL_RESTARTS=1000 for the long form."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from evener_worker import PoolEvents, WorkerDied, WorkerPool
from tests.pool.workers import Jack
from tests.support import Traces, take_traces, wait_until

_RESTARTS = int(os.environ.get("POOL_RESTARTS", "16"))


@pytest.mark.timeout(max(120, _RESTARTS))
def test_restarts_leave_nothing() -> None:
    pids: list[int] = []
    with WorkerPool(Jack, 2) as pool, PoolEvents(pool, online=lambda event: pids.append(event.pid)):
        _restart(pool, 1)  # what is loaded and opened once is
        before = take_traces()
        each = (_RESTARTS + 1) // 2
        threads = [threading.Thread(target=_restart, args=(pool, each, n)) for n in (1, 2)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{2 * each} restarts in {time.monotonic() - begun:.1f} s")
        wait_until(lambda: _size(take_traces()) <= _size(before), why="what restarts left behind")
        wait_until(lambda: len(pids) == 2 * each + 1, why="every event")
        machine = pool._machine
        assert len(machine._lives.places) == 2
        assert len(machine._ledger._timers) < 200
        assert machine.all_open() == []


def _size(traces: Traces) -> int:
    """Without threads: those of the test runner come and go, ours are looked for when it ends."""
    return len(traces.descriptors) + len(traces.processes)


def _restart(pool: WorkerPool[Any, Any], times: int, worker: int = 1) -> None:
    handle = pool[worker]
    for number in range(times):
        how = number % 4
        if how == 0:
            handle.restart()
        elif how == 1:
            handle.replace()
        elif how == 2:
            handle.kill()
            handle.restart()
        else:
            with pytest.raises(WorkerDied):
                handle.execute(["leave", 3])
            handle.init()
        assert handle.execute(["echo", number]) == number
