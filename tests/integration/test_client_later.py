"""Results asked for later, and dead letters: a real client, a broker that does what it is told."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest

from evener.client import Client
from evener.errors import (
    BrokerUnreachable,
    ClientClosed,
    PeerError,
    QueueFull,
    TaskCancelled,
    TaskLost,
    TaskRejected,
    UnknownTask,
    UsageError,
)
from evener.failure import Place, encode_failure
from evener.payload import encode_chunk_result, encode_value
from evener_wire import messages as m
from tests.integration.client_broker import ClientBroker, echo
from tests.support import wait_until

TASK = bytes.fromhex("7f3a12bc") + bytes(12)


@pytest.fixture
def broker() -> Iterator[ClientBroker]:
    with ClientBroker() as broker:
        yield broker


@pytest.fixture
def client(broker: ClientBroker) -> Iterator[Client]:
    with Client(broker.address) as client:
        yield client


def ended(state: int, payload: m.Payload = b"", **facts: Any) -> m.Payload:
    """What the broker answers to "fetch"."""
    if isinstance(payload, bytes):
        body: bytes = msgpack.packb([state, facts or None, payload])
        return body
    return m.Frames([msgpack.packb([state, facts or None, None]), *payload.buffers])


def answer(broker: ClientBroker, body: m.Payload, *, ok: bool = True) -> m.Query:
    """Answers the next question."""
    query = broker.expect(m.Query)
    broker.say(m.Answer(query.number, ok, body))
    return query


def asked(
    broker: ClientBroker, ask: Callable[[], Any], *answers: object, ok: bool = True
) -> tuple[Any, list[m.Query]]:
    """What a call gives that asks the broker, and its questions."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask)
        queries = [
            answer(broker, body if isinstance(body, m.Frames) else msgpack.packb(body), ok=ok)
            for body in answers
        ]
        return waiting.result(10), queries


# --- Fetch ----------------------------------------------------------------------------------------


def test_fetch_by_hex_by_bytes_and_by_future(client: Client, broker: ClientBroker) -> None:
    task: Any = TASK.hex()
    for following in (lambda _: TASK, lambda fetched: fetched, lambda _: None):
        fetched = client.fetch(task)
        query = answer(broker, ended(m.TERMINAL_DONE, encode_value({"a": (1, 2)})))
        assert (query.what, query.arguments) == ("fetch", {"id": TASK.hex()})
        assert fetched.result(10) == {"a": (1, 2)}
        assert fetched.task_id == TASK.hex()
        task = following(fetched)
    with pytest.raises(UsageError, match="'7f3a' is not the id of a task: 32 hexadecimal digits"):
        client.fetch("7f3a")


def test_fetch_of_large_results(client: Client, broker: ClientBroker) -> None:
    value = os.urandom(300_000)
    fetched = client.fetch(TASK)
    answer(broker, ended(m.TERMINAL_DONE, encode_value(value)))
    assert fetched.result(10) == value
    parts = [b"\x01" * 7, b"", b"\x02" * 9]
    fetched = client.fetch(TASK)
    head = msgpack.packb([m.TERMINAL_DONE, None, None, [len(part) for part in parts]])
    answer(broker, m.Frames([head, b"".join(parts)]))
    wait_until(fetched.done)
    terminal = fetched._terminal
    assert terminal is not None
    assert terminal[2] == m.Frames(parts)


def test_fetch_of_what_did_not_end_well(client: Client, broker: ClientBroker) -> None:
    payload, facts = encode_failure(ValueError("odd"), Place("h", 1, "w:0"), 5)
    fetched = client.fetch(TASK)
    answer(broker, ended(m.TERMINAL_FAILED, payload, type=facts["type"]))
    with pytest.raises(ValueError, match="odd") as failed:
        fetched.result(10)
    assert "task 7f3a12bc" in failed.value.__notes__[-1]
    fetched = client.fetch(TASK)
    answer(broker, ended(m.TERMINAL_LOST, b"", reason="poison", worker="w:0", signal=11))
    with pytest.raises(TaskLost, match=r"worker w:0 died .SIGSEGV. while running 7f3a12bc"):
        fetched.result(10)
    fetched = client.fetch(TASK)
    answer(broker, ended(m.TERMINAL_CANCELLED))
    with pytest.raises(TaskCancelled):
        fetched.result(10)


