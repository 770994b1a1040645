"""What an app wants done when a process that uses it begins and ends: registered here, and run.

Rules of this file: no processes. Who runs which hooks when stands in `mains.py` (programs), in
`inline.py` (clusters without workers), and in the worker's `runner_loop.py`.
"""

from __future__ import annotations

import inspect
import itertools
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from types import CoroutineType, TracebackType
from typing import Any, Final, TypeAlias, TypeVar, cast

from evener_wire.errors import UsageError

Hook: TypeAlias = Callable[[], object]
"""A plain function, or an async one; without arguments. What it returns is not looked at."""

Await: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]
"""What runs a coroutine to its end."""

H = TypeVar("H", bound=Hook)

_numbers = itertools.count(1)

HOOKS_MAX: Final = 1_000
"""Of one kind in one app. More: somebody registers in a loop."""


class Hooks:
    """The hooks of an app, each kind in the order of registration. `App` inherits them.

    Start hooks run in that order, stop hooks in the reverse one: what was opened last is closed
    first.
    """

    def __init__(self) -> None:
        self.number: int = next(_numbers)
        """Internal: apps of a process in the order in which they were made."""
        self.main_starts: list[Hook] = []
        self.worker_starts: list[Hook] = []
        self.worker_stops: list[Hook] = []
        self.shutdowns: list[Hook] = []

    def on_worker_start(self, hook: H, /) -> H:
        """Has `hook` run in each worker process, before its first task.

        After the app was imported and before the worker counts as ready. An async function runs on
        the event loop on which async tasks will run. When it raises, the worker does not start:
        where no worker was ready yet the agent ends, with the traceback. Raises `UsageError` for
        what cannot be called without arguments.
        """
        return _add(self.worker_starts, hook, "on_worker_start")

    def on_worker_stop(self, hook: H, /) -> H:
        """Has `hook` run in each worker process after its last task, while it leaves in peace.

        All of them together have `--stop-timeout` (5 s); then the process is killed. What one
        raises is printed, and the others still run. They do not run in a worker that crashes or is
        killed, be it by a timeout, a second Ctrl-C or the kernel: nothing could make sure of that.
        """
        return _add(self.worker_stops, hook, "on_worker_stop")

    def on_main_start(self, hook: H, /) -> H:
        """Has `hook` run once in the main process: the program that uses the app.

        That is each process that opens a `Client` or a `LocalCluster` and is not itself a worker;
        it runs when the first one is opened. What it raises, that call raises. An agent (`evener
        worker`, `evener up`) imports no app and so runs none.
        """
        return _add(self.main_starts, hook, "on_main_start")

    def on_shutdown(self, hook: H, /) -> H:
        """Has `hook` run in the main process once its last client or cluster is closed.

        At the latest when the interpreter ends; not when the process is killed. What it raises is
        logged, and the others still run.
        """
        return _add(self.shutdowns, hook, "on_shutdown")


def _add(hooks: list[Hook], hook: H, kind: str) -> H:
    if not callable(hook):
        raise UsageError(f"{kind} takes a function, not {hook!r}")
    try:
        inspect.signature(hook).bind()
    except TypeError:
        raise UsageError(
            f"{kind}: {name_of(hook)} needs arguments, and a hook gets none; what it runs in says "
            "evener.current_worker()"
        ) from None
    except ValueError:  # built-in functions tell no signature
        pass
    for index, known in enumerate(hooks):
        if defined_again(known, hook):
            hooks[index] = hook
            return hook
    if len(hooks) == HOOKS_MAX:
        raise UsageError(f"{kind}: an app has at most {HOOKS_MAX:,} hooks of a kind")
    hooks.append(hook)
    return hook


def defined_again(known: Callable[..., Any], function: Callable[..., Any]) -> bool:
    """Whether somebody at a prompt, or in a notebook, enters the same definition once more."""
    return (
        getattr(function, "__module__", None) == "__main__"
        and getattr(known, "__module__", None) == "__main__"
        and getattr(known, "__qualname__", None) == getattr(function, "__qualname__", None)
        and not hasattr(sys.modules.get("__main__"), "__file__")
    )


def name_of(hook: Hook) -> str:
    """As it is called in messages."""
    return getattr(hook, "__qualname__", None) or repr(hook)


# --- Running --------------------------------------------------------------------------------------


class HookFailed(Exception):
    """Raised when a start hook raised. `text`: one sentence. `traceback`: theirs, without ours."""

    def __init__(self, kind: str, hook: Hook, error: BaseException) -> None:
        self.error = error
        self.text, self.traceback = told(kind, hook, error)
        super().__init__(self.text)


def run_starts(kind: str, hooks: Sequence[Hook], complete: Await) -> None:
    """Runs start hooks in their order. Raises `HookFailed` for the first that raises."""
    for hook in hooks:
        try:
            call(hook, complete)
        # SystemExit too: a process that only half started must not look started.
        except BaseException as error:
            raise HookFailed(kind, hook, error) from error


def run_stops(
    kind: str, hooks: Sequence[Hook], complete: Await, tell: Callable[[str], None]
) -> None:
    """Runs all stop hooks in reverse; `tell` gets the sentence and traceback of each error.

    A KeyboardInterrupt is raised, after no more of them: somebody wants to leave now.
    """
    for hook in reversed(hooks):
        try:
            call(hook, complete)
        except KeyboardInterrupt:
            raise
        # SystemExit too: one hook must not keep the others from closing what they opened.
        except BaseException as error:
            tell("\n".join(told(kind, hook, error)).rstrip())


def call(hook: Hook, complete: Await) -> None:
    """Runs one hook to its end, if it is async by `complete`."""
    value = hook()
    if value.__class__ is CoroutineType:
        complete(cast("Coroutine[Any, Any, Any]", value))


def told(kind: str, hook: Hook, error: BaseException) -> tuple[str, str]:
    """What a hook raised, as a sentence, and as their traceback."""
    frames = "".join(traceback.format_exception(type(error), error, _theirs(error.__traceback__)))
    return f"{kind} hook {name_of(hook)} failed: {type(error).__name__}: {error}", frames


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames in front that are this file's."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace
