"""What runs a task: payload in, function called, payload out; inside a worker, or in place.

Rules of this file: no I/O, no connection. `run` always returns an outcome, whatever the function
does: exceptions, SystemExit and KeyboardInterrupt of user code are failures of the task. The one
thing that stops a function from outside is `Interrupted`, raised by the caller's signal handler.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction
from time import monotonic_ns
from types import AsyncGeneratorType, CoroutineType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from evener.errors import NotLoadable, NotSendable, PayloadTooLarge, RemoteError, UnknownFunction
from evener.failure import Place, encode_failure
from evener.generators import LIVE, AsyncOutlet, Outlet, run_generator, run_generator_beside
from evener.payload import ONE_ARGUMENT, Call, decode_call, encode_chunk_result, encode_value
from evener.shipping import SHIPPED_PREFIX, Loaded
from evener_wire.errors import PeerError
from evener_wire.messages import CANCELLED, DONE, FAILED, Facts, Payload

if TYPE_CHECKING:
    import asyncio

__all__ = ["Executed", "Execution", "Interrupted", "Place"]

# Exceptions looked at in a chain, groups included, to tell whether a task was interrupted.
_VISITS_MAX: Final = 256


class Interrupted(BaseException):
    """Raised into a running task to stop it; `outcome` is CANCELLED or TIMED_OUT.

    No Exception, so that `except Exception` in user code does not swallow it.
    """

    def __init__(self, outcome: int = CANCELLED) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Executed(NamedTuple):
    """How an attempt ended: what goes into its RESULT."""

    outcome: int
    payload: Payload
    run_ns: int
    facts: Facts | None


class Execution:
    """Runs tasks, one at a time, with one event loop for all async functions.

    `trusted`: whether pickles may come in and go out. `place`: facts for the texts of failures.
    """

    def __init__(
        self,
        functions: Mapping[str, Callable[..., Any]],
        *,
        trusted: bool = True,
        place: Place | None = None,
    ) -> None:
        self._functions = dict(functions)
        self._trusted = trusted
        self._place = place or Place()
        self._loaded = Loaded()
        self._runner: asyncio.Runner | None = None
        self.outlet: Outlet | None = None
        """Where values of generators go."""

    def run(
        self, name: str, payload: Payload, on_item: Callable[[int], None] | None = None
    ) -> Executed:
        """Runs a task. `on_item` is called with the index of each item of a chunk, before it runs.

        Raises nothing; an `Interrupted` that arrives in here ends as its outcome.
        """
        started_ns = monotonic_ns()
        try:
            try:
                args, kwargs, code = decode_call(payload, self._trusted)
            except PeerError as error:
                raise self._not_loadable(f"the arguments of {name}", error) from error
            function = self._functions.get(name)
            if function is None:
                function = self._find(name, code)
            if kwargs is None:
                value = function(*args)
            elif not isinstance(kwargs, int):
                value = function(*args, **kwargs)
            else:
                result = self._run_chunk(name, function, (args, kwargs, code), on_item)
                return Executed(DONE, result, monotonic_ns() - started_ns, None)
            if value.__class__ in LIVE:
                value = self._live(name, value)
            result = encode_value(value, trusted=self._trusted, function=name)
        # SystemExit, KeyboardInterrupt and what else user code raises must not end the worker.
        except BaseException as error:
            run_ns = monotonic_ns() - started_ns
            try:
                return self._ended(error, run_ns)
            except Interrupted as interrupted:
                return Executed(interrupted.outcome, b"", run_ns, None)
        return Executed(DONE, result, monotonic_ns() - started_ns, None)

    async def run_beside(
        self,
        name: str,
        payload: Payload,
        on_item: Callable[[int], None],
        stopping: Callable[[], int | None],
        open_outlet: Callable[[], AsyncOutlet],
    ) -> Executed:
        """As `run`, for an async function on a loop that others run on as well.

        `stopping`: how it ends if it was told to end; then a cancellation is that, and no failure.
        `open_outlet`: for the values of an async generator. Raises nothing.
        """
        started_ns = monotonic_ns()
        try:
            try:
                args, kwargs, code = decode_call(payload, self._trusted)
            except PeerError as error:
                raise self._not_loadable(f"the arguments of {name}", error) from error
            function = self._functions.get(name) or self._find(name, code)
            if kwargs is not None and isinstance(kwargs, int):
                call = args, kwargs, code
                result = await self._run_chunk_beside(name, function, call, on_item, stopping)
            else:
                value = function(*args, **(kwargs or {}))
                if value.__class__ is CoroutineType:
                    value = await value
                elif value.__class__ is AsyncGeneratorType:
                    await run_generator_beside(value, open_outlet(), self._encoder(name))
                    value = None
                result = encode_value(value, trusted=self._trusted, function=name)
        except BaseException as error:
            return self._ended_beside(error, monotonic_ns() - started_ns, stopping())
        return Executed(DONE, result, monotonic_ns() - started_ns, None)

    def apart(self) -> Execution:
        """Another one for the same functions, for another thread."""
        return Execution(self._functions, trusted=self._trusted, place=self._place)

    def failed(self, error: Exception) -> Executed:
        """What becomes of a task that cannot even begin."""
        return self._ended(error, 0)

    def is_async(self, name: str) -> bool:
        """Whether the function of this name is an `async def`, be it a generator or not."""
        function = self._functions.get(name)
        return iscoroutinefunction(function) or isasyncgenfunction(function)

    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of async functions."""
        import asyncio  # here, because it costs 30 ms and most workers never need it

        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.get_loop()

    def complete(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine to its end on the event loop of async functions. Raises what it does."""
        return self._await(coroutine)

    def close(self) -> None:
        """Cancels what still runs on the event loop, and closes it."""
        runner, self._runner = self._runner, None
        if runner is not None:
            _outside_of_loops(runner.close)

    # --- The function -----------------------------------------------------------------------------

    def _find(self, name: str, code: bytes | None) -> Callable[..., Any]:
        if code is not None and name.startswith(SHIPPED_PREFIX):
            try:
                return self._loaded.get(code)
            except PeerError as error:
                raise self._not_loadable(f"function {name[1:]}", error) from error
        import difflib  # here, because no task of a healthy cluster gets here

        closest = difflib.get_close_matches(name, self._functions, n=3)
        raise UnknownFunction(name, closest, 1, len(self._functions))

    def _not_loadable(self, what: str, error: PeerError) -> NotLoadable:
        return NotLoadable(what, str(error), self._place.worker)

    def _live(self, name: str, value: Any) -> Any:
        if value.__class__ is CoroutineType:
            return self._await(value)
        if self.outlet is None:
            return value  # which cannot be sent
        return run_generator(value, self.outlet, self._encoder(name), self._await)

    def _encoder(self, name: str) -> Callable[[Any], Payload]:
        return partial(encode_value, trusted=self._trusted, function=name)

    # --- A chunk ----------------------------------------------------------------------------------

    def _run_chunk(
        self,
        name: str,
        function: Callable[..., Any],
        call: Call,
        on_item: Callable[[int], None] | None,
    ) -> Payload:
        items, form, _ = call
        values: list[Any] = []
        failures: dict[int, bytes] = {}
        for index, item in enumerate(items):
            if on_item is not None:
                on_item(index)
            try:
                value = function(item) if form == ONE_ARGUMENT else function(*item)
                if value.__class__ is CoroutineType:
                    value = self._await(value)
            except BaseException as error:
                if interruption(error) is not None:
                    raise
                value = None
                failures[index] = self._failure(error, None)[0]
            values.append(value)
        try:
            return encode_chunk_result(values, failures, trusted=self._trusted, function=name)
        except (NotSendable, PayloadTooLarge):
            self._fail_unsendable(name, values, failures)
        return encode_chunk_result(values, failures, trusted=self._trusted, function=name)

    async def _run_chunk_beside(
        self,
        name: str,
        function: Callable[..., Any],
        call: Call,
        on_item: Callable[[int], None],
        stopping: Callable[[], int | None],
    ) -> Payload:
        items, form, _ = call
        values: list[Any] = []
        failures: dict[int, bytes] = {}
        for index, item in enumerate(items):
            on_item(index)
            try:
                value = function(item) if form == ONE_ARGUMENT else function(*item)
                if value.__class__ is CoroutineType:
                    value = await value
            except BaseException as error:
                if _is_stop(error, stopping()):
                    raise
                value = None
                failures[index] = self._failure(error, None)[0]
            values.append(value)
        try:
            return encode_chunk_result(values, failures, trusted=self._trusted, function=name)
        except (NotSendable, PayloadTooLarge):
            self._fail_unsendable(name, values, failures)
        return encode_chunk_result(values, failures, trusted=self._trusted, function=name)

    def _fail_unsendable(self, name: str, values: list[Any], failures: dict[int, bytes]) -> None:
        for index, value in enumerate(values):
            try:
                encode_value(value, trusted=self._trusted, function=name)
            except (NotSendable, PayloadTooLarge) as error:
                values[index] = None
                failures[index] = self._failure(error, None)[0]

    # --- The end ----------------------------------------------------------------------------------

    def _ended(self, error: BaseException, run_ns: int) -> Executed:
        interrupted = interruption(error)
        if interrupted is not None:
            return Executed(interrupted.outcome, b"", run_ns, None)
        payload, facts = self._failure(error, run_ns)
        return Executed(FAILED, payload, run_ns, facts)

    def _ended_beside(self, error: BaseException, run_ns: int, outcome: int | None) -> Executed:
        if outcome is not None and _is_stop(error, outcome):
            return Executed(outcome, b"", run_ns, None)
        payload, facts = self._failure(error, run_ns)
        return Executed(FAILED, payload, run_ns, facts)

    def _failure(self, error: BaseException, run_ns: int | None) -> tuple[bytes, Facts]:
        try:
            return encode_failure(error, self._place, run_ns, trusted=self._trusted)
        except (
            Exception
        ) as broken:  # a user's exception, or memory that ran out, may break anything
            text = f"its report cannot be made ({type(broken).__name__})"
            plain = RemoteError(type(error).__name__, text)
            return encode_failure(plain, self._place, run_ns, trusted=False)

    # --- Async functions --------------------------------------------------------------------------

    def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        # Not Runner.run, which takes SIGINT for itself.
        loop = self.loop()
        return _outside_of_loops(lambda: _complete(loop, coroutine))


def _complete(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio

    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not task.done():  # an interruption between two steps: let its `finally` blocks run
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        raise


def _outside_of_loops(function: Callable[[], Any]) -> Any:
    """Calls it here, or in another thread if a loop runs here: there no second one may run."""
    import asyncio

    return function() if asyncio._get_running_loop() is None else _in_thread(function)


def _in_thread(function: Callable[[], Any]) -> Any:
    answers: list[Any] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            answers.append(function())
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=call, name="evener-async")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]


def interruption(error: BaseException) -> Interrupted | None:
    """The `Interrupted` that an exception is, holds in a group, or was raised in the course of."""
    found = _found_in(error, Interrupted)
    return found if isinstance(found, Interrupted) else None


def _is_stop(error: BaseException, outcome: int | None) -> bool:
    """Whether a task that was told to end so raised this for that reason."""
    import asyncio  # here, because it costs 30 ms and most workers never need it

    if outcome is None:
        return False
    cancelled = _found_in(error, asyncio.CancelledError)
    return cancelled is not None or interruption(error) is not None


def _found_in(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    waiting: list[BaseException | None] = [error]
    for _ in range(_VISITS_MAX):
        if not waiting:
            return None
        current = waiting.pop()
        if isinstance(current, kind):
            return current
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(cast("BaseExceptionGroup[BaseException]", current).exceptions)
        if current is not None:
            waiting.append(current.__context__)
    return None
