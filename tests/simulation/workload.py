"""What the clients of a seed do: bursts and idle times, all options, cancels at every phase.

Rules of this file: every operation is drawn from the stream of its client, in the order of time.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from evener_wire import messages as m
from tests.simulation import timetable
from tests.simulation.client_node import ClientNode
from tests.simulation.streams import MANNERS
from tests.simulation.swarm import Swarm
from tests.simulation.truth import Body, Ticket, Truth
from tests.simulation.world import MS, SECOND, US, World

# What every agent offers, and what only the first one does.
COMMON: Final = (
    "app.tiny",
    "app.short",
    "app.mid",
    "app.long",
    "app.mixed",
    "app.fragile",
    "app.stream",
    timetable.FUNCTION,
)
SPECIAL: Final = "app.special"
REGISTERED: Final = m.Options(retries=1, retry_delay_ms=20)

_ID_REUSE: Final = 0.01


def functions_of(agent: int) -> list[tuple[str, m.Options | None]]:
    """What the workers of an agent can run."""
    names = [*COMMON, SPECIAL] if agent == 0 else list(COMMON)
    return [(name, REGISTERED if name == "app.fragile" else None) for name in names]


def queues_of(agent: int, count: int) -> tuple[str, ...]:
    """Which queues an agent serves: the first one serves all."""
    names = ["default", *(f"queue{n}" for n in range(1, count))]
    if agent == 0:
        return tuple(names)
    return tuple(names[: 1 + agent % count])


class Workload:
    """The operations of one client."""

    def __init__(self, world: World, truth: Truth, swarm: Swarm, client: ClientNode) -> None:
        self._world = world
        self._truth = truth
        self._swarm = swarm
        self.client: Final = client
        self._rng = world.stream(f"workload/{client.name}")
        self._failures = world.stream(f"failures/{client.name}")
        self._left = max(1, swarm.tasks // swarm.clients)
        self._until_ns = world.now + swarm.period_ns
        self._burst_ns = swarm.period_ns // max(10, self._left // 4)
        self._likes: list[str] = self._rng.sample(
            ("tiny", "short", "mid", "long", "mixed", "fragile", "special", "shipped", "odd"), 5
        )
        if swarm.streams:
            self._likes.append("stream")
        self.mine: list[Ticket] = []
        self.over = False
        self.others: list[Workload] = []
        self._used: set[bytes] = set()  # no id twice from one client
        self._next()

    # --- When -------------------------------------------------------------------------------------

    def _next(self) -> None:
        delay_ns = int(self._rng.expovariate(1) * self._burst_ns)
        self._world.after(delay_ns, self.client.name, self._on_burst)

    def begin_soon(self) -> None:
        """The program is back, and has something to do."""
        delay_ns = int(self._rng.expovariate(1) * SECOND)
        self._world.after(delay_ns, self.client.name, self._on_burst, True)

    def _on_burst(self, is_extra: object) -> None:
        if self.over or self._left <= 0 or (self.mine and self._world.now > self._until_ns):
            return
        rng, client = self._rng, self.client
        self._look_back(rng)
        like = rng.choice(self._likes)
        # Of short tasks agents get more than they have workers: that needs many.
        sizes = (1, 5, 40, 150) if like in ("tiny", "mixed") else (1, 1, 1, 2, 5, 20, 80)
        if like == "stream":
            sizes = (1, 1, 3, 8)
        count = min(self._left, rng.choice(sizes))
        self._left -= count
        options = self._options(rng)
        tickets = [self._ticket(rng, like, options) for _ in range(count)]
        if client.alive and not client.over:
            client.submit(tickets)
            self.mine += tickets
            for ticket in tickets:
                self._plan(rng, ticket)
        else:
            del self._truth.tickets[-count:]
            self._left += count
        if not is_extra:
            self._next()

    def _look_back(self, rng: random.Random) -> None:
        """A program that was started anew wants to know what became of the work of the last one."""
        client = self.client
        old = [ticket for ticket in self.mine[-40:] if ticket.owner != client.who]
        if old and client.alive and not client.over and rng.random() < 0.5:
            client.fetch(rng.choice(old))

    def last_burst(self) -> None:
        """Faults let nothing through so far, and a seed without a task says nothing."""
        tickets = [self._ticket(self._rng, "short", m.Options()) for _ in range(3)]
        self.mine += tickets
        self.client.submit(tickets)

    def _plan(self, rng: random.Random, ticket: Ticket) -> None:
        """Later operations on a task."""
        chance = rng.random()
        if chance < (0.3 if ticket.body.run_ns > SECOND else 0.12):
            delay_ns = int(0.05 * MS * 10 ** (rng.random() * 5))
            self._world.after(delay_ns, self.client.name, self._on_cancel, ticket)
        elif chance > 0.94:
            delay_ns = int(0.05 * MS * 10 ** (rng.random() * 5))
            self._world.after(delay_ns, self.client.name, self._on_copy, ticket)

    def _on_cancel(self, ticket: Ticket) -> None:
        if self.client.alive and self.client.who == ticket.owner and not self.client.over:
            self.client.cancel([ticket])

    def _on_copy(self, ticket: Ticket) -> None:
        if self.client.alive and self.client.who == ticket.owner and not ticket.ends:
            self.client.copies.append(ticket)
            self.client.wake(self._world.now)

    # --- What -------------------------------------------------------------------------------------

    def _ticket(self, rng: random.Random, like: str, options: m.Options) -> Ticket:
        function, body = _kind(rng, like)
        if like in ("mid", "long") and self._failures.random() < 0.3:
            # Late, so that much can happen until then.
            body = replace(body, failures=self._failures.choice((1, 1, 100)))
            if self._failures.random() < 0.6:
                options = options._replace(retries=2, retry_on=())
        if like == "odd" and options.expires_ms == 0 and rng.random() < 0.5:
            options = options._replace(queue="nowhere", expires_ms=rng.randint(100, 3_000))
            function = "app.tiny"
        task_id = rng.randbytes(16)
        if rng.random() < _ID_REUSE and (theirs := self._open_of_others()):
            task_id = rng.choice(theirs).id
            self._world.hit("id of another client's task")
        self._used.add(task_id)
        if like == "stream":
            return self._generator(rng, task_id, function, body, options)
        pad = rng.choice((0, 10, 10, 100, 1_000))
        if rng.random() < 0.01:
            pad = 70_000
        return self._truth.ticket(self.client.who, task_id, function, body, options, pad)

    def _generator(
        self, rng: random.Random, task_id: bytes, function: str, body: Body, options: m.Options
    ) -> Ticket:
        """Its program reads as it likes."""
        ticket = self._truth.ticket(self.client.who, task_id, function, body, options, 10)
        ticket.reads = rng.choice(MANNERS)
        return ticket

    def _open_of_others(self) -> list[Ticket]:
        return [
            ticket
            for other in self.others
            for ticket in other.mine
            if not ticket.ends and ticket.alarming and ticket.id not in self._used
        ]

    def _options(self, rng: random.Random) -> m.Options:
        queues = ["default", *(f"queue{n}" for n in range(1, self._swarm.queues))]
        options = m.Options(
            queue=rng.choice(queues), priority=rng.choice((5, 5, 5, 0, 9, rng.randint(0, 9)))
        )
        if rng.random() < 0.25:
            options = options._replace(
                retries=rng.randint(1, 3),
                retry_delay_ms=rng.choice((0, 20, 100)),
                retry_on=rng.choice(((), ("ValueError",), ("KeyError",), ("TimeoutError",))),
            )
        chance = rng.random()
        if chance < 0.08:
            options = options._replace(timeout_ms=rng.choice((5, 50, 400, 6_000)))
        elif chance < 0.14:
            options = options._replace(expires_ms=rng.choice((1, 50, 500, 5_000)))
        elif chance < 0.20:
            options = options._replace(deadline_ms=rng.choice((20, 300, 3_000, 9_000)))
        if rng.random() < 0.12:
            options = options._replace(at_most_once=True)
        if rng.random() < 0.15:
            options = options._replace(max_starts=rng.choice((1, 2, 5)))
        return options


def _kind(rng: random.Random, like: str) -> tuple[str, Body]:
    deaf = rng.choice((0, 0, 1, 2))
    if like == "tiny":
        return "app.tiny", Body(rng.randint(5, 200) * US, deaf=deaf)
    if like == "short":
        return "app.short", Body(rng.randint(1, 8) * MS, deaf=deaf)
    if like == "mid":
        return "app.mid", Body(rng.randint(20, 400) * MS, deaf=deaf)
    if like == "long":
        return "app.long", Body(rng.randint(1_000, 9_000) * MS, deaf=deaf)
    if like == "mixed":
        # Most often nothing, and now and then for ever: what spoils every estimate.
        quick = (20 * US, 20 * US, 50 * US, 50 * US, 3 * MS)
        run_ns = rng.choice(quick) if rng.random() < 0.9 else rng.choice((300, 3_000, 7_000)) * MS
        # A quick one that dies has others behind it, which are not to blame.
        return "app.mixed", Body(run_ns, deaths=int(rng.random() < 0.02), deaf=deaf)
    if like == "fragile":
        deaths = rng.choice((0, 0, 0, 1, 2, 100))
        failures = rng.choice((0, 1, 2, 100)) if not deaths else 0
        types = rng.choice((("ValueError", "Exception"), ("KeyError", "Exception")))
        return "app.fragile", Body(rng.randint(1, 80) * MS, failures, deaths, deaf, types)
    if like == "stream":
        values = rng.choice((1, 3, 20, 20, 700))
        fails = rng.choice(((0, 0), (0, 0), (1, 0), (0, 1)))
        # A few go on while their reader is given up, and when it is back.
        run_ns = rng.randint(1, 400) * MS if rng.random() < 0.9 else rng.randint(20, 80) * SECOND
        return "app.stream", Body(run_ns, *fails, deaf, values=values)
    if like == "special":
        return SPECIAL, Body(rng.randint(1, 50) * MS, deaf=deaf)
    if like == "shipped":
        return "~__main__.shipped", Body(rng.randint(1, 50) * MS, deaf=deaf)
    return "app.nobody", Body(MS)
