"""How open attempts survive the restart of the broker, and the loss of a connection.

A new broker knows nothing. Clients submit again what is unresolved, agents report what they hold;
the two meet here, whoever comes first, so that what runs is adopted and does not run twice. Until
agents had time to report, tasks that may already run are held. Changes: orphans, tasks that are
adopted.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from evener_broker.admission import Admission
from evener_broker.lifecycle import Lifecycle, is_awaited
from evener_broker.placing import Placing
from evener_broker.records import VALUES_DROPPED, Agent, Client, Function, Task
from evener_broker.reports import ask_again
from evener_broker.room import take_share
from evener_broker.roster import Roster
from evener_broker.tables import Tables
from evener_broker.transitions import OPEN, Cause, State
from evener_broker.unclaimed import Item, Unclaimed
from evener_wire import messages as m
from evener_wire.limits import ORPHANS_MAX, RECOVERY_MAX_NS, RECOVERY_NS

_Line = tuple[Client, str, int]


class Recovery:
    """Caller: the broker core."""

    def __init__(
        self, tables: Tables, placing: Placing, admission: Admission, lifecycle: Lifecycle
    ) -> None:
        self._tables = tables
        self._placing = placing
        self._admission = admission
        self._lifecycle = lifecycle
        # Attempts of an earlier broker that an agent holds, and results of such.
        self._orphans: Final[dict[bytes, tuple[Agent, int]]] = {}
        self._results: Final = Unclaimed(tables)
        self._began_ns: int | None = None
        self._until_ns = 0
        # Tasks of the journal that may run somewhere, and the agents that can tell.
        self._restored: list[Task] = []
        self._expected: dict[bytes, str] = {}
        # Tasks that clients submitted again, and the agents that can tell, if those are known.
        self._awaited: list[Task] = []
        self.roster = Roster(None)
        # Client, queue and priority of tasks that may run somewhere, and what came behind them.
        self._lines: Final[set[_Line]] = set()
        self._behind: list[Task] = []
        self._claimed = False
        # Of the broker that wrote the journal: it sent nothing that is not in there.
        self._journal_epoch = 0
        lifecycle.may_be_elsewhere = self._may_be_elsewhere

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
        left: dict[str, None] = {}
        for task_id, fence in reported.items():
            if task_id in agent.open:
                continue
            known = self._tables.tasks.get(task_id)
            if known is not None and self._may_be_adopted(known, fence):
                if known.state is State.QUEUED:
                    left[known.options.queue] = None
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
        agent.late = {i: at_ns for i, at_ns in agent.late.items() if i in agent.orphans}
        for name in left:
            # These may come back to their places.
            self._tables.queue(name).sweep()
        self._placing.refresh(agent)
        if self._expected.pop(agent.instance, None) is not None and not self._expected:
            self._all_told()
        if self.roster.told(agent.instance):
            self._all_vouched()

    def _may_be_adopted(self, task: Task, fence: int) -> bool:
        """Whether an attempt of an earlier broker is the one that a task still waits for.

        Also after the window, as long as nobody else got the task: its agent was only late. Unless
        its client knew a later broker, which may have begun another attempt.
        """
        epoch, known = m.epoch_of(fence), task.client.last_epoch
        if fence <= task.tries.settled:
            return False
        if task.state is State.QUEUED and task.fence == self._tables.first_fence:
            return known <= epoch < self._tables.epoch or epoch < self._tables.epoch == known
        return is_awaited(task)

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

    def _adopt(self, task: Task, agent: Agent, fence: int) -> None:
        if task.state is State.QUEUED:
            self._tables.queue(task.options.queue).forget(task)
        self._tables.move(task, Cause.ADOPT)
        task.fence = fence
        task.agent = agent
        agent.open[task.id] = task
        if task.function in agent.shares:
            take_share(agent, task)
        self._tables.counters["attempts_adopted"] += 1
        until_ns = agent.late.pop(task.id, None)
        if until_ns is not None:
            # It yielded before its client claimed it.
            if self._tables.now_ns >= until_ns:
                task.own_tries().facts = VALUES_DROPPED
            ask_again(self._tables, (task,))
        self._placing.refresh(agent)

    def orphan_result(self, agent: Agent, item: Item) -> bool:
        """A result of an attempt that no client has claimed yet; False if we do not wait for it."""
        task_id, fence = item[0], item[1]
        if agent.orphans.get(task_id) != fence:
            return False
        del agent.orphans[task_id]
        del self._orphans[task_id]
        until_ns = agent.late.pop(task_id, None)
        if item[2] == m.DONE:
            dropped = until_ns is not None and self._tables.now_ns >= until_ns
            item = *item[:5], VALUES_DROPPED if dropped else None  # for whoever claims it
        self._placing.refresh(agent)
        if item[2] in (m.DONE, m.FAILED):
            self._results.keep(item)
        return True

    def drop_agent(self, agent: Agent) -> None:
        """The agent is lost, or tells its inventory anew."""
        for task_id in agent.orphans:
            del self._orphans[task_id]
        agent.orphans.clear()

    def unclaimed(self) -> Container[bytes]:
        """Tasks of an earlier broker that agents told of, and that no client has claimed yet."""
        kept = self._results.results
        return {*self._orphans, *kept} if kept else self._orphans

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
        result = self._results.take(task_id)
        if orphan is None and result is None and client.last_epoch == self._journal_epoch != 0:
            # The journal would know it, had it been sent to anybody.
            self.accept(client, task_id, function, payload, options)
            return
        task = self._admission.accept(client, task_id, function, payload, options, State.HELD)
        if orphan is not None:
            agent, fence = orphan
            del agent.orphans[task_id]
            self._adopt(task, agent, fence)
        elif result is not None:
            if result[5] is VALUES_DROPPED:
                task.own_tries().facts = VALUES_DROPPED
            self._lifecycle.conclude(task, result[2], result[3], result[5])
        else:
            self._await(task)

    def _await(self, task: Task) -> None:
        """Nobody told of a task yet: hold it, and what comes behind it, until they had time to."""
        if self.roster.vouches_for(task.client.last_broker):
            self._let_go(task)
            return
        self._awaited.append(task)
        self._lines.add(_line_of(task))
        self._on_window_over(task)
        if not self._claimed:
            self._claimed = True
            self._on_claims_over(None)

    def _may_be_elsewhere(self, task: Task) -> bool:
        """An attempt of an earlier broker never started: that one may have begun another, with an
        agent that did not tell yet. Then the task is held like all that nobody told of."""
        told = not self._expected if self._journal_epoch else not self._recovering()
        if told:
            return False
        self._tables.move(task, Cause.RETRY)
        task.own_tries().settled = task.fence
        self._tables.commits.tried(task)  # a broker that comes after us must not wait for it either
        task.fence = 0
        if self._expected:
            self._restored.append(task)
        else:
            self._await(task)
        return True

    def holds_up(self) -> bool:
        """Whether new tasks may have to wait for others that come before them: see `accept`."""
        return bool(self._lines)

    def accept(
        self,
        client: Client,
        task_id: bytes,
        function: Function,
        payload: m.Payload,
        options: m.Options,
    ) -> None:
        """Take on a task that nobody has: in line, behind what waits for agents to tell of it."""
        admission = self._admission
        if (client, options.queue, options.priority) not in self._lines:
            admission.accept(client, task_id, function, payload, options)
            return
        self._line_up(admission.accept(client, task_id, function, payload, options, State.HELD))

    def _line_up(self, task: Task) -> None:
        """Into line, or behind those of its line that agents may tell of."""
        if _line_of(task) in self._lines:
            task.fence = self._tables.first_fence  # so that nobody is asked about it
            self._behind.append(task)
        else:
            self._lifecycle.release(task)

    def _on_claims_over(self, _: object) -> None:
        if self._recovering():
            self._tables.timers.set(self._until_ns, self._on_claims_over, None)
        else:
            self._end_claims()

    def _end_claims(self) -> None:
        self._claimed = False
        self._awaited.clear()
        self._let_follow()

    def _all_vouched(self) -> None:
        """All agents told that the earlier broker knew: what its clients wait for runs nowhere."""
        others: list[Task] = []
        for task in self._awaited:
            if self.roster.vouches_for(task.client.last_broker):
                self._let_go(task)
            elif is_awaited(task):
                others.append(task)
        self._awaited = others
        if not others:
            self._end_claims()

    def _let_follow(self) -> None:
        """Who waited for those before goes into line, unless some of those are still awaited."""
        if self._restored or self._claimed:
            return
        self._lines.clear()
        behind, self._behind = self._behind, []
        for task in behind:
            self._lifecycle.release(task)

    def _recovering(self) -> bool:
        """The window opens with the first message after the start, not with the start itself."""
        if self._began_ns is None:
            self._began_ns = self._tables.now_ns
            self._until_ns = self._began_ns + RECOVERY_NS
            if self._restored or self._expected or self.roster.expected:
                self._tables.timers.set(self._until_ns, self._on_restored_over, None)
        return self._tables.now_ns < self._until_ns

    def begin(self) -> None:
        """The first peer is here: from now on agents have the recovery time to report."""
        self._recovering()

    def await_agent(self, at_ns: int) -> None:
        """An agent was told to come then: what it holds shall not be given to others before."""
        if self._recovering():
            assert self._began_ns is not None
            at_ns = min(at_ns, self._began_ns + RECOVERY_MAX_NS)
            self._until_ns = max(self._until_ns, at_ns)

    def _on_window_over(self, task: Task) -> None:
        if self._recovering():
            self._tables.timers.set(self._until_ns, self._on_window_over, task)
        else:
            self._let_go(task)

    def _let_go(self, task: Task) -> None:
        if not is_awaited(task):
            return
        if task.tries.cancelling:
            self._lifecycle.end_cancelled(task)
        elif task.options.at_most_once:
            self._lifecycle.lose_unknown(task, "the broker restarted, and it may have run")
        else:
            self._lifecycle.release(task)

    # --- From the journal -------------------------------------------------------------------------

    def expect(self, restored: list[Task], agents: dict[bytes, str], epoch: int) -> None:
        """These tasks may run at these agents, and at no others: nobody else ever got them."""
        self._journal_epoch = epoch
        self._expected = agents
        self._restored = [t for t in restored if t.tries.dispatched or not _runs_once(t)]
        self._lines.update(map(_line_of, self._restored))
        for task in restored:
            if _runs_once(task) and not task.tries.dispatched:
                self._line_up(task)
        if not agents:
            self._all_told()

    def _on_restored_over(self, _: object) -> None:
        if self._recovering():
            self._tables.timers.set(self._until_ns, self._on_restored_over, None)
            return
        for instance in (*self._expected, *self.roster.close()):
            if instance not in self._tables.agents:
                self._tables.agent_gone(instance)
        self._all_told()

    def _all_told(self) -> None:
        """Who was not reported until now does not run, as far as anybody can know."""
        restored, self._restored = self._restored, []
        self._expected = {}
        for task in restored:
            self._let_go(task)
        self._let_follow()

    # --- For tests --------------------------------------------------------------------------------

    def check(self) -> None:
        """Recount what is kept for clients that did not come yet."""
        held = {(i, a, f) for a in self._tables.agents.values() for i, f in a.orphans.items()}
        assert held == {(i, a, f) for i, (a, f) in self._orphans.items()}
        self._results.check()
        assert not self._orphans.keys() & self._tables.tasks.keys()
        assert not self._behind or self._lines

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


def _line_of(task: Task) -> _Line:
    return task.client, task.options.queue, task.options.priority


def _runs_once(task: Task) -> bool:
    return task.options.at_most_once
