"""Which agent gets which task: round-robin over those with credit, and work ahead only when short.

An agent with a free worker has credit. Beyond that it gets as much work ahead as its workers finish
in about ten milliseconds, of functions whose run time is known. Changes: queues' agents and lines,
agents' open attempts.
"""

from __future__ import annotations

from typing import Final

from evener_broker.lines import Queue
from evener_broker.records import UNTRIED, Agent, Credit, Function, Task
from evener_broker.tables import Tables
from evener_broker.transitions import Cause
from evener_wire import messages as m
from evener_wire.limits import (
    HELD_MAX,
    LOOKAHEAD_NS,
    LOOKAHEAD_TASKS_PER_SLOT,
    MILLISECOND_NS,
)

# What an attempt of a function that never ran counts as work in hand: nothing is sent ahead of it.
_CHARGE_UNKNOWN_NS: Final = LOOKAHEAD_NS

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

    # --- What agents can do -----------------------------------------------------------------------

    def offer(self, agent: Agent, offer: m.Offer) -> None:
        """Take note of what an agent's workers can do now."""
        tables = self._tables
        self.withdraw(agent)
        agent.slots = offer.slots
        agent.draining = offer.draining
        agent.lost = False
        agent.offered = True
        agent.queues = tuple(dict.fromkeys(offer.queues))
        if offer.functions is not None:
            for function in agent.functions:
                function.agents.discard(agent)
            functions: list[Function] = []
            for name, options in offer.functions:
                function = tables.function(name)
                function.agents.add(agent)
                if options is not None:
                    function.options = options
                functions.append(function)
            agent.functions = frozenset(functions)
        for name in agent.queues:
            queue = tables.queue(name)
            queue.agents.add(agent)
            queue.unserved_ns = None
            queue.warned = False
            queue.told.clear()
            queue.recount_common()
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
        for function in agent.functions:
            function.agents.discard(agent)
        agent.functions = frozenset()
        agent.queues = ()

    def refresh(self, agent: Agent) -> None:
        """Put an agent in the rotation that fits what it has in hand. After each change of that."""
        held = len(agent.open) + len(agent.orphans)
        slots = agent.slots
        if not agent.offered or agent.draining or agent.lost:
            credit = Credit.NONE
        elif held < slots:
            credit = Credit.IDLE
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
        for queue in self._tables.queues.values():
            if queue.count:
                if queue.idle:
                    self._to_idle(queue)
                # What is left now, none of the free workers can run.
                if queue.ahead and queue.count:
                    self._to_ahead(queue)

    def _to_idle(self, queue: Queue) -> None:
        now_ns = self._tables.now_ns
        idle = queue.idle
        misses = 0
        while queue.count and misses < len(idle):
            agent = next(iter(idle))
            task = queue.take(agent, now_ns)
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
                room = min(_room_ahead(task.function, agent) - 1, _STRETCH)
                self._assign([task, *queue.take_like(task, room)], agent)
            self.refresh(agent)

    def _assign(self, tasks: list[Task], agent: Agent) -> None:
        tables = self._tables
        move, run, open_tasks = tables.move, tables.outbox.run, agent.open
        for task in tasks:
            move(task, Cause.ASSIGN)
            task.fence += 1
            task.agent = agent
            task_id = task.id
            open_tasks[task_id] = task
            function = task.function
            charge_ns = task.charge_ns = function.estimate_ns or _CHARGE_UNKNOWN_NS
            agent.in_hand_ns += charge_ns
            tries = task.tries
            deadline_ms = 0
            if tries is not UNTRIED:
                tries.recalled = False
                if tries.deadline_ns:
                    # Rounded down: the agent's limit comes first, and ends the attempt cleanly.
                    deadline_ms = max(1, (tries.deadline_ns - tables.now_ns) // MILLISECOND_NS)
            timeout_ms = task.options.timeout_ms
            run(agent, (task_id, task.fence, function.name, task.payload, timeout_ms, deadline_ms))

    def close(self, task: Task) -> None:
        """The open attempt of a task ended, however it ended.

        Its agent may have credit again: the caller refreshes it, once for many.
        """
        agent = task.agent
        assert agent is not None
        del agent.open[task.id]
        agent.in_hand_ns -= task.charge_ns
        task.agent = None

    # --- For tests --------------------------------------------------------------------------------

    def check(self) -> None:
        """Every agent stands in the rotation that fits what it has in hand, and in no other."""
        for agent in self._tables.agents.values():
            before = agent.credit
            self.refresh(agent)
            assert agent.credit is before, (agent, before)
            for name in agent.queues:
                queue = self._tables.queues[name]
                assert (agent in queue.idle) == (agent.credit is Credit.IDLE), (agent, queue)
                assert (agent in queue.ahead) == (agent.credit is Credit.AHEAD), (agent, queue)


def _fits_ahead(task: Task, agent: Agent) -> bool:
    """Whether a task may be sent before a worker is free: it will not wait there for long."""
    return (
        _room_ahead(task.function, agent) > 0
        and task.tries.starts == 0
        and not task.options.at_most_once
    )


def _room_ahead(function: Function, agent: Agent) -> int:
    """How many tasks of a function an agent may get ahead of a free worker."""
    estimate_ns = function.estimate_ns
    if estimate_ns is None or estimate_ns > LOOKAHEAD_NS:
        return 0
    by_time = (agent.slots * LOOKAHEAD_NS - agent.in_hand_ns) // estimate_ns
    return min(by_time, _held_most(agent.slots) - agent.held())


def _held_most(slots: int) -> int:
    return min(slots * _HELD_PER_SLOT_MAX, _HELD_AHEAD_MAX)
