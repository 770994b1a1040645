"""An app: the functions that workers know by name.

Rules of this file: registering only; nothing here connects, starts or encodes anything. A worker
imports the module in which the app stands and looks names up in it, and in nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from evener.function import AsyncFunction, Function, live_apps
from evener.hooks import Hooks, defined_again
from evener.options import Duration, TaskOptions, merge, read_delay_ms
from evener.scheduling import Scheduling
from evener.shares import Traits, check_share, read_share
from evener.shipping import SHIPPED_PREFIX
from evener_wire.checks import is_name
from evener_wire.errors import UsageError
from evener_wire.limits import FUNCTIONS_MAX

if TYPE_CHECKING:
    from typing import Unpack

    from evener_wire.messages import Options

P = ParamSpec("P")
R = TypeVar("R")


class TaskDecorator(Protocol):
    """What `app.task(...)` with options returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Function[P, R]: ...


class App(Hooks, Scheduling):
    """A named set of functions: `app = App("demo")`, then `@app.task` above each.

    A function is known to workers as `demo.add`, unless `name=` says otherwise. What processes do
    when they begin and end is registered in it too: `@app.on_worker_start`, and so on. A name has
    up to 128 printable characters without spaces (`UsageError`).
    """

    def __init__(self, name: str) -> None:
        Hooks.__init__(self)
        Scheduling.__init__(self)
        given: object = name
        if not isinstance(given, str) or not is_name(name) or name.startswith(SHIPPED_PREFIX):
            raise UsageError(
                f"App({name!r}): not a name; give printable characters without spaces, such as "
                '"demo"'
            )
        self.name = name
        self.module: str = _caller_module()
        """Where it was made; functions pickle as "this name in the app of that module"."""
        self._functions: dict[str, Function[Any, Any]] = {}
        self.functions: Mapping[str, Function[Any, Any]] = MappingProxyType(self._functions)
        """By name, in the order of registration. Read only."""
        self._traits: dict[str, Traits] = {}
        live_apps.add(self)

    @overload
    def task(
        self,
        function: Callable[P, Coroutine[Any, Any, R]],
        /,
        *,
        name: str | None = None,
        grace: Duration | None = None,
        concurrency: int | None = None,
        threads: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> AsyncFunction[P, R]: ...
    @overload
    def task(
        self,
        function: Callable[P, R],
        /,
        *,
        name: str | None = None,
        grace: Duration | None = None,
        concurrency: int | None = None,
        threads: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> Function[P, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        grace: Duration | None = None,
        concurrency: int | None = None,
        threads: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskDecorator: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        grace: Duration | None = None,
        concurrency: int | None = None,
        threads: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Registers a function: above its definition, or as `app.task(module.function)`.

        `name` replaces the whole name; the options hold for every task that does not say otherwise.
        `grace`: how long a task has to end by itself once it is to stop, before it is interrupted
        (None: 0.1 s; see `evener.cancelled`). `concurrency` of an `async def`, `threads` of a plain
        function, generators among them: how many tasks of it one worker runs at once, 1 to 256
        (None: each task has its worker to itself). Raises `UsageError` for a bad option, and for a
        name that is bad or taken.
        """
        wanted = merge(None, options) if options else None
        traits = Traits(
            None if grace is None else read_delay_ms("grace", grace),
            read_share(concurrency, threads),
        )
        if function is None:
            return partial(self._register, name=name, options=wanted, traits=traits)
        return self._register(function, name, wanted, traits)

    def callables(self) -> dict[str, Callable[..., Any]]:
        """Internal: the plain functions by name, as they stand now: what a worker runs."""
        return {name: known.function for name, known in self._functions.items()}

    def offered(self) -> list[tuple[str, Options | None]]:
        """Internal: names and registered options: what an agent tells the broker."""
        return [(name, known.task_options) for name, known in self._functions.items()]

    def graces(self) -> dict[str, int]:
        """Internal: the `grace` of functions that have one, in ms, which their agent acts on."""
        return {n: it.grace_ms for n, it in self._traits.items() if it.grace_ms is not None}

    def shares(self) -> dict[str, int]:
        """Internal: how many tasks of a function one worker runs at once, where it said so."""
        return {n: it.share.at_once for n, it in self._traits.items() if it.share is not None}

    def _register(
        self,
        function: Callable[..., Any],
        name: str | None,
        options: Options | None,
        traits: Traits,
    ) -> Function[Any, Any]:
        if isinstance(function, Function):
            function = function.function
        if not callable(function):
            raise UsageError(f"{self.name}.task() takes a function, not {function!r}")
        full = name if name is not None else self._default_name(function)
        if not is_name(full) or full.startswith(SHIPPED_PREFIX):
            raise UsageError(
                f"{full!r} is not a name for a function: give 1 to 128 bytes of printable "
                f"characters without spaces that do not begin with {SHIPPED_PREFIX}"
            )
        known = self._functions.get(full)
        if known is not None and not defined_again(known.function, function):
            raise UsageError(
                f'"{full}" is registered twice: {_where(known.function)} and {_where(function)}; '
                f'rename one, or register it as app.task(name="{full}2")'
            )
        if known is None and len(self._functions) == FUNCTIONS_MAX:
            raise UsageError(f"an app has at most {FUNCTIONS_MAX:,} functions")
        check_share(full, function, traits.share)
        registered: Function[Any, Any]
        if inspect.iscoroutinefunction(function):
            registered = AsyncFunction(self, full, function, options)
        else:
            registered = Function(self, full, function, options)
        self._functions[full] = registered
        self._traits[full] = traits
        return registered

    def _default_name(self, function: Callable[..., Any]) -> str:
        short = getattr(function, "__name__", None)
        if not isinstance(short, str) or not short.isidentifier():
            raise UsageError(
                f"{function!r} has no name of its own: register it as "
                f'app.task(function, name="{self.name}.what_it_does")'
            )
        return f"{self.name}.{short}"

    def __repr__(self) -> str:
        return f"<App {self.name}, {len(self._functions)} functions>"


def _caller_module() -> str:
    """The module whose code makes an app: two frames up from here."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame.f_back if frame is not None else None
    return "__main__" if frame is None else str(frame.f_globals.get("__name__", "__main__"))


def _where(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
