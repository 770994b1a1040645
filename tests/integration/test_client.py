"""A real client on a real socket, against a broker that does what each test says."""

from __future__ import annotations

import asyncio
import concurrent.futures
import http.server
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from evener.client import Client
from evener.errors import (
    BrokerRefused,
    BrokerUnreachable,
    ClientClosed,
    QueueFull,
    TaskCancelled,
    TaskTimeout,
    UnknownFunction,
    UsageError,
)
from evener.future import Future
from evener.payload import decode_call, encode_value
from evener_wire import messages as m
from tests.integration.client_broker import ClientBroker
from tests.support import free_port, wait_until


@pytest.fixture(scope="module", autouse=True)
def _zero_copy_once() -> None:
    """pyzmq opens a socket for good when something first travels without being copied."""
    zmq.Frame(bytes(100_000), copy=False)


@pytest.fixture
def broker() -> Iterator[ClientBroker]:
    with ClientBroker() as broker:
        yield broker


@pytest.fixture
def client(broker: ClientBroker) -> Iterator[Client]:
    with Client(broker.address) as client:
        yield client


def echo(item: tuple[bytes, str, m.Payload, object]) -> bytes:
    args, _, _ = decode_call(item[2], True)
    payload = encode_value(args[0])
    assert type(payload) is bytes
    return payload


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
        futures.append(client.submit("t.echo", 3))
        wait_until(lambda: "lost the broker" in caplog.text)
        with ClientBroker(first.port) as second:
            again = second.expect(m.Submit)
            assert again.again
            assert list(again.items) == items
            fresh = second.expect(m.Submit)
            assert not fresh.again
            second.finish(again)
            second.finish(fresh)
            assert [f.result(10) for f in futures] == ["done"] * 4
            assert "3 open tasks submitted again" in caplog.text
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


# --- Beginning ------------------------------------------------------------------------------------


def test_nobody_listens() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnreachable, match=r"connection refused, tried for 0\.3 s") as raised:
        Client(address, connect_timeout=0.3)
    assert raised.value.address == address
    assert "evener up" in str(raised.value)


def test_a_name_that_does_not_resolve_is_told_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(BrokerUnreachable, match="does not resolve"):
        Client("tcp://no-such-host.invalid:7450", connect_timeout=60)
    assert time.monotonic() - start < 10


class QuietHandler(http.server.BaseHTTPRequestHandler):
    """Answers, and says nothing to the terminal."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_web_server_is_told_before_the_time_is_over() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), QuietHandler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with pytest.raises(BrokerUnreachable, match="answered there, but not as evener"):
            Client(f"tcp://127.0.0.1:{server.server_port}", connect_timeout=60)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_something_that_says_nothing() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(BrokerUnreachable, match="says nothing"):
            Client(address, connect_timeout=0.3)


def test_a_broker_that_refuses() -> None:
    refusal = m.Refused("protocol", "this broker speaks evener protocol 2 to 3")
    with ClientBroker(refuse=refusal) as broker:
        with pytest.raises(BrokerRefused, match="protocol 2 to 3") as raised:
            Client(broker.address, connect_timeout=60)
        assert raised.value.code == "protocol"


def test_a_broker_that_is_busy_for_too_long() -> None:
    with (
        ClientBroker(refuse=m.Refused("busy", "too many sessions")) as broker,
        pytest.raises(BrokerRefused, match="too many sessions"),
    ):
        Client(broker.address, connect_timeout=0.3)


# --- The end --------------------------------------------------------------------------------------


def test_close_hands_over_what_was_submitted(broker: ClientBroker) -> None:
    client = Client(broker.address)
    futures = [client.submit("t.slow", n) for n in range(500)]
    client.close()
    items: list[Any] = []
    while len(items) < 500:
        items += broker.expect(m.Submit).items
    broker.expect(m.Goodbye)
    for future in futures:
        with pytest.raises(ClientClosed, match="goes on there"):
            future.result()
    with pytest.raises(ClientClosed):
        client.submit("t.slow")
    client.close()


def test_close_does_not_wait_for_ever(broker: ClientBroker) -> None:
    client = Client(broker.address)
    broker.accepts = False
    future = client.submit("t.slow")
    waiting = concurrent.futures.ThreadPoolExecutor(1)
    result = waiting.submit(future.result)
    client.close(timeout=0.05)
    assert isinstance(result.exception(10), ClientClosed)
    waiting.shutdown()


SCRIPT = """
import sys, evener
client = evener.Client(sys.argv[1])
future = client.submit("t.slow", 1)
print("submitted", flush=True)
{}
"""


def run(broker: ClientBroker, rest: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(rest), broker.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_ctrl_c_ends_the_waiting_and_cancels_nothing(broker: ClientBroker) -> None:
    rest = (
        "try: future.result()\n"
        "except KeyboardInterrupt: print('interrupted', flush=True)\n"
        "print(future.result(10))"
    )
    child = run(broker, rest)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "submitted\n"
        submit = broker.expect(m.Submit)
        wait_until(lambda: _is_waiting(child.pid))
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "interrupted\n"
        broker.finish(submit, "still here")
        out, err = child.communicate(timeout=10)
    finally:
        child.kill()
    task_id = submit.items[0][0].hex()
    assert out == "still here\n"
    assert err == f"left running on the cluster: 1 task (evener cancel {task_id[:8]})\n"
    assert broker.said_nothing_but(m.Ack, m.Goodbye, m.Heartbeat)


def _is_waiting(pid: int) -> bool:
    with open(f"/proc/{pid}/syscall") as file:
        return file.read().split()[0] in ("7", "271", "202")  # poll, ppoll, futex


def test_no_signal_at_any_moment_loses_a_result(broker: ClientBroker) -> None:
    """A handler that raises, hundreds of times a second, in the thread that reads the socket."""
    broker.results = echo
    rest = (
        "import signal\n"
        "class Alarm(Exception): pass\n"
        "armed = False\n"
        "def ring(*_):\n"
        "    global armed\n"
        "    if armed:\n"
        "        armed = False\n"
        "        raise Alarm\n"
        "signal.signal(signal.SIGALRM, ring)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0011)\n"
        "futures, alarms, number = [], 0, 0\n"
        "while number < 3000 or alarms < 200:\n"
        "    future = None\n"
        "    try:\n"
        "        armed = True\n"
        "        future = client.submit('t.echo', number)\n"
        "        number += 1\n"
        "        future.result(30)\n"
        "        armed = False\n"
        "    except Alarm: alarms += 1\n"
        "    if future is not None: futures.append(future)\n"
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
        "values = [f.result(10) for f in futures]\n"
        "print(len(values) > 1000)\n"
    )
    child = run(broker, rest)
    try:
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert (out, err) == ("submitted\nTrue\n", "")


def test_the_end_of_the_program_hands_over_what_was_submitted(broker: ClientBroker) -> None:
    child = run(broker, "")
    _, err = child.communicate(timeout=10)
    assert (child.returncode, err) == (0, "")
    broker.expect(m.Submit)
    broker.expect(m.Goodbye)


def test_a_fork_does_not_share_the_client(client: Client, broker: ClientBroker) -> None:
    broker.results = echo
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            client.submit("t.echo", 1)
        except ClientClosed as error:
            code = 0 if "fork" in str(error) else 2
        finally:
            client.close()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert client.submit("t.echo", 2).result(10) == 2
