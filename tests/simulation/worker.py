"""A worker process in the simulation: permits, a page, bodies that take virtual time, and deaths.

Rules of this file: it does what `runner_loop.py` and the kernel do. Whatever a worker wrote before
its death is told before its death.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgpack

from evener_wire import messages as m
from evener_worker import channel as c
from evener_worker import events as e
from evener_worker.attempts import Attempt
from tests.simulation.truth import Run, Truth, result_of
from tests.simulation.world import MS, US, World

_TO_WORKER_NS: Final = 30 * US
_TO_AGENT_NS: Final = 30 * US
_BURIAL_NS: Final = 2 * MS
_STEP_NS: Final = 8 * US

# A slow host slows its processes by more than their bodies: those would outlive the simulation.
_SLOW_MAX: Final = 3

_Batch = deque[tuple[int, Any]]


class Home(Protocol):
    """What the agent's node lends to its workers."""

    @property
    def world(self) -> World:
        """Time and chance."""
        ...

    @property
    def truth(self) -> Truth:
        """What really happens."""
        ...

    @property
    def slow(self) -> int:
        """How many times slower the host is."""
        ...

    @property
    def who(self) -> str:
        """The process of the agent."""
        ...

    @property
    def name(self) -> str:
        """Of the host."""
        ...

    def local(self) -> int:
        """The clock of the host."""
        ...

    def heard(self, worker: SimWorker, event: e.Event) -> None:
        """A worker wrote something, or is dead."""


class SimWorker:
    """One process of a slot."""

    def __init__(self, home: Home, slot: int) -> None:
        self._home = home
        self._world = home.world
        self.slot: Final = slot
        self.alive = True
        self.ready = False
        self.started = 0
        self.started_ns = 0
        self.run: Run | None = None
        self._sequence = 0
        self._permits = 0
        self._batches: deque[tuple[_Batch, int]] = deque()
        self._stop: tuple[int, int] = (0, 0)
        self._token = 0
        self._leaving = False
        self._item: Any = None

    # --- From the agent ---------------------------------------------------------------------------

    def hand(self, first: int, attempts: Sequence[Attempt]) -> None:
        """A batch with its permits."""
        self._permits += len(attempts)
        items = [attempt.item for attempt in attempts]
        batch: _Batch = deque(enumerate(items, first))
        self._world.after(_TO_WORKER_NS, self._home.name, self._on_batch, batch)

    def take_back(self, most: int) -> int:
        """Permits that were not used yet."""
        count = min(most, self._permits)
        self._permits -= count
        return count

    def flag(self, sequence: int, outcome: int) -> None:
        """The attempt shall end; a body that looks finds out."""
        self._stop = (sequence, outcome)
        if self.run is not None and self._sequence == sequence and not self.run.ticket.body.deaf:
            self._world.after(3 * MS, self._home.name, self._on_seen, self._token)

    def _on_seen(self, token: int) -> None:
        if token == self._token and self.run is not None:
            self._world.hit("body ends at the flag")
            self._interrupt()

    def terminate(self) -> None:
        """SIGTERM."""
        run = self.run
        if not self.alive or run is None or self._stop[0] != self._sequence:
            return
        if run.ticket.body.deaf < 2:
            self._world.hit("body ended by SIGTERM")
            self._interrupt()

    def leave(self) -> None:
        """The agent asks for the end."""
        self._leaving = True
        if self.run is None:
            self._world.after(5 * MS, self._home.name, self._on_left)

    def _on_left(self, _: object) -> None:
        self.die(signal=None)

    # --- The loop ---------------------------------------------------------------------------------

    def on_ready(self, functions: Sequence[tuple[str, m.Options | None]]) -> None:
        """The app is imported."""
        if self.alive:
            self.ready = True
            self._tell(e.Ready(self.slot, functions))

    def _on_batch(self, batch: _Batch) -> None:
        if not self.alive:
            return
        self._batches.append((batch, batch[-1][0]))
        if self.run is None:
            self._next()

    def _next(self) -> None:
        while self._batches:
            batch, last = self._batches[0]
            if not batch:
                self._batches.popleft()
                continue
            sequence, item = batch.popleft()
            if not self._permits:
                self._batches.popleft()
                self._world.hit("worker drops what was taken back")
                self._tell(e.Dropped(self.slot, last))
                continue
            self._permits -= 1
            self._begin(sequence, item)
            return
        if self._leaving:
            self._world.after(5 * MS, self._home.name, self._on_left)

    def _begin(self, sequence: int, item: Any) -> None:
        home = self._home
        self._item = item
        self._sequence = self.started = sequence
        self.started_ns = home.local()
        self.run = home.truth.begin(item[3], (item[0], item[1]), home.who)
        self._token += 1
        body = self.run.ticket.body
        nth = len(self.run.ticket.runs)
        run_ns = max(_STEP_NS, body.run_ns) * min(home.slow, _SLOW_MAX)
        if body.failures < nth <= body.failures + body.deaths:
            self._world.after(run_ns, home.name, self._on_fatal, self._token)
        else:
            outcome = m.FAILED if nth <= body.failures else m.DONE
            self._world.after(run_ns, home.name, self._on_end, (self._token, outcome))

    def _on_end(self, what: tuple[int, int]) -> None:
        token, outcome = what
        if token == self._token and self.alive and self.run is not None:
            self._finish(outcome)

    def _on_fatal(self, token: int) -> None:
        if token == self._token and self.alive:
            self._world.hit("body takes its worker down")
            self.die(signal=11)

    def _interrupt(self) -> None:
        self._finish(self._stop[1])

    def _finish(self, outcome: int) -> None:
        run = self.run
        assert run is not None
        body = run.ticket.body
        if outcome in (m.DONE, m.FAILED):
            payload = result_of(run)
        else:
            payload = b""
        facts = None
        if outcome == m.FAILED:
            facts = {"type": body.types[0], "message": "as it was told", "types": body.types}
        run_us = (self._world.now - run.start_ns) // 1_000
        self._home.truth.end(run, {m.DONE: "done", m.FAILED: "failed"}.get(outcome, "stopped"))
        self.run = None
        self._token += 1
        task_id, fence = self._item[:2]
        packed = msgpack.packb((task_id, fence, outcome, payload, run_us, facts))
        frame = c.Frame(c.RESULT, self._sequence, outcome, min(run_us, c.RUN_US_MAX), packed)
        self._tell(e.Finished(self.slot, [frame]))
        self._world.after(_STEP_NS, self._home.name, self._on_free, self._token)

    def _on_free(self, token: int) -> None:
        if self.alive and token == self._token and self.run is None:
            self._next()

    def _tell(self, event: e.Event) -> None:
        self._world.after(_TO_AGENT_NS, self._home.name, self._on_told, event)

    def _on_told(self, event: e.Event) -> None:
        self._home.heard(self, event)

    # --- Deaths -----------------------------------------------------------------------------------

    def die(self, *, signal: int | None, code: int = 0) -> None:
        """The process ends."""
        if not self.alive:
            return
        self.vanish()
        exit_code = None if signal is not None else code
        died = e.Died(self.slot, self.started, exit_code, signal, ("last words",))
        self._world.after(_BURIAL_NS, self._home.name, self._on_told, died)

    def vanish(self) -> None:
        """It ends, and there is nobody to tell."""
        self.alive = False
        self._token += 1
        if self.run is not None:
            # What was being stopped is not counted as a death by anybody.
            stopping = self._stop[0] == self._sequence
            self._home.truth.end(self.run, "stopped" if stopping else "died")
            self.run = None