def test_fetch_of_a_chunk_of_map(client: Client, broker: ClientBroker) -> None:
    fetched = client.fetch(TASK)
    answer(broker, ended(m.TERMINAL_DONE, encode_chunk_result([1, 2], {})))
    assert fetched.result(10) == [1, 2]
    failure, _ = encode_failure(KeyError("k"), Place(), None)
    fetched = client.fetch(TASK)
    answer(broker, ended(m.TERMINAL_DONE, encode_chunk_result([1, None], {1: failure})))
    with pytest.raises(KeyError):
        fetched.result(10)


def test_fetch_of_what_nobody_knows(client: Client, broker: ClientBroker) -> None:
    fetched = client.fetch(TASK)
    answer(broker, msgpack.packb("no such task here"), ok=False)
    with pytest.raises(UnknownTask, match=r"no such task here\. Ended tasks are kept for a time"):
        fetched.result(10)


@pytest.mark.parametrize(
    "body",
    [b"\xc1", b"\x90", b"\x93\x09\xc0\xc0", b"\x93\x00\x05\xc0", b"\x94\x00\xc0\xc0\x91\x05"],
)
def test_an_answer_that_is_none_ends_only_what_it_is_about(
    body: bytes, client: Client, broker: ClientBroker
) -> None:
    fetched = client.fetch(TASK)
    answer(broker, body)
    with pytest.raises(PeerError, match="answer about 7f3a12bc cannot be read"):
        fetched.result(10)
    broker.results = echo
    assert client.submit("t.echo", 1).result(10) == 1


def test_fetch_waits_as_long_as_it_takes_and_is_asked_again(broker: ClientBroker) -> None:
    with Client(broker.address) as client:
        fetched = client.fetch(TASK)
        told: list[Any] = []
        fetched.add_done_callback(lambda ended: told.append(ended.result()))
        first = broker.expect(m.Query)
        broker.say_outside(m.Resync("unknown session"))
        again = broker.expect(m.Query)
        assert (first.number, first.what) == (again.number, again.what)
        assert not fetched.done()

        async def wait() -> Any:
            broker.say(m.Answer(again.number, True, ended(m.TERMINAL_DONE, encode_value(5))))
            return await fetched

        assert asyncio.run(wait()) == 5
        wait_until(lambda: told == [5])
        unanswered = client.fetch(TASK)
    with pytest.raises(ClientClosed, match="before 7f3a12bc had ended"):
        unanswered.result(10)


def test_fetch_of_an_own_open_task_is_its_future(client: Client, broker: ClientBroker) -> None:
    future = client.submit("t.slow")
    assert client.fetch(future.task_id) is future
    broker.finish(broker.expect(m.Submit), 5)
    assert future.result(10) == 5
    fetched = client.fetch(future)
    answer(broker, ended(m.TERMINAL_DONE, encode_value(5)))
    assert fetched.result(10) == 5


# --- Dead letters ---------------------------------------------------------------------------------


def test_retry_submits_the_call_anew(client: Client, broker: ClientBroker) -> None:
    broker.results = echo
    options = m.Options(queue="slow", retry_on=("ValueError",), retries=2)
    call = encode_value(3)  # as good as any payload
    body = ["t.echo", tuple(options), call]
    broker.results = lambda item: encode_value(7)  # type: ignore[assignment,return-value]
    future, (query,) = asked(broker, lambda: client.retry(TASK), body)
    assert (query.what, query.arguments) == ("call", {"id": TASK.hex()})
    item = broker.expect(m.Submit).items[0]
    assert item[1:] == ("t.echo", call, options)
    assert item[0] != TASK
    assert future.item[0] == item[0]
    assert future.result(10) == 7


def test_retry_of_a_large_call(client: Client, broker: ClientBroker) -> None:
    parts = [os.urandom(90_000), os.urandom(20)]
    head = msgpack.packb(["t.echo", tuple(m.DEFAULT_OPTIONS), None])
    asked(broker, lambda: client.retry(TASK), m.Frames([head, *parts]))
    assert broker.expect(m.Submit).items[0][2] == m.Frames(parts)


