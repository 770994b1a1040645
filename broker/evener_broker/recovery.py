"""How open attempts survive the restart of the broker, and the loss of a connection.

A new broker knows nothing. Clients submit again what is unresolved, agents report what they hold;
the two meet here, whoever comes first, so that what runs is adopted and does not run twice. Until
agents had time to report, tasks that may already run are held. Changes: orphans, tasks that are
adopted.
"""

from __future__ import annotations

from typing import Final

from evener_broker.lifecycle import Lifecycle
from evener_broker.placing import Placing
from evener_broker.records import Agent, Client, Function, Task
from evener_broker.tables import Tables
from evener_broker.transitions import OPEN, Cause, State
from evener_wire import messages as m
from evener_wire.limits import ORPHAN_NS, ORPHANS_MAX, RECOVERY_NS

_Item = tuple[bytes, int, int, m.Payload, int, "m.Facts | None"]


class Recovery:
    """Caller: the broker core."""

    def __init__(self, tables: Tables, placing: Placing, lifecycle: Lifecycle) -> None:
        self._tables = tables
        self._placing = placing
        self._lifecycle = lifecycle
        # Attempts of an earlier broker that an agent holds, and results of such.
        self._orphans: Final[dict[bytes, tuple[Agent, int]]] = {}
        self._results: Final[dict[bytes, _Item]] = {}
        self._began_ns: int | None = None

    # --- From agents ------------------------------------------------------------------------------

    def inventory(self, agent: Agent, held: list[tuple[bytes, int]]) -> None:
        """An agent tells all it holds: adopt it, wait for its client, or have it stopped."""
        reported = dict(held)
        for task in list(agent.open.values()):
            if reported.get(task.id) != task.fence:
                # The RUN never arrived: it goes back to its place, free of blame.
                self._lifecycle.settle(task, m.RETURNED, b"", 0, None)
        stale: list[tuple[bytes, int]] = []
        self.drop_agent(agent)
        for task_id, fence in held:
            if task_id in agent.open:
                continue
            known = self._tables.tasks.get(task_id)
            if known is not None and known.state is State.HELD and not m.attempt_of(known.fence):
                self._adopt(known, agent, fence)
            elif known is None and self._may_be_unclaimed(fence):
                self._wait_for_client(agent, task_id, fence)
            else:
                stale.append((task_id, fence))
        if stale and agent.session is not None:
            self._tables.counters["attempts_stale"] += len(stale)
            self._tables.outbox.attempts(agent.session, m.Cancel, stale)
        self._placing.refresh(agent)

    def _may_be_unclaimed(self, fence: int) -> bool:
        return m.epoch_of(fence) != self._tables.epoch and len(self._orphans) < ORPHANS_MAX

    def _wait_for_client(self, agent: Agent, task_id: bytes, fence: int) -> None:
        agent.orphans[task_id] = fence
        self._orphans[task_id] = (agent, fence)
        self._tables.timers.set(self._tables.now_ns + ORPHAN_NS, self._on_unclaimed, task_id)

    def _on_unclaimed(self, task_id: bytes) -> None:
        self._results.pop(task_id, None)

    def _adopt(self, task: Task, agent: Agent, fence: int) -> None:
        self._tables.move(task, Cause.ADOPT)
        task.fence = fence
        task.agent = agent
        agent.open[task.id] = task
        self._placing.refresh(agent)

    def orphan_result(self, agent: Agent, item: _Item) -> bool:
        """A result of an attempt that no client has claimed yet; False if we do not wait for it."""
        task_id, fence = item[0], item[1]
        if agent.orphans.get(task_id) != fence:
            return False
        del agent.orphans[task_id]
        del self._orphans[task_id]
        self._placing.refresh(agent)
        if item[2] in (m.DONE, m.FAILED):
            self._results[task_id] = item
            self._tables.timers.set(self._tables.now_ns + ORPHAN_NS, self._on_unclaimed, task_id)
        return True

    def drop_agent(self, agent: Agent) -> None:
        """The agent is lost, or tells its inventory anew."""
        for task_id in agent.orphans:
            del self._orphans[task_id]
        agent.orphans.clear()

    # --- From clients -----------------------------------------------------------------------------

    def claim(
        self,
        client: Client,
        task_id: bytes,
        function: Function,
        payload: m.Payload,
        options: m.Options,
    ) -> None:
        """A client submits again what an earlier broker may have started."""
        orphan = self._orphans.pop(task_id, None)
        result = self._results.pop(task_id, None)
        task = self._lifecycle.accept(client, task_id, function, payload, options, State.HELD)
        if orphan is not None:
            agent, fence = orphan
            del agent.orphans[task_id]
            self._adopt(task, agent, fence)
            self._tables.counters["attempts_adopted"] += 1
        elif result is not None:
            self._lifecycle.conclude(task, result[2], result[3], result[5])
        elif self._recovering():
            assert self._began_ns is not None
            at_ns = self._began_ns + RECOVERY_NS
            self._tables.timers.set(at_ns, self._on_window_over, task)
        else:
            self._on_window_over(task)

    def _recovering(self) -> bool:
        """The window opens with the first message after the start, not with the start itself."""
        if self._began_ns is None:
            self._began_ns = self._tables.now_ns
        return self._tables.now_ns < self._began_ns + RECOVERY_NS

    def begin(self) -> None:
        """The first peer is here: from now on agents have the recovery time to report."""
        self._recovering()

    def _on_window_over(self, task: Task) -> None:
        if task.state is not State.HELD or m.attempt_of(task.fence):
            return
        if task.options.at_most_once:
            self._lifecycle.lose_unknown(task, "the broker restarted, and it may have run")
        else:
            self._lifecycle.release(task)

    # --- Agents that vanish -----------------------------------------------------------------------

    def verdict(self, agent: Agent) -> int:
        """The agent is lost: its open attempts go to others. Returns how many there were."""
        agent.lost = True
        self._placing.withdraw(agent)
        self.drop_agent(agent)
        tasks = [task for task in agent.open.values() if task.state in OPEN]
        for task in tasks:
            self._lifecycle.vanish(task)
        return len(tasks)
