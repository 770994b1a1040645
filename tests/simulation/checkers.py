"""The checkers, each named after the invariant it holds. They know what really happened.

Rules of this file: conclusions from `truth.py` and `watch.py` alone; a core's own books prove
nothing. A checker raises `Violation`, and the seed has failed.
"""

from __future__ import annotations

from collections import Counter

import msgpack

from evener import session_records as r
from evener.expiry import GRACE_NS
from evener_wire import messages as m
from evener_wire.limits import FREE_RETURNS_MAX, ORPHAN_NS
from tests.simulation.agent_node import AgentNode
from tests.simulation.bodies import STOPPED_NS
from tests.simulation.broker_node import BrokerNode
from tests.simulation.client_node import ClientNode
from tests.simulation.order import Order
from tests.simulation.taps import AgentTap, PeerTap
from tests.simulation.timetable import Timetable
from tests.simulation.truth import SCHEDULES, Key, Run, Sent, Ticket, digest_of, number_in
from tests.simulation.verdicts import Verdicts
from tests.simulation.watch import Watch
from tests.simulation.world import MS, US, Violation, World


class Checkers:
    """The `Judge` of what the watch sees, and of what clients and workers do."""

    def __init__(
        self,
        world: World,
        watch: Watch,
        broker: BrokerNode,
        agents: list[AgentNode],
        *,
        hostile: bool,
    ) -> None:
        self._world = world
        self._watch = watch
        self._broker = broker
        self._agents = {agent.name: agent for agent in agents}
        self._hostile = hostile
        self._order = Order(world, watch)
        self._fences: dict[tuple[bytes, int], int] = {}
        self._by_id: dict[tuple[str, bytes], Ticket] = {}
        self._ids: Counter[bytes] = Counter()
        self._verdicts = Verdicts(world, broker, self._agents, hostile=hostile)
        self.accepted = 0
        self.timetable: Timetable | None = None

    @property
    def verdicts(self) -> Verdicts:
        """How many verdicts were given, rightly and wrongly."""
        return self._verdicts

    def fail(self, invariant: str, text: str, ticket: Ticket | None = None) -> Violation:
        """The seed has failed."""
        story = "" if ticket is None else "\n" + ticket.story()
        return Violation(invariant, f"{text}{story}")

    # --- Submission: I4, I6 -----------------------------------------------------------------------

    def on_submit(self, tap: PeerTap, message: m.Submit, rejected: set[bytes]) -> None:
        """The broker took a SUBMIT."""
        epoch = self._watch.epoch
        for item in message.items:
            self._world.checked["I4"] += 1
            ticket = self._watch.truth.of_payload(item[2], item[0])
            if item[0] in rejected or epoch in ticket.accepted:
                continue
            self.accepted += 1
            if not ticket.accepted:
                self._ids[ticket.id] += 1
            self._by_id[tap.who, ticket.id] = ticket
            ticket.accepted[epoch] = (self.accepted, self._world.now, message.again)
            if epoch not in ticket.told:
                self._order.accepted(ticket)

    def on_withdrawn(self, tickets: list[Ticket]) -> None:
        """The journal could not take them: as if they had never been submitted."""
        for ticket in tickets:
            self._world.hit("task withdrawn, as the journal could not take it")
            ticket.accepted.pop(self._watch.epoch, None)
            self._order.ended(ticket)

    def on_cancel(self, message: m.Cancel) -> None:
        """The broker took a CANCEL."""
        ids = {item[0] for item in message.items}
        for ticket in self._watch.truth.tickets:
            if ticket.id in ids and self._watch.epoch in ticket.accepted:
                if ticket.cancelled_in != self._watch.epoch:
                    ticket.cancelled_ns = self._world.now
                ticket.cancelled_in = self._watch.epoch
                self._order.ended(ticket)
                self._world.hit(f"CANCEL of a task that is {self._phase(ticket)}")

    def on_restored(self, ticket: Ticket) -> None:
        """A new broker has it from the journal, and it has not ended."""
        durable = self._watch.durable
        assert durable is not None
        self._order.claimed(ticket)
        if not durable.is_spent(ticket):
            self._order.accepted(ticket)

    def on_adopted(self, ticket: Ticket) -> None:
        """An agent has it, from an earlier broker."""
        self._order.ended(ticket)

    def on_returned(self, ticket: Ticket) -> None:
        """An attempt comes back unstarted."""
        self._order.returned(ticket)

    def on_result(self, ticket: Ticket, fence: int, outcome: int) -> None:
        """I11: an agent tells how an attempt ended, and knows whether it started."""
        self._world.checked["I11"] += 1
        if outcome != m.RETURNED:
            self._order.ended(ticket)
        started = any(run.key == (ticket.id, fence) for run in ticket.runs)
        if started and outcome == m.RETURNED:
            raise self.fail("I11", f"attempt {fence} was told as never started", ticket)
        if not started and outcome == m.LOST:
            raise self.fail("I11", f"attempt {fence} was told as lost, and never started", ticket)

    def _phase(self, ticket: Ticket) -> str:
        if self._watch.epoch in ticket.told:
            return "over"
        if any(run.end_ns is None for run in ticket.runs):
            return "running"
        return "sent" if ticket.sent else "waiting"

    # --- Dispatch: I4, I7, I9, I10, I15, I16, I23 -------------------------------------------------

    def on_run(self, tap: PeerTap, items: list[tuple[bytes, int, str, m.Payload]]) -> None:
        """The broker sends work to an agent."""
        agent = tap.agent
        assert agent is not None
        for task_id, fence, function, payload in items:
            ticket = self._watch.truth.of_payload(payload, task_id)
            self._may_send(ticket, agent, function)
            if ticket.owner == SCHEDULES:
                assert self.timetable is not None
                self.timetable.on_run(ticket, self._broker)
            if self._watch.durable is not None:
                self._watch.durable.on_run(ticket, agent.who)
            # By ticket, too: who uses the id of a task that is over starts a new one.
            if fence <= self._fences.get((task_id, ticket.number), 0):
                raise self.fail("I9", f"fence {fence} was there before", ticket)
            self._fences[task_id, ticket.number] = fence
            for run in ticket.runs:
                if run.end_ns is None:
                    self._check_told(run)
                if run.end_ns is None and not self._is_given_up(run):
                    which = "I23" if m.epoch_of(run.key[1]) < self._watch.epoch else "I7"
                    raise self.fail(which, f"sent to {agent.who} while {run} goes on", ticket)
                if run.end_ns is None:
                    self._world.hit("second run beside one that was given up")
            sent = Sent(self._watch.epoch, fence, agent.who, self._world.now)
            ticket.sent.append(sent)
            self._watch.by_key[task_id, fence] = ticket, sent
            agent.open[task_id, fence] = ticket, sent
            if self._watch.durable is None:
                self._order.sent(ticket)
        most = agent.slots * 513
        if len(agent.open) > most > 0:
            raise self.fail("I10", f"{agent.who} has {len(agent.open)} open attempts of {most}")
        self._world.peak("attempts at one agent", len(agent.open))

    def on_assigned(self, ticket: Ticket) -> None:
        """The broker chose an agent for it."""
        self._order.sent(ticket)

    def _is_crossing(self, ticket: Ticket, agent: AgentTap) -> bool:
        """Whether its RUN waited for the journal while the agent changed its offer."""
        task = self._broker.core.tables.tasks.get(ticket.id)
        if self._watch.durable is None or task is None:
            return False
        return agent.offered and self._broker.world_time(task.since_ns) <= agent.changed_ns + US

    def _check_told(self, run: Run) -> None:
        """I23: agents that the journal names have time to tell what they run."""
        watch = self._watch
        found = watch.by_key.get(run.key)
        if watch.durable is None or found is None or found[1].given_up:
            return
        has_told = any(tap.who == run.agent and tap.reported for tap in watch.agents.values())
        if has_told or not watch.durable.awaits(run.agent):
            return
        if found[1].epoch < watch.epoch and self._world.now < watch.until_ns - 5 * MS:
            raise self.fail("I23", f"{run} goes on, and its agent still had time", run.ticket)

    def _may_send(self, ticket: Ticket, agent: AgentTap, function: str) -> None:
        epoch = self._watch.epoch
        self._world.checked.update(("I10", "I16", "I23"))
        is_idle = agent.offered and not agent.draining and agent.slots
        if not is_idle and not self._is_crossing(ticket, agent):
            raise self.fail("I10", f"sent to {agent.who}, which offers nothing", ticket)
        if ticket.options.queue not in agent.queues:
            raise self.fail("I10", f"sent to {agent.who}, which does not serve its queue", ticket)
        if not function.startswith("~") and function not in agent.functions:
            raise self.fail("I10", f"sent to {agent.who}, which cannot run it", ticket)
        if ticket.options.at_most_once and ticket.sent:
            raise self.fail("I15", "sent twice, and it may be sent once", ticket)
        if epoch in ticket.told:
            raise self.fail("I4", "sent after its end was told", ticket)
        if ticket.cancelled_in == epoch and ticket.cancelled_ns < self._world.now:
            raise self.fail("I16", "sent after its cancel was taken", ticket)
        self._check_not_done(ticket)

    def _check_not_done(self, ticket: Ticket) -> None:
        """I23: what a broker took the result of does not run again, if its client comes in time."""
        if self._broker.core.tables.counters["results_unclaimed_dropped"]:
            return
        for run in ticket.runs:
            found = self._watch.by_key.get(run.key)
            if run.ended != "done" or found is None or found[0] is not ticket:
                continue
            claimed = ticket.accepted.get(self._watch.epoch)
            if claimed is not None and claimed[1] - found[1].taken_ns > ORPHAN_NS * 0.999:
                continue
            if found[1].taken_in == self._watch.epoch and not found[1].given_up:
                raise self.fail("I23", f"sent after the result of {run} was taken", ticket)

    def _is_given_up(self, run: Run) -> bool:
        """Whether others may run the task although this run goes on."""
        found = self._watch.by_key.get(run.key)
        if found is None or found[0] is not run.ticket:
            return False
        _, sent = found
        if sent.given_up:
            return True
        if sent.epoch == self._watch.epoch:
            return False
        return not any(run.key in tap.open for tap in self._watch.agents.values())

    def on_turn_over(self) -> None:
        """After a turn of the broker: I13, I14, I18."""
        self._order.check()
        self._verdicts.check_silence(self._watch.agents.values())

    def on_verdict(self, tap: AgentTap, why: str) -> None:
        """The broker gives an agent up: I18."""
        self._verdicts.on_verdict(tap, why)

    # --- Ends: I1, I3, I8, I11, I12, I16 ----------------------------------------------------------

    def on_terminal(self, tap: PeerTap, message: m.Terminal) -> None:
        """The broker tells a client how tasks ended."""
        epoch = self._watch.epoch
        for task_id, state, payload, facts in message.items:
            self._world.checked.update(("I1", "I3", "I8", "I16"))
            ticket = self._by_id.get((tap.who, task_id))
            if ticket is None and tap.who == "adversary":
                continue  # what it says on two connections at once is in no books
            if ticket is None:
                raise self.fail("I3", f"{tap.who} is told of {task_id.hex()}, not its own")
            if self._watch.durable is not None:
                self._watch.durable.on_terminal(ticket, state, payload)
            now = (state, digest_of(payload))
            before = ticket.told.setdefault(epoch, now)
            if before != now:
                raise self.fail("I1", f"told {before} and then {now}", ticket)
            if before is not now:
                self._world.hit("TERMINAL told again")
                continue
            self._order.ended(ticket)
            self._world.hit(f"TERMINAL {m.TERMINAL_STATES[state]}")
            for run in ticket.runs:
                if run.end_ns is None and not self._is_given_up(run):
                    raise self.fail("I16", f"ended while {run} goes on", ticket)
            self._judge_end(ticket, state, payload, dict(facts or {}))
            self._check_cancel(ticket)

    def _check_cancel(self, ticket: Ticket) -> None:
        """I16: what is cancelled stops soon, unless something keeps its agent from hearing it."""
        if ticket.cancelled_in != self._watch.epoch or not ticket.runs or self._hostile:
            return
        run, since_ns = ticket.runs[-1], ticket.cancelled_ns
        agent = self._agents[run.agent.partition(".")[0]]
        if run.end_ns is None or run.end_ns - max(since_ns, run.start_ns) < STOPPED_NS:
            return
        if agent.undisturbed_since() < since_ns and not self._broker.was_paused_since(since_ns):
            raise self.fail("I16", f"{run} went on after its cancel", ticket)

    def _judge_end(
        self, ticket: Ticket, state: int, payload: m.Payload, facts: dict[str, object]
    ) -> None:
        if state == m.TERMINAL_DONE:
            self._judge_result(ticket, payload, "done")
        elif state == m.TERMINAL_FAILED:
            if facts.get("reason") != "unknown_function":
                self._judge_result(ticket, payload, "failed")
        elif state == m.TERMINAL_CANCELLED:
            same = [t for t in self._watch.truth.tickets if t.id == ticket.id]
            if not any(t.cancel_asked for t in same):
                raise self.fail("I3", "cancelled, and nobody asked for it", ticket)
        elif state == m.TERMINAL_EXPIRED:
            self._judge_expiry(ticket, str(facts.get("limit")))
        else:
            self._judge_loss(ticket, facts)

    def _judge_result(self, ticket: Ticket, payload: m.Payload, ended: str) -> None:
        number, fence = number_in(payload)[:2]
        if self._ids[ticket.id] > 1:
            return  # ids are chosen once; who chooses one twice may get what the other one left
        key: Key = (ticket.id, fence)
        if number != ticket.number:
            raise self.fail("I3", f"has the result of task {number}", ticket)
        if not any(run.key == key and run.ended == ended for run in ticket.runs):
            raise self.fail("I3", f"has a result of attempt {fence}, which did not end so", ticket)
        here = [sent.fence for sent in ticket.sent if sent.epoch == self._watch.epoch]
        if here and max(here) != fence:
            raise self.fail("I8", f"result of attempt {fence}, open was {max(here)}", ticket)
        sent = next(sent for sent in ticket.sent if sent.fence == fence)
        if sent.given_up:
            raise self.fail("I8", f"result of attempt {fence}, which was given up", ticket)

    def _judge_expiry(self, ticket: Ticket, limit: str) -> None:
        options = ticket.options
        # Since its first acceptance: an agent goes on counting when the broker restarts.
        since_ns = min(when_ns for _, when_ns, _ in ticket.accepted.values())
        waited_ms = (self._world.now - since_ns) / MS
        self._world.hit(f"EXPIRED {limit}")
        if limit == "run":
            longest = max((run.length_ns() for run in ticket.runs), default=0) / MS
            fine = 0 < options.timeout_ms <= longest * 1.002 + 5  # it may die just then
        elif limit == "queue":
            fine = 0 < options.expires_ms <= waited_ms * 1.002 + 1
        else:
            fine = 0 < options.deadline_ms <= waited_ms * 1.002 + 60
        if not fine:
            raise self.fail("I3", f"expired ({limit}) after {waited_ms:.1f} ms", ticket)

    def _judge_loss(self, ticket: Ticket, facts: dict[str, object]) -> None:
        reason, starts = facts.get("reason"), facts.get("starts", 0)
        self._world.hit(f"LOST {reason}")
        died = sum(run.ended == "died" for run in ticket.runs)
        if reason == "unknown" and not ticket.options.at_most_once:
            raise self.fail("I11", "lost(unknown), and it may run again", ticket)
        if reason == "poison":
            assert isinstance(starts, int)
            if starts < ticket.options.max_starts:
                raise self.fail("I12", f"lost after {starts} starts", ticket)
            most = died + ticket.vanished_started + ticket.vanished // FREE_RETURNS_MAX
            if starts > most:
                raise self.fail("I11", f"charged {starts} starts, {died} died", ticket)

    # --- Clients: I2, I6, I16 ---------------------------------------------------------------------

    def on_end(self, client: ClientNode, ticket: Ticket) -> None:
        """A client ends the future of a task."""
        how, what = ticket.ends[-1]
        self._world.hit(f"future ends: {how}")
        self._world.checked["I2"] += 1
        self._world.took("submission to end", self._world.now - ticket.submitted_ns)
        if len(ticket.ends) > 1:
            raise self.fail("I2", "the caller is told twice", ticket)
        if ticket.owner != client.who:
            raise self.fail("I3", f"ended at {client.who}", ticket)
        if how == "abandoned" and what is not None and not self._hostile:
            raise self.fail("I6", f"the broker refused the client: {what}", ticket)
        if how not in m.TERMINAL_STATES or not isinstance(what, tuple):
            return
        told = (what[1], digest_of(what[2]))
        if how == "cancelled" and not ticket.told and ticket.cancel_asked:
            return  # no broker had it yet
        if how == "expired" and (what[3] or {}).get("told_by") == "client":
            self._judge_local_end(ticket)
            return
        if told not in ticket.told.values():
            raise self.fail("I2", f"{told} at the caller was never told", ticket)

    def on_answer(self, client: ClientNode, ticket: Ticket, answer: r.Answered) -> None:
        """I22: whoever asks for an end hears the one that was told, whichever broker answers."""
        self._world.checked["I22"] += 1
        if not answer.ok or answer.body is None:
            self._world.hit("an end that is not kept any longer, or never was")
            return
        head = answer.body if isinstance(answer.body, bytes) else bytes(answer.body.buffers[0])
        state = msgpack.unpackb(head)[0]
        self._world.hit("retained end is fetched")
        told_in = [epoch for epoch, told in ticket.told.items() if told[0] == state]
        durable = self._watch.durable is not None
        known = ticket.told if durable else self._watch.epoch in ticket.told
        if known and not told_in and self._ids[ticket.id] == 1:
            raise self.fail("I22", f"{client.who} fetches state {state}", ticket)
        if durable and told_in and min(told_in) < self._watch.epoch:
            self._world.hit("end told by an earlier broker is fetched after its death")

    def _judge_local_end(self, ticket: Ticket) -> None:
        """No broker kept a deadline, so the client did; whatever a broker says later is no news."""
        self._world.hit("client ends a task whose deadline nobody kept")
        waited_ms = (self._world.now - ticket.submitted_ns) / MS
        if not 0 < ticket.options.deadline_ms <= waited_ms * 1.002 + 1 - GRACE_NS / MS:
            raise self.fail("I2", f"expired at its client after {waited_ms:.1f} ms", ticket)
