"""An agent without worker processes: the shipped core and link, workers that only let time pass.

Rules of this file: it does what `evener_worker/server.py` and `crew.py` do, in the same order. The
payload of a call says how long it runs; its result is the payload again.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Final

import msgpack
import zmq

from evener_wire import messages as m
from evener_worker import channel as c
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.attempts import Attempt
from evener_worker.config import AgentConfig
from evener_worker.core import AgentCore
from evener_worker.link import Link
from tests.recovery.books import Books, Run

# Of a call: microseconds that it runs, and a number that makes it one of its kind.
CALL: Final = Struct("<IQ")
FUNCTION: Final = "recovery.work"
_NEVER: Final = 1 << 62

# How often an agent with a session has a tick at most. The shipped shell has one each 5 ms while
# something runs: right for one agent on a host, and too much for a thousand in one process.
_TICK_NS: Final = 200_000_000


class TimedWorker:
    """A worker of a slot. Its attempts take time and nothing else."""

    def __init__(self, agent: int, slot: int, books: Books) -> None:
        self._agent = agent
        self._slot = slot
        self._books = books
        self._batches: deque[tuple[deque[tuple[int, Any]], int]] = deque()
        self._permits = 0
        self._item: Any = None
        self._run: Run | None = None
        self.ends_at_ns = _NEVER
        self.page = e.Page(0, 0)
        self.news: list[e.Event] = []

    def hand(self, first: int, attempts: Sequence[Attempt], now_ns: int) -> None:
        """A batch with its permits."""
        items = deque(enumerate([attempt.item for attempt in attempts], first))
        self._permits += len(items)
        self._batches.append((items, first + len(items) - 1))
        if self._run is None:
            self._next(now_ns)

    def take_back(self, most: int) -> int:
        """Permits that were not used yet."""
        count = min(most, self._permits)
        self._permits -= count
        return count

    def flag(self, sequence: int, outcome: int, now_ns: int) -> None:
        """The attempt shall end, and does."""
        if self._run is not None and self.page.started == sequence:
            self._books.stopped += 1
            self._finish(outcome, now_ns)

    def on_time(self, now_ns: int) -> None:
        """The attempt under way may be over."""
        if now_ns >= self.ends_at_ns:
            self._finish(m.DONE, now_ns)

    def _next(self, now_ns: int) -> None:
        while self._batches:
            batch, last = self._batches[0]
            if not batch:
                self._batches.popleft()
                continue
            sequence, item = batch.popleft()
            if not self._permits:
                self._batches.popleft()
                self.news.append(e.Dropped(self._slot, last))
                continue
            self._permits -= 1
            self._item = item
            self.page = e.Page(sequence, now_ns)
            self._run = self._books.begin(item[0], self._agent, now_ns)
            self.ends_at_ns = now_ns + CALL.unpack(item[3])[0] * 1_000
            return

    def _finish(self, outcome: int, now_ns: int) -> None:
        run, item = self._run, self._item
        assert run is not None
        run.ended_ns = now_ns
        run_us = (now_ns - run.began_ns) // 1_000
        payload = item[3] if outcome == m.DONE else b""
        body = msgpack.packb((*item[:2], outcome, payload, run_us, None))
        frame = c.Frame(c.RESULT, self.page.started, outcome, run_us, body)
        self.news.append(e.Finished(self._slot, [frame]))
        self._run = None
        self.ends_at_ns = _NEVER
        self._next(now_ns)


class RealAgent:
    """One agent of the crowd. Caller: the loop."""

    def __init__(
        self,
        number: int,
        address: str,
        context: zmq.Context[zmq.Socket[bytes]],
        books: Books,
        workers: int,
        now_ns: int,
    ) -> None:
        self._number = number
        self._books = books
        self._now_ns = now_ns
        self._ticked_ns = 0
        self._rng = random.Random(os.urandom(8))
        name = f"host{number}"
        config = AgentConfig("recovery:app", address, workers=workers, name=name)
        self._link = Link(address, self._rng, context)
        self._workers: dict[int, TimedWorker] = {}
        self._events: list[e.Event] = []
        self._perform: dict[type, Callable[[Any], None]] = {
            f.Send: self._send,
            f.SendResults: self._send_results,
            f.Reconnect: self._reconnect,
            f.Hand: self._hand,
            f.TakeBack: self._take_back,
            f.Flag: self._flag,
            f.StartWorker: self._start_worker,
            f.Tell: lambda _: None,
            f.Log: lambda _: None,
        }
        self.core = AgentCore(config, os.urandom(16), self._rng, {"host": name})
        self._apply(self.core.begin(now_ns))

    @property
    def fd(self) -> int:
        """Of its socket."""
        return self._link.fd

    def epoch(self) -> int:
        """Of the broker that it has a session with; 0 while it has none."""
        session = self.core.session
        return session.epoch if session.is_open else 0

    def turn(self, now_ns: int) -> None:
        """As `Agent._turn`, until nothing is left to read."""
        self._now_ns = now_ns
        while True:
            readable, writable = self._link.look()
            if writable:
                self._events.append(e.Writable())
            if readable:
                self._link.receive(self._events)
                self._note_runs()
            for worker in self._workers.values():
                worker.on_time(now_ns)
                self._take_news(worker)
            if self._tick_at() <= now_ns:
                self._ticked_ns = now_ns
                pages = {slot: worker.page for slot, worker in self._workers.items()}
                self._events.append(e.Tick(pages))
            if not self._events:
                return
            events, self._events = self._events, []
            self._apply(self.core.step(now_ns, events))

    def _note_runs(self) -> None:
        """When the broker of now gave out its first task. The last one's may still come."""
        if self._books.dispatched_ns:
            return
        for event in self._events:
            if type(event) is e.Received and type(event.envelope.message) is m.Run:
                fence = event.envelope.message.items[0][1]
                if m.epoch_of(fence) > self._books.epoch:
                    self._books.dispatched_ns = self._now_ns

    def _take_news(self, worker: TimedWorker) -> None:
        if worker.news:
            self._events += worker.news
            worker.news.clear()

    def _apply(self, effects: Sequence[f.Effect]) -> None:
        while effects:
            for effect in effects:
                self._perform[type(effect)](effect)
            events, self._events = self._events, []
            if not events:
                return
            effects = self.core.step(self._now_ns, events)

    def wake_at(self) -> int:
        """A timer of the core, or the end of an attempt."""
        at_ns = self._tick_at()
        for worker in self._workers.values():
            at_ns = min(at_ns, worker.ends_at_ns)
        return at_ns

    def _tick_at(self) -> int:
        at_ns = self.core.wake_at()
        if at_ns is None:
            return _NEVER
        return max(at_ns, self._ticked_ns + _TICK_NS) if self.core.session.is_open else at_ns

    def close(self) -> None:
        """As if it had been killed."""
        self._link.close(0)

    # --- Effects ----------------------------------------------------------------------------------

    def _send(self, effect: f.Send) -> None:
        if type(effect.message) is m.Hello:
            self._books.hellos.append(self._now_ns)
        if not self._link.send(effect):
            self._events.append(e.SendFailed())

    def _send_results(self, effect: f.SendResults) -> None:
        if not self._link.send_results(effect):
            self._events.append(e.SendFailed())

    def _reconnect(self, effect: f.Reconnect) -> None:
        self._link.reopen(effect.window_ns)

    def _hand(self, effect: f.Hand) -> None:
        worker = self._workers[effect.slot]
        worker.hand(effect.first, effect.attempts, self._now_ns)
        self._take_news(worker)

    def _take_back(self, effect: f.TakeBack) -> None:
        count = self._workers[effect.slot].take_back(effect.count)
        self._events.append(e.TakenBack(effect.slot, count))

    def _flag(self, effect: f.Flag) -> None:
        worker = self._workers[effect.slot]
        worker.flag(effect.sequence, effect.outcome, self._now_ns)
        self._take_news(worker)

    def _start_worker(self, effect: f.StartWorker) -> None:
        self._workers[effect.slot] = TimedWorker(self._number, effect.slot, self._books)
        self._events.append(e.Spawned(effect.slot, 1_000 + effect.slot))
        self._events.append(e.Ready(effect.slot, [(FUNCTION, None)]))
