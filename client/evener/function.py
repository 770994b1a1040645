"""A function that workers know by name: callable here as before, and submitted to run there.

Rules of this file: no connection. `submit` and `map` hand over to the client in whose `with` block
the caller stands. A call is checked against the signature before anything is sent; the check costs
next to nothing when the call fits.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar
from weakref import WeakSet

from evener.errors import BadArguments, UnknownFunction
from evener.options import TaskOptions, merge, misplaced

if TYPE_CHECKING:
    from typing import Self, Unpack

    from evener.app import App
    from evener.client import Client
    from evener.future import Future
    from evener_wire.messages import Options

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class Function(Generic[P, R]):
    """A registered function. Calling it runs it here; `submit` runs it on the cluster.

    Made by `App.task`. `name` is what workers know it by, `function` the plain function,
    `signature` its signature or None where Python knows none (some built-in functions).
    """

    __name__: str

    def __init__(
        self,
        app: App,
        name: str,
        function: Callable[..., Any],
        options: Options | None = None,
    ) -> None:
        update_wrapper(self, function)
        self.app = app
        self.name = name
        self.function = function
        self.task_options: Options | None = options
        """What the decorator and `options()` asked for; None: nothing."""
        self.signature: inspect.Signature | None = signature_of(function)
        self._shape = _Shape(self.signature)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = self.function(*args, **kwargs)
        return result

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Runs it on the cluster of the innermost `with Client()` or `with LocalCluster()`.

        Returns at once. Raises `BadArguments`, `NotSendable`, and `UsageError` outside of such a
        block.
        """
        return _current_client().submit(self, *args, **kwargs)

    def map(self, *iterables: Iterable[Any], **options: Any) -> Iterator[R]:
        """Runs it for each item (several iterables: for their items side by side), in order.

        The options are those of `Client.map`, and so is what it raises.
        """
        return _current_client().map(self, *iterables, **options)

    def options(self, **options: Unpack[TaskOptions]) -> Self:
        """The same function, whose tasks are treated otherwise. Raises `UsageError`."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.task_options = merge(self.task_options, options)
        return copy

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raises `BadArguments` where the call does not fit the signature."""
        if self._shape.surely_fits(args, kwargs) or self.signature is None:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            instead = f"{self.name}.options({{}})"
            hint = misplaced(kwargs, self.signature.parameters, instead)
            text = f"{error}, signature: {self.signature}{hint}"
            raise BadArguments(self.name, text) from None

    @property
    def at_once(self) -> int:
        """How many of its tasks one worker runs at once: `concurrency=`, `threads=`, or 1."""
        return self.app.shares().get(self.name, 1)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Internal: the names of the positional parameters, for messages."""
        return self._shape.positional

    def __reduce__(self) -> tuple[Any, ...]:
        return _find, (self.app.module, self.app.name, self.name, self.task_options)

    def reduce_by_value(self) -> tuple[Any, ...]:
        """Internal: how it travels with functions of `__main__` that call it."""
        reference = self.__reduce__()
        if self.app.module != "__main__":
            return reference
        return _find_or_make, (*reference[1], type(self), self.function)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class AsyncFunction(Function[P, R]):
    """A registered `async def`: awaited when called here, its awaited result when submitted."""

    # A call here gives what `async def` gives; R is what a worker returns. Nobody who holds it as a
    # plain Function calls it in place: the client only submits.
    def __call__(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        result: Coroutine[Any, Any, R] = self.function(*args, **kwargs)
        return result


# --- Whether a call fits --------------------------------------------------------------------------


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """What a function takes; None where Python does not know."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


class _Shape:
    """What is known of a signature without binding: enough to say yes to most calls at once."""

    __slots__ = ("_any_keyword", "_keywords", "_least", "_most", "_needed", "positional")

    def __init__(self, signature: inspect.Signature | None) -> None:
        self.positional: tuple[str, ...] = ()
        self._most = 0
        self._any_keyword = False
        # Which position a keyword fills; keyword-only ones lie beyond every position.
        self._keywords: dict[str, int] = {}
        # What must be given: its position, and its name where a keyword can give it.
        self._needed: list[tuple[int, str | None]] = []
        if signature is None:
            self._most, self._any_keyword = sys.maxsize, True
        for parameter in () if signature is None else signature.parameters.values():
            self._add(parameter)
        self._least = max((place + 1 for place, _ in self._needed), default=0)

    def _add(self, parameter: inspect.Parameter) -> None:
        if parameter.kind is parameter.VAR_POSITIONAL:
            self._most = sys.maxsize
            return
        if parameter.kind is parameter.VAR_KEYWORD:
            self._any_keyword = True
            return
        place = sys.maxsize
        if parameter.kind is not parameter.KEYWORD_ONLY:
            place = self._most
            self._most += 1
            self.positional += (parameter.name,)
        if parameter.kind is not parameter.POSITIONAL_ONLY:
            self._keywords[parameter.name] = place
        if parameter.default is parameter.empty:
            keyword = parameter.name if parameter.name in self._keywords else None
            self._needed.append((place, keyword))

    def surely_fits(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        given = len(args)
        if not kwargs:
            return self._least <= given <= self._most
        if given > self._most:
            return False
        keywords = self._keywords
        for name in kwargs:
            place = keywords.get(name)
            if place is None:
                if not self._any_keyword:
                    return False
            elif place < given:
                return False
        return all(place < given or name in kwargs for place, name in self._needed)


# --- The current client ---------------------------------------------------------------------------

_client_finder: Callable[[], Client] | None = None


def _current_client() -> Client:
    # Found once: an import statement on each submit would cost as much as encoding the call.
    global _client_finder
    if _client_finder is None:
        from evener.client import current_client

        _client_finder = current_client
    return _client_finder()


# --- By reference ---------------------------------------------------------------------------------

live_apps: WeakSet[App] = WeakSet()
"""Every app of this process; `App` adds itself."""


def _find(module: str, app_name: str, name: str, options: Options | None) -> Function[Any, Any]:
    """The function that was pickled by reference: of an app that is here, or can be imported."""
    found = _among_live(app_name, name)
    if found is None and module != "__main__":
        importlib.import_module(module)
        found = _among_live(app_name, name)
    if found is None:
        raise UnknownFunction(name)
    return _with_options(found, options)


def _find_or_make(
    module: str,
    app_name: str,
    name: str,
    options: Options | None,
    kind: type[Function[Any, Any]],
    function: Callable[..., Any],
) -> Function[Any, Any]:
    """The function that came along by value, unless its app is here."""
    found = _among_live(app_name, name)
    if found is not None:
        return _with_options(found, options)
    from evener.app import App

    stand_in = App(app_name)
    stand_in.module = module
    return kind(stand_in, name, function, options)


def _with_options(found: Function[Any, Any], options: Options | None) -> Function[Any, Any]:
    if options == found.task_options:
        return found
    copy = found.options()
    copy.task_options = options
    return copy


def _among_live(app_name: str, name: str) -> Function[Any, Any] | None:
    for app in live_apps:
        if app.name == app_name and name in app.functions:
            return app.functions[name]
    return None
