"""Connections that cannot be, and bytes that should not come."""

from __future__ import annotations

import http.server
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import zmq

import evener
from evener_wire import codec
from evener_wire import messages as m
from evener_wire.limits import PROTOCOL_ERRORS_MAX
from tests.integration import fault_app as app
from tests.integration.fault_cluster import FaultCluster, steady_port
from tests.integration.history import misdeeds
from tests.support import free_port, wait_until


def run_evener(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One `evener` command, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "evener", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- Nobody there ---------------------------------------------------------------------------------


def test_no_broker_is_told_with_the_time_that_was_tried() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(evener.BrokerUnreachable) as caught:
        evener.Client(address, connect_timeout=0.4)
    assert 0.4 <= time.monotonic() - began < 3
    assert caught.value.address == address
    text = f"no broker at {address}: connection refused, tried for 0.4 s. Is it running?"
    assert text in str(caught.value)
    assert "start one: evener up" in str(caught.value)


@pytest.mark.parametrize("command", ["ping", "status", "ls", "submit"])
def test_no_broker_is_exit_code_69(command: str) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    extra = {"ls": ["tasks"], "submit": ["f.work", "t"]}.get(command, [])
    done = run_evener(command, *extra, "--broker", address, "--connect-timeout", "300ms")
    assert (done.returncode, done.stdout) == (69, "")
    assert f"{address}: connection refused, tried for 0.3 s" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_does_not_resolve_is_told_at_once() -> None:
    address = "tcp://no-such-host.invalid:7450"
    began = time.monotonic()
    with pytest.raises(evener.BrokerUnreachable, match=r"'no-such-host\.invalid' does not resolve"):
        evener.Client(address, connect_timeout=30)
    assert time.monotonic() - began < 10  # not the timeout; how long names take is the resolver's
    done = run_evener("ping", "--broker", address)
    assert done.returncode == 69
    assert "does not resolve" in done.stderr


@pytest.mark.parametrize("address", ["tcp://", "udp://127.0.0.1:1", "://"])
def test_what_is_no_address_is_a_usage_error(address: str) -> None:
    with pytest.raises(evener.UsageError):
        evener.Client(address, connect_timeout=1)


def test_port_taken(cluster: FaultCluster) -> None:
    cluster.start_broker()
    done = run_evener("broker", "--port", str(cluster.port))
    assert done.returncode == 69
    assert f"cannot listen on 127.0.0.1:{cluster.port}" in done.stderr
    assert f"(pid {cluster.broker.pid})" in done.stderr
    assert "Free: --port" in done.stderr
    # The first one is unharmed.
    assert run_evener("ping", "--broker", cluster.address).returncode == 0


# --- Somebody else there --------------------------------------------------------------------------


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server in a thread that does something with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        connections: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(connection)
                handle(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{port}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for connection in connections:
                connection.close()


def test_an_http_server_is_told_at_once() -> None:
    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            address = f"tcp://127.0.0.1:{server.server_port}"
            began = time.monotonic()
            with pytest.raises(evener.BrokerUnreachable, match="answered there, but not as evener"):
                evener.Client(address, connect_timeout=30)
            assert time.monotonic() - began < 5
        finally:
            server.shutdown()
            thread.join(10)


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"220 mail.example ESMTP\r\n", "answered there, but not as evener"),
        (b"-ERR unknown command\r\n", "answered there, but not as evener"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "answered there, but not as evener"),
    ],
)
def test_other_servers_are_told_at_once(greeting: bytes, words: str) -> None:
    with serving(lambda connection: connection.sendall(greeting)) as address:
        began = time.monotonic()
        # Some that speak too little for a judgement must be waited for.
        with pytest.raises(evener.BrokerUnreachable, match=words):
            evener.Client(address, connect_timeout=30)
        assert time.monotonic() - began < 5


