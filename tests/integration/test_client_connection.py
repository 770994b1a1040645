"""How a client begins and ends, and what signals and forks do to it."""

from __future__ import annotations

import concurrent.futures
import http.server
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
)
from evener_wire import messages as m
from tests.integration.client_broker import ClientBroker, echo
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
