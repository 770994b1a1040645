"""How the journal's answers become promises kept, and what happens while it cannot be written.

A transaction that failed was never half applied: tasks it would have saved are withdrawn and
rejected, no worker ever saw them. Where nobody can know whether it failed, they are not: a broker
that comes next may find them, and run what was rejected. Everything else, such as ends, is still
true; it is written again until that succeeds, and whoever waits for it waits as long. Changes:
commits, and what they hold back.
"""

from __future__ import annotations

from typing import Final

from evener_broker.admission import Admission, Refusal
from evener_broker.commits import Promises
from evener_broker.effects import Append
from evener_broker.events import CommitFailed, Committed
from evener_broker.lifecycle import Lifecycle
from evener_broker.placing import Placing
from evener_broker.records import Client, Task
from evener_broker.tables import Tables
from evener_wire import messages as m
from evener_wire.limits import SECOND_NS

# How long after a failure the journal is tried again.
_RESUME_NS: Final = SECOND_NS

# How long what clients took may wait for something else to be written. Longer: a broker that dies
# tells more ends again. Shorter: syncs for nothing else.
_NOTED_NS: Final = SECOND_NS


class Saving:
    """Caller: the broker core."""

    def __init__(
        self, tables: Tables, placing: Placing, admission: Admission, lifecycle: Lifecycle
    ) -> None:
        self._tables = tables
        self._commits = tables.commits
        self._placing = placing
        self._admission = admission
        self._lifecycle = lifecycle
        self._armed = False

    # --- The end of a turn ------------------------------------------------------------------------

    def close_turn(self) -> None:
        """Give this turn's records to the journal, or keep its promises if there are none."""
        commits = self._commits
        turn = commits.turn
        if commits.noted:
            if turn.records:
                commits.write_noted()
            elif not self._armed:
                self._armed = True
                self._tables.timers.set(self._tables.now_ns + _NOTED_NS, self._on_noted, None)
        if not turn:
            return
        if commits.is_clear():
            commits.turn = Promises()
            self._keep(turn)
        elif commits.failing:
            commits.turn = Promises()
            commits.unsaved.absorb(turn)
            if not commits.unsaved.fresh:
                self._accept_rejections(commits.unsaved)
        elif turn.records:
            commits.turn = Promises()
            self._append(turn, resume=False)
        else:
            # It relies on what is under way, but adds nothing to it.
            commits.turn = Promises()
            commits.pending[-1].absorb(turn)

    def _on_noted(self, _: object) -> None:
        self._armed = False
        if self._commits.noted:
            self._commits.write_noted()

    def _append(self, promises: Promises, *, resume: bool) -> None:
        commits = self._commits
        commits.appended += 1
        promises.txn = commits.appended
        commits.pending.append(promises)
        self._tables.outbox.perform(Append(promises.txn, promises.records, resume))

    def _keep(self, promises: Promises) -> None:
        """Everything this relied on is on disk: say it."""
        outbox = self._tables.outbox
        for task in promises.terminals:
            outbox.terminal(task)
        self._accept(promises)
        for session, upto in promises.acks.items():
            if session.record.session is session:
                outbox.send(session, m.Ack(upto))
        for session, answer in promises.answers:
            if session.record.session is session:
                outbox.send(session, answer)
        for task, fence, agent, session in self._commits.take_runs(promises):
            # Meanwhile it may have ended, or gone to another.
            is_open = task.fence == fence and agent.open.get(task.id) is task
            if is_open and agent.session is session:
                self._placing.send(task, agent)

    def _accept(self, promises: Promises) -> None:
        accepted, promises.accepted = promises.accepted, {}
        for session, upto in accepted.items():
            if session.record.session is session:
                self._tables.outbox.accepted(session, upto)

    def _accept_rejections(self, failed: Promises) -> None:
        """Answer clients that wait for nothing but rejections, and what was known before."""
        waiting = {task.client for task in failed.doubtful}
        kept = {s: upto for s, upto in failed.accepted.items() if s.record in waiting}
        for session in kept:
            del failed.accepted[session]
        self._accept(failed)
        failed.accepted = kept

    # --- The journal answers ----------------------------------------------------------------------

    def on_committed(self, event: Committed) -> None:
        """The transactions up to this one are on disk."""
        commits = self._commits
        commits.bytes_used = event.bytes_used
        pending = commits.pending
        if pending and pending[0].txn <= event.txn and commits.failing:
            self._tables.outbox.log("info", "the journal can be written again")
            commits.failing = ""
            # What came meanwhile goes with this turn.
            commits.turn, unsaved = commits.unsaved, commits.turn
            commits.turn.absorb(unsaved)
            commits.unsaved = Promises()
        while pending and pending[0].txn <= event.txn:
            promises = pending.popleft()
            commits.growth -= promises.bytes
            commits.committed = self._tables.outbox.committed = promises.txn
            self._keep(promises)

    def on_failed(self, event: CommitFailed) -> None:
        """Nothing from this transaction on is on disk, or nobody knows whether it is."""
        commits = self._commits
        if not commits.pending or event.txn > commits.pending[-1].txn:
            return  # it was already counted as failed
        if not commits.failing:
            text = f"cannot write the journal: {event.reason}; new tasks are rejected until it can"
            self._tables.outbox.log("error", text)
        self._tables.counters["journal_failures"] += 1
        commits.failing = event.reason
        failed = Promises()
        while commits.pending:
            promises = commits.pending.popleft()
            if promises.txn <= event.unknown:
                promises.doubtful += promises.fresh
                promises.fresh = []
            failed.absorb(promises)
        failed.absorb(commits.unsaved)
        commits.unsaved = failed
        self._withdraw(failed)
        at_ns = self._tables.now_ns + _RESUME_NS
        self._tables.timers.set(at_ns, self._resume, None)

    def _withdraw(self, failed: Promises) -> None:
        """Take back what was never saved; no worker saw it, and its client is told."""
        fresh = failed.fresh
        withdrawn = {task.number for task in fresh}
        rejected: dict[Client, list[tuple[bytes, Refusal]]] = {}
        text = f"the broker cannot write its journal: {self._commits.failing}"
        refusal: Refusal = "journal", text, None
        for task in fresh:
            self._admission.withdraw(task)
            rejected.setdefault(task.client, []).append((task.id, refusal))
        self._commits.withdraw(failed, withdrawn)
        self._commits.growth -= failed.bytes
        failed.bytes = 0
        for client, items in rejected.items():
            if client.session is not None:
                self._tables.counters["tasks_rejected"] += len(items)
                self._tables.outbox.rejected(client.session, items)
        self._accept_rejections(failed)

    def _resume(self, _: object) -> None:
        """Try again; also when there is nothing to write, to see whether it can be."""
        commits = self._commits
        if commits.failing and not commits.pending:
            unsaved, commits.unsaved = commits.unsaved, Promises()
            # What was noted earlier in this turn counts on the very next transaction.
            unsaved.absorb(commits.turn)
            commits.turn = Promises()
            self._append(unsaved, resume=True)

    # --- For tests --------------------------------------------------------------------------------

    def check(self) -> None:
        """Recount: transactions in order, and nothing kept back without need."""
        commits = self._commits
        commits.check()
        numbers = [promises.txn for promises in commits.pending]
        assert numbers == sorted(set(numbers))
        assert not numbers or (numbers[0] > commits.committed and numbers[-1] == commits.appended)
        assert not commits.turn
        assert self._armed or not commits.noted
        assert commits.durable or not (numbers or commits.unsaved or commits.failing)
        assert not (commits.unsaved and not commits.failing)
        ended: set[Task] = set(commits.untold())
        assert all(self._tables.tasks.get(task.id) is task for task in ended)
