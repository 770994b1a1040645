"""The broker's process, driven over its socket by a client and an agent that only speak the wire.

So its CPU time and memory per task can be told without what the real client and workers cost.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Final

import psutil
import zmq

from benchmarks.measure import Measure, Sample, child, cpu_us
from evener_wire import messages as m
from evener_wire.codec import Envelope, decode, encode
from evener_wire.session import Sequence, Verdict

_CALL: Final = b"\x92\x90\xc0"
_RESULT: Final = b"\x91\xc0"
_BATCH: Final = 500
_SLOTS: Final = 4
_WAIT_MS: Final = 30_000
_LINGER_MS: Final = 1_000


class Peer:
    """A session with the broker on a blocking socket, and nothing more."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, role: m.Role) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, _WAIT_MS)
        self.socket.set_hwm(0)
        self.socket.connect(address)
        hello = m.Hello(1, 1, role, os.urandom(16), "bench", 0, bytes(16), {})
        self.socket.send_multipart(encode(hello))
        welcome = decode(self.socket.recv_multipart())
        assert type(welcome.message) is m.Welcome, welcome
        self.sequence = Sequence(welcome.session)
        self._judge(welcome)

    def _judge(self, envelope: Envelope) -> None:
        verdict = self.sequence.judge(envelope.session, envelope.number)
        assert verdict is Verdict.TAKE, envelope

    def send(self, message: m.Message) -> int:
        """Send within the session; returns the number."""
        number = self.sequence.next_number()
        self.socket.send_multipart(encode(message, self.sequence.session, number))
        return number

    def receive(self, wait: bool = True) -> m.Message | None:
        """The next message; None if there is none and we do not wait."""
        try:
            frames = self.socket.recv_multipart(0 if wait else zmq.NOBLOCK)
        except zmq.Again:
            if wait:
                raise TimeoutError("the broker said nothing for 30 s") from None
            return None
        envelope = decode(frames)
        self._judge(envelope)
        return envelope.message

    def close(self) -> None:
        """Leave, and say so: an agent that is only gone is waited for."""
        if not self.socket.closed:
            self.send(m.Goodbye("the benchmark is over"))
            self.socket.close(_LINGER_MS)


class Broker:
    """A broker process of its own, and peers of it."""

    def __init__(self, stack: ExitStack, **settings: str) -> None:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="evener-bench-"))
        reader, writer = os.pipe()
        config = {"port": 0, "ready_fd": writer, "runtime_dir": folder, "log_level": "error"}
        config |= settings
        process = stack.enter_context(
            child("-m", "evener_broker", json.dumps(config), pass_fds=(writer,))
        )
        os.close(writer)
        with os.fdopen(reader) as lines:
            ready = json.loads(lines.readline())
        self._stack = stack
        self._context = stack.enter_context(zmq.Context())
        self.address: str = ready["address"]
        self.process = psutil.Process(process.pid)

    def peer(self, role: m.Role) -> Peer:
        """A new session."""
        peer = Peer(self._context, self.address, role)
        self._stack.callback(peer.close)
        return peer


def submit(client: Peer, count: int) -> None:
    """Submit tasks, never more than a few batches ahead of what is accepted."""
    first = last = accepted = 0
    for start in range(0, count, _BATCH):
        some = min(_BATCH, count - start)
        ids = os.urandom(16 * some)
        items = [(ids[i : i + 16], "work.noop", _CALL, None) for i in range(0, 16 * some, 16)]
        last = client.send(m.Submit(items))
        first = first or last
        while accepted < last - 8:
            message = client.receive()
            if type(message) is m.Accepted:
                accepted = message.upto
    while accepted < last:
        message = client.receive()
        if type(message) is m.Accepted:
            accepted = message.upto


@contextmanager
def queued(count: int) -> Iterator[Measure]:
    """Fill the queue of a fresh broker while no worker serves it."""

    def measure() -> Sample:
        with ExitStack() as stack:
            broker = Broker(stack)
            client = broker.peer("client")
            submit(client, 5_000)
            before_us, before_bytes = cpu_us(broker.process), broker.process.memory_info().rss
            start = time.perf_counter()
            submit(client, count)
            seconds = time.perf_counter() - start
            return {
                "cpu_us_per_task": (cpu_us(broker.process) - before_us) / count,
                "wall_us_per_task": seconds * 1e6 / count,
                "bytes_per_task": (broker.process.memory_info().rss - before_bytes) / count,
            }

    yield measure


@contextmanager
def lives(count: int, depth: int) -> Iterator[Measure]:
    """Whole lives of no-op tasks, `depth` of them in the broker at a time, batches as they come."""
    with ExitStack() as stack:
        broker = Broker(stack)

        def measure() -> Sample:
            # Sessions of their own: peers that only speak when they have something to say would be
            # found silent while others are measured.
            with closing(broker.peer("client")) as client, closing(broker.peer("agent")) as agent:
                agent.send(m.Offer(_SLOTS, False, ("default",), [("work.noop", None)], ()))
                poller = zmq.Poller()
                poller.register(client.socket, zmq.POLLIN)
                poller.register(agent.socket, zmq.POLLIN)
                live(client, agent, poller, 2_000, depth)
                before_us, start = cpu_us(broker.process), time.perf_counter()
                live(client, agent, poller, count, depth)
                seconds = time.perf_counter() - start
                used_us = cpu_us(broker.process) - before_us
            return {"cpu_us_per_task": used_us / count, "tasks_per_s": count / seconds}

        yield measure


def live(client: Peer, agent: Peer, poller: zmq.Poller, count: int, depth: int) -> None:
    """Have so many tasks submitted, run and acknowledged."""
    submitted = ended = 0
    while ended < count:
        some = min(depth - (submitted - ended), count - submitted, _BATCH)
        if some >= min(_BATCH, depth // 2) or (some and submitted + some == count):
            ids = os.urandom(16 * some)
            client.send(
                m.Submit(
                    [(ids[i : i + 16], "work.noop", _CALL, None) for i in range(0, 16 * some, 16)]
                )
            )
            submitted += some
        if not poller.poll(_WAIT_MS):
            raise TimeoutError(f"{count - ended} tasks did not end")
        while (message := agent.receive(wait=False)) is not None:
            if type(message) is m.Run:
                agent.send(
                    m.Result([(i[0], i[1], m.DONE, _RESULT, 5, None) for i in message.items])
                )
            elif type(message) is m.Recall:
                raise RuntimeError("the broker recalls no-op tasks")
        got = 0
        while (message := client.receive(wait=False)) is not None:
            if type(message) is m.Terminal:
                got += len(message.items)
                client.send(m.Ack(client.sequence.received))
        ended += got
