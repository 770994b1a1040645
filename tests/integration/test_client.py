"""A real client on a real socket, against a broker that does what each test says."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from evener.client import Client
from evener.errors import (
    BrokerUnreachable,
    QueueFull,
    TaskCancelled,
    TaskTimeout,
    UnknownFunction,
    UsageError,
)
from evener.future import Future
from evener.payload import encode_value
from evener_wire import messages as m
from tests.integration.client_broker import ClientBroker, echo
from tests.support import free_port, wait_until


@pytest.fixture
def broker() -> Iterator[ClientBroker]:
    with ClientBroker() as broker:
        yield broker


@pytest.fixture
def client(broker: ClientBroker) -> Iterator[Client]:
    with Client(broker.address) as client:
        yield client


# --- Results --------------------------------------------------------------------------------------


def test_a_task_there_and_back(client: Client, broker: ClientBroker) -> None:
    broker.results = echo
    assert [client.submit("t.echo", n).result() for n in range(50)] == list(range(50))
    assert broker.said_nothing_but(m.Hello, m.Submit, m.Ack)


def test_many_tasks_from_many_threads(client: Client, broker: ClientBroker) -> None:
    broker.results = echo

    def use(base: int) -> None:
        futures = [client.submit("t.echo", base + n) for n in range(3_000)]
        assert [f.result() for f in futures] == list(range(base, base + 3_000))
        for n in range(50):
            assert client.submit("t.echo", n).result(timeout=10) == n

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(use, base) for base in range(0, 60_000, 10_000)]:
            done.result(timeout=60)
    assert client.open_tasks == 0


def test_waiting_in_many_threads_for_results_in_any_order(
    client: Client, broker: ClientBroker
) -> None:
    futures = [client.submit("t.echo", n) for n in range(20)]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(future.result, 10) for future in futures]
        items: list[Any] = []
        while len(items) < 20:
            items += broker.expect(m.Submit).items
        for item in reversed(items):
            broker.say(m.Terminal([(item[0], m.TERMINAL_DONE, echo(item), None)]))
        assert [w.result(10) for w in waiting] == list(range(20))


def test_large_payloads_are_frames_of_their_own(client: Client, broker: ClientBroker) -> None:
    future = client.submit("t.echo", bytes(5_000_000))
    submit = broker.expect(m.Submit)
    assert len(submit.items[0][2]) > 5_000_000
    broker.finish(submit, b"x" * 1_000_000)
    assert future.result(10) == b"x" * 1_000_000


def test_asyncio_and_callbacks(client: Client, broker: ClientBroker) -> None:
    broker.results = echo

    async def use() -> list[Any]:
        return await asyncio.gather(*(client.submit("t.echo", n) for n in range(100)))

    assert asyncio.run(use()) == list(range(100))
    names: list[str] = []
    done = threading.Event()

    def nest(future: Future[Any]) -> None:
        names.append(threading.current_thread().name)
        client.submit("t.echo", future.result() + 1).add_done_callback(lambda _: done.set())

    slow = client.submit("t.echo", 1)
    slow.add_done_callback(nest)
    assert done.wait(10)
    assert set(concurrent.futures.as_completed([client.submit("t.echo", 1)], timeout=10))


def test_the_end_of_a_task_counts_once(client: Client, broker: ClientBroker) -> None:
    future = client.submit("t.echo", 1)
    submit = broker.expect(m.Submit)
    terminal = broker.finish(submit, "first")
    broker.say(terminal)
    broker.finish(submit, "second")
    assert future.result(10) == "first"
    assert broker.expect(m.Ack).upto >= 3


def test_cancel_and_rejections(client: Client, broker: ClientBroker) -> None:
    future = client.submit("t.slow")
    task_id = broker.expect(m.Submit).items[0][0]
    assert future.cancel()
    assert broker.expect(m.Cancel).items == ((task_id, 0),)
    broker.say(m.Terminal([(task_id, m.TERMINAL_CANCELLED, b"", None)]))
    with pytest.raises(TaskCancelled):
        future.result(10)
    broker.accepts = False
    unknown = client.submit("t.slwo")
    item = broker.expect(m.Submit).items[0]
    broker.say(m.Rejected([(item[0], "unknown_function", "no")]), m.Accepted(3))
    with pytest.raises(UnknownFunction):
        unknown.result(10)


def test_waiting_ends_in_time_and_another_thread_goes_on(
    client: Client, broker: ClientBroker
) -> None:
    future = client.submit("t.slow")
    with pytest.raises(TaskTimeout):
        future.result(timeout=0.05)
    submit = broker.expect(m.Submit)
    ended = threading.Event()
    future.add_done_callback(lambda _: ended.set())
    broker.finish(submit, 5)
    assert ended.wait(10)  # read by the client's own thread: nobody waits in result()
    assert future.result() == 5


def test_questions(client: Client, broker: ClientBroker) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.query, "ls", kind="tasks")
        query = broker.expect(m.Query)
        assert (query.what, query.arguments) == ("ls", {"kind": "tasks"})
        broker.say(m.Answer(query.number, True, b"\x81\xa4rows\x90"))
        assert asked.result(10) == {"rows": []}
        asked = pool.submit(client.query, "nonsense")
        query = broker.expect(m.Query)
        broker.say(m.Answer(query.number, False, b"\xa2no"))
        with pytest.raises(UsageError, match="no"):
            asked.result(10)
    with pytest.raises(BrokerUnreachable, match=r"0\.05 s"):
        client.query("status", query_timeout=0.05)


# --- Lost connections -----------------------------------------------------------------------------


def test_a_restarted_broker_gets_all_open_tasks_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "evener.client")
    first = ClientBroker()
    with Client(first.address) as client:
        futures = [client.submit("t.echo", n) for n in range(3)]
        items: list[Any] = []
        while len(items) < 3:
            items += first.expect(m.Submit).items
        first.stop()
        wait_until(lambda: "lost the broker" in caplog.text)
        futures.append(client.submit("t.echo", 3))
        with ClientBroker(first.port) as second:
            again = second.expect(m.Submit)
            assert again.again
            assert list(again.items) == items
            fresh = second.expect(m.Submit)
            assert not fresh.again
            second.finish(again)
            second.finish(fresh)
            assert [f.result(10) for f in futures] == ["done"] * 4
            wait_until(lambda: "3 open tasks submitted again" in caplog.text)
            assert len(caplog.records) == 2
            client.close()


def test_the_same_broker_gets_again_only_what_it_did_not_accept() -> None:
    instance = os.urandom(16)
    first = ClientBroker(broker=instance)
    with Client(first.address) as client:
        accepted = client.submit("t.echo", 1)
        first.expect(m.Submit)
        wait_until(lambda: client._backend._session.idle())  # type: ignore[attr-defined]
        first.accepts = False
        flying = client.submit("t.echo", 2)
        first.expect(m.Submit)
        first.stop()
        with ClientBroker(first.port, broker=instance) as second:
            submit = second.expect(m.Submit)
            assert not submit.again
            assert [item[0].hex() for item in submit.items] == [flying.task_id]
            second.finish(submit)
            second.say(
                m.Terminal([(accepted.item[0], m.TERMINAL_DONE, encode_value("kept"), None)])
            )
            assert (flying.result(10), accepted.result(10)) == ("done", "kept")
            client.close()


def test_resync_and_lost_messages_begin_a_new_session(client: Client, broker: ClientBroker) -> None:
    broker.expect(m.Hello)
    first = client.submit("t.echo", 1)
    broker.expect(m.Submit)
    broker.say_outside(m.Resync("unknown session"))
    broker.expect(m.Hello)
    broker.skip_number()
    broker.say(m.Heartbeat())
    broker.expect(m.Hello)
    broker.say_bytes(b"\xc1 no message", b"")
    broker.expect(m.Hello)
    broker.say(m.Terminal([(first.item[0], m.TERMINAL_DONE, encode_value(7), None)]))
    assert first.result(10) == 7


def test_a_silent_broker_is_connected_to_anew() -> None:
    with ClientBroker(beats=(20, 100)) as broker, Client(broker.address) as client:
        broker.expect(m.Hello)
        broker.expect(m.Hello)  # nobody sends heartbeats here
        broker.results = echo
        assert client.submit("t.echo", 1).result(10) == 1
        client.close()


def test_idle_clients_say_that_they_live() -> None:
    with ClientBroker(beats=(20, 4_000)) as broker, Client(broker.address) as client:
        for _ in range(3):
            broker.expect(m.Heartbeat)
        client.close()


def test_a_broker_that_comes_later_is_found() -> None:
    port = free_port()
    late: list[ClientBroker] = []
    timer = threading.Timer(0.3, lambda: late.append(ClientBroker(port)))
    timer.start()
    try:
        Client(f"tcp://127.0.0.1:{port}").close()
    finally:
        timer.join()
        late[0].stop()


# --- Limits ---------------------------------------------------------------------------------------


def test_submit_blocks_or_raises_when_the_broker_takes_no_more() -> None:
    with ClientBroker(limits=(3, 1 << 30)) as broker:
        with Client(broker.address, queue_full="raise") as client:
            for _ in range(3):
                client.submit("t.slow")
            with pytest.raises(QueueFull, match="3 tasks"):
                client.submit("t.slow")
        with Client(broker.address) as client:
            futures = [client.submit("t.slow") for _ in range(3)]
            blocked = threading.Thread(target=lambda: futures.append(client.submit("t.slow")))
            blocked.start()
            submit = broker.expect(m.Submit)
            while len(submit.items) and submit.items[0][0] != futures[0].item[0]:
                submit = broker.expect(m.Submit)
            assert len(futures) == 3
            broker.finish(submit)
            blocked.join(10)
            assert len(futures) == 4
            client.close()


def test_bytes_are_limited_too() -> None:
    with (
        ClientBroker(limits=(1_000, 1_000_000)) as broker,
        Client(broker.address, queue_full="raise") as client,
    ):
        client.submit("t.slow", bytes(600_000))
        broker.expect(m.Submit)
        with pytest.raises(QueueFull):
            client.submit("t.slow", bytes(600_000))
        client.close()


def test_a_full_broker_is_tried_again(client: Client, broker: ClientBroker) -> None:
    broker.accepts = False
    future = client.submit("t.slow")
    item = broker.expect(m.Submit).items[0]
    broker.say(m.Rejected([(item[0], "queue_full", "full")]), m.Accepted(1))
    again = broker.expect(m.Submit)
    assert list(again.items) == [item]
    broker.finish(again)
    assert future.result(10) == "done"
