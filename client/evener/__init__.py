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
    from evener.client import Client, gather
    from evener.cluster import LocalCluster
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
        TaskCancelled,
        TaskError,
        TaskLost,
        TaskRejected,
        TaskTimeout,
        UnknownFunction,
        UsageError,
    )
    from evener.function import AsyncFunction, Function
    from evener.future import Future

__all__ = [
    "App",
    "AsyncFunction",
    "BadArguments",
    "BrokerRefused",
    "BrokerUnreachable",
    "Client",
    "ClientClosed",
    "EvenerError",
    "Function",
    "Future",
    "LoadError",
    "LocalCluster",
    "NotLoadable",
    "NotSendable",
    "PayloadTooLarge",
    "PeerError",
    "QueueFull",
    "RemoteError",
    "RemoteTraceback",
    "TaskCancelled",
    "TaskError",
    "TaskLost",
    "TaskRejected",
    "TaskTimeout",
    "UnknownFunction",
    "UsageError",
    "__version__",
    "gather",
]

_HOMES = {
    "App": "evener.app",
    "AsyncFunction": "evener.function",
    "Client": "evener.client",
    "Function": "evener.function",
    "Future": "evener.future",
    "LocalCluster": "evener.cluster",
    "gather": "evener.client",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "evener.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
