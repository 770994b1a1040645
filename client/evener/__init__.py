"""evener: run Python functions on a pool of worker processes, on one host or on many.

Rules of this file: names only, each imported when it is first asked for. So `import evener` costs
next to nothing, and a worker that imports an app never loads the parts that hold connections.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from evener.version import __version__

if TYPE_CHECKING:
    from evener.app import App
    from evener.children import StartError
    from evener.client import Client
    from evener.cluster import LocalCluster
    from evener.config.errors import ConfigError
    from evener.errors import (
        BadArguments,
        BrokerRefused,
        BrokerUnreachable,
        ClientClosed,
        EvenerError,
        LoadError,
        NotLoadable,
        NotSendable,
        PayloadTooLarge,
        PeerError,
        QueueFull,
        RemoteError,
        RemoteTraceback,
        StreamBroken,
        StreamRestarted,
        TaskCancelled,
        TaskError,
        TaskLost,
        TaskRejected,
        TaskTimeout,
        UnknownFunction,
        UnknownTask,
        UsageError,
    )
    from evener.function import AsyncFunction, Function
    from evener.future import Future
    from evener.gathering import gather
    from evener.inside import cancelled, progress, time_left
    from evener.outputs import OutputLine
    from evener.reporting import Progress
    from evener.statistics import FunctionStatistics, Percentiles
    from evener.whoami import WorkerInfo, current_worker
    from evener.worker_class import Worker

__all__ = [
    "App",
    "AsyncFunction",
    "BadArguments",
    "BrokerRefused",
    "BrokerUnreachable",
    "Client",
    "ClientClosed",
    "ConfigError",
    "EvenerError",
    "Function",
    "FunctionStatistics",
    "Future",
    "LoadError",
    "LocalCluster",
    "NotLoadable",
    "NotSendable",
    "OutputLine",
    "PayloadTooLarge",
    "PeerError",
    "Percentiles",
    "Progress",
    "QueueFull",
    "RemoteError",
    "RemoteTraceback",
    "StartError",
    "StreamBroken",
    "StreamRestarted",
    "TaskCancelled",
    "TaskError",
    "TaskLost",
    "TaskRejected",
    "TaskTimeout",
    "UnknownFunction",
    "UnknownTask",
    "UsageError",
    "Worker",
    "WorkerInfo",
    "__version__",
    "cancelled",
    "current_worker",
    "gather",
    "progress",
    "time_left",
]

_HOMES = {
    "ConfigError": "evener.config.errors",
    "WorkerInfo": "evener.whoami",
    "current_worker": "evener.whoami",
    "App": "evener.app",
    "AsyncFunction": "evener.function",
    "Client": "evener.client",
    "Function": "evener.function",
    "FunctionStatistics": "evener.statistics",
    "Future": "evener.future",
    "LocalCluster": "evener.cluster",
    "OutputLine": "evener.outputs",
    "Percentiles": "evener.statistics",
    "Progress": "evener.reporting",
    "StartError": "evener.children",
    "Worker": "evener.worker_class",
    "cancelled": "evener.inside",
    "gather": "evener.gathering",
    "progress": "evener.inside",
    "time_left": "evener.inside",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "evener.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
