"""A cluster on this machine, for the length of a `with` block: a broker and workers as children.

Rules of this file: no protocol. Processes are `children.py`'s matter; without workers nothing is
started at all, see `inline.py`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from evener.app import App
from evener.children import Child
from evener.config import settings
from evener.config.kinds import AUTO
from evener.errors import ClientClosed, UsageError
from evener.function import Function
from evener.loading import load_app
from evener.mains import main_process
from evener.options import Duration, parse_duration
from evener.termination import termination

if TYPE_CHECKING:
    from typing import Self

    from evener.client import Client
    from evener.inline import InlineWorker

_NO_FUNCTIONS: Final = "evener.no_functions:app"
_STOP_S: Final = 5.0

# For stop hooks, and for the agent's last words to the broker.
LEAVE_S: Final = 8.0


class LocalCluster:
    """A broker and `workers` worker processes on this machine (default: one per usable CPU).

    `app` is the app whose functions the workers know: the object, or as text `"module:app"`. All
    other functions, and those of an app that `__main__` defines, are sent along with their tasks;
    so a plain script needs no `if __name__ == "__main__"`.

    `workers=0` starts nothing: tasks run in the calling process, inside of `submit`. Without
    `workers` the variable EVENER_WORKERS counts, then `[worker] workers` of the configuration file;
    0 means the same there. Raises `StartError` when a process is not ready within `timeout`
    seconds (none is left then), and `UsageError`.

    At its end running tasks have `drain` seconds to finish, then workers run their stop hooks. A
    second Ctrl-C, or SIGTERM, cuts that short.

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
        drain: Duration = 5.0,
        log_level: str = "warning",
    ) -> None:
        workers = wanted_workers(workers)
        self._drain_s = math.ceil(parse_duration("drain", drain))
        self.workers: int = workers or 0
        """How many were started."""
        self.address: str = "inline"
        """The broker's address."""
        self._app = app
        self._clients: list[Client] = []
        self._children: list[Child] = []
        self._inline: InlineWorker | None = None
        self._known: frozenset[str] = frozenset()
        self._closed = False
        main_process.enter(self)
        try:
            if workers == 0:
                self._start_inline()
            else:
                self._start(workers or 0, queues, time.monotonic() + timeout, log_level)
        except BaseException:
            self.close()
            raise

    def _start_inline(self) -> None:
        from evener.inline import InlineWorker

        app = self._app
        if isinstance(app, str):
            app = load_app(app)
            main_process.enter(self)  # now its hooks are known
        self._inline = InlineWorker(app)
        self._known = frozenset(self._inline.functions)
        self._inline.start()

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
                "drain_seconds": self._drain_s,
                "log_level": log_level,
            },
        )
        self._children.append(agent)
        ready = agent.wait_for("ready", deadline)
        self.workers = int(ready["workers"])
        self._known = frozenset(ready["functions"])

    # --- Use --------------------------------------------------------------------------------------

    def client(self, **settings: Any) -> Client:
        """A client of this cluster; `settings` are those of `Client`. Closed with the cluster.

        Raises as `Client` does, and `ClientClosed` when the cluster was closed.
        """
        from evener.client import Client

        if self._closed:
            raise ClientClosed("the cluster is closed")
        if self._children:
            client = Client(self.address, **settings)
        else:
            from evener.inline import InlineBackend

            assert self._inline is not None
            client = Client.over(InlineBackend(self._inline), self.address)
        client.by_value = self._goes_by_value
        self._clients.append(client)
        return client

    def _goes_by_value(self, function: Function[Any, Any]) -> bool:
        return function.name not in self._known

    @property
    def pids(self) -> list[int]:
        """The processes of broker and agent."""
        return [child.pid for child in self._children]

    # --- The end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Closes its clients, lets running tasks finish, and stops its processes.

        Takes `drain` seconds at most, and some for stop hooks; an exception in the meantime, such
        as that of Ctrl-C, ends everything at once.
        """
        if self._closed:
            return
        self._closed = True
        try:
            for client in self._clients:
                client.close()
            if self._inline is not None:
                self._inline.stop()
            for child in self._children[1:]:  # the broker takes their last results
                child.ask_to_end(self._drain_s + LEAVE_S)
        finally:
            self._clients.clear()
            for child in reversed(self._children):
                child.stop(_STOP_S)
            main_process.leave(self)

    def __enter__(self) -> Self:
        termination.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        finally:
            termination.leave(self)

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
    if app.module != "__main__" and app.module in sys.modules:
        for name, value in vars(sys.modules[app.module]).items():
            if value is app:
                return f"{app.module}:{name}"
    if app.worker_starts or app.worker_stops:
        raise UsageError(
            f'the workers cannot import the app "{app.name}", which {app.module} defines, so its '
            "worker hooks would never run: put the app into a module that this program imports"
        )
    return _NO_FUNCTIONS


def wanted_workers(given: int | None) -> int | None:
    """The number given, else that of environment or file; None: one for each usable CPU."""
    if given is None:
        said = settings().value("worker.workers")
        return None if said in (None, AUTO) else int(said)
    if type(given) is not int or given < 0:
        raise UsageError(f"workers={given!r} is not a whole number from 0")
    return given
