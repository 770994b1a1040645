"""Which agent gets which task: round-robin over those with credit, and work ahead only when short.

An agent with a free worker has credit. Beyond that it gets as much work ahead as its workers finish
in about ten milliseconds, of functions whose run time is known. Changes: queues' agents and lines,
agents' open attempts.
"""

from __future__ import annotations

from typing import Final

from evener_broker.lines import Queue
from evener_broker.records import Agent, Function, Task
from evener_broker.tables import Tables
from evener_broker.transitions import Cause
from evener_wire import messages as m
from evener_wire.limits import (
    LOOKAHEAD_NS,
    LOOKAHEAD_TASKS_PER_SLOT,
    MILLISECOND_NS,
)

# What an attempt takes of a worker's time at least: hand-over and result.
_CHARGE_MIN_NS: Final = 5_000


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
        able = agent.session is not None and not agent.draining and not agent.lost
        idle = able and held < agent.slots
        ahead = (
            able
            and not idle
            and agent.in_hand_ns < agent.slots * LOOKAHEAD_NS
            and held < agent.slots * (1 + LOOKAHEAD_TASKS_PER_SLOT)
        )
        for name in agent.queues:
            queue = self._tables.queues[name]
            if idle != (agent in queue.idle):
                if idle:
                    queue.idle[agent] = None
                else:
                    del queue.idle[agent]
            if ahead != (agent in queue.ahead):
                if ahead:
                    queue.ahead[agent] = None
                else:
                    del queue.ahead[agent]

    # --- Handing out ------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Hand out what can be handed out now."""
        for queue in self._tables.queues.values():
            if queue.count:
                if queue.idle:
                    self._to_idle(queue)
                if queue.ahead and queue.count and not queue.idle:
                    self._to_ahead(queue)

    def _to_idle(self, queue: Queue) -> None:
        now_ns = self._tables.now_ns
        idle = queue.idle
        misses = 0
        while queue.count and misses < len(idle):
            agent = next(iter(idle))
            found = queue.next_for(agent, now_ns)
            idle.move_to_end(agent)
            if found is None:
                misses += 1
                continue
            misses = 0
            lane, line, task = found
            queue.take(lane, line)
            self._assign(task, agent)

    def _to_ahead(self, queue: Queue) -> None:
        now_ns = self._tables.now_ns
        ahead = queue.ahead
        misses = 0
        while queue.count and misses < len(ahead):
            agent = next(iter(ahead))
            found = queue.next_for(agent, now_ns)
            ahead.move_to_end(agent)
            if found is None or not self._fits_ahead(found[2], agent):
                misses += 1
                continue
            misses = 0
            lane, line, task = found
            queue.take(lane, line)
            self._assign(task, agent)

    def _fits_ahead(self, task: Task, agent: Agent) -> bool:
        estimate_ns = task.function.estimate_ns
        return (
            estimate_ns is not None
            and estimate_ns <= LOOKAHEAD_NS
            and not task.options.at_most_once
            and task.starts == 0
            and agent.in_hand_ns + estimate_ns <= agent.slots * LOOKAHEAD_NS
        )

    def _assign(self, task: Task, agent: Agent) -> None:
        tables = self._tables
        tables.move(task, Cause.ASSIGN)
        task.attempts += 1
        fence = task.fence = m.fence_of(tables.epoch, task.attempts)
        task.agent = agent
        task.recalled = False
        estimate_ns = task.function.estimate_ns
        task.charge_ns = _CHARGE_MIN_NS if estimate_ns is None else max(estimate_ns, _CHARGE_MIN_NS)
        agent.in_hand_ns += task.charge_ns
        agent.open[task.id] = task
        options = task.options
        deadline_ms = 0
        if options.deadline_ms:
            deadline_ms = max(1, (task.deadline_ns - tables.now_ns) // MILLISECOND_NS)
        tables.outbox.run(
            agent,
            (task.id, fence, task.function.name, task.payload, options.timeout_ms, deadline_ms),
        )
        self.refresh(agent)

    def close(self, task: Task) -> None:
        """The open attempt of a task ended, however it ended: its agent has room again."""
        agent = task.agent
        assert agent is not None
        del agent.open[task.id]
        agent.in_hand_ns -= task.charge_ns
        task.agent = None
        task.charge_ns = 0
        self.refresh(agent)
