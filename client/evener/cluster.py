"""A cluster on this machine, for the length of a `with` block: a broker and workers as children.

Rules of this file: no protocol. Processes are `children.py`'s matter; without workers nothing is
started at all, see `inline.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from evener.app import App
from evener.children import Child
from evener.errors import ClientClosed, UsageError
from evener.function import Function
from evener.loading import load_app

if TYPE_CHECKING:
    from typing import Self

    from evener.client import Client

_NO_FUNCTIONS: Final = "evener.no_functions:app"
_STOP_S: Final = 5.0


class LocalCluster:
    """A broker and `workers` worker processes on this machine (default: one per usable CPU).

    `app` is the app whose functions the workers know: the object, or as text `"module:app"`. All
    other functions, and those of an app that `__main__` defines, are sent along with their tasks;
    so a plain script needs no `if __name__ == "__main__"`.

    `workers=0` starts nothing: tasks run in the calling process, inside of `submit`. Raises
    `StartError` when a process is not ready within `timeout` seconds, and `UsageError`.

        with evener.LocalCluster(workers=4) as cluster, cluster.client() as client:
            print(client.submit(pow, 2, 10).result())
    """

    def __init__(
        self,
        app: App | str | None = None,
        *,
        workers: int | None = None,
        queues: Sequence[str] = ("default",),
        timeout: float = 30.0,
        log_level: str = "warning",
    ) -> None:
        if workers is not None and (type(workers) is not int or workers < 0):
            raise UsageError(f"workers={workers!r} is not a whole number from 0")
        self.workers = workers or 0
        """How many were started."""
        self.address = "inline"
        """The broker's address."""
        self._app = app
        self._clients: list[Client] = []
        self._children: list[Child] = []
        self._known: frozenset[str] = frozenset()
        self._closed = False
        if workers == 0:
            return
        try:
            self._start(workers or 0, queues, time.monotonic() + timeout, log_level)
        except BaseException:
            self.close()
            raise

    def _start(self, workers: int, queues: Sequence[str], deadline: float, log_level: str) -> None:
        broker = Child("evener_broker", {"port": 0, "log_level": log_level})
        self._children.append(broker)
        self.address = str(broker.wait_for("ready", deadline)["address"])
        agent = Child(
            "evener_worker",
            {
                "app": _target(self._app),
                "broker": self.address,
                "workers": workers,
                "queues": list(queues),
                "log_level": log_level,
            },
        )
        self._children.append(agent)
        ready = agent.wait_for("ready", deadline)
        self.workers = int(ready["workers"])
        self._known = frozenset(ready["functions"])

    # --- Use --------------------------------------------------------------------------------------

    def client(self, **settings: Any) -> Client:
        """A client of this cluster; `settings` are those of `Client`. Closed with the cluster."""
        from evener.client import Client

        if self._closed:
            raise ClientClosed("the cluster is closed")
        if self._children:
            client = Client(self.address, **settings)
        else:
            client = Client.over(self._inline_backend(), self.address)
        client.by_value = self._goes_by_value
        self._clients.append(client)
        return client

    def _inline_backend(self) -> Any:
        from evener.inline import InlineBackend

        app = load_app(self._app) if isinstance(self._app, str) else self._app
        functions: dict[str, Callable[..., Any]] = {} if app is None else app.callables()
        self._known = frozenset(functions)
        return InlineBackend(functions)

    def _goes_by_value(self, function: Function[Any, Any]) -> bool:
        return function.name not in self._known

    @property
    def pids(self) -> list[int]:
        """The processes of broker and agent."""
        return [child.pid for child in self._children]

    # --- The end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Closes its clients and stops its processes, whatever they do."""
        self._closed = True
        for client in self._clients:
            client.close()
        self._clients.clear()
        for child in reversed(self._children):
            child.stop(_STOP_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else self.address
        return f"<LocalCluster {self.workers} workers, {state}>"


def _target(app: App | str | None) -> str:
    """How a worker finds the app: `module:attribute`; without functions if it cannot."""
    if isinstance(app, str):
        return app
    if app is None:
        return _NO_FUNCTIONS
    if not isinstance(app, App):
        raise UsageError(f"app={app!r} is neither an App nor a text such as 'module:app'")
    if app.module == "__main__" or app.module not in sys.modules:
        return _NO_FUNCTIONS
    for name, value in vars(sys.modules[app.module]).items():
        if value is app:
            return f"{app.module}:{name}"
    return _NO_FUNCTIONS
