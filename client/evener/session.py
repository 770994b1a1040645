"""The client's side of a session with a broker: events and the time in, effects out. Pure.

Rules of this file: no I/O, no clock, no randomness but the one handed in. Whatever the transport
does, each task that was submitted ends once: what the broker has not accepted is sent again in the
next session, everything open is sent again to a broker that restarted, and repeated ends are
ignored.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from evener.deadlines import Deadlines
from evener.session_records import (
    Abandon,
    Answered,
    Asked,
    CancelAsked,
    Cause,
    CloseAsked,
    Connected,
    Disconnected,
    Effect,
    Event,
    Malformed,
    Received,
    Reopen,
    Send,
    State,
    Submitted,
    Took,
)
from evener.session_state import SessionState
from evener.session_work import ACK, Work
from evener.texts import noticed, plural
from evener_wire import messages as m
from evener_wire.backoff import Patience, a_little_later
from evener_wire.limits import (
    ID_BYTES,
    MILLISECOND_NS,
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    SECOND_NS,
    SILENCE_NS,
)
from evener_wire.session import Sequence as Numbering
from evener_wire.session import Verdict

_HELLO_REPEAT_NS: Final = SECOND_NS
_HELLO_PAUSE_NS: Final = 100 * MILLISECOND_NS  # between two, when a broker answers with RESYNC
_VIOLATIONS_MAX: Final = 3  # sessions in a row that the broker ended because of what we sent

# What a broker may refuse today and not tomorrow.
_PASSING_REFUSALS: Final = frozenset(("busy", "violation"))

# Names of deadlines.
_SILENCE: Final = "silence"
_BEAT: Final = "beat"
_HELLO: Final = "hello"
_CLOSING: Final = "closing"


class ClientSession(SessionState):
    """One client's session with one broker, over all its reconnections.

    `instance` stays the same for the life of the client. `hold_when_full`: tasks that a full broker
    rejects wait here; otherwise they end with the rejection. Times never go back.
    """

    def __init__(
        self,
        instance: bytes,
        name: str,
        facts: m.Facts,
        rng: random.Random,
        *,
        hold_when_full: bool = True,
    ) -> None:
        super().__init__(rng)
        self.refusal: tuple[str, str] | None = None
        """The last one, also where it was passing."""
        self._instance = instance
        self._name = name
        self._facts = facts
        self._numbering: Numbering | None = None
        self._deadlines = Deadlines()
        self._work = Work(self, self._deadlines, rng, hold_when_full)
        self.tasks = self._work.tasks
        self._heard_ns = 0
        self._sent_ns = 0
        self._hello_ns = 0  # when the last one was said
        self._patience = Patience(_HELLO_REPEAT_NS, SILENCE_NS)
        self._lost_ns: int | None = None
        self._violations = 0
        self._quiet_until_ns = 0  # after a refusal
        self._closing = self._closing_over = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            m.Welcome: self._on_welcome,
            m.Accepted: self._on_accepted,
            m.Rejected: self._work.on_rejected,
            m.Terminal: self._work.on_terminal,
            m.Progress: self._work.on_progress,
            m.Values: self._work.on_values,
            m.Output: self._work.on_output,
            m.Heartbeat: lambda message: None,  # that it came is all it says
            m.Notice: lambda it: self._log("warning", noticed(it.code, it.text)),
            m.Answer: self._work.on_answer,
            m.Goodbye: self._on_goodbye,
        }
        self._inputs: dict[type, Callable[[Any], None]] = {
            Submitted: self._submitted,
            CancelAsked: self._cancel_asked,
            Took: lambda event: self._work.took(event, self.state is State.OPEN),
            Asked: self._asked,
            Received: self._received,
            Malformed: self._malformed,
            Connected: self._connected,
            Disconnected: self._disconnected,
            CloseAsked: self._close_asked,
        }

    # --- One turn ---------------------------------------------------------------------------------

    def step(self, now_ns: int, events: Sequence[Event]) -> list[Effect]:
        """Take in what happened until `now_ns` and decide."""
        if not self.now_ns:
            self._heard_ns = now_ns
            self._deadlines.set(_SILENCE, now_ns + self._silence_ns())
        self.now_ns = now_ns
        inputs = self._inputs
        for event in events:
            inputs[type(event)](event)
        if now_ns >= self._deadlines.next_at():
            for name in self._deadlines.due(now_ns):
                self._on_due(name)
        if self.state is State.OPEN:
            self._work.flush()
        if self._closing:
            self._go_on_closing()
        effects, self.effects = self.effects, []
        return effects

    def wake_at(self) -> int:
        """When the next step is due even if nothing happens. May be early."""
        return self._deadlines.next_at()

    def idle(self) -> bool:
        """Whether a task that is submitted now would leave at once."""
        return self.state is State.OPEN and self.tasks.idle()

    @property
    def hold_when_full(self) -> bool:
        """Whether tasks wait here while the broker is full."""
        return self._work.hold_when_full

    # --- What the program wants -------------------------------------------------------------------

    def _submitted(self, event: Submitted) -> None:
        if self.is_over():
            refusal = self.refusal if self.state is State.REFUSED else None
            self.effects.append(Abandon(event.tickets, refusal))
        else:
            self._work.submit(event.tickets)

    def _cancel_asked(self, event: CancelAsked) -> None:
        if not self.is_over():
            self._work.cancel(event)

    def _asked(self, event: Asked) -> None:
        if self.is_over():
            self.effects.append(Answered(event.number, False, None))
        else:
            self._work.ask(event, self.state is State.OPEN)

    def _close_asked(self, event: CloseAsked) -> None:
        if self.state is not State.CLOSED:
            self._closing = True
            self._deadlines.set(_CLOSING, self.now_ns + event.timeout_ns)

    # --- The connection ---------------------------------------------------------------------------

    def _connected(self, event: Connected) -> None:
        if self.state is State.CONNECTING:
            self._move(Cause.CONNECTED)
            if _HELLO not in self._deadlines:
                self._say_hello()

    def _disconnected(self, event: Disconnected) -> None:
        if self.state in (State.GREETING, State.OPEN):
            self._lose(event.reason)

    def _lose(self, reason: str) -> None:
        if self.state is State.OPEN:
            self._lost_ns = self.now_ns
            left = f", with {plural(count, 'open task')}" if (count := len(self.tasks)) else ""
            self._log("warning", f"lost the broker ({reason}){left}")
        self._leave_session()
        self._deadlines.clear(_HELLO)
        self._move(Cause.LOST)

    def _leave_session(self) -> None:
        self._numbering = None
        self._deadlines.clear(_BEAT)

    def _say_hello(self) -> None:
        last = self.welcome
        epoch, broker = (last.epoch, last.broker) if last else (0, bytes(ID_BYTES))
        who = (self._instance, self._name, epoch, broker, self._facts)
        self._hello_ns = self.now_ns
        self._quiet_until_ns = min(self._quiet_until_ns, self.now_ns)
        self.effects.append(Send(0, 0, m.Hello(PROTOCOL_MIN, PROTOCOL_MAX, "client", *who)))
        self._deadlines.set(_HELLO, self._patience.asked(self.now_ns))

    def _greet_again(self) -> None:
        """The session is over, the connection may be fine: HELLO, but not in a tight circle."""
        wait_ns = self._hello_ns + _HELLO_PAUSE_NS - self.now_ns
        self._greet_after(wait_ns)
        if wait_ns <= 0:
            self._say_hello()

    def _greet_after(self, wait_ns: int) -> None:
        """HELLO later. Until then nothing is expected of the broker."""
        self._leave_session()
        if self.state is State.OPEN:
            self._move(Cause.OUT_OF_STEP)
        self._quiet_until_ns = self.now_ns + wait_ns
        self._deadlines.set(_HELLO, self._quiet_until_ns)

    # --- Messages ---------------------------------------------------------------------------------

    def _received(self, event: Received) -> None:
        session, number, message = event.envelope
        if self.state not in (State.GREETING, State.OPEN):
            self.count("messages_without_session")
            return
        self._heard_ns = self.now_ns
        if session == 0:
            self._outside_session(message)
            return
        numbering = self._numbering
        if type(message) is m.Welcome and (numbering is None or numbering.session != session):
            numbering = self._numbering = Numbering(session)
        if numbering is None:
            self.count("messages_of_old_session")
            return
        verdict = numbering.judge(session, number)
        if verdict is Verdict.TAKE:
            handler = self._handlers.get(type(message))
            if handler is None:
                self._malformed(Malformed(f"a broker may not send {type(message).__name__}"))
            else:
                handler(message)
        elif verdict is Verdict.DROP or session != numbering.session:
            self.count("messages_of_old_session")
        else:
            self.count("out_of_step")
            self._greet_again()

    def _outside_session(self, message: m.Message) -> None:
        if type(message) is m.Resync:
            self.count("resyncs")
            # While a HELLO is on its way the answer to it settles the matter.
            if self.state is State.OPEN:
                self._greet_again()
        elif type(message) is m.Refused:
            self._on_refused(message)
        else:
            self.count("messages_without_session")

    def _malformed(self, event: Malformed) -> None:
        self.count("messages_malformed")
        self._log("debug", f"the broker sent something that is no message: {event.reason}")
        if self.state is State.OPEN:
            self._greet_again()

    def _on_refused(self, message: m.Refused) -> None:
        if message.code == "retry_after":
            # Within a session it answers a HELLO that was repeated: the session stands.
            if self.state is State.GREETING:
                self.count("deferred")
                self._greet_after(a_little_later(message.wait_ms * MILLISECOND_NS, self._rng))
            return
        self.refusal = (message.code, message.text)
        if message.code == "violation":
            self._violations += 1
        if message.code in _PASSING_REFUSALS and self._violations < _VIOLATIONS_MAX:
            if not self._refusals.failures:
                self._log("warning", f"the broker refused the session for now: {message.text}")
            self._greet_after(self._refusals.failed_for_now())
            return
        self._log("error", f"the broker refused the session: {message.text}")
        self._end(Cause.REFUSED, self.refusal)

    def _on_welcome(self, message: m.Welcome) -> None:
        before, self.welcome = self.welcome, message
        restarted = before is not None and before.broker != message.broker
        again = self._work.welcomed(restarted)
        self._reconnects.reset()
        self._deadlines.clear(_HELLO)
        self._deadlines.set(_BEAT, self.now_ns + self._beat_ns())
        self._deadlines.set(_SILENCE, self.now_ns + self._silence_ns())
        self._move(Cause.WELCOMED)
        if self._lost_ns is not None:
            gap_s = (self.now_ns - self._lost_ns) / 1e9
            news = f"; it restarted, {plural(again, 'open task')} submitted again" * restarted
            self._log("warning", f"connected to the broker again after {gap_s:.1f} s{news}")
            self._lost_ns = None
        self._work.ask_again()

    def _on_accepted(self, message: m.Accepted) -> None:
        self._violations = 0
        self._refusals.reset()
        self._work.on_accepted(message)

    def _on_goodbye(self, message: m.Goodbye) -> None:
        self._lose(f"it said goodbye: {message.reason}")
        self._deadlines.set(_HELLO, self.now_ns + _HELLO_REPEAT_NS)

    # --- Time -------------------------------------------------------------------------------------

    def _on_due(self, name: object) -> None:
        if name == _BEAT and self.state is not State.OPEN:
            return  # after a pause silence is due in the same step, and ended the session
        if name == _SILENCE:
            self._on_silence()
        elif name == _BEAT:
            if self.now_ns - self._sent_ns >= self._beat_ns():
                self.send(m.Heartbeat())
            self._deadlines.set(_BEAT, self._sent_ns + self._beat_ns())
        elif name == _HELLO:
            if self.state is State.GREETING:
                self._say_hello()
        elif name == ACK:
            if self.state is State.OPEN:
                self._work.acknowledge()
        elif name == _CLOSING:
            self._closing_over = True
        else:
            self._work.on_due(name)

    def _on_silence(self) -> None:
        since_ns = max(self._heard_ns, min(self._quiet_until_ns, self.now_ns))
        if self.now_ns - since_ns >= self._silence_ns():
            self._heard_ns = since_ns = self.now_ns
            if self.state is not State.CONNECTING:
                self._lose("silent")
            self._deadlines.clear(_HELLO)
            self.effects.append(Reopen(self._reconnects.failed()))
        self._deadlines.set(_SILENCE, since_ns + self._silence_ns())

    def _go_on_closing(self) -> None:
        waits = self.tasks.undelivered() and not self._closing_over
        if waits and self.state is not State.REFUSED:
            return
        if self.state is State.OPEN:
            self._work.acknowledge()
            self.send(m.Goodbye("closed"))
        self._closing = False
        self._end(Cause.CLOSED, None)

    def _end(self, cause: Cause, refusal: tuple[str, str] | None) -> None:
        self._move(cause)
        self._leave_session()
        self._work.abandon(refusal)
        self._deadlines.clear_all()

    # --- Small things -----------------------------------------------------------------------------

    def send(self, message: m.Message) -> int:
        """Numbers a message of the session and sends it. For the session and its work."""
        numbering = self._numbering
        assert numbering is not None
        number = numbering.next_number()
        self._sent_ns = self.now_ns
        self.effects.append(Send(numbering.session, number, message))
        return number

    def received(self) -> int:
        """The number of the last message of the session that was taken."""
        assert self._numbering is not None
        return self._numbering.received

    # --- For people and tests ---------------------------------------------------------------------

    def check(self) -> None:
        """Recount all redundant state; raises AssertionError. For tests: linear in all tasks."""
        super().check()
        self._work.check()
        self._deadlines.check()
        is_open = self.state is State.OPEN
        assert is_open <= (self._numbering is not None)
        assert is_open <= (self.welcome is not None)
        assert is_open == (_BEAT in self._deadlines)
        assert (_SILENCE in self._deadlines) or self.is_over()

    def __repr__(self) -> str:
        counts = " ".join(f"{count} {name}" for name, count in self.tasks.counts().items())
        return f"<ClientSession {self.state.name.lower()} {counts}>"
