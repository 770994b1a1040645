"""Pools of worker processes: those of an agent on each host, and the one inside a program.

Rules of this file: names only, each imported when it is first asked for; the process of a worker
imports this package too, and has to start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evener_worker.local.async_pool import AsyncWorkerHandle, AsyncWorkerPool
    from evener_worker.local.command import CommandWorker
    from evener_worker.local.command_async import AsyncCommandWorker
    from evener_worker.local.command_errors import (
        BadMessage,
        CommandEnded,
        CommandError,
        CommandStartError,
        CommandTimeout,
    )
    from evener_worker.local.errors import (
        PoolClosed,
        PoolError,
        PoolFull,
        RequestTimeout,
        WorkerDied,
        WorkerStartError,
    )
    from evener_worker.local.futures import PoolFuture
    from evener_worker.local.outcome import Outcome, PoolBroken, SourceClosed
    from evener_worker.local.pool import WorkerHandle, WorkerPool
    from evener_worker.local.pool_events import PoolEvents
    from evener_worker.local.processing import ItemPool
    from evener_worker.local.processing_async import AsyncItemPool
    from evener_worker.local.protocol import AsyncPoolWorker, PoolWorker
    from evener_worker.local.sources import PushSource
    from evener_worker.local.stimuli import WorkerEvent

__all__ = [
    "AsyncCommandWorker",
    "AsyncItemPool",
    "AsyncPoolWorker",
    "AsyncWorkerHandle",
    "AsyncWorkerPool",
    "BadMessage",
    "CommandEnded",
    "CommandError",
    "CommandStartError",
    "CommandTimeout",
    "CommandWorker",
    "ItemPool",
    "Outcome",
    "PoolBroken",
    "PoolClosed",
    "PoolError",
    "PoolEvents",
    "PoolFull",
    "PoolFuture",
    "PoolWorker",
    "PushSource",
    "RequestTimeout",
    "SourceClosed",
    "WorkerDied",
    "WorkerEvent",
    "WorkerHandle",
    "WorkerPool",
    "WorkerStartError",
]

_HOMES = {
    "AsyncCommandWorker": "evener_worker.local.command_async",
    "AsyncItemPool": "evener_worker.local.processing_async",
    "AsyncPoolWorker": "evener_worker.local.protocol",
    "AsyncWorkerHandle": "evener_worker.local.async_pool",
    "AsyncWorkerPool": "evener_worker.local.async_pool",
    "BadMessage": "evener_worker.local.command_errors",
    "CommandEnded": "evener_worker.local.command_errors",
    "CommandError": "evener_worker.local.command_errors",
    "CommandStartError": "evener_worker.local.command_errors",
    "CommandTimeout": "evener_worker.local.command_errors",
    "CommandWorker": "evener_worker.local.command",
    "ItemPool": "evener_worker.local.processing",
    "Outcome": "evener_worker.local.outcome",
    "PoolBroken": "evener_worker.local.outcome",
    "PoolEvents": "evener_worker.local.pool_events",
    "PoolFuture": "evener_worker.local.futures",
    "PoolWorker": "evener_worker.local.protocol",
    "PushSource": "evener_worker.local.sources",
    "SourceClosed": "evener_worker.local.outcome",
    "WorkerEvent": "evener_worker.local.stimuli",
    "WorkerHandle": "evener_worker.local.pool",
    "WorkerPool": "evener_worker.local.pool",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "evener_worker.local.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
