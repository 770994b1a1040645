"""A worker process in the simulation: permits, a page, bodies that take virtual time, and deaths.

Rules of this file: it does what `runner_loop.py` and the kernel do. Whatever a worker wrote before
its death is told before its death.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgpack

from evener_wire import messages as m
from evener_worker import channel as c
from evener_worker import events as e
from evener_worker.attempts import Attempt
from tests.simulation.beside import Beside, pairs_of
from tests.simulation.streams import Yielding
from tests.simulation.truth import Run, Truth, result_of
from tests.simulation.world import MS, US, World

_TO_WORKER_NS: Final = 30 * US
_TO_AGENT_NS: Final = 30 * US
_BURIAL_NS: Final = 2 * MS
_STEP_NS: Final = 8 * US

# A slow host slows its processes by more than their bodies: those would outlive the simulation.
_SLOW_MAX: Final = 3

# How often a suspended host is looked at.
_LOOK_NS: Final = 500 * MS

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
    def shares(self) -> dict[str, int]:
        """How many tasks of a function run at once, of those that allow it."""
        ...

    @property
    def slow(self) -> int:
        """How many times slower the host is."""
        ...

    @property
    def suspended_until(self) -> int:
        """Until when the host stands still."""
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
        self.leaving = False
        self.tasks = 0  # that it started
        self.ready_ns = 0
        self._item: Any = None
        self._yielding: Yielding | None = None
        self.beside: Final = Beside(
            self._world, home.truth, home.shares, home.who, self._later, self._tell, self._crash
        )

    # --- Time -------------------------------------------------------------------------------------

    def _later(self, delay_ns: int, what: Callable[[Any], None], subject: Any = None) -> None:
        self._world.after(delay_ns, self._home.name, self._on_time, (what, subject))

    def _on_time(self, due: tuple[Callable[[Any], None], Any]) -> None:
        # A host that is suspended does nothing until it goes on, which may be earlier than planned.
        left_ns = self._home.suspended_until - self._world.now
        if left_ns > 0:
            self._world.after(min(left_ns, _LOOK_NS), self._home.name, self._on_time, due)
        else:
            due[0](due[1])

    # --- From the agent ---------------------------------------------------------------------------

    def hand(self, first: int, attempts: Sequence[Attempt]) -> None:
        """A batch with its permits."""
        self._permits += len(attempts)
        items = [attempt.item for attempt in attempts]
        batch: _Batch = deque(enumerate(items, first))
        self._later(_TO_WORKER_NS, self._on_batch, batch)

    def share(self, first: int, attempts: Sequence[Attempt], lanes: Sequence[int]) -> None:
        """Attempts that run side by side, with their permits."""
        self._permits += len(attempts)
        self._later(_TO_WORKER_NS, self._on_shares, (first, pairs_of(attempts, lanes)))

    def _on_shares(self, what: tuple[int, list[tuple[int, Any]]]) -> None:
        if self.alive:
            assert self.run is None
            slow = min(self._home.slow, _SLOW_MAX)
            self.beside.begin(self.slot, *what, self._take_permit, self._home.local, slow)
            self.tasks += len(what[1])

    def _take_permit(self) -> bool:
        had = self._permits > 0
        self._permits -= had
        return had

    def take_back(self, most: int) -> int:
        """Permits that were not used yet."""
        count = min(most, self._permits)
        self._permits -= count
        return count

    def flag(self, sequence: int, outcome: int) -> None:
        """The attempt shall end; a body that looks finds out."""
        self._stop = (sequence, outcome)
        if self.run is not None and self._sequence == sequence and not self.run.ticket.body.deaf:
            self._later(3 * MS, self._on_seen, self._token)

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

    def is_stopping(self) -> bool:
        """Whether what it runs is to end."""
        return self._stop[0] == self._sequence

    def leave(self) -> None:
        """The agent asks for the end."""
        self.leaving = True
        if self.run is None:
            self._later(5 * MS, self._on_left)

    def _on_left(self, _: object) -> None:
        self.die(signal=None)

    # --- The loop ---------------------------------------------------------------------------------

    def on_ready(
        self,
        functions: Sequence[tuple[str, m.Options | None]],
        schedules: Sequence[m.Schedule] = (),
    ) -> None:
        """The app is imported."""
        if self.alive:
            self.ready = True
            self.ready_ns = self._world.now
            shares = self._home.shares
            self._tell(e.Ready(self.slot, functions, schedules=schedules, shares=shares))

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
        if self.leaving:
            self._later(5 * MS, self._on_left)

    def _begin(self, sequence: int, item: Any) -> None:
        home = self._home
        self._item = item
        self._sequence = self.started = sequence
        self.tasks += 1
        self.started_ns = home.local()
        self.run = home.truth.begin(item[3], (item[0], item[1]), home.who)
        self._token += 1
        body = self.run.ticket.body
        nth = len(self.run.ticket.runs)
        run_ns = max(_STEP_NS, body.run_ns) * min(home.slow, _SLOW_MAX)
        self._yielding = None
        if body.values:
            self._begin_to_yield(self.run, run_ns, nth)
        elif body.failures < nth <= body.failures + body.deaths:
            self._later(run_ns, self._on_fatal, self._token)
        else:
            outcome = m.FAILED if nth <= body.failures else m.DONE
            self._later(run_ns, self._on_end, (self._token, outcome))

    # --- Generators -------------------------------------------------------------------------------

    def _begin_to_yield(self, run: Run, run_ns: int, nth: int) -> None:
        """Those that fail or die do so when half of their values are out."""
        body, sequence = run.ticket.body, self._sequence
        falls = nth <= body.failures + body.deaths
        count = body.values // 2 if falls else body.values

        def tell(index: int, more: bool, payload: m.Payload) -> None:
            self._tell(e.Yielded(self.slot, sequence, index, more, payload))

        def over() -> None:
            if self.run is run and self.alive:
                self._finish(m.FAILED if falls else m.DONE)

        heard_ns = self._home.truth.heard_ns
        self._yielding = Yielding(self._world, run, count, heard_ns, tell, over)
        each_ns = max(_STEP_NS, run_ns // body.values)
        self._later(each_ns, self._on_yield, (self._token, each_ns, nth))

    def _on_yield(self, what: tuple[int, int, int]) -> None:
        token, each_ns, nth = what
        run, yielding = self.run, self._yielding
        if token != self._token or not self.alive or run is None or yielding is None:
            return
        if yielding.proceed():
            self._later(each_ns, self._on_yield, what)
        elif not yielding.waits:
            body = run.ticket.body
            if body.failures < nth <= body.failures + body.deaths:
                self._on_fatal(token)
            else:
                yielding.end(well=nth > body.failures)

    def taken(self, sequence: int, upto: int) -> None:
        """The agent says what the reader of a generator took."""
        self._later(_TO_WORKER_NS, self._on_taken, (self._token, sequence, upto))

    def _on_taken(self, what: tuple[int, int, int]) -> None:
        token, sequence, upto = what
        if self.beside.taken(sequence, upto):
            return
        yielding = self._yielding
        if token != self._token or sequence != self._sequence or yielding is None:
            return
        yielding.taken(upto)
        if yielding.waits and self.run is not None:
            yielding.waits = False
            nth = self.run.ticket.runs.index(self.run) + 1
            self._on_yield((self._token, _STEP_NS, nth))

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
        self._later(_STEP_NS, self._on_free, self._token)

    def _on_free(self, token: int) -> None:
        if self.alive and token == self._token and self.run is None:
            self._next()

    def _tell(self, event: e.Event) -> None:
        self._later(_TO_AGENT_NS, self._on_told, event)

    def _on_told(self, event: e.Event) -> None:
        self._home.heard(self, event)

    # --- Deaths -----------------------------------------------------------------------------------

    def die(self, *, signal: int | None, code: int = 0) -> None:
        """The process ends."""
        if not self.alive:
            return
        self.vanish()
        exit_code = None if signal is not None else code
        lanes = {lane: number for lane, (number, _) in self.beside.started.items()}
        words = ("last words",)
        died = e.Died(self.slot, self.started, exit_code, signal, words, lanes=lanes)
        self._later(_BURIAL_NS, self._on_told, died)

    def _crash(self) -> None:
        self._world.hit("body takes its worker down")
        self.die(signal=11)

    def vanish(self) -> None:
        """It ends, and there is nobody to tell."""
        self.alive = False
        self._token += 1
        self.beside.vanish()
        if self.run is not None:
            # What was being stopped is not counted as a death by anybody.
            self._home.truth.end(self.run, "stopped" if self.is_stopping() else "died")
            self.run = None
