"""The floor for a round trip: an echo through a bare C proxy, and what raw ZeroMQ moves through it.

Run as `python -m benchmarks.echo proxy` or `... worker ADDRESS`, each in a process of its own. The
proxy is `zmq.proxy`, a loop in C inside libzmq: ROUTER to clients, DEALER to workers, over TCP
loopback. Nothing in it decodes, decides or remembers, so no broker can be faster by much.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgpack
import zmq

from benchmarks.measure import Measure, Sample, child, percentile

_BODY = b"x" * 64


def proxy() -> None:
    """Forward for ever. Prints the addresses for clients and for workers."""
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    addresses = []
    for socket in (front, back):
        socket.set_hwm(0)
        socket.bind("tcp://127.0.0.1:*")
        addresses.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
    print(*addresses, flush=True)
    zmq.proxy(front, back)


def worker(address: str) -> None:
    """Send back whatever comes, for ever."""
    socket = zmq.Context().socket(zmq.DEALER)
    socket.set_hwm(0)
    socket.connect(address)
    print("ready", flush=True)
    recv, send = socket.recv, socket.send
    while True:
        client = recv()
        body = recv()
        send(client, zmq.SNDMORE)
        send(body)


@contextmanager
def _connected() -> Iterator[zmq.Socket[bytes]]:
    with ExitStack() as stack:
        front, back = _line(stack.enter_context(child("-m", "benchmarks.echo", "proxy"))).split()
        _line(stack.enter_context(child("-m", "benchmarks.echo", "worker", back)))
        context = stack.enter_context(zmq.Context())
        socket = stack.enter_context(context.socket(zmq.DEALER))
        socket.setsockopt(zmq.LINGER, 0)
        socket.set_hwm(0)
        socket.connect(front)
        socket.send(_BODY)
        socket.recv()
        yield socket


def _line(process: object) -> str:
    stdout = getattr(process, "stdout", None)
    assert stdout is not None
    return str(stdout.readline())


@contextmanager
def round_trip(count: int) -> Iterator[Measure]:
    """One message at a time, there and back."""
    with _connected() as socket:

        def measure() -> Sample:
            send, recv, now = socket.send, socket.recv, time.perf_counter_ns
            times = []
            for _ in range(count):
                start = now()
                send(_BODY)
                recv()
                times.append((now() - start) / 1e3)
            return {"p50_us": percentile(times, 0.5), "p90_us": percentile(times, 0.9)}

        yield measure


@contextmanager
def rate(count: int, batch: int) -> Iterator[Measure]:
    """Items per second there and back, `batch` items in one message, a window of them under way."""
    body = msgpack.packb([[b"0123456789abcdef", "work.noop", b"\x92\x90\xc0", None]] * batch)
    messages = max(1, count // batch)
    window = min(messages, max(8, 1_000 // batch))

    with _connected() as socket:

        def measure() -> Sample:
            send, recv = socket.send, socket.recv
            start = time.perf_counter()
            for _ in range(window):
                send(body)
            for number in range(messages):
                recv()
                if number + window < messages:
                    send(body)
            return {"items_per_s": messages * batch / (time.perf_counter() - start)}

        yield measure


if __name__ == "__main__":
    try:
        proxy() if sys.argv[1] == "proxy" else worker(sys.argv[2])
    except KeyboardInterrupt:
        sys.exit(130)
