"""Schedules in the simulation: each due time is one run, whatever dies. I4, I7, I16, I17, I19.

Rules of this file: judged by the runs that are sent to workers, and the due times in their ids;
the broker's list of schedules proves nothing.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from evener_broker.schedule_records import key_of, read_id
from evener_wire import messages as m
from tests.simulation.truth import Body, Ticket, Truth, call_of
from tests.simulation.world import MS, SECOND, START_NS, Violation, World

if TYPE_CHECKING:
    from tests.simulation.broker_node import BrokerNode

FUNCTION: Final = "app.due"

# What clocks on walls show when a seed begins: some moment in 2026.
_WALL_NS: Final = 1_790_000_000 * SECOND

# Who sets the clock back by more than this has cron schedules begin anew.
_SET_BACK_NS: Final = 24 * 3_600 * SECOND

# Schedules that come round so often are waited for at the end of a seed.
_SOON_NS: Final = 60 * SECOND

_CRON: Final = {"usual": (("*/5 * * * * *", 5),), "long": (("*/10 * * * *", 600),)}


def drawn(rng: random.Random, profile: str, safety_s: float) -> list[tuple[m.Schedule, Body]]:
    """What the app of a seed wants to run by itself."""
    found: list[tuple[m.Schedule, Body]] = []
    for number in range(rng.choice((1, 2, 3))):
        every_s = max(0.5, safety_s / 100) * rng.uniform(0.5, 4)
        cron = ""
        if rng.random() < 0.3:
            cron, every_s = rng.choice(_CRON.get(profile, (("0 * * * *", 3_600),)))
        overlap, late = rng.choice(("skip", "queue", "cancel")), rng.choice(("once", "skip"))
        # What queues up faster than one worker runs it never comes to an end.
        length_s = every_s * (0.1 if overlap == "queue" else rng.choice((0.01, 0.1, 2.5)))
        body = Body(int(min(length_s, 9) * SECOND))
        every_ms = 0 if cron else int(every_s * 1_000)
        jitter_ms = rng.choice((0, 0, every_ms // 3))
        call = call_of(-1 - number, 0)
        assert isinstance(call, bytes)
        spec = m.Schedule(
            f"due{number}", FUNCTION, every_ms, cron, "UTC", overlap, late, jitter_ms, call
        )
        found.append((spec, body))
    return found


def wall_of(node: BrokerNode) -> int:
    """What the clock on the wall of its host shows."""
    return _WALL_NS + node.world.now - START_NS + node.wall_ns


class Timetable:
    """Caller: the checkers, at each RUN of a schedule."""

    def __init__(
        self, world: World, truth: Truth, specs: list[tuple[m.Schedule, Body]], *, durable: bool
    ) -> None:
        self._world = world
        self._specs = {key_of(spec): spec for spec, _ in specs}
        self._durable = durable
        self._runs: dict[bytes, list[Ticket]] = {key: [] for key in self._specs}
        self._last: dict[tuple[bytes, int], int] = {}
        self._known: set[tuple[bytes, int]] = set()
        self.paused_ns = 1 << 62  # when somebody paused all of them
        for number, (_, body) in enumerate(specs):
            truth.scheduled[-1 - number] = body

    def on_run(self, ticket: Ticket, broker: BrokerNode) -> None:
        """It is sent to a worker."""
        key, due_ns = read_id(ticket.id)
        spec = self._specs.get(key)
        self._world.checked["I4"] += 1
        if spec is None or due_ns is None:
            raise _fail("I3", "a run of no schedule", ticket)
        place = key, 0 if self._durable else broker.epoch
        if (ticket.id, place[1]) in self._known:
            self._world.hit("run of a schedule is sent again")
            return
        self._known.add((ticket.id, place[1]))
        self._world.hit("schedule runs" if spec.every_ms else "cron schedule runs")
        last_ns = self._last.get(place)
        if last_ns is not None:
            self._check_step(spec, ticket, last_ns, due_ns, wall_of(broker))
        # It may wait for a worker while somebody sets the clock back.
        latest_ns = max(broker.wall_most_ns, wall_of(broker))
        if spec.cron and due_ns > latest_ns + SECOND:
            raise _fail("I17", f"due at {due_ns}, and it never was later than {latest_ns}", ticket)
        if self._world.now > self.paused_ns:
            raise _fail("I16", "a run of a schedule that is paused", ticket)
        waits = spec.overlap == "queue" and last_ns is not None
        self._last[place] = max(due_ns, last_ns or 0) if waits else due_ns
        others, self._runs[key] = self._runs[key], [*self._runs[key][-5:], ticket]
        if spec.overlap == "queue":
            return
        for other in others:
            running = [run for run in other.runs if run.end_ns is None]
            if running and self._is_held(other, broker.epoch):
                text = f"run of {spec.name} while {running[-1]} goes on ({spec.overlap})"
                raise _fail("I7", text, ticket)

    def _is_held(self, other: Ticket, epoch: int) -> bool:
        """Whether the broker counts on its attempt. One without a journal knows of no earlier."""
        sent = other.sent[-1]
        return not sent.given_up and (self._durable or sent.epoch == epoch)

    def _check_step(
        self, spec: m.Schedule, ticket: Ticket, last_ns: int, due_ns: int, wall_ns: int
    ) -> None:
        """Each due time once, in order, whatever dies and however clocks are set."""
        was_set_back = spec.cron and last_ns - wall_ns > _SET_BACK_NS - SECOND
        # Those that wait in line may be sent to two agents in one turn.
        if due_ns <= last_ns and not was_set_back and spec.overlap != "queue":
            raise _fail("I4", f"due at {due_ns} after one at {last_ns}", ticket)
        if spec.every_ms and (due_ns - last_ns) % (spec.every_ms * MS):
            raise _fail("I17", f"{due_ns - last_ns} ns after the last", ticket)
        if spec.cron and due_ns % SECOND:
            raise _fail("I17", f"due at {due_ns}, which {spec.cron} never is", ticket)

    # --- The end of a seed ------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Of all schedules."""
        return [spec.name for spec in self._specs.values()]

    def soon(self) -> dict[bytes, tuple[int, int]]:
        """Those that come round soon: (how many runs there were, how long three rounds take)."""
        found: dict[bytes, tuple[int, int]] = {}
        for key, spec in self._specs.items():
            period_ns = spec.every_ms * MS if spec.every_ms else 5 * SECOND
            if period_ns <= _SOON_NS and (spec.every_ms or spec.cron.startswith("*/5 ")):
                # What is late or still runs leaves out a round.
                found[key] = self.count(key), 3 * period_ns + 15 * SECOND
        return found

    def count(self, key: bytes) -> int:
        """How many runs of a schedule were sent."""
        return sum(task_id[: len(key)] == key for task_id, _ in self._known)

    def check_goes_on(self, before: dict[bytes, tuple[int, int]], broker: BrokerNode) -> None:
        """I19: while an agent offers it, and nothing breaks, it runs."""
        for key, (count, _) in before.items():
            if self._specs[key].cron and broker.wall_ns:
                continue  # set back, the clock has to come to the next moment first
            self._world.checked["I19"] += 1
            if self.count(key) == count:
                raise Violation("I19", f"{self._specs[key]} does not run any more")


def _fail(invariant: str, text: str, ticket: Ticket) -> Violation:
    return Violation(invariant, f"{text}\n{ticket.story()}")
