"""A world whose wall clock is told, schedules to offer in it, and what agents do with the runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgpack

from evener_broker.events import WallClock
from evener_broker.schedule_records import Schedule
from evener_wire import messages as m
from evener_wire.limits import MILLISECOND_NS, SECOND_NS
from tests.unit.broker.fake_journal import FakeJournal
from tests.unit.broker.world import CALL, START_NS, Agent, World

MINUTE_MS = 60_000
NAME = "demo.clean"

# What the wall clock says when the world begins.
DAWN_NS = int(datetime(2030, 5, 1, 12, 0, 30, tzinfo=UTC).timestamp()) * SECOND_NS


def every(ms: int = MINUTE_MS, **changes: Any) -> m.Schedule:
    return m.Schedule(NAME, NAME, ms, "", "", "skip", "once", 0, CALL)._replace(**changes)


def cron(expression: str = "* * * * *", **changes: Any) -> m.Schedule:
    found = m.Schedule(NAME, NAME, 0, expression, "UTC", "skip", "once", 0, CALL)
    return found._replace(**changes)


class Clock:
    """A world whose wall clock is told once a second, as the shell does."""

    def __init__(self, journal: FakeJournal | None = None) -> None:
        self.world = World(journal=journal)
        self.ahead_ns = DAWN_NS - START_NS
        self.tell()

    def tell(self) -> None:
        self.world.turn(WallClock(self.world.now_ns + self.ahead_ns))

    def pass_s(self, seconds: float) -> None:
        end_ns = self.world.now_ns + int(seconds * SECOND_NS)
        step_ns = SECOND_NS if seconds < 600 else 60 * SECOND_NS
        while self.world.now_ns < end_ns:
            left_ns = end_ns - self.world.now_ns
            self.world.pass_ms(min(left_ns, step_ns) / MILLISECOND_NS)
            self.tell()

    def set_by(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.ahead_ns += int(seconds * SECOND_NS)
        self.tell()

    def agent(self, *schedules: m.Schedule, name: str = "agent", slots: int = 2) -> Agent:
        agent = Agent(self.world, name)
        agent.slots = slots
        agent.functions = [(NAME, None)]
        agent.schedules = schedules
        agent.hello()
        agent.offer(held=())
        return agent

    def schedule(self, name: str = NAME) -> Schedule:
        return self.world.core.tables.schedules[name]

    def ask(self, name: str, wish: str) -> tuple[bool, Any]:
        client = self.world.client("asker")
        told = client.say(m.Query(1, "schedule", {"name": name, "do": wish}))
        (answer,) = [message for _, message in told if type(message) is m.Answer]
        body = answer.body.buffers[0] if type(answer.body) is m.Frames else answer.body
        assert not isinstance(body, m.Frames)
        return answer.ok, msgpack.unpackb(body)


def ids(*agents: Agent) -> list[bytes]:
    return [task_id for agent in agents for task_id in agent.hand]


def end(agent: Agent, outcome: int = m.DONE) -> None:
    """All that it has in hand ends."""
    items = [(i[0], i[1], outcome, b"", 100, None) for i in agent.hand.values()]
    agent.hand.clear()
    agent.say(m.Result(items))
