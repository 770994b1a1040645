"""Which agent gets which task: round-robin over those with credit, and work ahead only when short.

An agent with a free worker has credit. Beyond that it gets as much work ahead as its workers finish
in about ten milliseconds, of functions whose run time is known. Changes: queues' agents and lines,
agents' open attempts.
"""

from __future__ import annotations

from typing import Final

from evener_broker.lines import Queue
from evener_broker.records import UNTRIED, Agent, Credit, Function, Task
from evener_broker.room import Fitting, give_share, has_room, spared_by, take_share
from evener_broker.room import check as check_room
from evener_broker.tables import Tables
from evener_broker.transitions import Cause
from evener_wire import messages as m
from evener_wire.limits import (
    HELD_MAX,
    KIB,
    LOOKAHEAD_NS,
    LOOKAHEAD_TASKS_PER_SLOT,
    MILLISECOND_NS,
)

# What an attempt of a function that never ran counts as work in hand: nothing is sent ahead of it.
_CHARGE_UNKNOWN_NS: Final = LOOKAHEAD_NS

# Beside its run time an attempt is charged for each KiB of its call: 8 ns a byte, as a network of a
# gigabit takes. So work ahead is bounded in bytes, and nobody waits long behind what is being sent.
_CHARGE_PER_KIB_NS: Final = 8 * KIB

# Like tasks that go to one agent before the next has its turn, when they go ahead of free workers.
# More: cheaper. Fewer: spread more evenly over hosts.
_STRETCH: Final = 64

# Work ahead is offered to so many agents that have no room for it, before it waits for a result.
_AHEAD_MISSES_MAX: Final = 8

_HELD_PER_SLOT_MAX: Final = 1 + LOOKAHEAD_TASKS_PER_SLOT

# Half of what an agent can report when it comes back: the other half is for its results.
_HELD_AHEAD_MAX: Final = HELD_MAX // 2


