"""The main process of apps: their hooks run when the first client or cluster is opened here, and
when the last one is closed.

Rules of this file: it counts holders, and holds no connection. Hooks run under one lock, so that
nobody gets a client while another thread still runs the start hooks. Workers are no main process:
what their tasks open runs no hooks.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading

from evener.app import App
from evener.execution import Execution
from evener.function import live_apps
from evener.hooks import HookFailed, run_starts, run_stops
from evener.whoami import current_worker

_log = logging.getLogger("evener")


class MainProcess:
    """Caller: clients and clusters, from any thread. One per process."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """As new; in the child of a fork, because hooks that ran are its parent's."""
        # Reentrant: a hook may open a client.
        self._lock = threading.RLock()
        self._holders: set[int] = set()
        self._started: list[App] = []
        # One event loop for all: what a start hook opened on it, a stop hook can close on it.
        self._execution: Execution | None = None
        self._busy = False

    def enter(self, holder: object) -> None:
        """A client or cluster is opened. Raises what a start hook raises."""
        if current_worker().role == "worker":
            return
        with self._lock:
            self._holders.add(id(holder))
            if self._busy:
                return
            self._busy = True
            try:
                self._start()
            except HookFailed as failed:
                self._holders.discard(id(holder))
                if not self._holders:
                    self._stop()
                raise failed.error from None
            finally:
                self._busy = False

    def leave(self, holder: object) -> None:
        """It is closed. Doing so twice is harmless."""
        with self._lock:
            if id(holder) not in self._holders:
                return
            self._holders.discard(id(holder))
            if not self._holders and not self._busy:
                self._busy = True
                try:
                    self._stop()
                finally:
                    self._busy = False

    def _start(self) -> None:
        waiting = [app for app in live_apps if app not in self._started and has_hooks(app)]
        for app in sorted(waiting, key=lambda app: app.number):
            execution = self._execution = self._execution or Execution({})
            run_starts("on_main_start", app.main_starts, execution.complete)
            self._started.append(app)

    def _stop(self) -> None:
        started, self._started = self._started, []
        execution, self._execution = self._execution, None
        if execution is None:
            return
        try:
            for app in reversed(started):
                run_stops("on_shutdown", app.shutdowns, execution.complete, _tell)
        finally:
            execution.close()

    def at_exit(self) -> None:
        """The interpreter ends, and not all was closed."""
        with self._lock:
            self._holders.clear()
            self._stop()


def has_hooks(app: App) -> bool:
    """Whether there is anything to run in a main process."""
    return bool(app.main_starts or app.shutdowns)


def _tell(text: str) -> None:
    _log.error("%s", text)


main_process = MainProcess()

atexit.register(main_process.at_exit)
os.register_at_fork(after_in_child=main_process.forget)