def test_retry_of_what_is_no_dead_letter(client: Client, broker: ClientBroker) -> None:
    with pytest.raises(UsageError, match="is done: only"):
        asked(broker, lambda: client.retry(TASK), "task 7f is done: only ...", ok=False)
    with pytest.raises(PeerError, match="about a call"):
        asked(broker, lambda: client.retry(TASK), ["t.echo", ["default", -5], b""])


def test_purge(client: Client, broker: ClientBroker) -> None:
    count, (query,) = asked(
        broker,
        lambda: client.purge(state="lost", function="t.f", older_than="1h"),
        {"purged": 3},
    )
    assert (count, query.what) == (3, "purge")
    assert query.arguments == {"state": "lost", "function": "t.f", "older_ms": 3_600_000}
    _, (query,) = asked(broker, lambda: client.purge(state="lost", dry_run=True), {"purged": 3})
    assert query.arguments["dry_run"] is True
    count, (query, _) = asked(broker, lambda: client.purge(TASK, TASK), *[{"purged": 1}] * 2)
    assert (count, query.arguments) == (2, {"id": TASK.hex()})
    _, (query,) = asked(broker, lambda: client.purge(TASK, dry_run=True), {"state": "lost"})
    assert query.what == "show"
    with pytest.raises(UsageError, match="purge what"):
        client.purge()
    with pytest.raises(UsageError, match="not both"):
        client.purge(TASK, state="lost")
    with pytest.raises(UsageError, match="is done: only dead letters"):
        asked(broker, lambda: client.purge(TASK, dry_run=True), {"state": "done"})


def test_what_a_journal_that_cannot_be_written_means(client: Client, broker: ClientBroker) -> None:
    broker.accepts = False
    future = client.submit("t.slow")
    item = broker.expect(m.Submit).items[0]
    text = "the broker cannot write its journal (No space left on device): try again later"
    broker.say(m.Rejected([(item[0], "journal", text)]), m.Accepted(1))
    with pytest.raises(TaskRejected, match="cannot write its journal") as rejected:
        future.result(10)
    assert rejected.value.code == "journal"


# --- Acceptance -----------------------------------------------------------------------------------


def test_flush_returns_once_everything_is_accepted(client: Client, broker: ClientBroker) -> None:
    client.flush(5)
    broker.accepts = False
    for number in range(3):
        client.submit("t.slow", number)
    with pytest.raises(
        BrokerUnreachable, match=r"not all of 3 open tasks are accepted after 0\.05"
    ):
        client.flush(0.05)
    flushed = threading.Thread(target=client.flush)
    flushed.start()
    broker.expect(m.Submit)
    broker.say(m.Accepted(1 << 20))
    broker.accepts = True
    wait_until(lambda: broker.expect(m.Submit))
    broker.say(m.Accepted(1 << 20))
    flushed.join(10)
    assert not flushed.is_alive()
    assert client.open_tasks == 3


def test_whether_the_broker_has_a_journal(client: Client) -> None:
    assert client.durable is False
    with ClientBroker(durable=True) as durable, Client(durable.address) as other:
        assert other.durable is True


# --- The choice at a bound ------------------------------------------------------------------------


def test_awaiting_room_lets_other_coroutines_go_on() -> None:
    with ClientBroker(limits=(1, 1 << 30)) as broker, Client(broker.address) as client:
        turns: list[int] = []

        async def use() -> list[Any]:
            first = await client.submit_async("t.slow", 1)
            waiting = asyncio.create_task(client.submit_async("t.slow", 2))
            while len(turns) < 20:
                turns.append(len(turns))
                await asyncio.sleep(0.001)
            assert not waiting.done()
            given_up = asyncio.create_task(client.submit_async("t.slow", 3))
            await asyncio.sleep(0)
            given_up.cancel()
            broker.finish(broker.expect(m.Submit), "one")
            second = await waiting
            broker.finish(broker.expect(m.Submit), "two")
            return [await first, await second]

        assert asyncio.run(use()) == ["one", "two"]
        assert client.open_tasks == 0


def test_awaiting_room_raises_where_that_was_chosen() -> None:
    with (
        ClientBroker(limits=(1, 1 << 30)) as broker,
        Client(broker.address, queue_full="raise") as client,
    ):

        async def use() -> None:
            await client.submit_async("t.slow")
            with pytest.raises(QueueFull):
                await client.submit_async("t.slow")

        asyncio.run(use())
