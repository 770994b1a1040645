"""What type checkers know of the values that tasks yield. Never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator
from typing import Any, assert_type

import evener
from evener.streaming import Stream

app = evener.App("streams")


@app.task
def lines(path: str) -> Iterator[str]:
    yield path


@app.task(timeout=5)
def sizes(path: str) -> Generator[int, None, float]:
    yield len(path)
    return 0.5


@app.task
def parts(path: str) -> Iterable[bytes]:
    yield path.encode()


@app.task
async def pages(path: str) -> AsyncIterator[tuple[int, str]]:
    yield len(path), path


@app.task
async def chunks(path: str) -> AsyncGenerator[bytes, None]:
    yield path.encode()


@app.task(concurrency=50)
async def feeds(path: str) -> AsyncIterator[int]:
    yield len(path)


@app.task(threads=16)
def rows(path: str) -> Generator[str, None, int]:
    yield path
    return 1


@app.task
def plain(path: str) -> int:
    return len(path)


def streams(client: evener.Client) -> None:
    assert_type(client.submit(lines, "x").stream(), Stream[str])
    assert_type(lines.submit("x").stream(timeout=5), Stream[str])
    assert_type(lines.options(priority=9).submit("x").stream(), Stream[str])
    assert_type(client.submit(sizes, "x").stream(), Stream[int])
    assert_type(client.submit(parts, "x").stream(), Stream[bytes])
    assert_type(client.submit(pages, "x").stream(), Stream[tuple[int, str]])
    assert_type(client.submit(chunks, "x").stream(), Stream[bytes])
    assert_type(client.submit(feeds, "x").stream(), Stream[int])
    assert_type(client.submit(rows, "x").stream(), Stream[str])
    for line in client.submit(lines, "x").stream():
        assert_type(line, str)
    assert_type(client.submit("streams.lines", "x").stream(), Stream[Any])
    assert_type(client.submit(plain, "x").stream(), Stream[Any])


@app.task(forward_output=True)
def loud() -> None:
    print("loud")


def outputs(client: evener.Client) -> None:
    lines: list[evener.OutputLine] = []
    client.on_output(lines.append)
    client.on_output(None)
    client.function(plain, forward_output=True)
    plain.options(forward_output="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(lines[0].text, str)
    assert_type(lines[0].left_out, int)


async def reads(client: evener.Client) -> None:
    async for number, page in client.submit(pages, "x").stream():
        assert_type(number, int)
        assert_type(page, str)
