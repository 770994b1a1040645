"""The agent's session with the broker: HELLO, WELCOME, numbering, silence, results until taken.

Rules of this file: decides only what is said when. What the messages mean for the work is decided
in `core.py`. Trust in the transport: it may drop, repeat and reorder.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final

from evener_wire import messages as m
from evener_wire.backoff import Backoff, Patience, a_little_later
from evener_wire.limits import (
    BATCH_BYTES_TARGET,
    BATCH_ITEMS_MAX,
    FRAMES_MAX,
    HEARTBEAT_NS,
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    RECONNECT_AGENT_MAX_NS,
    RECONNECT_MAX_NS,
    REFUSED_AGAIN_MAX_NS,
    SELF_FENCE_NS,
    SILENCE_NS,
)
from evener_wire.session import Sequence as Numbering
from evener_wire.session import Verdict
from evener_worker.attempts import Attempt
from evener_worker.effects import Reconnect, Send, SendResults
from evener_worker.ledger import Ledger
from evener_worker.limits import HELLO_AGAIN_NS

if TYPE_CHECKING:
    from evener_wire.codec import Envelope

NO_BROKER: Final = bytes(16)


class Phase(Enum):
    """How far the session is."""

    CLOSED = "closed"  # not begun, ended, or refused for now
    CUT = "cut"  # the connection takes nothing; HELLO follows once it does
    GREETED = "greeted"  # HELLO was sent
    OPEN = "open"


class Session:
    """Caller: the core's step. Affects: the ledger's effects."""

    __slots__ = (
        "_address",
        "_confirmed",
        "_contact_ns",
        "_facts",
        "_hello_at_ns",
        "_instance",
        "_ledger",
        "_lost_ns",
        "_name",
        "_numbering",
        "_patience",
        "_quiet_until_ns",
        "_reconnects",
        "_rng",
        "_told_silent",
        "beat_at_ns",
        "broker",
        "dropped",
        "epoch",
        "heard_ns",
        "phase",
        "unacked",
    )

    def __init__(
        self,
        ledger: Ledger,
        instance: bytes,
        name: str,
        address: str,
        facts: m.Facts,
        rng: random.Random,
    ) -> None:
        self._ledger = ledger
        self._rng = rng
        self._instance = instance
        self._name = name
        self._address = address
        self._facts = facts
        self._numbering: Numbering | None = None
        self._hello_at_ns = 0
        self._patience = Patience(HELLO_AGAIN_NS, SILENCE_NS)
        self._lost_ns = 0
        self._told_silent = False
        self._quiet_until_ns = 0  # after a refusal
        self._reconnects = Backoff(RECONNECT_MAX_NS, RECONNECT_AGENT_MAX_NS, rng)
        self._confirmed = False  # the broker has told what it makes of what we hold
        self.phase = Phase.CLOSED
        self.broker = NO_BROKER
        self.epoch = 0
        self.heard_ns = 0
        # When the broker last spoke within a session. Unlike `heard_ns`, trying again changes
        # nothing of it.
        self._contact_ns = 0
        self.beat_at_ns = 0
        self.dropped = 0  # messages that were old, repeated or of another session
        # Results told and not yet taken, by the number of their message.
        self.unacked: deque[tuple[int, list[Attempt]]] = deque()

    # --- Beginning and losing a session -----------------------------------------------------------

    def begin(self) -> None:
        """Say the first HELLO."""
        self.heard_ns = self._lost_ns = self._ledger.now_ns
        self._hello()

    def _hello(self) -> None:
        self.phase = Phase.GREETED
        self._numbering = None
        self._hello_at_ns = self._patience.asked(self._ledger.now_ns)
        hello = m.Hello(
            PROTOCOL_MIN,
            PROTOCOL_MAX,
            "agent",
            self._instance,
            self._name,
            self.epoch,
            self.broker,
            self._facts,
        )
        self._ledger.effects.append(Send(0, 0, hello))

    def on_send_failed(self) -> None:
        """Whatever was sent is lost with the connection; all is told again after WELCOME."""
        if self.phase is Phase.CLOSED:
            return
        if self.phase is Phase.OPEN:
            self._note_loss()
        self.phase = Phase.CUT
        self._numbering = None
        self._hello_at_ns = self._ledger.now_ns + HELLO_AGAIN_NS

    def on_writable(self) -> None:
        """The connection takes messages again."""
        if self.phase is Phase.CUT:
            self._hello()

    def on_tick(self) -> None:
        """Repeat HELLO; open a new connection after silence."""
        now_ns = self._ledger.now_ns
        if self.phase is Phase.CLOSED or now_ns < self._quiet_until_ns:
            return
        if now_ns - self.heard_ns > SILENCE_NS:
            if self.phase is Phase.OPEN:
                self._note_loss()
            elif not self._told_silent:
                self._told_silent = True
                waited = (now_ns - self._lost_ns) // 1_000_000_000
                self._ledger.say(
                    "warning",
                    f"cannot reach an evener broker at {self._address}"
                    f" (tried for {waited} s); still trying",
                )
            self.heard_ns = now_ns
            self._ledger.effects.append(Reconnect(self._reconnects.failed()))
            self._hello()
        elif self.phase is not Phase.OPEN and now_ns >= self._hello_at_ns:
            self._hello()

    def _note_loss(self) -> None:
        self._lost_ns = self._ledger.now_ns
        self._told_silent = True
        self._ledger.say("warning", f"lost the broker at {self._address}; trying to reach it")

    # --- Receiving --------------------------------------------------------------------------------

    def judge(self, envelope: Envelope) -> bool:
        """Whether the message is the next one of this session, to be acted on.

        What comes so late that the broker may have given this agent's work away is no sign that
        it has not: it may have lain in the socket meanwhile. Then the session starts anew.
        """
        now_ns = self.heard_ns = self._ledger.now_ns
        if self._numbering is None:
            self.dropped += 1
            return False
        verdict = self._numbering.judge(envelope.session, envelope.number)
        late = now_ns - self._contact_ns > SELF_FENCE_NS
        if verdict is Verdict.TAKE and not late:
            self._contact_ns = now_ns
            self._confirmed = True
            return True
        self.dropped += 1
        if verdict is Verdict.RESYNC or late:
            self._hello()
        return False

    def on_resync(self) -> None:
        """The broker does not know this session."""
        self.heard_ns = self._ledger.now_ns
        if self.phase is Phase.OPEN:
            self._hello()
        else:
            self.dropped += 1  # a HELLO is on its way already

    def on_welcome(self, envelope: Envelope, welcome: m.Welcome) -> bool | None:
        """Open the session. Whether it is another broker than before; None if it is no answer."""
        if self.phase is not Phase.GREETED or not envelope.session:
            self.dropped += 1
            return None
        numbering = Numbering(envelope.session)
        if numbering.judge(envelope.session, envelope.number) is not Verdict.TAKE:
            self.dropped += 1
            return None
        now_ns = self._ledger.now_ns
        if self.broker != NO_BROKER:
            gap = (now_ns - self._lost_ns) / 1e9 if self._told_silent else 0.0
            if self._told_silent or welcome.broker != self.broker:
                again = "restarted" if welcome.broker != self.broker else "is back"
                self._ledger.say("info", f"the broker {again} after {gap:.1f} s")
        other = welcome.broker != self.broker
        self._reconnects.reset()
        self._told_silent = False
        self._numbering = numbering
        self._confirmed = False
        self.phase = Phase.OPEN
        self.broker = welcome.broker
        self.epoch = welcome.epoch
        self.heard_ns = self._contact_ns = now_ns
        self.beat_at_ns = now_ns + HEARTBEAT_NS
        # The numbers of the old session mean nothing in this one: all results are told again.
        self._ledger.ended[:0] = [attempt for _, batch in self.unacked for attempt in batch]
        self.unacked.clear()
        return other

    def on_refused(self) -> None:
        """No session for now."""
        self.phase = Phase.CLOSED
        self._numbering = None

    def ask_again(self) -> None:
        """After a refusal that may pass: ask again, much later, and not all at the same time."""
        self.phase = Phase.CUT
        wait_ns = REFUSED_AGAIN_MAX_NS + self._rng.randrange(REFUSED_AGAIN_MAX_NS)
        self._quiet_until_ns = self._hello_at_ns = self._ledger.now_ns + wait_ns

    def on_deferred(self, wait_ns: int) -> None:
        """Many say HELLO at this moment: again on this connection, when the broker said.

        Within a session that answers a HELLO that was repeated too early: the session stands.
        """
        if self.phase is not Phase.GREETED:
            self.dropped += 1
            return
        self.heard_ns = self._ledger.now_ns
        self._hello_at_ns = self.heard_ns + a_little_later(wait_ns, self._rng)

    def on_ack(self, upto: int) -> None:
        """The broker took the results in messages up to this number."""
        while self.unacked and self.unacked[0][0] <= upto:
            for attempt in self.unacked.popleft()[1]:
                self._ledger.taken(attempt)

    # --- Sending ----------------------------------------------------------------------------------

    def send(self, message: m.Message) -> None:
        """Say something within the session. Nothing is said when there is none."""
        if self._numbering is not None:
            number = self._numbering.next_number()
            self._ledger.effects.append(Send(self._numbering.session, number, message))

    def flush(self) -> None:
        """Tell all results that ended since, in as few messages as the bounds allow."""
        ended = self._ledger.ended
        if self._numbering is None or not ended:
            return
        batch: list[Attempt] = []
        size = frames = 0
        for attempt in ended:
            if batch and (
                size + len(attempt.packed) > BATCH_BYTES_TARGET
                or len(batch) >= BATCH_ITEMS_MAX
                or frames + len(attempt.buffers) >= FRAMES_MAX
            ):
                self._send_results(batch)
                batch, size, frames = [], 0, 0
            batch.append(attempt)
            size += len(attempt.packed)
            frames += len(attempt.buffers)
        self._send_results(batch)
        ended.clear()

    def _send_results(self, batch: list[Attempt]) -> None:
        assert self._numbering is not None
        number = self._numbering.next_number()
        self.unacked.append((number, batch))
        self._ledger.effects.append(SendResults(self._numbering.session, number, batch))

    def results_held(self) -> Sequence[tuple[bytes, int]]:
        """Keys of all attempts that ended and whose results the broker has not taken."""
        told = [attempt.key for _, batch in self.unacked for attempt in batch]
        return told + [attempt.key for attempt in self._ledger.ended]

    @property
    def number(self) -> int:
        """The number of this session, drawn by the broker; 0 while there is none."""
        return 0 if self._numbering is None else self._numbering.session

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.phase is Phase.OPEN

    @property
    def fenced(self) -> bool:
        """Whether the broker may give this agent's work to others: start nothing new.

        Also between WELCOME and the first message after it: the broker says first what it has
        given away, and then anything else.
        """
        silent_ns = self._ledger.now_ns - self._contact_ns
        return silent_ns > SELF_FENCE_NS or (self.is_open and not self._confirmed)

    def wake_at(self) -> int | None:
        """When `on_tick` has something to do."""
        if self.phase is Phase.CLOSED:
            return None
        if self._quiet_until_ns > self._ledger.now_ns:
            return self._quiet_until_ns
        silent_ns = self.heard_ns + SILENCE_NS + 1
        if self.phase is Phase.OPEN:
            return min(silent_ns, self.beat_at_ns)
        return min(silent_ns, self._hello_at_ns)

    def __repr__(self) -> str:
        return f"<Session {self.phase.value}, {len(self.results_held())} results not taken>"