def test_a_silent_server_and_a_foreign_zeromq_one_are_told_in_time() -> None:
    with (
        serving(lambda connection: None) as address,
        pytest.raises(evener.BrokerUnreachable, match="says nothing"),
    ):
        evener.Client(address, connect_timeout=0.5)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        port = router.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(evener.BrokerUnreachable, match="speaks ZeroMQ there"):
            evener.Client(f"tcp://127.0.0.1:{port}", connect_timeout=0.5)


def test_an_agent_waits_until_the_port_is_a_brokers(cluster: FaultCluster) -> None:
    """Something else has the port first; the agent says that there is no broker, and waits."""
    with socket.create_server(("127.0.0.1", cluster.port)) as other:
        agent = cluster.begin_agent()
        wait_until(lambda: "cannot reach an evener broker" in agent.text(), 10, "its word")
        assert agent.process.poll() is None
        other.shutdown(socket.SHUT_RDWR)
    cluster.start_broker()
    client = cluster.client()
    assert client.submit(app.work, "t").result(30) == "t"


# --- Bytes that should not come -------------------------------------------------------------------

# What a ZMTP 3.1 peer sends first: signature, version, mechanism NULL, as-server, filler.
GREETING = b"\xff" + bytes(7) + b"\x01\x7f" + b"\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"

STRANGERS: dict[str, bytes] = {
    "http": b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "zmtp 1": b"\x01\x00",
    "zmtp 2": b"\xff" + bytes(7) + b"\x01\x7f\x01\x05\x00\x00",
    "plain mechanism": GREETING[:12] + b"PLAIN".ljust(20, b"\0") + bytes(32),
    "curve mechanism": GREETING[:12] + b"CURVE".ljust(20, b"\0") + bytes(32),
    "huge command": GREETING + b"\x06" + (2**62).to_bytes(8, "big"),
    "huge frame": GREETING + READY + b"\x02" + (2**40).to_bytes(8, "big") + bytes(100),
    "frame before ready": GREETING + b"\x00\x05hello",
    "zeros": bytes(10_000),
    "ones": b"\xff" * 10_000,
}


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_garbage_on_the_port_while_good_clients_work(cluster: FaultCluster) -> None:
    client = cluster.start(workers=2)
    assert client.submit(app.work, "warm").result(20) == "warm"
    files, memory = open_files(cluster.broker.pid), rss_bytes(cluster.broker.pid)
    rng = random.Random(7)
    garbage = list(STRANGERS.values())
    garbage += [GREETING[:length] for length in range(len(GREETING))]
    garbage += [(GREETING + READY)[: 64 + length] for length in range(len(READY))]
    garbage += [rng.randbytes(rng.randrange(1, 2_000)) for _ in range(100)]
    garbage += [GREETING + rng.randbytes(rng.randrange(1, 200)) for _ in range(50)]
    rng.shuffle(garbage)
    connections: list[socket.socket] = []
    tokens: list[str] = []
    answered: list[str] = []
    try:
        for number, data in enumerate(garbage):
            connection = socket.create_connection(("127.0.0.1", cluster.port), 5)
            connections.append(connection)  # all stay open, until the broker closes them
            connection.sendall(data)
            if number % 3 == 0:
                tokens.append(f"t{number}")
                answered.append(client.submit(app.work, tokens[-1]).result(5))
        executions = cluster.history.executions()
        assert misdeeds(executions, [*tokens, "warm"], [*answered, "warm"], []) == []
        # Whoever does not greet to the end in five seconds is let go, by the broker itself. Only
        # what does not begin as ZMTP 3 does is taken for an old peer, and stays until it leaves.
        old = sum(data[:1] not in (b"\xff", b"") or data == STRANGERS["zmtp 2"] for data in garbage)
        wait_until(
            lambda: open_files(cluster.broker.pid) <= files + old, 15, "connections to be closed"
        )
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: open_files(cluster.broker.pid) <= files, 10, "all of them to be closed")
    assert rss_bytes(cluster.broker.pid) < memory + (64 << 20)
    assert cluster.counter(client, "agents_lost") == 0
    assert client.submit(app.work, "after").result(5) == "after"


