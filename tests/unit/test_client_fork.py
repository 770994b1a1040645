"""A client in the child of a fork says so at once, whatever is asked of it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evener.connection import Connection
from evener.errors import ClientClosed
from evener.future import Future
from evener.session import ClientSession
from evener.transport import Transport


@pytest.fixture
def inherited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    rng = random.Random(1)
    session = ClientSession(b"i" * 16, "test", {}, rng)
    connection = Connection(session, Transport("tcp://127.0.0.1:9", rng), trusted=True)
    connection.start()
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    yield connection
    monkeypatch.undo()
    connection.close(0.0)


@pytest.mark.parametrize(
    "ask",
    [
        lambda connection, future: future.result(),
        lambda connection, future: future.exception(timeout=0),
        lambda connection, future: future.cancel(),
        lambda connection, future: connection.cancel_ids([b"t" * 16]),
        lambda connection, future: connection.ask("status", {}, 0.1),
    ],
)
@pytest.mark.timeout(10)
def test_nothing_waits_in_the_child_of_a_fork(
    inherited: Connection, ask: Callable[[Connection, Future[Any]], object]
) -> None:
    future: Future[Any] = Future(inherited, (b"t" * 16, "demo.add", b"", None))
    with pytest.raises(ClientClosed, match="fork"):
        ask(inherited, future)
