"""The deciding part of the broker: events and the time in, effects out. No I/O, no clock of its
own.

`BrokerCore.step` reads as the life of one turn: take in what happened, let timers fire, hand out
work, send. Each message has one handler, found by its type in the table of its sender's role; a
message without a handler there is a violation, and ends the session.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from evener_broker.admission import Admission, Refusal, same_call
from evener_broker.answers import answer
from evener_broker.effects import Effect
from evener_broker.events import (
    CommitFailed,
    Committed,
    Event,
    Flooding,
    Malformed,
    MemoryShort,
    PeerGone,
    Received,
    WallClock,
)
from evener_broker.journaling import Contents
from evener_broker.lifecycle import Lifecycle
from evener_broker.manners import Manners
from evener_broker.placing import Placing
from evener_broker.questions import Questions
from evener_broker.records import Agent, Client, Function, Session, Task
from evener_broker.recovery import Recovery
from evener_broker.relay import Relay
from evener_broker.reports import Reports
from evener_broker.requests import Requests
from evener_broker.restore import restore
from evener_broker.retention import Retention
from evener_broker.roster import Roster
from evener_broker.saving import Saving
from evener_broker.schedule_runs import Runs
from evener_broker.schedule_wishes import Wishes
from evener_broker.schedules import Schedules
from evener_broker.sessions import Sessions
from evener_broker.tables import Bounds, Tables
from evener_broker.transitions import Cause, State
from evener_broker.watching import Watching
from evener_wire import messages as m
from evener_wire.limits import ACK_DELAY_NS, MILLISECOND_NS
from evener_wire.session import Verdict

# A turn that comes this much later than asked for means that the broker itself stood still.
_STALL_NS: Final = 250 * MILLISECOND_NS

# So many RESULT messages are acknowledged at once instead of after the usual delay.
_ACK_MESSAGES: Final = 64

_CONFLICT: Final[Refusal] = "conflict", "another task has this id", None
_HELD_ELSEWHERE: Final[Refusal] = "conflict", "an agent holds another task of this id", None

_Handler: TypeAlias = Callable[[Session, Any], None]


class BrokerCore:
    """All that the broker decides. Caller: one shell loop, or a simulation.

    `broker` is a random id of this process, `epoch` grows with each start. The same events, times
    and `rng` give the same effects.
    """

    def __init__(
        self,
        broker: bytes,
        epoch: int,
        rng: random.Random,
        bounds: Bounds | None = None,
        facts: m.Facts | None = None,
        contents: Contents | None = None,
        roster: Roster | None = None,
    ) -> None:
        durable = contents is not None
        tables = self.tables = Tables(broker, epoch, rng, bounds or Bounds(), durable=durable)
        self._contents = contents
        placing = self._placing = Placing(tables)
        self._lifecycle = Lifecycle(tables, self._placing)
        self._admission = Admission(tables, self._placing, self._lifecycle)
        self._recovery = Recovery(tables, self._placing, self._admission, self._lifecycle)
        tables.notes_agents = roster is not None
        self._recovery.roster = roster or self._recovery.roster
        self._retention = Retention(tables)
        self._saving = Saving(tables, self._placing, self._admission, self._lifecycle)
        self._requests = Requests(tables, self._retention)
        self._runs = Runs(tables, self._admission, self._lifecycle, self._retention)
        self._wishes = Wishes(tables, self._runs)
        self._schedules = Schedules(tables, self._runs, self._wishes)
        self._sessions = Sessions(tables, placing, self._retention, self._recovery, facts or {})
        self._watching = Watching(tables, self._lifecycle)
        self._relay = Relay(tables)
        self._questions = Questions(tables, self._answer)
        self._manners = Manners(tables, self._sessions)
        self.quarantined: Final = self._manners.quarantine.peers
        self._wake_ns: int | None = None
        self._event_handlers: dict[type, Callable[[Any], None]] = {
            Received: self._receive,
            PeerGone: self._peer_gone,
            Malformed: self._manners.on_malformed,
            Flooding: self._manners.on_flooding,
            Committed: self._saving.on_committed,
            CommitFailed: self._saving.on_failed,
            MemoryShort: self._admission.on_memory,
            WallClock: self._schedules.on_wall,
        }
        self._client_handlers: dict[type, _Handler] = {
            m.Submit: self._on_submit,
            m.Ack: self._on_terminals_taken,
            m.Cancel: self._on_cancel,
            m.Taken: Reports(tables).taken,
            m.Query: self._on_query,
            m.Heartbeat: lambda session, message: None,
            m.Goodbye: self._on_goodbye,
        }
        self._agent_handlers: dict[type, _Handler] = {
            m.Result: self._on_result,
            m.Offer: self._on_offer,
            m.Started: self._on_started,
            m.Answer: self._relay.answered,
            m.Progress: Reports(tables).take,
            m.Values: Reports(tables).values,
            m.Output: Reports(tables).output,
            m.Heartbeat: self._on_heartbeat,
            m.Goodbye: self._on_goodbye,
        }

    # --- One turn ---------------------------------------------------------------------------------

    def step(self, now_ns: int, events: Iterable[Event]) -> list[Effect]:
        """Take in what happened and decide. Times never go back.

        Each event is asked for when the one before it is handled, so whoever gives them may measure
        how long that took, and end the turn.
        """
        self._set_time(now_ns)
        if self._contents is not None:
            contents, self._contents = self._contents, None
            parts = self._lifecycle, self._recovery, self._retention, self._sessions
            restore(self.tables, *parts, contents)
            self._schedules.restored(contents.paused)
        for event in events:
            self._event_handlers[type(event)](event)
        for handler, subject in self.tables.timers.due(now_ns):
            handler(subject)
        self._runs.look()
        self._placing.dispatch()
        self._sessions.watch_closely(self.tables.outbox.agents_with_work())
        self._watching.look()
        self._relay.look()
        self._questions.look()
        self._saving.close_turn()
        effects = self.tables.outbox.collect()
        moments = [self.tables.timers.next_at(), self._questions.wake_at()]
        self._wake_ns = min((at for at in moments if at is not None), default=None)
        return effects

    def wake_at(self) -> int | None:
        """When the next step is due even if nothing happens."""
        return self._wake_ns

    def _set_time(self, now_ns: int) -> None:
        tables = self.tables
        passed_ns = now_ns - tables.now_ns if tables.now_ns else 0
        if self._wake_ns is not None and now_ns - self._wake_ns > _STALL_NS:
            # We slept over a timer: whatever peers sent meanwhile may still lie in the socket.
            stalled_ns = now_ns - self._wake_ns
            tables.counters["stalls"] += 1
            tables.outbox.log("warning", f"the broker stood still for {stalled_ns / 1e9:.1f} s")
            passed_ns -= stalled_ns
        tables.live_ns += max(0, passed_ns)
        tables.now_ns = tables.outbox.logbook.now_ns = now_ns

    # --- Receiving --------------------------------------------------------------------------------

    def _receive(self, event: Received) -> None:
        tables = self.tables
        number, message = event.envelope.number, event.envelope.message
        if event.peer in self.quarantined:
            tables.counters["messages_quarantined"] += 1
            return
        if type(message) is m.Hello:
            self._manners.on_hello(event.peer)
            self._sessions.hello(event.peer, message)
            return
        session = tables.sessions.get(event.peer)
        if session is None:
            self._manners.without_session(event.peer, message)
            return
        verdict = session.sequence.judge(event.envelope.session, number)
        if verdict is Verdict.TAKE:
            session.heard_ns = tables.live_ns
            record = session.record
            is_client = type(record) is Client
            handlers = self._client_handlers if is_client else self._agent_handlers
            handler = handlers.get(type(message))
            if handler is None:
                role = "a client" if is_client else "an agent"
                self._manners.forbidden(
                    session, f"{role} may not send {type(message).__name__.upper()}"
                )
            else:
                handler(session, message)
        elif verdict is Verdict.DROP:
            tables.counters["messages_repeated"] += 1
        else:
            tables.counters["messages_out_of_step"] += 1
            tables.counters["sessions_out_of_step"] += 1
            self._sessions.lose(session)
            tables.outbox.send_outside(event.peer, m.Resync("out of step"))

    def _peer_gone(self, event: PeerGone) -> None:
        session = self.tables.sessions.get(event.peer)
        if session is not None:
            self._sessions.lose(session)

    # --- Messages of clients ----------------------------------------------------------------------

    def _on_submit(self, session: Session, message: m.Submit) -> None:
        tables, admission = self.tables, self._admission
        client = session.record
        assert isinstance(client, Client)
        tables.commits.accepted(session)
        tasks, queues, again = tables.tasks, tables.queues, message.again
        roomy = tables.is_roomy(client, len(message.items))
        rejected: list[tuple[bytes, Refusal]] = []
        returning: dict[str, None] = {}
        unclaimed = () if again else self._recovery.unclaimed()
        accept = self._recovery.accept if self._recovery.holds_up() else admission.accept
        for task_id, name, payload, chosen in message.items:
            known = tables.functions.get(name)
            function = known or Function(name)
            options = function.options if chosen is None else chosen
            task = tasks.get(task_id)
            if task is not None:
                if task.client is not client or not same_call(task, function, payload):
                    tables.counters["tasks_conflicting"] += 1
                    rejected.append((task_id, _CONFLICT))
                elif task.taken:
                    # It had the end before, and wants it again.
                    tables.outbox.tell_again(session, task)
                continue
            if task_id in unclaimed:
                # Whoever submitted it says `again`.
                tables.counters["tasks_conflicting"] += 1
                rejected.append((task_id, _HELD_ELSEWHERE))
                continue
            plain = roomy and function.agents and type(payload) is bytes
            if not plain or options.queue not in queues:
                refusal = admission.refusal(client, function, payload, options.queue, again)
                if refusal is not None:
                    rejected.append((task_id, refusal))
                    continue
            if known is None:
                tables.functions[name] = function
            if again:
                returning[options.queue] = None
                self._recovery.claim(client, task_id, function, payload, options)
            else:
                accept(client, task_id, function, payload, options)
        admission.refusals.clear()
        self._watching.functions_changed(returning)
        if rejected:
            tables.counters["tasks_rejected"] += len(rejected)
            tables.outbox.rejected(session, rejected)
            if tables.commits.short:
                self._retention.make_room()

    def _on_terminals_taken(self, session: Session, message: m.Ack) -> None:
        client = session.record
        assert isinstance(client, Client)
        self._retention.acknowledged(client, message.upto)
        self.tables.outbox.telling.taken(client, message.upto)
        self.tables.outbox.forwarding.taken(client, message.upto)
        self.tables.outbox.more_room(client)

    def _on_cancel(self, session: Session, message: m.Cancel) -> None:
        for task_id, _ in message.items:
            task = self.tables.tasks.get(task_id)
            if task is None:
                self.tables.counters["cancels_stale"] += 1
            else:
                self._lifecycle.cancel(task)

    def _on_query(self, session: Session, message: m.Query) -> None:
        if message.what == "fetch":
            self._requests.handle(session, message)  # a look-up, and programs ask it by thousands
        else:
            self._questions.ask(session, message)

    def _answer(self, session: Session, message: m.Query) -> None:
        asked = self._requests.handle, self._relay.take, self._wishes.take
        if not any(take(session, message) for take in asked):
            others = *self._requests.questions, *self._relay.questions, "schedule"
            ok, body = answer(self.tables, message.what, message.arguments, others)
            self.tables.outbox.send(session, m.Answer(message.number, ok, body))

    def _on_goodbye(self, session: Session, message: m.Goodbye) -> None:
        self._sessions.goodbye(session, message.reason)

    # --- Messages of agents -----------------------------------------------------------------------

    def _on_result(self, session: Session, message: m.Result) -> None:
        tables, lifecycle = self.tables, self._lifecycle
        agent = session.record
        assert isinstance(agent, Agent)
        open_tasks = agent.open
        function: Function | None = None
        runs = total_us = one_us = 0
        for item in message.items:
            task_id, fence, outcome, payload, run_us, facts = item
            task = open_tasks.get(task_id)
            if task is None or task.fence != fence:
                if not self._recovery.orphan_result(agent, item):
                    tables.counters["results_stale"] += 1
                continue
            if outcome != m.DONE:
                lifecycle.settle(task, outcome, payload, run_us, facts)
                continue
            lifecycle.finish(task, payload)
            # Run times are noted once per batch and function, not once per task.
            if task.function is not function:
                if function is not None:
                    function.observe(runs, total_us, one_us)
                function, runs, total_us, one_us = task.function, 0, 0, run_us
            runs += 1
            total_us += run_us
        if function is not None:
            function.observe(runs, total_us, one_us)
        self._placing.refresh(agent)
        self._sessions.acknowledge(session, ACK_DELAY_NS, _ACK_MESSAGES)

    def _on_offer(self, session: Session, message: m.Offer) -> None:
        agent = session.record
        assert isinstance(agent, Agent)
        self._placing.offer(agent, message)
        if message.held is not None:
            self._recovery.inventory(agent, list(message.held))
        if message.functions is not None:
            self._schedules.offered(agent, message.schedules)
            self._watching.functions_changed(agent.queues)

    def _on_started(self, session: Session, message: m.Started) -> None:
        for task_id, fence in message.items:
            self._note_started(session, task_id, fence)

    def _on_heartbeat(self, session: Session, message: m.Heartbeat) -> None:
        agent = session.record
        assert isinstance(agent, Agent)
        if self.tables.memory_short:
            agent.workers = ()
        elif message.workers:
            agent.workers = tuple(message.workers)
        for task_id, fence, _ in message.running:
            self._note_started(session, task_id, fence)

    def _note_started(self, session: Session, task_id: bytes, fence: int) -> None:
        agent = session.record
        assert isinstance(agent, Agent)
        task: Task | None = agent.open.get(task_id)
        if task is None or task.fence != fence:
            if agent.orphans.get(task_id) != fence:
                self.tables.counters["starts_stale"] += 1
        elif task.state is State.ASSIGNED:
            self.tables.move(task, Cause.START)

    # --- For people and tests ---------------------------------------------------------------------

    def check(self) -> None:
        """Recount all redundant state; raises AssertionError. For tests: linear in all tasks."""
        self.tables.check()
        self._recovery.check()
        self._retention.check()
        self._saving.check()
        self.tables.waiting.check()
        self._placing.check()
        self._relay.check()

    def __repr__(self) -> str:
        tables = self.tables
        workers = sum(agent.slots for agent in tables.agents.values())
        queued = sum(queue.count for queue in tables.queues.values())
        return f"<Broker {workers} workers, {queued} queued, {len(tables.tasks)} tasks>"
