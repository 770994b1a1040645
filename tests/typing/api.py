"""What type checkers see of the public face. Checked by mypy and basedpyright, never run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import assert_type

import evener
from evener import App, AsyncFunction, Function, Future

app = App("typed")


@app.task
def add(a: int, b: int = 2, *, scale: float = 1.0) -> float:
    return (a + b) * scale


@app.task(queue="slow", timeout="5m", retries=3, retry_on=(ValueError, "x.Y"), at_most_once=False)
def name(number: int) -> str:
    return str(number)


@app.task
async def fetch(address: str) -> bytes:
    return address.encode()


@app.task(timeout=1.5)
async def count(*parts: bytes) -> int:
    return len(parts)


root = app.task(math.sqrt, name="typed.root", priority=9)


def calls() -> None:
    assert_type(add(1, 2, scale=3), float)
    assert_type(name(1), str)
    assert_type(root(2.0), float)
    add("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    add(1, 2, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def awaits() -> None:
    assert_type(await fetch("x"), bytes)
    assert_type(await count(b"x"), int)
    assert_type(await fetch.options(retries=1)("x"), bytes)


def submits() -> None:
    assert_type(add.submit(1, scale=2), Future[float])
    assert_type(name.submit(1), Future[str])
    assert_type(fetch.submit("x"), Future[bytes])
    assert_type(count.submit(b"x"), Future[int])
    assert_type(fetch.submit("x").result(), bytes)
    add.submit("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    fetch.submit()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def maps() -> None:
    assert_type(name.map([1, 2]), Iterator[str])
    assert_type(fetch.map(["x"]), Iterator[bytes])


def options() -> None:
    assert_type(name.options(priority=9).submit(1), Future[str])
    assert_type(fetch.options(deadline=None).submit("x"), Future[bytes])
    name.options(priority="high")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    name.options(retrys=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def passes_on(plain: Function[[int], str], later: AsyncFunction[[str], bytes]) -> None:
    assert_type(plain(1), str)
    assert_type(later.submit("x"), Future[bytes])


def takes_both() -> None:
    passes_on(name, fetch)
    passes_on(fetch, fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def errors(error: evener.TaskError) -> None:
    if isinstance(error, evener.RemoteError):
        assert_type(error.traceback, str)
    if isinstance(error, evener.TaskTimeout):
        assert_type(error.limit, str)
        assert_type(error.seconds, float)
    assert_type(evener.__version__, str)
