"""The deciding part of the agent: `step(now_ns, events) -> effects`.

Rules of this file: no I/O, no clock, no randomness of its own; what happened comes in, what shall
be done goes out. Here stands what messages and deaths mean for attempts. The session with the
broker (`session.py`), who gets what (`handout.py`), the life of processes (`pool.py`), the ladder
that ends an attempt (`stopping.py`) and the end of all (`ending.py`) decide their own part.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from evener_wire import messages as m
from evener_wire.limits import HEARTBEAT_NS, MILLISECOND_NS, SECOND_NS
from evener_worker import events as e
from evener_worker.attempts import HANDED, WAITING, Attempt, Key, Wish
from evener_worker.care import Care
from evener_worker.config import AgentConfig
from evener_worker.effects import Effect, Tell
from evener_worker.ending import Ending
from evener_worker.forwarding import Forwarding
from evener_worker.handout import HandOut
from evener_worker.ledger import Ledger
from evener_worker.limits import RESULT_BYTES_MAX, WATCH_BEHIND_NS
from evener_worker.losses import Losses
from evener_worker.pool import Pool
from evener_worker.questions import Questions
from evener_worker.reports import Reports
from evener_worker.session import Session
from evener_worker.shares import check as check_shared
from evener_worker.shares import in_hand, units_of
from evener_worker.slots import MAY_HOLD, SlotState
from evener_worker.stopping import Stopping
from evener_worker.streams import Streams
from evener_worker.watch import Watch, running

# How much earlier than due an agent says that it lives, to say so right after the broker did. More:
# more of them. Fewer: the broker wakes up for each idle agent by itself.
_BEAT_EARLY_NS: Final = HEARTBEAT_NS // 4


class AgentCore:
    """One agent: one session with the broker, some slots with a worker process each."""

    def __init__(
        self, config: AgentConfig, instance: bytes, rng: random.Random, facts: m.Facts
    ) -> None:
        self.config = config
        self.ledger = Ledger()
        self.handout = HandOut(self.ledger)
        self.stopping = Stopping(self.ledger)
        self.pool = Pool(
            self.ledger,
            self.handout,
            rng,
            config.name,
            config.workers,
            config.worker_limits,
            patient=config.reload,
        )
        self.care = Care(self.ledger, self.pool, self.handout, int(config.ping_seconds * SECOND_NS))
        self.session = Session(self.ledger, instance, config.name, config.broker, facts, rng)
        self.reports = Reports(self.ledger, self.session)
        self.watch = Watch(
            self.ledger, self.pool, self.handout, self.stopping, self.session, self.reports
        )
        self.streams = Streams(self.ledger, self.session)
        self.forwarding = Forwarding(self.ledger, self.session)
        self.ending = Ending(
            self.ledger, self.pool, self.session, config.drain_seconds * 1_000 * MILLISECOND_NS
        )
        self.losses = Losses(self.ledger, self.pool, self.handout, self.ending)
        self.questions = Questions(
            self.ledger, self.pool, self.session, config.name, self.care, self.ending
        )
        self._offer_all = False  # the next OFFER names functions and what is held
        self._connected_told = False
        self._watch_at_ns: int | None = None
        self._on_event: dict[type, Callable[[Any], None]] = {
            e.Received: self._on_received,
            e.Malformed: self._on_malformed,
            e.SendFailed: lambda _: self.session.on_send_failed(),
            e.Writable: lambda _: self.session.on_writable(),
            e.Spawned: self.pool.on_spawned,
            e.Ready: self._on_ready,
            e.StartFailed: self.pool.on_start_failed,
            e.Finished: self._on_finished,
            e.Yielded: lambda it: self.streams.on_yielded(self.pool.slots[it.slot], it),
            e.Printed: lambda it: self.forwarding.on_printed(self.pool.slots[it.slot], it),
            e.Dropped: self._on_dropped,
            e.TakenBack: self._on_taken_back,
            e.Died: self.losses.on_died,
            e.Tick: self._on_tick,
            e.Measured: self.care.on_measured,
            e.Dumped: self.questions.on_dumped,
            e.LogRead: self.questions.on_log_read,
            e.StopAsked: self.ending.on_stop_asked,
            e.Ponged: self.care.health.on_ponged,
            e.RestartAsked: self.care.on_restart_asked,
        }
        self._on_message: dict[type, Callable[[Any], None]] = {
            m.Run: self._on_run,
            m.Ack: lambda ack: self.session.on_ack(ack.upto),
            m.Recall: self._on_recall,
            m.Cancel: self._on_cancel,
            m.Taken: self.streams.on_taken,
            m.Drain: lambda drain: self.ending.drain(drain.reason, 0),
            m.Query: self.questions.on_query,
            m.Heartbeat: self._on_heartbeat,
            m.Goodbye: lambda _: None,  # the broker stops; silence or RESYNC tells the rest
        }

    # --- The step ---------------------------------------------------------------------------------

    def begin(self, now_ns: int) -> list[Effect]:
        """Start the workers first, so that they import while the connection is made."""
        self.ledger.now_ns = now_ns
        self.pool.start_due()
        self.session.begin()
        return self._take_effects()

    def step(self, now_ns: int, events: Iterable[e.Event]) -> list[Effect]:
        """What happened, and what shall be done about it, in order."""
        self.ledger.now_ns = now_ns
        for event in events:
            self._on_event[type(event)](event)
        self._settle()
        return self._take_effects()

    def _take_effects(self) -> list[Effect]:
        effects, self.ledger.effects = self.ledger.effects, []
        return effects

    def _settle(self) -> None:
        self.care.proceed()
        taking = False
        for slot in self.pool.busy():
            if slot.taking:
                taking = True
                self.handout.request(slot)
        if not taking:
            # An OFFER tells what is held, so it waits for the answers about what is taken back.
            if self.pool.changed or self._offer_all:
                self._offer()
            if self.ending.draining or self.care.paused:
                self._return_waiting()
            elif not self.session.fenced and self.ledger.result_bytes < RESULT_BYTES_MAX:
                self.handout.hand_out()
        if not self._offer_all:
            # A broker that restarted must hear what is held before it hears how that ended.
            self.forwarding.proceed()
            self.session.flush()
            self.streams.proceed()
        if self.ending.draining:
            self.ending.proceed()
        if self._watch_at_ns is None and any(self.pool.busy()):
            self._watch_at_ns = self.ledger.now_ns + WATCH_BEHIND_NS

    def wake_at(self) -> int | None:
        """When the next `Tick` is due, if nothing else happens."""
        times = [
            self.session.wake_at(),
            self.pool.wake_at(),
            self.care.wake_at(),
            self._watch_at_ns,
            self.forwarding.wake_at(),
            self.ending.wake_at(),
        ]
        due = [at_ns for at_ns in times if at_ns is not None]
        return min(due) if due else None

    # --- The session ------------------------------------------------------------------------------

    def _on_received(self, event: e.Received) -> None:
        envelope = event.envelope
        message = envelope.message
        kind = type(message)
        if kind is m.Welcome:
            assert isinstance(message, m.Welcome)
            other = self.session.on_welcome(envelope, message)
            if other is not None:
                self._on_session(other)
        elif kind is m.Resync:
            self.session.on_resync()
        elif kind is m.Refused:
            assert isinstance(message, m.Refused)
            self.ending.on_refused(message)
        elif self.session.judge(envelope):
            handler = self._on_message.get(kind)
            if handler is None:
                self.ledger.say("warning", f"the broker sent {kind.__name__}, which is no agent's")
            else:
                handler(message)

    def _on_malformed(self, event: e.Malformed) -> None:
        self.ledger.say("warning", f"{self.config.broker} sent no evener message: {event.reason}")

    def _on_session(self, other: bool) -> None:
        self._offer_all = self.streams.stale = True
        self.pool.tell_all()
        if other:
            # What another broker sent and nobody started, the new one will send again.
            for attempt in list(self.ledger.waiting):
                self.ledger.forget(attempt)
            self.ledger.waiting.clear()
            for slot in self.pool.busy():
                self.handout.ask_all_back(slot, Wish.FORGET)
        if not self._connected_told:
            self._connected_told = True
            self.ledger.effects.append(Tell({"event": "connected", "broker": self.config.broker}))

    def _offer(self) -> None:
        if not self.session.is_open:
            return
        held: Sequence[Key] | None = None
        if self._offer_all:
            held = [*self.ledger.open, *self.session.results_held()]
        functions = self.pool.functions if self._offer_all or self.pool.changed else None
        draining = self.ending.draining or self.care.paused
        slots = 0 if draining else self.pool.places()
        wanted = () if functions is None else self.ledger.schedules
        shares = () if functions is None else self.pool.shares
        queues = self.config.queues
        self.session.send(m.Offer(slots, draining, queues, functions, held, wanted, shares))
        self._offer_all = self.pool.changed = False
        if not self.ending.draining:
            # What `evener ls workers` shows of them follows at once, not with the next second.
            self.session.beat_at_ns = self.ledger.now_ns

    def _on_heartbeat(self, heartbeat: m.Heartbeat) -> None:
        """The broker has its beats for many agents in one turn: so it finds the answers in few."""
        if self.ledger.now_ns >= self.session.beat_at_ns - _BEAT_EARLY_NS:
            self._beat()

    def _beat(self) -> None:
        now_ns = self.ledger.now_ns
        self.session.beat_at_ns = now_ns + HEARTBEAT_NS
        self.session.send(m.Heartbeat(running(self.pool.busy(), now_ns), self.pool.news()))

    # --- Work from the broker ---------------------------------------------------------------------

    def _on_run(self, run: m.Run) -> None:
        ledger = self.ledger
        now_ns = ledger.now_ns
        for item in run.items:
            key = item[:2]
            if key in ledger.open:
                continue
            attempt = ledger.take(key, item)
            if item[4]:
                attempt.timeout_ns = item[4] * MILLISECOND_NS
            if item[5]:
                attempt.deadline_ns = now_ns + item[5] * MILLISECOND_NS
                attempt.item = *item[:5], attempt.deadline_ns  # as the worker may ask for it
        for place in run.forward:
            known = ledger.open.get(run.items[place][:2])
            if known is not None:
                known.forward = True

    def _on_recall(self, recall: m.Recall) -> None:
        for key in recall.items:
            self._wish(key, Wish.RETURN)

    def _on_cancel(self, cancel: m.Cancel) -> None:
        for key in cancel.items:
            self._wish(key, Wish.CANCEL)

    def _wish(self, key: Key, wish: Wish) -> None:
        attempt = self.ledger.open.get(key)
        if attempt is None:
            return  # it ended: its result is on its way, or was taken
        if attempt.state is HANDED:
            self.handout.ask_back(self.pool.slots[attempt.slot], attempt, wish)
            return
        assert attempt.state is WAITING
        self.ledger.waiting.remove(attempt)
        self._grant(attempt, wish)

    def _grant(self, attempt: Attempt, wish: Wish) -> None:
        if wish is Wish.FORGET:
            self.ledger.forget(attempt)
        else:
            self.ledger.end(attempt, m.RETURNED if wish is Wish.RETURN else m.CANCELLED)

    def _return_waiting(self) -> None:
        waiting = self.ledger.waiting
        while waiting:
            self.ledger.end(waiting.popleft(), m.RETURNED)

    def _on_taken_back(self, event: e.TakenBack) -> None:
        slot = self.pool.slots[event.slot]
        granted, started = self.handout.taken_back(slot, event.count)
        for attempt in granted:
            assert attempt.wish is not None
            self._grant(attempt, attempt.wish)
        told: list[Key] = []
        for attempt in started:
            if attempt.wish is Wish.CANCEL:
                self.stopping.begin(attempt, m.CANCELLED, slot.lane_of(attempt))
            elif attempt.wish is Wish.RETURN:
                attempt.started_told = True
                told.append(attempt.key)
            attempt.wish = None
        if told:
            self.session.send(m.Started(told))

    # --- News from workers ------------------------------------------------------------------------

    def _on_ready(self, event: e.Ready) -> None:
        self.stopping.graces_ms.update(event.graces_ms)
        self.pool.shares = tuple(event.shares.items())
        self.handout.units = units_of(event.shares)
        self.ledger.schedules = event.schedules
        self.pool.on_ready(event)

    def _on_finished(self, event: e.Finished) -> None:
        slot = self.pool.slots[event.slot]
        if not self.handout.finished(slot, event.results):
            self.ledger.say("error", f"worker {slot.worker} sent what it was not asked for")
            self.pool.kill(slot)

    def _on_dropped(self, event: e.Dropped) -> None:
        self.handout.dropped(self.pool.slots[event.slot], event.last)

    # --- Time -------------------------------------------------------------------------------------

    def _on_tick(self, event: e.Tick) -> None:
        now_ns = self.ledger.now_ns
        self.session.on_tick()
        self.pool.start_due()
        if self.session.is_open and now_ns >= self.session.beat_at_ns:
            self._beat()
        if self._watch_at_ns is not None and now_ns >= self._watch_at_ns:
            self._watch_at_ns = self.watch.look(event)

    # --- Proof ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Recount everything that is kept twice. Raises AssertionError with the difference."""
        ledger = self.ledger
        self.forwarding.check()
        handed = [attempt for slot in self.pool.slots.values() for attempt in in_hand(slot)]
        assert all(attempt.state is WAITING for attempt in ledger.waiting)
        assert all(attempt.state is HANDED for attempt in handed)
        unacked = [attempt for _, batch in self.session.unacked for attempt in batch]
        assert ledger.result_bytes == sum(a.result_bytes() for a in (*unacked, *ledger.ended))
        keys = [attempt.key for attempt in (*ledger.waiting, *handed)]
        assert len(keys) == len(set(keys)), "an attempt stands twice"
        assert set(keys) == set(ledger.open), set(keys) ^ set(ledger.open)
        for slot in self.pool.slots.values():
            numbers = [attempt.sequence for attempt in slot.handed]
            assert numbers == list(range(slot.first, slot.first + len(numbers))), slot
            assert slot.taking <= slot.held(), slot
            check_shared(slot)
            assert slot.in_hand_ns == sum(attempt.estimate_ns for attempt in slot.handed), slot
            size = sum(len(a.item[3]) for a in slot.handed if a.item is not None)
            assert slot.in_hand_bytes == size, slot
            assert self.handout.knows(slot) == (slot.state is SlotState.READY), slot
            assert slot.state in MAY_HOLD or not slot.busy, slot

    def __repr__(self) -> str:
        workers = f"{self.handout.ready()} of {len(self.pool.slots)} workers ready"
        return f"<AgentCore {workers}, {len(self.ledger.open)} attempts, {self.session!r}>"
