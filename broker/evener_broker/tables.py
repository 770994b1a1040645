"""Everything the broker knows, in one place, and the one way in which a task changes its state.

Rules of this file: no decisions. The parts of the core (sessions, lifecycle, placing, recovery)
share one `Tables`; each states which tables it changes.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from evener_broker.events import Peer
from evener_broker.lines import Queue
from evener_broker.outbox import Outbox
from evener_broker.records import UNTRIED, Agent, Client, Function, Session, Task
from evener_broker.timers import Timers
from evener_broker.transitions import TRANSITIONS, Cause, State
from evener_wire import messages as m
from evener_wire.limits import (
    BROKER_BYTES_MAX,
    BROKER_QUEUES_MAX,
    BROKER_TASKS_MAX,
    CLIENT_BYTES_MAX,
    CLIENT_TASKS_MAX,
    HEAD_BYTES_MAX,
)

# Transitions kept for stories. Larger: older stories, more memory.
_HISTORY_MAX: Final = 10_000

# Names of functions the broker remembers. More: clients that make up names cost more memory.
_FUNCTIONS_MAX: Final = 100_000


class Bounds:
    """How much the broker takes. Tests and operators may set smaller ones."""

    def __init__(
        self,
        *,
        tasks: int = BROKER_TASKS_MAX,
        payload_bytes: int = BROKER_BYTES_MAX,
        client_tasks: int = CLIENT_TASKS_MAX,
        client_bytes: int = CLIENT_BYTES_MAX,
    ) -> None:
        self.tasks: Final = tasks
        self.payload_bytes: Final = payload_bytes
        self.client_tasks: Final = client_tasks
        self.client_bytes: Final = client_bytes


class Tables:
    """The state of a broker. `now_ns` is the time of the step, `live_ns` leaves out its pauses."""

    def __init__(self, broker: bytes, epoch: int, rng: random.Random, bounds: Bounds) -> None:
        self.broker: Final = broker
        self.epoch: Final = epoch
        # The fence of a task before its first attempt.
        self.first_fence: Final = m.fence_of(epoch, 0)
        self.rng: Final = rng
        self.bounds: Final = bounds
        self.now_ns = 0
        self.live_ns = 0
        self.tasks: Final[dict[bytes, Task]] = {}
        self.functions: Final[dict[str, Function]] = {}
        self.queues: Final[dict[str, Queue]] = {}
        self.clients: Final[dict[bytes, Client]] = {}
        self.agents: Final[dict[bytes, Agent]] = {}
        self.sessions: Final[dict[Peer, Session]] = {}
        self.timers: Final = Timers()
        self.outbox: Final = Outbox()
        self.counters: Final[Counter[str]] = Counter()
        self.accepted = 0
        self.open_tasks = 0
        # Payload bytes of all tasks, open and ended.
        self.bytes = 0
        self._history: deque[tuple[int, bytes, State, Cause]] = deque(maxlen=_HISTORY_MAX)

    def function(self, name: str) -> Function:
        """The record of a function, made when first heard of."""
        function = self.functions.get(name)
        if function is None:
            function = self.functions[name] = Function(name)
        return function

    def queue(self, name: str) -> Queue:
        """The record of a queue, made when first heard of."""
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name)
        return queue

    def is_roomy(self, client: Client, tasks: int) -> bool:
        """Whether so many tasks with payloads inside one head fit for sure, one by one unasked."""
        bounds = self.bounds
        return (
            client.open_tasks + client.ended_tasks + tasks <= bounds.client_tasks
            and client.bytes + HEAD_BYTES_MAX <= bounds.client_bytes
            and len(self.tasks) + tasks <= bounds.tasks
            and self.bytes + HEAD_BYTES_MAX <= bounds.payload_bytes
        )

    def has_room_for(self, function: Function, queue: str) -> bool:
        """Whether a task may bring along names that are not known yet."""
        if len(self.functions) >= _FUNCTIONS_MAX and function.name not in self.functions:
            return False
        if queue in self.queues or len(self.queues) < BROKER_QUEUES_MAX:
            return True
        for name, unused in list(self.queues.items()):
            if not unused.count and not unused.agents:
                del self.queues[name]
        return len(self.queues) < BROKER_QUEUES_MAX

    def move(self, task: Task, cause: Cause) -> None:
        """Take a task to its next state; the only place where `Task.state` changes."""
        before = task.state
        task.state = TRANSITIONS[before][cause]
        now_ns = task.since_ns = self.now_ns
        self._history.append((now_ns, task.id, before, cause))

    def story(self, task_id: bytes) -> Iterator[str]:
        """What happened to a task, as far back as the history goes, one line each."""
        for at_ns, subject, before, cause in self._history:
            if subject == task_id:
                yield f"{at_ns / 1e9:.6f} {before.value} -- {cause.value}"

    def check(self) -> None:
        """Recount all redundant state. Raises AssertionError with the difference."""
        open_tasks = [t for t in self.tasks.values() if TRANSITIONS[t.state]]
        ended = [t for t in self.tasks.values() if not TRANSITIONS[t.state]]
        assert self.open_tasks == len(open_tasks), (self.open_tasks, len(open_tasks))
        assert self.bytes == sum(len(t.payload) for t in self.tasks.values())
        for client in self.clients.values():
            mine = [t for t in open_tasks if t.client is client]
            assert client.open_tasks == len(mine), (client, len(mine))
            size = sum(len(t.payload) for t in self.tasks.values() if t.client is client)
            assert client.bytes == size, (client, client.bytes, size)
            told = [task for _, tasks in client.flights for task in tasks]
            assert client.ended_tasks == len(client.outgoing) + len(told), client
            assert {*client.outgoing, *told} == {t for t in ended if t.client is client}
        for agent in self.agents.values():
            assert agent.in_hand_ns == sum(t.charge_ns for t in agent.open.values())
            for task_id, task in agent.open.items():
                assert task.id == task_id, (agent, task)
                assert task.agent is agent, (agent, task)
                assert task.state in (State.ASSIGNED, State.RUNNING), task
            assert not agent.open.keys() & agent.orphans.keys()
        assert all(getattr(UNTRIED, name) in (0, None) for name in UNTRIED.__slots__)
        for task in open_tasks:
            held = task.state in (State.ASSIGNED, State.RUNNING)
            assert held == (task.agent is not None), task
            assert task.agent is None or task.agent.open[task.id] is task
        self._check_queues([t for t in open_tasks if t.state is State.QUEUED])

    def _check_queues(self, queued: list[Task]) -> None:
        for queue in self.queues.values():
            waiting = list(queue.tasks())
            assert queue.count == len(waiting), (queue, len(waiting))
            assert set(waiting) == {t for t in queued if t.options.queue == queue.name}
            assert {level.priority for level in queue.busy} == {t.options.priority for t in waiting}
            for level in queue.levels:
                assert level.count == sum(lane.count for lane in level.lanes.values())
            agents = {a for a in self.agents.values() if queue.name in a.queues and not a.lost}
            assert queue.agents == agents, (queue, agents)
            assert not queue.idle.keys() & queue.ahead.keys()
            assert queue.idle.keys() | queue.ahead.keys() <= agents
