"""The broker's deciding core alone: microseconds per task in `BrokerCore.step`, without I/O.

A sample is a process of its own, `python -m benchmarks.core life|queued TASKS`, so that each starts
with a fresh heap and memory can be told.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psutil

from benchmarks.measure import Measure, Sample, child
from evener_broker.core import BrokerCore
from evener_broker.effects import Send
from evener_broker.events import Event, Received
from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_wire.session import Sequence

_CALL: Final = b"\x92\x90\xc0"
_RESULT: Final = b"\x91\xc0"
_SLOTS: Final = 4
_BATCH: Final = 500


class _Peer:
    """A client or agent that lives in this process and speaks to the core without bytes."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.sequence: Sequence | None = None

    def event(self, message: m.Message) -> Event:
        if self.sequence is None:
            return Received(self.name, Envelope(0, 0, message))
        number = self.sequence.next_number()
        return Received(self.name, Envelope(self.sequence.session, number, message))

    def hello(self, role: m.Role) -> Event:
        instance = os.urandom(16)
        return self.event(m.Hello(1, 1, role, instance, "bench", 0, bytes(16), {}))


class Bench:
    """One core with one client and one agent of four workers."""

    def __init__(self) -> None:
        self.core = BrokerCore(os.urandom(16), 1, random.Random(1))
        self.client, self.agent = _Peer(b"client"), _Peer(b"agent")
        self.now_ns = 1_000_000_000
        self.spent_ns = 0
        self.runs: list[m.Run] = []
        self.terminals: list[tuple[int, int]] = []
        self._step([self.client.hello("client")])

    def _step(self, events: list[Event]) -> None:
        self.now_ns += 100_000
        start = time.thread_time_ns()
        effects = self.core.step(self.now_ns, events)
        self.spent_ns += time.thread_time_ns() - start
        for effect in effects:
            if type(effect) is Send:
                self._take(effect)

    def _take(self, send: Send) -> None:
        message = send.message
        if type(message) is m.Welcome:
            peer = self.client if send.peer == self.client.name else self.agent
            peer.sequence = Sequence(send.session)
        elif type(message) is m.Run:
            self.runs.append(message)
        elif type(message) is m.Terminal:
            self.terminals.append((send.number, len(message.items)))

    def serve(self) -> None:
        """The agent comes, with its workers."""
        self._step([self.agent.hello("agent")])
        offer = m.Offer(_SLOTS, False, ("default",), [("work.noop", None)], ())
        self._step([self.agent.event(offer)])

    def submit(self, count: int) -> None:
        """Tasks in batches as a busy client sends them."""
        for start in range(0, count, _BATCH):
            some = min(_BATCH, count - start)
            items = [(os.urandom(16), "work.noop", _CALL, None) for _ in range(some)]
            self._step([self.client.event(m.Submit(items))])

    def finish(self, count: int) -> int:
        """The agent runs what it was given until this many ended; returns how many did."""
        ended = 0
        while ended < count and (self.runs or self.terminals):
            events: list[Event] = []
            runs, self.runs = self.runs, []
            for run in runs:
                items = [(i[0], i[1], m.DONE, _RESULT, 5, None) for i in run.items]
                events.append(self.agent.event(m.Result(items)))
            terminals, self.terminals = self.terminals, []
            if terminals:
                ended += sum(some for _, some in terminals)
                events.append(self.client.event(m.Ack(terminals[-1][0])))
            self._step(events)
        return ended

    def take_spent_us(self) -> float:
        """CPU time in `step` since the last call."""
        spent, self.spent_ns = self.spent_ns, 0
        return spent / 1e3


def life(count: int) -> dict[str, float]:
    """Whole lives of tasks, queue short: submit, run, result, terminal, acknowledgement."""
    bench = Bench()
    bench.serve()
    _live(bench, 2 * _BATCH)  # warms everything up
    bench.take_spent_us()
    ended = _live(bench, count)
    return {"life_us_per_task": bench.take_spent_us() / ended}


def _live(bench: Bench, count: int) -> int:
    ended = 0
    for _ in range(0, count, 2 * _BATCH):
        bench.submit(2 * _BATCH)
        ended += bench.finish(2 * _BATCH)
    return ended


def queued(count: int) -> dict[str, float]:
    """Fill a queue that nobody serves, then serve it: time per task and memory per task."""
    bench = Bench()
    bench.submit(1_000)
    bench.take_spent_us()
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    bench.submit(count)
    fill_us = bench.take_spent_us() / count
    rss = process.memory_info().rss - before
    bench.serve()
    bench.take_spent_us()
    ended = bench.finish(count + 1_000)
    assert ended == count + 1_000, ended
    drain_us = bench.take_spent_us() / ended
    return {
        "fill_us_per_task": fill_us,
        "drain_us_per_task": drain_us,
        "bytes_per_task": rss / count,
    }


@contextmanager
def sample(what: str, count: int) -> Iterator[Measure]:
    """A sample is one process."""

    def measure() -> Sample:
        with child("-m", "benchmarks.core", what, str(count)) as process:
            assert process.stdout is not None
            found: dict[str, Any] = json.loads(process.stdout.readline())
            return found

    yield measure


if __name__ == "__main__":
    # As the broker's process does, for the same reason: its tables hold no cycles.
    gc.freeze()
    gc.disable()
    function = {"life": life, "queued": queued}[sys.argv[1]]
    print(json.dumps(function(int(sys.argv[2]))), flush=True)
