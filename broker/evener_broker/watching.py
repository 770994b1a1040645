"""What the broker does about work that waits although it should not.

Work ahead that is late while other agents are idle is recalled; a queue that nobody serves is told
to its clients, once; tasks of a function that nobody ever offered fail. Changes: recall marks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from evener_broker.lifecycle import Lifecycle
from evener_broker.lines import Queue
from evener_broker.records import Agent, Function, Task
from evener_broker.room import behind, free_workers
from evener_broker.tables import Tables
from evener_broker.transitions import State
from evener_broker.unknown import unknown_function
from evener_wire import messages as m
from evener_wire.limits import LOOKAHEAD_NS, SECOND_NS

# Work ahead is late when it waited twice as long as it should have.
LATE_NS: Final = 2 * LOOKAHEAD_NS

# How long tasks wait in a queue without agents before their clients hear about it.
UNSERVED_NOTICE_NS: Final = 3 * SECOND_NS

# Unknown functions for which names like theirs are looked up, of all that end at the same moment.
_HINTED_MAX: Final = 20

# Names of queues in one notice: with more it would not fit into a text.
_NAMED_MAX: Final = 20

# How long a task may wait for a function that no agent of its queue offers. Agents that start
# together do not come at the same moment.
UNKNOWN_FUNCTION_NS: Final = 5 * SECOND_NS


# Queues without agents and tasks that are remembered. Fewer: who lists queues misses some sooner.
_UNUSED_MAX: Final = 64


class Watching:
    """Caller: the broker core, after each dispatch."""

    def __init__(self, tables: Tables, lifecycle: Lifecycle) -> None:
        self._tables = tables
        self._lifecycle = lifecycle
        self._armed = False
        self._late = False
        self._swept_ns = 0

    def look(self) -> None:
        """Arm the timers for what should not last. Cheap: called in every step."""
        hungry = False
        unused = 0
        late, self._late = self._late, False
        for queue in self._tables.queues.values():
            if queue.idle:
                # After the dispatch: whatever waits here still, its free workers cannot run.
                hungry = True
                if late:
                    self._recall_for(queue)
            elif queue.agents:
                continue
            elif not queue.count:
                unused += 1
            elif queue.unserved_ns is None:
                queue.unserved_ns = self._tables.now_ns
                at_ns = self._tables.now_ns + UNSERVED_NOTICE_NS
                self._tables.timers.set(at_ns, self._on_unserved, queue)
        if unused > _UNUSED_MAX:
            self._drop_unused()
        if hungry and not self._armed and self._tables.ahead:
            self._armed = True
            self._tables.timers.set(self._tables.now_ns + LATE_NS, self._on_late, None)

    def _drop_unused(self) -> None:
        """Queues that only a peer of yesterday knew: each turn would look at them for ever."""
        tables = self._tables
        if tables.now_ns < self._swept_ns + SECOND_NS:
            return
        self._swept_ns = tables.now_ns
        for name, queue in list(tables.queues.items()):
            if not (queue.count or queue.agents or queue.looks) and queue.unserved_ns is None:
                del tables.queues[name]

    # --- Work ahead that is late ------------------------------------------------------------------

    def _on_late(self, _: object) -> None:
        self._armed = False
        self._late = True

    def _recall_for(self, queue: Queue) -> None:
        """Take back, for the free workers of a queue, what waits longest behind busy ones."""
        free = sum(max(0, free_workers(agent)) for agent in queue.idle)
        for agent in sorted(queue.agents, key=_fullest):
            if free <= 0 or agent.session is None or not _works_ahead(agent):
                continue
            found, asked = self._late_of(agent, queue, free)
            free -= len(found) + asked
            if found:
                items = [(task.id, task.fence) for task in found]
                for task in found:
                    task.own_tries().recalled = True
                self._tables.outbox.attempts(agent.session, m.Recall, items)

    def _late_of(self, agent: Agent, queue: Queue, most: int) -> tuple[list[Task], int]:
        """What to take back of an agent, and for how many it was asked and did not answer yet."""
        most = min(most, behind(agent))
        found: list[Task] = []
        asked = 0
        for task in reversed(agent.open.values()):
            if len(found) + asked >= most:
                break
            if task.state is State.ASSIGNED and task.tries.recalled:
                asked += 1
            elif (
                task.state is State.ASSIGNED
                and not self._tables.commits.is_unsent(task)
                and not task.options.at_most_once
                and task.options.queue == queue.name
                and self._tables.now_ns - task.since_ns >= LATE_NS
                and any(_can_run(other, task.function) for other in queue.idle)
            ):
                found.append(task)
        return found, asked

    # --- Functions that nobody offers -------------------------------------------------------------

    def functions_changed(self, queues: Iterable[str]) -> None:
        """Agents told what they offer: look, after a while, for tasks that nobody knows."""
        for name in queues:
            queue = self._tables.queue(name)
            if queue.looks:
                # One timer for each queue, however often agents come and go.
                queue.look_again = True
            else:
                self._look_later(queue)

    def _look_later(self, queue: Queue) -> None:
        queue.looks, queue.look_again = True, False
        at_ns = self._tables.now_ns + UNKNOWN_FUNCTION_NS
        self._tables.timers.set(at_ns, self._on_unknown, queue)

    def _on_unknown(self, queue: Queue) -> None:
        queue.looks = False
        if queue.look_again:
            self._look_later(queue)
        if not queue.count:
            return
        functions = self._tables.functions.values()
        if all(function.agents or function.by_value for function in functions):
            return  # a walk over all that waits is not for every agent that comes
        found: dict[Function, m.Facts | None] = {}
        for task in list(queue.tasks()):
            function = task.function
            if function not in found:
                hint = len(found) < _HINTED_MAX
                found[function] = unknown_function(function, queue, hint=hint)
            facts = found[function]
            if facts is not None:
                self._lifecycle.fail_unknown(task, facts)

    # --- Queues that nobody serves ----------------------------------------------------------------

    def _on_unserved(self, queue: Queue) -> None:
        tables = self._tables
        since_ns = queue.unserved_ns
        if queue.agents or queue.count == 0 or since_ns is None:
            queue.unserved_ns = None
            return
        if tables.now_ns - since_ns < UNSERVED_NOTICE_NS:
            return
        # Clients that come later want to know as well.
        tables.timers.set(tables.now_ns + UNSERVED_NOTICE_NS, self._on_unserved, queue)
        waiting = queue.waiting_clients()
        queue.told &= waiting.keys()
        untold = [c for c in waiting if c.session is not None and c not in queue.told]
        if queue.warned and not untold:
            return
        served = sorted({name for agent in tables.agents.values() for name in agent.queues})
        named = ", ".join(served[:_NAMED_MAX]) + (", ..." if len(served) > _NAMED_MAX else "")
        who = f"workers serve: {named}" if served else "no worker is connected"
        text = (
            f'{_waiting(queue.count)} for queue "{queue.name}" but no connected worker serves it '
            f"({who})"
        )
        if not queue.warned:
            queue.warned = True
            tables.outbox.log("warning", text)
        for client in untold:
            assert client.session is not None
            queue.told.add(client)
            tables.outbox.send(client.session, m.Notice("unserved_queue", text))


def _fullest(agent: Agent) -> tuple[int, str, bytes]:
    return -len(agent.open), agent.name, agent.instance


def _works_ahead(agent: Agent) -> bool:
    return behind(agent) > 0


def _can_run(agent: Agent, function: Function) -> bool:
    return function.by_value or function in agent.functions


def _waiting(count: int) -> str:
    return "1 task waits" if count == 1 else f"{count} tasks wait"
