"""Everything the broker knows, in one place, and the one way in which a task changes its state.

Rules of this file: no decisions. The parts of the core (sessions, lifecycle, placing, recovery)
share one `Tables`; each states which tables it changes.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from evener_broker.commits import Commits
from evener_broker.effects import NoteAgent
from evener_broker.events import Peer
from evener_broker.lines import Queue
from evener_broker.logbook import LogBook
from evener_broker.outbox import Outbox
from evener_broker.records import UNTRIED, Agent, Client, Function, Session, Task
from evener_broker.schedule_records import Schedule
from evener_broker.shelves import Shelf
from evener_broker.timers import Timers
from evener_broker.transitions import TRANSITIONS, Cause, State
from evener_wire import messages as m
from evener_wire.limits import (
    BROKER_BYTES_MAX,
    BROKER_FUNCTIONS_MAX,
    BROKER_QUEUES_MAX,
    BROKER_TASKS_MAX,
    CLIENT_BYTES_MAX,
    CLIENT_TASKS_MAX,
    HEAD_BYTES_MAX,
    HELLOS_AT_ONCE,
    HELLOS_PER_SECOND,
    LETTER_BYTES_MAX,
    LETTERS_MAX,
    LETTERS_NS,
    RETAINED_BYTES_MAX,
    RETAINED_TASKS_MAX,
    RETENTION_NS,
    SECOND_NS,
)

# Transitions kept for stories. Larger: older stories, more memory.
_HISTORY_MAX: Final = 10_000

# How often functions that nobody needs any more are looked for at most: it walks over all tasks.
_SWEEP_NS: Final = 60 * SECOND_NS


class Bounds:
    """How much the broker takes. Tests and operators may set smaller ones."""

    def __init__(
        self,
        *,
        tasks: int = BROKER_TASKS_MAX,
        payload_bytes: int = BROKER_BYTES_MAX,
        client_tasks: int = CLIENT_TASKS_MAX,
        client_bytes: int = CLIENT_BYTES_MAX,
        retained_tasks: int = RETAINED_TASKS_MAX,
        retained_bytes: int = RETAINED_BYTES_MAX,
        letters: int = LETTERS_MAX,
        letter_bytes: int = LETTER_BYTES_MAX,
        retention_ns: int = RETENTION_NS,
        hellos_at_once: int = HELLOS_AT_ONCE,
        hellos_per_second: int = HELLOS_PER_SECOND,
    ) -> None:
        self.tasks: Final = tasks
        self.payload_bytes: Final = payload_bytes
        self.client_tasks: Final = client_tasks
        self.client_bytes: Final = client_bytes
        # Ends that their clients have, and that are kept for others; and those of them that went
        # wrong, with their calls.
        self.retained_tasks: Final = retained_tasks
        self.retained_bytes: Final = retained_bytes
        self.letters: Final = letters
        self.letter_bytes: Final = letter_bytes
        # How long ends are kept that nobody fetches.
        self.retention_ns: Final = retention_ns
        # How many peers it takes in.
        self.hellos_at_once: Final = hellos_at_once
        self.hellos_per_second: Final = hellos_per_second


class Tables:
    """The state of a broker. `now_ns` is the time of the step, `live_ns` leaves out its pauses."""

    def __init__(
        self, broker: bytes, epoch: int, rng: random.Random, bounds: Bounds, *, durable: bool
    ) -> None:
        self.broker: Final = broker
        self.epoch: Final = epoch
        # The fence of a task before its first attempt.
        self.first_fence: Final = m.fence_of(epoch, 0)
        self.rng: Final = rng
        self.bounds: Final = bounds
        self.now_ns = 0
        self.live_ns = 0
        # What the wall clock is ahead of `now_ns`, once it was heard of: for schedules alone.
        self.wall_ahead_ns: int | None = None
        self.tasks: Final[dict[bytes, Task]] = {}
        self.functions: Final[dict[str, Function]] = {}
        self.queues: Final[dict[str, Queue]] = {}
        self.clients: Final[dict[bytes, Client]] = {}
        self.agents: Final[dict[bytes, Agent]] = {}
        # Those that have more in hand than they can run at a time.
        self.ahead: Final[set[Agent]] = set()
        self.schedules: Final[dict[str, Schedule]] = {}
        self.sessions: Final[dict[Peer, Session]] = {}
        self.timers: Final = Timers()
        self.counters: Final[Counter[str]] = Counter()
        self.commits: Final = Commits(durable=durable)
        self.outbox: Final = Outbox(LogBook(self.counters))
        # Whether a broker that comes after us can learn from notes which agents there were.
        self.notes_agents = False
        self.waiting: Final = self.outbox.waiting
        self.accepted = 0
        # How much memory the process takes, while that is more than it may.
        self.memory_short = ""
        self.open_tasks = 0
        # Messages of peers that have had their share of the time, as the shell says.
        self.put_off = 0
        # Payload bytes of all tasks, open and ended, but for those that are retained.
        self.bytes = 0
        # Ended tasks that their clients have: how many, and where they are kept.
        self.retained = 0
        self.results: Final = Shelf(
            bounds.retained_tasks, bounds.retained_bytes, bounds.retention_ns
        )
        self.letters: Final = Shelf(bounds.letters, bounds.letter_bytes, LETTERS_NS)
        self._swept_ns = -_SWEEP_NS
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

    def held_tasks(self) -> int:
        """How many tasks count towards the bound: the retained make room by themselves."""
        return len(self.tasks) - self.retained

    def is_roomy(self, client: Client, tasks: int) -> bool:
        """Whether so many tasks with payloads inside one head fit for sure, one by one unasked."""
        bounds = self.bounds
        return (
            client.open_tasks + client.ended_tasks + tasks <= bounds.client_tasks
            and client.bytes + HEAD_BYTES_MAX <= bounds.client_bytes
            and self.held_tasks() + tasks <= bounds.tasks
            and self.bytes + HEAD_BYTES_MAX <= bounds.payload_bytes
            and self.commits.is_roomy(tasks)
            and not self.memory_short
        )

    def is_over(self, client: Client) -> bool:
        """Whether results have outgrown the bounds. It gets no more of them until it took some.

        Calls alone never do: what they would outgrow is not accepted.
        """
        bounds = self.bounds
        return client.bytes > bounds.client_bytes or self.bytes > bounds.payload_bytes

    def relieve(self, client: Client) -> None:
        """It has less here than before."""
        if client.paused and not (client.ended_tasks and self.is_over(client)):
            client.paused = False

    def has_room_for(self, function: Function, queue: str) -> bool:
        """Whether a task may bring along names that are not known yet."""
        return self.may_know_function(function.name) and self.may_know_queue(queue)

    def may_know_function(self, name: str) -> bool:
        """Whether a function is known, or there is room for one more."""
        if name in self.functions or len(self.functions) < BROKER_FUNCTIONS_MAX:
            return True
        if self.now_ns >= self._swept_ns + _SWEEP_NS:
            self._swept_ns = self.now_ns
            wanted = {task.function for task in self.tasks.values()}
            for function in list(self.functions.values()):
                if not function.agents and function not in wanted:
                    del self.functions[function.name]
        return len(self.functions) < BROKER_FUNCTIONS_MAX

    def may_know_queue(self, name: str) -> bool:
        """Whether a queue is known, or there is room for one more."""
        if name in self.queues or len(self.queues) < BROKER_QUEUES_MAX:
            return True
        for other, unused in list(self.queues.items()):
            if not unused.count and not unused.agents:
                del self.queues[other]
        return len(self.queues) < BROKER_QUEUES_MAX

    def agent_came(self, agent: Agent) -> None:
        """An agent may hold work from now on: a broker that comes after us must ask for it."""
        self.commits.agent_came(agent)
        if self.notes_agents:
            self.outbox.perform(NoteAgent(agent.instance))

    def agent_gone(self, instance: bytes) -> None:
        """An agent got its verdict, or did not come to a broker that waited for it."""
        self.commits.agent_gone(instance)
        if self.notes_agents:
            self.outbox.perform(NoteAgent(instance, gone=True))

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
        mine_still = [t for t in self.tasks.values() if not t.taken]
        untold = set(self.commits.untold())
        ended = [t for t in mine_still if not TRANSITIONS[t.state] and t not in untold]
        assert self.open_tasks == len(open_tasks), (self.open_tasks, len(open_tasks))
        assert self.bytes == sum(t.size() for t in mine_still)
        for client in self.clients.values():
            mine = [t for t in open_tasks if t.client is client]
            assert client.open_tasks == len(mine), (client, len(mine))
            size = sum(t.size() for t in mine_still if t.client is client)
            assert client.bytes == size, (client, client.bytes, size)
            told = [task for _, tasks in client.flights for task in tasks]
            assert len(client.flight_sizes) == len(client.flights), client
            assert client.flight_bytes == sum(client.flight_sizes), client
            assert client.ended_tasks or not client.paused, client
            waits = sum(t.client is client for t in untold)
            assert client.ended_tasks == len(client.outgoing) + len(told) + waits, client
            assert {*client.outgoing, *told} == {t for t in ended if t.client is client}
        for agent in self.agents.values():
            assert agent.in_hand_ns == sum(t.charge_ns for t in agent.open.values())
            for task_id, task in agent.open.items():
                assert task.id == task_id, (agent, task)
                assert task.agent is agent, (agent, task)
                assert task.state in (State.ASSIGNED, State.RUNNING), task
            assert not agent.open.keys() & agent.orphans.keys()
        of_functions = Counter(task.function for task in open_tasks)
        for function in self.functions.values():
            open_ones = function.accepted - function.ended
            assert open_ones == of_functions[function], (function, open_ones)
        for client in self.clients.values():
            assert all(self.tasks[task_id].agent is not None for task_id in client.streams)
            for task_id, report in client.reports.items():
                task = self.tasks[task_id]
                assert task.client is client, (client, task)
                assert task.agent is not None, task
                assert task.fence == report.fence, task
        self.outbox.forwarding.check(self.clients.values())
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
