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
from evener_wire.limits import HEARTBEAT_NS, MILLISECOND_NS
from evener_worker import events as e
from evener_worker.attempts import HANDED, WAITING, Attempt, Key, Wish
from evener_worker.config import AgentConfig
from evener_worker.effects import Effect, Exit, Tell
from evener_worker.ending import Ending
from evener_worker.handout import HandOut
from evener_worker.ledger import Ledger
from evener_worker.limits import STARTED_NS, STUCK_NS, WATCH_BEHIND_NS, WATCH_NS
from evener_worker.pool import Pool, how_it_ended
from evener_worker.session import Session
from evener_worker.slots import Slot, SlotState
from evener_worker.stopping import Stopping

_REFUSED_CODES: Final = {"protocol": 76, "auth": 77, "denied": 77}


class AgentCore:
    """One agent: one session with the broker, some slots with a worker process each."""

    def __init__(
        self, config: AgentConfig, instance: bytes, rng: random.Random, facts: m.Facts
    ) -> None:
        self.config = config
        self.ledger = Ledger()
        self.handout = HandOut(self.ledger)
        self.stopping = Stopping(self.ledger)
        self.pool = Pool(self.ledger, self.handout, rng, config.name, config.workers)
        self.session = Session(self.ledger, instance, config.name, config.broker, facts)
        self.ending = Ending(
            self.ledger, self.pool, self.session, config.drain_seconds * 1_000 * MILLISECOND_NS
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
            e.Ready: self.pool.on_ready,
            e.StartFailed: self.pool.on_start_failed,
            e.Finished: self._on_finished,
            e.Dropped: self._on_dropped,
            e.TakenBack: self._on_taken_back,
            e.Died: self._on_died,
            e.Tick: self._on_tick,
            e.Measured: self.pool.on_measured,
            e.StopAsked: self.ending.on_stop_asked,
        }
        self._on_message: dict[type, Callable[[Any], None]] = {
            m.Run: self._on_run,
            m.Ack: lambda ack: self.session.on_ack(ack.upto),
            m.Recall: self._on_recall,
            m.Cancel: self._on_cancel,
            m.Drain: lambda drain: self.ending.drain(drain.reason, 0),
            m.Heartbeat: lambda _: None,
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
        taking = False
        for slot in self.pool.busy():
            if slot.taking:
                taking = True
                self.handout.request(slot)
        if not taking:
            # An OFFER tells what is held, so it waits for the answers about what is taken back.
            if self.pool.changed or self._offer_all:
                self._offer()
            if self.ending.draining:
                self._return_waiting()
            elif not self.session.fenced:
                self.handout.hand_out()
        if not self._offer_all:
            # A broker that restarted must hear what is held before it hears how that ended.
            self.session.flush()
        if self.ending.draining:
            self.ending.proceed()
        if self._watch_at_ns is None and any(self.pool.busy()):
            self._watch_at_ns = self.ledger.now_ns + WATCH_BEHIND_NS

    def wake_at(self) -> int | None:
        """When the next `Tick` is due, if nothing else happens."""
        times = [
            self.session.wake_at(),
            self.pool.wake_at(),
            self._watch_at_ns,
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
            self._on_refused(message)
        elif self.session.judge(envelope):
            handler = self._on_message.get(kind)
            if handler is None:
                self.ledger.say("warning", f"the broker sent {kind.__name__}, which is no agent's")
            else:
                handler(message)

    def _on_malformed(self, event: e.Malformed) -> None:
        self.ledger.say("warning", f"{self.config.broker} sent no evener message: {event.reason}")

    def _on_session(self, other: bool) -> None:
        self._offer_all = True
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

    def _on_refused(self, refused: m.Refused) -> None:
        code = _REFUSED_CODES.get(refused.code)
        self.session.on_refused()
        self.ledger.say("error", f"the broker refused this agent: {refused.text}")
        if code is None:
            self.session.ask_again()
            return
        self.ledger.effects.append(Tell({"event": "error", "code": code, "text": refused.text}))
        self.pool.kill_all()
        self.ledger.effects.append(Exit(code))

    def _offer(self) -> None:
        if not self.session.is_open:
            return
        held: Sequence[Key] | None = None
        functions = None
        if self._offer_all:
            held = [*self.ledger.open, *self.session.results_held()]
            functions = self.pool.functions
        elif self.pool.changed:
            functions = self.pool.functions
        slots = 0 if self.ending.draining else self.handout.ready()
        self.session.send(m.Offer(slots, self.ending.draining, self.config.queues, functions, held))
        self._offer_all = self.pool.changed = False
        if not self.ending.draining:
            # What `evener ls workers` shows of them follows at once, not with the next second.
            self.session.beat_at_ns = self.ledger.now_ns

    def _beat(self) -> None:
        now_ns = self.ledger.now_ns
        self.session.beat_at_ns = now_ns + HEARTBEAT_NS
        running = [
            (*slot.handed[0].key, (now_ns - slot.head_since_ns) // MILLISECOND_NS)
            for slot in self.pool.busy()
        ]
        self.session.send(m.Heartbeat(running, self.pool.facts()))

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
                self.stopping.begin(attempt, m.CANCELLED)
            elif attempt.wish is Wish.RETURN:
                attempt.started_told = True
                told.append(attempt.key)
            attempt.wish = None
        if told:
            self.session.send(m.Started(told))

    # --- News from workers ------------------------------------------------------------------------

    def _on_finished(self, event: e.Finished) -> None:
        slot = self.pool.slots[event.slot]
        if not self.handout.finished(slot, event.results):
            self.ledger.say("error", f"worker {slot.worker} sent what it was not asked for")
            self.pool.kill(slot)

    def _on_dropped(self, event: e.Dropped) -> None:
        self.handout.dropped(self.pool.slots[event.slot], event.last)

    def _on_died(self, event: e.Died) -> None:
        slot = self.pool.slots[event.slot]
        handed = self.handout.died(slot)
        certificate = self._certificate(slot, event) if handed else None
        ran = ""
        for attempt in handed:
            if attempt.sequence > event.started:
                self.ledger.end(attempt, m.RETURNED)
            elif attempt.stop_outcome is not None:
                age_us = (self.ledger.now_ns - slot.head_since_ns) // 1_000
                self.ledger.end(attempt, attempt.stop_outcome, age_us, certificate)
            else:
                ran = f"{attempt.function}[{attempt.key[0].hex()[:8]}]"
                self.ending.stopped += bool(self.ending.why)
                self.ledger.end(attempt, m.LOST, 0, certificate)
        self.pool.on_died(event, ran)

    def _certificate(self, slot: Slot, event: e.Died) -> m.Facts:
        now_ns = self.ledger.now_ns
        return {
            "reason": how_it_ended(event) + (f" ({self.ending.why})" if self.ending.why else ""),
            "worker": slot.worker,
            "pid": slot.pid,
            "exit_code": event.exit_code,
            "signal": event.signal,
            "rss_bytes": slot.rss_bytes,
            "age_ms": (now_ns - slot.spawned_ns) // MILLISECOND_NS,
            "ran_ms": (now_ns - slot.head_since_ns) // MILLISECOND_NS,
            "lines": tuple(event.lines),
        }

    # --- Time -------------------------------------------------------------------------------------

    def _on_tick(self, event: e.Tick) -> None:
        now_ns = self.ledger.now_ns
        self.session.on_tick()
        self.pool.start_due()
        if self.session.is_open and now_ns >= self.session.beat_at_ns:
            self._beat()
        if self._watch_at_ns is not None and now_ns >= self._watch_at_ns:
            self._watch(event)

    def _watch(self, event: e.Tick) -> None:
        """Look at what busy workers run: take back what waits behind, end what is late."""
        now_ns = self.ledger.now_ns
        next_ns: int | None = None
        started: list[Key] = []
        for slot in self.pool.busy():
            page = event.pages.get(slot.number)
            if page is None:
                continue
            head = slot.handed[0]
            age_ns = now_ns - slot.head_since_ns
            slot.stuck = age_ns > STUCK_NS
            behind = len(slot.handed) > 1
            if behind and (slot.stuck or self.session.fenced):
                self.handout.ask_all_back(slot)
            if not head.started_told and age_ns > STARTED_NS and page.started >= head.sequence:
                head.started_told = True
                started.append(head.key)
            look_ns = self.stopping.look(slot, page)
            period_ns = WATCH_BEHIND_NS if behind else WATCH_NS
            for at_ns in (look_ns, now_ns + period_ns):
                if at_ns is not None and (next_ns is None or at_ns < next_ns):
                    next_ns = at_ns
        self._watch_at_ns = next_ns
        if started:
            self.session.send(m.Started(started))

    # --- Proof ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Recount everything that is kept twice. Raises AssertionError with the difference."""
        ledger = self.ledger
        handed = [attempt for slot in self.pool.slots.values() for attempt in slot.handed]
        assert all(attempt.state is WAITING for attempt in ledger.waiting)
        assert all(attempt.state is HANDED for attempt in handed)
        keys = [attempt.key for attempt in (*ledger.waiting, *handed)]
        assert len(keys) == len(set(keys)), "an attempt stands twice"
        assert set(keys) == set(ledger.open), set(keys) ^ set(ledger.open)
        for slot in self.pool.slots.values():
            numbers = [attempt.sequence for attempt in slot.handed]
            assert numbers == list(range(slot.first, slot.first + len(numbers))), slot
            assert slot.in_hand_ns == sum(attempt.estimate_ns for attempt in slot.handed), slot
            assert slot.in_hand_bytes == sum(
                len(attempt.item[3]) for attempt in slot.handed if attempt.item is not None
            )
            ready = slot.state is SlotState.READY
            assert self.handout.knows(slot) == ready, slot
            assert ready or slot.state is SlotState.LEAVING or not slot.handed, slot

    def __repr__(self) -> str:
        return (
            f"<AgentCore {self.handout.ready()} of {len(self.pool.slots)} workers ready,"
            f" {len(self.ledger.open)} attempts, {self.session!r}>"
        )
