"""What runs a generator: each value goes out while it runs, and what it returns is its result.

Rules of this file: part of `execution.py`. An outlet may make it wait for its reader; what stops a
task stops it there, too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final, Protocol

from evener_wire.messages import Payload

LIVE: Final = frozenset((CoroutineType, GeneratorType, AsyncGeneratorType))
"""Types of what a function may return that is to be run before there is a value."""

_END: Final = object()


class Outlet(Protocol):
    """Where values go. Each method may wait, and raises what stops the task."""

    def begin(self) -> None:
        """The first value comes next."""
        ...

    def value(self, payload: Payload) -> None:
        """One value."""
        ...

    def end(self) -> None:
        """There are no more; returns when all are taken."""
        ...

    def drain(self) -> None:
        """Something was raised; returns when all are taken."""
        ...


class AsyncOutlet(Protocol):
    """The same on an event loop that others run on as well: what waits lets them run."""

    async def value(self, payload: Payload) -> None:
        """One value."""
        ...

    async def end(self) -> None:
        """There are no more; returns when all are taken."""
        ...

    async def drain(self) -> None:
        """Something was raised; returns when all are taken."""
        ...


def run_generator(
    generator: Any,
    outlet: Outlet,
    encode: Callable[[Any], Payload],
    complete: Callable[[Coroutine[Any, Any, Any]], Any],
) -> Any:
    """What it returns; None for an asynchronous one. Raises what it raises, after its values."""
    outlet.begin()
    try:
        returned = None
        if generator.__class__ is GeneratorType:
            returned = _run(generator, outlet, encode)
        else:
            _run_async(generator, outlet, encode, complete)
    except Exception:
        outlet.drain()
        raise
    outlet.end()
    return returned


def _run(
    generator: Generator[Any, None, Any], outlet: Outlet, encode: Callable[[Any], Payload]
) -> Any:
    try:
        while True:
            try:
                value = next(generator)
            except StopIteration as stop:
                return stop.value
            outlet.value(encode(value))
    finally:
        generator.close()


def _run_async(
    generator: AsyncGenerator[Any, None],
    outlet: Outlet,
    encode: Callable[[Any], Payload],
    complete: Callable[[Coroutine[Any, Any, Any]], Any],
) -> None:
    async def step() -> Any:
        return await anext(generator, _END)

    async def close() -> None:
        await generator.aclose()

    try:
        while (value := complete(step())) is not _END:
            outlet.value(encode(value))
    finally:
        complete(close())


async def run_generator_beside(
    generator: AsyncGenerator[Any, None], outlet: AsyncOutlet, encode: Callable[[Any], Payload]
) -> None:
    """As `run_generator`, for an asynchronous one on a loop that others run on as well."""
    try:
        try:
            async for value in generator:
                await outlet.value(encode(value))
        finally:
            await generator.aclose()
    except Exception:
        await outlet.drain()
        raise
    await outlet.end()