class Placing:
    """Caller: the broker core."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._fitting = Fitting()
        # Agents that have several queues, and functions with shares.
        self._of_both: dict[Agent, None] = {}

    # --- What agents can do -----------------------------------------------------------------------

    def offer(self, agent: Agent, offer: m.Offer) -> None:
        """Take note of what an agent's workers can do now."""
        tables = self._tables
        self.withdraw(agent)
        agent.slots = offer.slots
        agent.draining = offer.draining
        agent.lost = False
        agent.offered = True
        cut = 0
        names: list[str] = []
        for name in dict.fromkeys(offer.queues):
            if tables.may_know_queue(name):
                tables.queue(name).agents.add(agent)
                names.append(name)
            else:
                cut += 1
        agent.queues = tuple(names)
        if offer.functions is not None:
            for function in agent.functions:
                function.agents.discard(agent)
            functions: list[Function] = []
            for name, options in offer.functions:
                if not tables.may_know_function(name):
                    cut += 1
                    continue
                function = tables.function(name)
                function.agents.add(agent)
                if options is not None:
                    function.options = options
                functions.append(function)
            agent.functions = frozenset(functions)
            agent.shares = {
                tables.functions[name]: spared_by(at_once)
                for name, at_once in offer.shares
                if at_once > 1 and tables.functions.get(name) in agent.functions
            }
        if agent.shares and len(agent.queues) > 1:
            self._of_both[agent] = None
        else:
            self._of_both.pop(agent, None)
        for name in agent.queues:
            queue = tables.queue(name)
            queue.unserved_ns = None
            queue.warned = False
            queue.told.clear()
            queue.recount_common()
        if cut:
            # Whoever made up so many: others must not lose the broker by it.
            tables.counters["names_left_out"] += cut
            text = f"agent {agent.name}: {cut} queues or functions more than the broker can hold"
            tables.outbox.log("warning", text, agent.instance)
        self.refresh(agent)

    def withdraw(self, agent: Agent) -> None:
        """The agent gets no more work, until its next offer."""
        for name in agent.queues:
            queue = self._tables.queue(name)
            queue.agents.discard(agent)
            queue.idle.pop(agent, None)
            queue.ahead.pop(agent, None)
            queue.recount_common()
        agent.credit = Credit.NONE

    def forget(self, agent: Agent) -> None:
        """The agent is gone for good."""
        self.withdraw(agent)
        self._tables.ahead.discard(agent)
        for function in agent.functions:
            function.agents.discard(agent)
        agent.functions = frozenset()
        agent.queues = ()
        self._of_both.pop(agent, None)

    def refresh(self, agent: Agent) -> None:
        """Put an agent in the rotation that fits what it has in hand. After each change of that."""
        held = len(agent.open) + len(agent.orphans)
        slots = agent.slots
        ahead = self._tables.ahead
        if held > slots:
            ahead.add(agent)
        elif ahead:
            ahead.discard(agent)
        if not agent.offered or agent.draining or agent.lost:
            credit = Credit.NONE
        elif held < slots:
            credit = Credit.IDLE
        elif agent.shared:
            # Whoever waits runs long: nothing goes ahead of it.
            credit = Credit.IDLE if held < _HELD_AHEAD_MAX and has_room(agent) else Credit.NONE
        elif agent.in_hand_ns < slots * LOOKAHEAD_NS and held < _held_most(slots):
            credit = Credit.AHEAD
        else:
            credit = Credit.NONE
        if credit is agent.credit:
            return
        agent.credit = credit
        for name in agent.queues:
            queue = self._tables.queues[name]
            queue.idle.pop(agent, None)
            queue.ahead.pop(agent, None)
            if credit is Credit.IDLE:
                queue.idle[agent] = None
            elif credit is Credit.AHEAD:
                queue.ahead[agent] = None

    # --- Handing out ------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Hand out what can be handed out now."""
        self._fitting.freed = False
        self._dispatch()
        if self._fitting.freed:
            self._dispatch()

    def _reserve(self) -> None:
        """Before shares of one queue go to an agent: does the head of another need all of it?"""
        now_ns, queues = self._tables.now_ns, self._tables.queues
        for agent in self._of_both:
            if agent.shared and agent.reserved is None and agent.credit is Credit.IDLE:
                for name in agent.queues:
                    if queues[name].count and agent.reserved is None:
                        queues[name].take(agent, now_ns, self._fitting.probe(queues[name]))

    def _dispatch(self) -> None:
        if self._of_both:
            self._reserve()
        for queue in self._tables.queues.values():
            if queue.count:
                if queue.idle:
                    self._to_idle(queue)
                # What is left now, none of the free workers can run.
                if queue.ahead and queue.count:
                    self._to_ahead(queue)

    def _to_idle(self, queue: Queue) -> None:
        now_ns = self._tables.now_ns
        fitting = self._fitting
        idle = queue.idle
        misses = 0
        while queue.count and misses < len(idle):
            agent = next(iter(idle))
            mixes = agent.shares or agent.shared
            task = queue.take(agent, now_ns, fitting.of(queue, agent) if mixes else None)
            idle.move_to_end(agent)
            if task is None:
                misses += 1
            else:
                misses = 0
                self._assign([task], agent)
                self.refresh(agent)

    def _to_ahead(self, queue: Queue) -> None:
        now_ns = self._tables.now_ns
        ahead = queue.ahead
        misses = 0
        while queue.count and misses < min(len(ahead), _AHEAD_MISSES_MAX):
            agent = next(iter(ahead))
            task = queue.take(agent, now_ns, _fits_ahead)
            ahead.move_to_end(agent)
            if task is None:
                misses += 1
            else:
                misses = 0
                room = min(_room_ahead(task, agent) - 1, _STRETCH)
                self._assign([task, *queue.take_like(task, room)], agent)
            self.refresh(agent)

    def _assign(self, tasks: list[Task], agent: Agent) -> None:
        tables = self._tables
        move, open_tasks, commits = tables.move, agent.open, tables.commits
        run, is_unnamed = tables.outbox.run, agent.txn > commits.committed
        shares = agent.shares
        first = tasks[0]
        if first.fence == tables.first_fence:
            # The others were in line beside it, for the same function.
            waited_us = (tables.now_ns - first.since_ns) // 1_000
            first.function.waits.note(waited_us, len(tasks))
        for task in tasks:
            move(task, Cause.ASSIGN)
            task.fence += 1
            task.agent = agent
            task_id = task.id
            open_tasks[task_id] = task
            function = task.function
            if shares and function in shares:
                take_share(agent, task)
            charge_ns = function.estimate_ns or _CHARGE_UNKNOWN_NS
            size = len(task.payload)
            if size >= KIB:
                charge_ns += size // KIB * _CHARGE_PER_KIB_NS
            task.charge_ns = charge_ns
            agent.in_hand_ns += charge_ns
            if task.tries is not UNTRIED:
                task.tries.begin()
            if commits.durable and task.options.at_most_once and not task.tries.dispatched:
                # Whether it was dispatched must be known also to a broker that comes after us.
                task.own_tries().dispatched = True
                commits.tried(task)
            if is_unnamed or task.txn > commits.committed:
                assert agent.session is not None
                task.txn = max(task.txn, agent.txn)  # until then it may be called back
                commits.run(task, agent, agent.session)
            elif task.tries is UNTRIED:
                # As `send`, whose call costs as much as the rest of this.
                timeout_ms = task.options.timeout_ms
                run(agent, (task_id, task.fence, function.name, task.payload, timeout_ms, 0))
            else:
                self.send(task, agent)

    def send(self, task: Task, agent: Agent) -> None:
        """Send the open attempt of a task to its agent."""
        tries, deadline_ms = task.tries, 0
        if tries is not UNTRIED and tries.deadline_ns:
            # Rounded down: the agent's limit comes first, and ends the attempt cleanly.
            left_ns = tries.deadline_ns - self._tables.now_ns
            deadline_ms = max(1, left_ns // MILLISECOND_NS)
        timeout_ms = task.options.timeout_ms
        item = task.id, task.fence, task.function.name, task.payload, timeout_ms, deadline_ms
        self._tables.outbox.run(agent, item)

    def close(self, task: Task) -> None:
        """The open attempt of a task ended, however it ended.

        Its agent may have credit again: the caller refreshes it, once for many.
        """
        agent = task.agent
        assert agent is not None
        del agent.open[task.id]
        if agent.shared:
            give_share(agent, task.id)
        client = task.client
        if client.reports or client.streams:
            client.reports.pop(task.id, None)
            client.streams.pop(task.id, None)
        agent.in_hand_ns -= task.charge_ns
        task.agent = None

    # --- For tests --------------------------------------------------------------------------------

    def check(self) -> None:
        """Every agent stands in the rotation that fits what it has in hand, and in no other."""
        agents = self._tables.agents.values()
        assert self._tables.ahead == {agent for agent in agents if agent.held() > agent.slots}
        for agent in self._tables.agents.values():
            check_room(agent)
            before = agent.credit
            self.refresh(agent)
            assert agent.credit is before, (agent, before)
            for name in agent.queues:
                queue = self._tables.queues[name]
                assert (agent in queue.idle) == (agent.credit is Credit.IDLE), (agent, queue)
                assert (agent in queue.ahead) == (agent.credit is Credit.AHEAD), (agent, queue)


def _fits_ahead(task: Task, agent: Agent) -> bool:
    """Whether a task may be sent before a worker is free: it will not wait there for long."""
    return _room_ahead(task, agent) > 0 and task.tries.starts == 0 and not task.options.at_most_once


def _room_ahead(task: Task, agent: Agent) -> int:
    """How many tasks like this one an agent may get ahead of a free worker."""
    estimate_ns = task.function.estimate_ns
    if estimate_ns is None or estimate_ns > LOOKAHEAD_NS or task.function in agent.shares:
        return 0
    charge_ns = estimate_ns + (len(task.payload) // KIB * _CHARGE_PER_KIB_NS)
    by_time = (agent.slots * LOOKAHEAD_NS - agent.in_hand_ns) // charge_ns
    return min(by_time, _held_most(agent.slots) - agent.held())


def _held_most(slots: int) -> int:
    return min(slots * _HELD_PER_SLOT_MAX, _HELD_AHEAD_MAX)
