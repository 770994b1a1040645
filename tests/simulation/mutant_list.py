"""Small mistakes in the cores, each of which the simulation must find.

Rules of this file: (name, file, what stands there, what stands there instead). The old text must
occur exactly once; a mutant whose text is gone is mended here with the change that moved it.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Mutant(NamedTuple):
    """One patch of one module."""

    name: str
    module: str
    old: str
    new: str


MUTANTS: Final = (
    # --- The broker -------------------------------------------------------------------------------
    Mutant(
        "a result counts whatever its fence",
        "evener_broker.core",
        "            if task is None or task.fence != fence:\n"
        "                if not self._recovery",
        "            if task is None:\n                if not self._recovery",
    ),
    Mutant(
        "verdict as soon as a connection breaks",
        "evener_broker.sessions",
        "at_ns = tables.now_ns + after_ns + RECONNECT_GRACE_NS",
        "agent.left_ns -= RECONNECT_GRACE_NS; at_ns = tables.now_ns",
    ),
    Mutant(
        "silence is judged by the clock, not by broker-live time",
        "evener_broker.core",
        "passed_ns -= stalled_ns",
        "passed_ns -= 0",
    ),
    Mutant(
        "a dead agent is never given up",
        "evener_broker.sessions",
        "if silent_ns >= SILENCE_NS:",
        "if silent_ns >= 100 * SILENCE_NS:",
    ),
    Mutant(
        "a broken session of an agent has no timer",
        "evener_broker.sessions",
        "tables.timers.set(at_ns, self._on_grace_over, (agent, agent.left_ns))",
        "pass",
    ),
    Mutant(
        "messages of any session refresh a peer",
        "evener_broker.core",
        "        verdict = session.sequence.judge(event.envelope.session, number)\n",
        "        verdict = session.sequence.judge(session.sequence.session, number)\n",
    ),
    Mutant(
        "repeated messages are taken again",
        "evener_wire.session",
        "return Verdict.DROP if number <= self.received else Verdict.RESYNC",
        "return Verdict.TAKE if number <= self.received else Verdict.RESYNC",
    ),
    Mutant(
        "gaps in the numbering are ignored",
        "evener_wire.session",
        "if number == self.received + 1:",
        "if number > self.received:",
    ),
    Mutant(
        "every loss is charged, also of what never started",
        "evener_broker.lifecycle",
        "        if not started:\n            tries = task.own_tries()",
        "        if False:\n            tries = task.own_tries()",
    ),
    Mutant(
        "returned work is charged like a crash",
        "evener_broker.lifecycle",
        "            self._put_back(task)\n        elif outcome == m.LOST:",
        "            self._after_loss(task, {})\n        elif outcome == m.LOST:",
    ),
    Mutant(
        "losses are not counted",
        "evener_broker.lifecycle",
        "        tries.starts += 1\n",
        "        tries.starts += 0\n",
    ),
    Mutant(
        "poison is bounded one start too late",
        "evener_broker.lifecycle",
        "elif starts >= task.options.max_starts or",
        "elif starts > task.options.max_starts + 1 or",
    ),
    Mutant(
        "what comes back goes to the end of the line",
        "evener_broker.fifo",
        "        if self._new and task.number < self._new[-1].number:",
        "        if False:",
    ),
    Mutant(
        "the last one in goes first",
        "evener_broker.fifo",
        "        new, back = self._new, self._back\n"
        "        if not back and new and new[0].state is State.QUEUED:\n",
        "        self._new.reverse() if len(self._new) == 2 else None\n"
        "        new, back = self._new, self._back\n"
        "        if not back and new and new[0].state is State.QUEUED:\n",
    ),
    Mutant(
        "one client goes on while others wait",
        "evener_broker.lines",
        "            line.pop()\n            turns.rotate(-1)\n",
        "            line.pop()\n",
    ),
    Mutant(
        "at_most_once is sent again",
        "evener_broker.lifecycle",
        "        if task.options.at_most_once and not self._tables.commits.is_unsent(task):\n",
        "        if False:\n",
    ),
    Mutant(
        "at_most_once runs again after a restart",
        "evener_broker.recovery",
        "elif task.options.at_most_once:",
        "elif False:",
    ),
    Mutant(
        "what may run already is sent at once after a restart",
        "evener_broker.recovery",
        "        if self._recovering():\n"
        "            self._tables.timers.set(self._until_ns, self._on_window_over, task)\n",
        "        if False:\n            pass\n",
    ),
    Mutant(
        "attempts that agents report are not adopted",
        "evener_broker.recovery",
        "if known is not None and self._may_be_adopted(known, fence):",
        "if known is not None and False:",
    ),
    Mutant(
        "results that come before their client are not kept",
        "evener_broker.recovery",
        "        if item[2] in (m.DONE, m.FAILED):\n            self._results.keep(item)\n",
        "",
    ),
    Mutant(
        "an inventory proves nothing",
        "evener_broker.recovery",
        "            if reported.get(task.id) != task.fence:\n",
        "            if False:\n",
    ),
    Mutant(
        "the oldest of two reported attempts counts",
        "evener_broker.recovery",
        "reported[task_id] = max(fence, other)",
        "reported[task_id] = min(fence, other)",
    ),
    Mutant(
        "work is sent before the agent told what it holds",
        "evener_broker.placing",
        "if not agent.offered or agent.draining or agent.lost:",
        "if agent.session is None or agent.draining or agent.lost:",
    ),
    Mutant(
        "credit does not come back with a result",
        "evener_broker.core",
        "        self._placing.refresh(agent)\n        self._sessions.acknowledge",
        "        self._sessions.acknowledge",
    ),
    Mutant(
        "a cancel ends a running task at once",
        "evener_broker.lifecycle",
        "            task.own_tries().cancel(self._tables.now_ns)\n            self._stop(task)\n",
        "            self._stop(task)\n"
        "            self._placing.close(task)\n"
        "            self._end(task, Cause.CANCEL, b'')\n",
    ),
    Mutant(
        "a cancel of a running task is not passed on",
        "evener_broker.lifecycle",
        "self._tables.outbox.cancel(agent.session, (task.id, task.fence))",
        "pass",
    ),
    Mutant(
        "ends that were told are not told again in the next session",
        "evener_broker.outbox",
        "            record.outgoing.extendleft(reversed(told))\n",
        "",
    ),
    Mutant(
        "a submission that is known is a new task",
        "evener_broker.core",
        "            if task is not None:\n                if task.client is not client",
        "            if task is not None and task.client is not client:\n"
        "                if task.client is not client",
    ),
    Mutant(
        "an id of another client is accepted in silence",
        "evener_broker.core",
        "if task.client is not client or not same_call(task, function, payload):",
        "if False:",
    ),
    Mutant(
        "fences start anew with each try",
        "evener_broker.placing",
        "            task.fence += 1\n",
        "            task.fence = tables.first_fence + 1\n",
    ),
    Mutant(
        "RESULTs are never acknowledged",
        "evener_broker.sessions",
        "        self._tables.commits.acknowledge(session)",
        "        pass",
    ),
    # --- The agent --------------------------------------------------------------------------------
    Mutant(
        "no self-fence",
        "evener_worker.session",
        "return silent_ns > SELF_FENCE_NS or (self.is_open",
        "return (self.is_open",
    ),
    Mutant(
        "looking for the broker lifts the fence",
        "evener_worker.session",
        "silent_ns = self._ledger.now_ns - self._contact_ns",
        "silent_ns = self._ledger.now_ns - self.heard_ns",
    ),
    Mutant(
        "results leave before the offer",
        "evener_worker.core",
        "        if not self._offer_all:\n",
        "        if True:\n",
    ),
    Mutant(
        "results are forgotten once sent",
        "evener_worker.session",
        "        self._ledger.ended[:0] = "
        "[attempt for _, batch in self.unacked for attempt in batch]\n",
        "        for _, batch in self.unacked:\n"
        "            for attempt in batch:\n"
        "                self._ledger.move(attempt, GONE)\n",
    ),
    Mutant(
        "all that a dead worker had is lost, not only what ran",
        "evener_worker.losses",
        "started, since_ns = attempt.sequence <= event.started, slot.head_since_ns",
        "started, since_ns = True, slot.head_since_ns",
    ),
    Mutant(
        "what ran when the worker died is returned",
        "evener_worker.losses",
        "started, since_ns = attempt.sequence <= event.started, slot.head_since_ns",
        "started, since_ns = False, slot.head_since_ns",
    ),
    Mutant(
        "an agent that comes back does not say what it holds",
        "evener_worker.core",
        "held = [*self.ledger.open, *self.session.results_held()]",
        "held = []",
    ),
    Mutant(
        "no SIGKILL at the end of the ladder",
        "evener_worker.stopping",
        "            self._ledger.effects.append(Kill(attempt.slot))\n",
        "            pass\n",
    ),
    # --- The client -------------------------------------------------------------------------------
    Mutant(
        "nothing is submitted again after a restart",
        "evener.session",
        "restarted = before is not None and before.broker != message.broker",
        "restarted = False",
    ),
    Mutant(
        "what was not accepted is not sent again",
        "evener.submissions",
        "        self._put_back(flown)\n",
        "",
    ),
    Mutant(
        "resubmissions look like new tasks",
        "evener.submissions",
        "line, again = (self._again, True) if self._again else (self._fresh, False)",
        "line, again = (self._again, False) if self._again else (self._fresh, False)",
    ),
    Mutant(
        "a repeated end resolves again",
        "evener.submissions",
        "ticket = pop(item[0], None)",
        "ticket = self._table.get(item[0])",
    ),
    Mutant(
        "ends are acknowledged before they came",
        "evener.session_work",
        "self._outlet.send(m.Ack(self._outlet.received()))",
        "self._outlet.send(m.Ack(self._outlet.received() + 1))",
    ),
    Mutant(
        "no new connection after silence",
        "evener.session",
        "            self.effects.append(Reopen(self._reconnects.failed()))\n",
        "",
    ),
    Mutant(
        "a heartbeat may follow the end of its session",
        "evener.session",
        "        if name == _BEAT and self.state is not State.OPEN:\n            return",
        "        if False:\n            return",
    ),
)
