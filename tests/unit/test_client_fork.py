"""A client in the child of a fork says so at once, whatever is asked of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evener.connection import Connection
from evener.errors import ClientClosed
from evener.future import Future
from evener.payload import encode_value
from evener.questions import Question
from evener.session import ClientSession
from evener.telling import MAKING
from evener.transport import Transport
from evener_wire.messages import TERMINAL_DONE


async def _awaited(future: Future[Any]) -> Any:
    return await future


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
        lambda connection, future: connection.ask(Question(connection, "status"), {}, 0.1),
        lambda connection, future: connection.open_future(b"t" * 16),
        lambda connection, future: connection.flush(1.0),
        lambda connection, future: future.add_done_callback(print),
        lambda connection, future: concurrent.futures.wait([future]),
        lambda connection, future: next(concurrent.futures.as_completed([future])),
        lambda connection, future: asyncio.run(_awaited(future)),
    ],
)
@pytest.mark.timeout(10)
def test_nothing_waits_in_the_child_of_a_fork(
    inherited: Connection, ask: Callable[[Connection, Future[Any]], object]
) -> None:
    future: Future[Any] = Future(inherited, (b"t" * 16, "demo.add", b"", None))
    with pytest.raises(ClientClosed, match="fork"):
        ask(inherited, future)


def test_what_had_ended_before_the_fork_is_there_for_the_child(inherited: Connection) -> None:
    future: Future[Any] = Future(inherited, (b"t" * 16, "demo.add", b"", None))
    Future.settle([(future, (b"t" * 16, TERMINAL_DONE, encode_value(5), None))])
    told: list[Any] = []
    future.add_done_callback(lambda ended: told.append(ended.result()))
    assert concurrent.futures.wait([future]).done == {future}
    assert asyncio.run(_awaited(future)) == 5
    assert told == [5]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # it is what is tested
def test_a_fork_while_another_thread_ends_futures(inherited: Connection) -> None:
    """The lock that it holds then would never be free in the child."""
    future: Future[Any] = Future(inherited, (b"t" * 16, "demo.add", b"", None))
    Future.settle([(future, (b"t" * 16, TERMINAL_DONE, encode_value(5), None))])
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with MAKING:
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(future.result() == 5 and concurrent.futures.wait([future]).not_done == set())
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