@contextmanager
def stranger(cluster: FaultCluster) -> Iterator[Callable[..., None]]:
    """A valid ZeroMQ peer of the broker, that says what the test wants."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 1_000
        dealer.connect(cluster.address)

        def send(*frames: m.Buffer) -> None:
            dealer.send_multipart(frames)

        yield send


def hello(role: Literal["client", "agent"]) -> list[Any]:
    message = m.Hello(1, 1, role, os.urandom(16), "stranger", 0, bytes(16), {})
    return codec.encode(message, 0, 0)


def test_peers_that_send_no_messages_are_counted_each(cluster: FaultCluster) -> None:
    client = cluster.start(workers=2)
    rng = random.Random(11)
    bad = [
        (b"",),
        (b"", b"", b""),
        (b"\xc1",),
        (b"\x90",),
        (b"\xdd\xff\xff\xff\xff",),
        (b"\x91" * 5_000,),
        tuple(bytes([n % 256]) for n in range(1_100)),
        (bytes((1 << 20) + 1),),
        *((rng.randbytes(rng.randrange(1, 300)),) for _ in range(100)),
    ]
    with stranger(cluster) as send:
        for frames in bad:
            send(*frames)
        # Beyond the bound the connection is in quarantine, and no more of it is read.
        wait_until(
            lambda: (
                cluster.counter(client, "messages_malformed") == PROTOCOL_ERRORS_MAX + 1
                and cluster.counter(client, "messages_quarantined")
                == len(bad) - PROTOCOL_ERRORS_MAX - 1
            ),
            10,
            "the counters",
        )
        assert client.submit(app.work, "t").result(5) == "t"
    assert cluster.counter(client, "violations") == 0
    assert cluster.counter(client, "agents_lost") == 0


def test_messages_without_a_session_change_nothing(cluster: FaultCluster) -> None:
    client = cluster.start()
    running = client.submit(app.stay, "t", "go")
    cluster.wait_begun("t")
    fence = m.fence_of(1, 1)
    victim = bytes.fromhex(running.task_id)
    messages: list[m.Message] = [
        m.Result([(victim, fence, m.DONE, b"\x91\x01", 1, None)]),
        m.Cancel([(victim, 0)]),
        m.Submit([(os.urandom(16), "f.work", b"\x92\x91\xa1x\xc0", None)], False),
        m.Offer(1_000, False, ("default",), (("f.work", None),), ()),
        m.Goodbye("bye"),
    ]
    with stranger(cluster) as send:
        for message in messages:
            send(*codec.encode(message, 4_711, 1))
        wait_until(
            lambda: cluster.counter(client, "messages_unknown_peer") == len(messages),
            10,
            "the counter",
        )
    cluster.release("go")
    assert running.result(20) == "t"
    assert cluster.history.order() == ["t"]


@pytest.mark.parametrize("role", ["client", "agent"])
def test_a_session_that_sends_garbage_ends_alone(
    cluster: FaultCluster, role: Literal["client", "agent"]
) -> None:
    client = cluster.start()
    with stranger(cluster) as send:
        for number in range(1, 6):
            send(*hello(role))
            send(b"\xc1 garbage")
            wait_until(
                lambda n=number: cluster.counter(client, "violations") == n,  # type: ignore[misc]
                10,
                "the counter",
            )
            assert client.submit(app.work, f"t{number}").result(5) == f"t{number}"
    assert cluster.counter(client, "messages_malformed") == 5


def test_ten_thousand_messages_of_nobody(cluster: FaultCluster) -> None:
    client = cluster.start()
    count = 10_000
    with stranger(cluster) as send:
        flood = codec.encode(m.Heartbeat(), 99, 1)
        thread = threading.Thread(target=lambda: [send(*flood) for _ in range(count)])
        thread.start()
        answered = [client.submit(app.work, f"t{n}").result(5) for n in range(50)]
        thread.join(20)
        wait_until(
            lambda: cluster.counter(client, "messages_unknown_peer") == count, 20, "the counter"
        )
    assert answered == [f"t{n}" for n in range(50)]


def test_the_ports_of_tests_are_out_of_the_way() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert steady_port() < first
