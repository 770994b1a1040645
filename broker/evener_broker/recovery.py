"""How open attempts survive the restart of the broker, and the loss of a connection.

A new broker knows nothing. Clients submit again what is unresolved, agents report what they hold;
the two meet here, whoever comes first, so that what runs is adopted and does not run twice. Until
agents had time to report, tasks that may already run are held. Changes: orphans, tasks that are
adopted.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from evener_broker.lifecycle import Lifecycle, is_awaited
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
        self._result_bytes = 0
        self._began_ns: int | None = None

    # --- From agents ------------------------------------------------------------------------------

    def inventory(self, agent: Agent, held: list[tuple[bytes, int]]) -> None:
        """An agent tells all it holds: adopt it, wait for its client, or have it stopped."""
        reported: dict[bytes, int] = {}
        stale: list[tuple[bytes, int]] = []
        for task_id, fence in held:
            # It may still have the result of an earlier attempt of the task: the newest counts.
            other = reported.get(task_id, fence)
            if other != fence:
                stale.append((task_id, min(fence, other)))
            reported[task_id] = max(fence, other)
        for task in list(agent.open.values()):
            if reported.get(task.id) != task.fence:
                # The RUN never arrived: it goes back to its place, free of blame.
                self._lifecycle.settle(task, m.RETURNED, b"", 0, None)
                continue
            # What we wanted of it may have got lost with the connection: say it again.
            if self._lifecycle.is_unwanted(task):
                stale.append((task.id, task.fence))
            if task.tries.recalled:
                task.own_tries().recalled = False
        self.drop_agent(agent)
        for task_id, fence in reported.items():
            if task_id in agent.open:
                continue
            known = self._tables.tasks.get(task_id)
            if known is not None and is_awaited(known):
                self._adopt(known, agent, fence)
                if self._lifecycle.is_unwanted(known):
                    stale.append((task_id, fence))
            elif known is None and self._may_be_unclaimed(task_id, fence):
                self._wait_for_client(agent, task_id, fence)
            else:
                stale.append((task_id, fence))
        if stale and agent.session is not None:
            self._tables.counters["attempts_stale"] += len(stale)
            self._tables.outbox.attempts(agent.session, m.Cancel, stale)
        self._placing.refresh(agent)

    def _may_be_unclaimed(self, task_id: bytes, fence: int) -> bool:
        if m.epoch_of(fence) == self._tables.epoch:
            return False
        other = self._orphans.get(task_id)
        if other is not None:
            # An agent that was thought lost kept an older attempt: the newer one counts.
            return fence > other[1]
        return len(self._orphans) + len(self._results) < ORPHANS_MAX

    def _wait_for_client(self, agent: Agent, task_id: bytes, fence: int) -> None:
        other = self._orphans.get(task_id)
        if other is not None:
            holder, older = other
            del holder.orphans[task_id]
            self._placing.refresh(holder)
            if holder.session is not None:
                self._tables.counters["attempts_stale"] += 1
                self._tables.outbox.attempts(holder.session, m.Cancel, [(task_id, older)])
        agent.orphans[task_id] = fence
        self._orphans[task_id] = (agent, fence)

    def _on_unclaimed(self, task_id: bytes) -> None:
        self._take_result(task_id)

    def _take_result(self, task_id: bytes) -> _Item | None:
        item = self._results.pop(task_id, None)
        if item is not None:
            self._result_bytes -= len(item[3])
        return item

    def _keep_result(self, item: _Item) -> None:
        tables, task_id = self._tables, item[0]
        self._take_result(task_id)
        size = len(item[3])
        if tables.bytes + self._result_bytes + size > tables.bounds.payload_bytes:
            tables.counters["results_unclaimed_dropped"] += 1  # its task will run again
            return
        self._results[task_id] = item
        self._result_bytes += size
        tables.timers.set(tables.now_ns + ORPHAN_NS, self._on_unclaimed, task_id)

    def _adopt(self, task: Task, agent: Agent, fence: int) -> None:
        self._tables.move(task, Cause.ADOPT)
        task.fence = fence
        task.agent = agent
        agent.open[task.id] = task
        self._tables.counters["attempts_adopted"] += 1
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
            self._keep_result(item)
        return True

    def drop_agent(self, agent: Agent) -> None:
        """The agent is lost, or tells its inventory anew."""
        for task_id in agent.orphans:
            del self._orphans[task_id]
        agent.orphans.clear()

    def unclaimed(self) -> Container[bytes]:
        """Tasks of an earlier broker that agents told of, and that no client has claimed yet."""
        return {*self._orphans, *self._results} if self._results else self._orphans

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
        result = self._take_result(task_id)
        task = self._lifecycle.accept(client, task_id, function, payload, options, State.HELD)
        if orphan is not None:
            agent, fence = orphan
            del agent.orphans[task_id]
            self._adopt(task, agent, fence)
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
        if not is_awaited(task):
            return
        if task.tries.cancelling:
            self._lifecycle.end_cancelled(task)
        elif task.options.at_most_once:
            self._lifecycle.lose_unknown(task, "the broker restarted, and it may have run")
        else:
            self._lifecycle.release(task)

    # --- For tests --------------------------------------------------------------------------------

    def check(self) -> None:
        """Recount what is kept for clients that did not come yet."""
        held = {(i, a, f) for a in self._tables.agents.values() for i, f in a.orphans.items()}
        assert held == {(i, a, f) for i, (a, f) in self._orphans.items()}
        assert self._result_bytes == sum(len(item[3]) for item in self._results.values())
        assert not self._orphans.keys() & self._tables.tasks.keys()

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
