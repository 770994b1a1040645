"""Options of a task that somebody gave as arguments of the call: told where they belong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import evener

app = evener.App("odd")


@app.task
def add(a: int, b: int) -> int:
    return a + b


@app.task
def wait(timeout: float) -> float:
    return timeout


def plain(a: int) -> int:
    return a


@pytest.fixture
def client() -> Iterator[Any]:
    # Any: type checkers find these mistakes, too.
    with evener.LocalCluster(app, workers=0) as cluster, cluster.client() as client:
        yield client


def test_of_a_registered_function(client: Any) -> None:
    hint = r"For an option of the task write odd\.add\.options\(timeout=\.\.\., retries=\.\.\.\)"
    with pytest.raises(evener.BadArguments, match=hint):
        client.submit(add, 1, 2, timeout=3, retries=1)
    with pytest.raises(evener.BadArguments) as told:
        client.submit(add, 1, 2, tiemout=3)
    assert "option" not in str(told.value)


def test_of_a_function_that_is_sent_along(client: Any) -> None:
    hint = r"write client\.function\(plain, timeout=\.\.\.\)\.submit"
    with pytest.raises(evener.BadArguments, match=hint):
        client.submit(plain, 1, timeout=3)
    assert client.function(plain, timeout=3).submit(1).result() == 1


def test_an_argument_of_that_name_is_an_argument(client: Any) -> None:
    assert client.submit(wait, timeout=3).result() == 3
    assert client.submit(lambda **names: names, timeout=3).result() == {"timeout": 3}
