"""Where this code runs: in a worker, and which one, or in the program that uses the workers.

Rules of this file: no imports of ours, one global. A worker process sets it before it imports the
app, so that modules may ask while they are imported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

__all__ = ["WorkerInfo", "current_worker"]


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A process, as `current_worker` tells it.

    `id`: the number of the worker on its host, from 1; a worker that is replaced hands it on. In
    the main process 0. `name`: unique in the cluster, such as "host:1". `pid` and `host` are those
    of the process. `role`: "worker" in worker processes, "main" in every other process.
    """

    id: int
    name: str
    pid: int
    host: str
    role: Literal["main", "worker"]


_info: WorkerInfo | None = None


def current_worker() -> WorkerInfo:
    """What the calling code runs in. Costs less than a microsecond.

    In a cluster with `workers=0` tasks run in the main process, and this says so. A process that a
    task started, by fork or otherwise, is no worker.
    """
    info = _info
    if info is None or info.pid != os.getpid():
        info = _become(0, "main", "main")
    return info


def become_worker(number: int, name: str) -> None:
    """From here on this process is a worker. Caller: whatever begins a worker process, first."""
    _become(number, name, "worker")


def _become(number: int, name: str, role: Literal["main", "worker"]) -> WorkerInfo:
    global _info
    _info = WorkerInfo(number, name, os.getpid(), os.uname().nodename, role)
    return _info
