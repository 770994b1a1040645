"""How much of an agent's workers its attempts take, where some of them take only a part of one.

In units, `WORKER_UNITS` to a worker. An attempt takes a whole worker, but for those of functions
that the agent offers with a share: what these leave is kept as `Agent.shared`, and its sum as
`Agent.spared`, so that a task without a share costs the hot path nothing. Rules of this file: sums
over one agent; who gets what is decided in `placing.py`. Changes: `Agent.shared`, `Agent.spared`.

Attempts with a share stand side by side in one worker, and never beside one that takes it whole.
The agent puts them where others are, so here they count as if they stood as close as they can.
After some of them ended they may not: then a task that needs a whole worker waits at the agent, is
late, and is recalled if another agent has one (`watching.py`). Orphans, whose function nobody here
knows, count as whole workers until their clients come.
"""

from __future__ import annotations

from evener_broker.lines import Fits, Queue
from evener_broker.records import Agent, Task
from evener_wire.limits import WORKER_UNITS


def spared_by(at_once: int) -> int:
    """What an attempt leaves of its worker, where so many run at once."""
    return WORKER_UNITS - WORKER_UNITS // at_once


def take_share(agent: Agent, task: Task) -> None:
    """An attempt of a function that this agent offers with a share was opened."""
    spared = agent.shares[task.function]
    agent.shared[task.id] = spared
    agent.spared += spared


def give_share(agent: Agent, task_id: bytes) -> None:
    """An attempt ended, at an agent that has some with shares."""
    agent.spared -= agent.shared.pop(task_id, 0)


def used_units(agent: Agent) -> int:
    """What its attempts take, all together."""
    return agent.held() * WORKER_UNITS - agent.spared


def has_room(agent: Agent) -> bool:
    """Whether something is left of its workers, be it for a share or for a whole task."""
    return used_units(agent) < agent.slots * WORKER_UNITS


def free_workers(agent: Agent) -> int:
    """Workers without any attempt, if those with shares stand as close as they can."""
    alone = agent.held() - len(agent.shared)
    of_shared = len(agent.shared) * WORKER_UNITS - agent.spared
    return agent.slots - alone + -of_shared // WORKER_UNITS


def fits(task: Task, agent: Agent) -> bool:
    """Whether there is room for one more attempt: of this task."""
    spared = agent.shares.get(task.function)
    if spared is None:
        return free_workers(agent) > 0
    return used_units(agent) + WORKER_UNITS - spared <= agent.slots * WORKER_UNITS


class Fitting:
    """Asks `fits` for one agent and queue, so that what needs a whole worker gets one in the end.

    Once the task whose turn it is was refused, so is whatever stands behind it in the queue; and
    where that task needs a whole worker, shares of other queues are refused until it had its turn.
    """

    __slots__ = ("_queue", "_refused", "freed")

    def __init__(self) -> None:
        self._queue: Queue | None = None
        self._refused = False
        self.freed = False  # an agent is reserved no more: others may have waited for that

    def of(self, queue: Queue, agent: Agent) -> Fitting:
        """From now on for this queue and agent."""
        self._queue = queue
        self._refused = False
        if agent.reserved is queue:
            agent.reserved = None
            self.freed = True
        return self

    def probe(self, queue: Queue) -> Fits:
        """The same question about its next task, which is not taken."""

        def look(task: Task, agent: Agent) -> bool:
            if task.function not in agent.shares and not fits(task, agent):
                agent.reserved = queue
            return False

        return look

    def __call__(self, task: Task, agent: Agent) -> bool:
        """Whether the task may be taken."""
        other, is_share = agent.reserved, task.function in agent.shares
        if self._refused or (is_share and other is not None and other.count):
            return False
        if fits(task, agent):
            return True
        self._refused = True
        if not is_share:
            agent.reserved = self._queue
        return False


def behind(agent: Agent) -> int:
    """How many of its attempts may be waiting there for a worker, at most."""
    held = agent.held()
    if not agent.shared:
        return held - agent.slots
    # Where both kinds are, one may wait for the end of the other on every worker.
    return held if len(agent.shared) < held else 0


def check(agent: Agent) -> None:
    """Raises AssertionError where the sums are wrong."""
    assert agent.spared == sum(agent.shared.values()), agent
    assert agent.shared.keys() <= agent.open.keys(), agent
    assert all(0 < spared < WORKER_UNITS for spared in agent.shared.values()), agent
    assert free_workers(agent) * WORKER_UNITS <= agent.slots * WORKER_UNITS - used_units(agent)
