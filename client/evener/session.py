"""The client's side of a session with a broker: events and the time in, effects out. Pure.

Rules of this file: no I/O, no clock, no randomness but the one handed in. Whatever the transport does,
each task that was submitted ends once: what the broker has not accepted is sent again in the next
session, everything open is sent again to a broker that restarted, and repeated ends are ignored.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from evener.session_records import (
    TRANSITIONS,
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
    Level,
    Log,
    Malformed,
    Received,
    Reject,
    Reopen,
    Resolve,
    Send,
    State,
    StateChanged,
    Submitted,
    TerminalItem,
)
from evener.submissions import Submissions
from evener_wire import messages as m
from evener_wire.limits import (
    ACK_DELAY_NS,
    BATCH_ITEMS_MAX,
    CLIENT_BYTES_MAX,
    CLIENT_TASKS_MAX,
    HEARTBEAT_NS,
    ID_BYTES,
    MIB,
    MILLISECOND_NS,
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    SECOND_NS,
    SILENCE_NS,
)
from evener_wire.session import Sequence as Numbering
from evener_wire.session import Verdict

# TERMINALs that are acknowledged at once instead of after the usual delay. The broker has up to 64
# messages on the way, so this must be well below.
_ACK_MESSAGES: Final = 32
_ACK_BYTES: Final = MIB

_HELLO_REPEAT_NS: Final = SECOND_NS
_HELLO_PAUSE_NS: Final = 100 * MILLISECOND_NS  # between two, when a broker answers with RESYNC

# After the broker said that it is full.
_FULL_DELAY_MIN_NS: Final = 20 * MILLISECOND_NS
_FULL_DELAY_MAX_NS: Final = SECOND_NS

# Sessions in a row that the broker ended because of what we sent.
_VIOLATIONS_MAX: Final = 3

_LOG_LENGTH: Final = 256

# What a broker may refuse today and not tomorrow.
_PASSING_REFUSALS: Final = frozenset(("busy", "violation"))


class ClientSession:
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
        self.state = State.CONNECTING
        self.welcome: m.Welcome | None = None
        self.refusal: tuple[str, str] | None = None
        """The last one, also where it was passing."""
        self.tasks = Submissions()
        self.transitions: deque[tuple[int, State, Cause, State]] = deque(maxlen=_LOG_LENGTH)
        self.counters: dict[str, int] = {}
        self._instance = instance
        self._name = name
        self._facts = facts
        self._rng = rng
        self.hold_when_full = hold_when_full
        self._numbering: Numbering | None = None
        self._now_ns = 0
        self._heard_ns = 0
        self._sent_ns = 0
        self._hello_ns = 0  # when the last one was said
        self._hello_at: int | None = None
        self._lost_at: int | None = None
        self._unacked = 0
        self._unacked_bytes = 0
        self._ack_at: int | None = None
        self._full_delay_ns = _FULL_DELAY_MIN_NS
        self._retry_at: int | None = None
        self._violations = 0
        self._closing_at: int | None = None
        self._cancelling: dict[bytes, None] = {}
        self._cancels_due: list[bytes] = []
        self._questions: dict[int, tuple[str, m.Facts, int]] = {}
        self._effects: list[Effect] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            m.Welcome: self._on_welcome,
            m.Accepted: self._on_accepted,
            m.Rejected: self._on_rejected,
            m.Terminal: self._on_terminal,
            m.Heartbeat: self._on_heartbeat,
            m.Notice: self._on_notice,
            m.Answer: self._on_answer,
            m.Goodbye: self._on_goodbye,
        }
        self._inputs: dict[type, Callable[[Any], None]] = {
            Submitted: self._submitted,
            CancelAsked: self._cancel_asked,
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
        if not self._now_ns:
            self._heard_ns = now_ns
        self._now_ns = now_ns
        inputs = self._inputs
        for event in events:
            inputs[type(event)](event)
        self._look_at_clock()
        if self.state is State.OPEN:
            self._flush()
        effects, self._effects = self._effects, []
        return effects

    def wake_at(self) -> int | None:
        """When the next step is due even if nothing happens."""
        if self.state in (State.CLOSED, State.REFUSED):
            return None
        times = [self._heard_ns + self._silence_ns(), self._hello_at, self._ack_at]
        times += [self._retry_at, self._closing_at]
        if self.state is State.OPEN:
            times.append(self._sent_ns + self._beat_ns())
        times.extend(question[2] for question in self._questions.values())
        return min(at for at in times if at is not None)

    def idle(self) -> bool:
        """Whether a task that is submitted now would leave at once."""
        return self.state is State.OPEN and self.tasks.idle()

    @property
    def tasks_max(self) -> int:
        """Open tasks that the broker takes from this client."""
        return CLIENT_TASKS_MAX if self.welcome is None else self.welcome.tasks_max

    @property
    def bytes_max(self) -> int:
        """Payload bytes of open tasks that the broker takes from this client."""
        return CLIENT_BYTES_MAX if self.welcome is None else self.welcome.bytes_max

    def _beat_ns(self) -> int:
        return self.welcome.heartbeat_ms * MILLISECOND_NS if self.welcome else HEARTBEAT_NS

    def _silence_ns(self) -> int:
        return self.welcome.silence_ms * MILLISECOND_NS if self.welcome else SILENCE_NS

    # --- What the program wants -------------------------------------------------------------------

    def _submitted(self, event: Submitted) -> None:
        if self.state in (State.REFUSED, State.CLOSED):
            self._effects.append(Abandon(event.tickets, self.refusal))
            return
        self.tasks.add(event.tickets)

    def _cancel_asked(self, event: CancelAsked) -> None:
        unsent = self.tasks.unsent(event.task_ids)
        if unsent:
            ended: list[TerminalItem] = [(i, m.TERMINAL_CANCELLED, b"", None) for i in unsent]
            self._effects.append(Resolve(self.tasks.ended(ended)))
        self._cancelling.update((i, None) for i in event.task_ids if i in self.tasks)
        # Of other clients, too; but not those that have just ended here.
        self._cancels_due += [i for i in event.task_ids if i not in unsent]

    def _asked(self, event: Asked) -> None:
        if self.state in (State.REFUSED, State.CLOSED):
            self._effects.append(Answered(event.number, False, None))
            return
        at_ns = self._now_ns + event.timeout_ns
        self._questions[event.number] = (event.what, event.arguments, at_ns)
        if self.state is State.OPEN:
            self._send(m.Query(event.number, event.what, event.arguments))

    def _close_asked(self, event: CloseAsked) -> None:
        if self.state is not State.CLOSED:
            self._closing_at = self._now_ns + event.timeout_ns

    # --- The connection ---------------------------------------------------------------------------

    def _connected(self, event: Connected) -> None:
        if self.state is not State.CONNECTING:
            return
        self._move(Cause.CONNECTED)
        if self._hello_at is None or self._hello_at <= self._now_ns:
            self._say_hello()

    def _disconnected(self, event: Disconnected) -> None:
        if self.state in (State.GREETING, State.OPEN):
            self._lose(event.reason)

    def _lose(self, reason: str) -> None:
        if self.state is State.OPEN:
            self._lost_at = self._now_ns
            waiting = f"; {len(self.tasks)} open tasks wait for it" if len(self.tasks) else ""
            self._log("warning", f"lost the broker ({reason}){waiting}")
        self._numbering = None
        self._hello_at = None
        self._move(Cause.LOST)

    def _say_hello(self) -> None:
        epoch, broker = 0, bytes(ID_BYTES)
        if self.welcome is not None:
            epoch, broker = self.welcome.epoch, self.welcome.broker
        hello = m.Hello(
            PROTOCOL_MIN,
            PROTOCOL_MAX,
            "client",
            self._instance,
            self._name,
            epoch,
            broker,
            self._facts,
        )
        self._hello_ns = self._now_ns
        self._hello_at = self._now_ns + _HELLO_REPEAT_NS
        self._effects.append(Send(0, 0, hello))

    def _greet_again(self, pause_ns: int = _HELLO_PAUSE_NS) -> None:
        """The session is over, the connection may be fine: HELLO, but not in a tight circle."""
        self._numbering = None
        if self.state is State.OPEN:
            self._move(Cause.OUT_OF_STEP)
        if self._now_ns - self._hello_ns >= pause_ns:
            self._say_hello()
        else:
            self._hello_at = self._hello_ns + pause_ns

    # --- Messages ---------------------------------------------------------------------------------

    def _received(self, event: Received) -> None:
        session, number, message = event.envelope
        if self.state not in (State.GREETING, State.OPEN):
            self._count("messages_without_session")
            return
        self._heard_ns = self._now_ns
        if session == 0:
            self._outside_session(message)
            return
        numbering = self._numbering
        if type(message) is m.Welcome and (numbering is None or numbering.session != session):
            numbering = self._numbering = Numbering(session)
        if numbering is None:
            self._count("messages_of_old_session")
            return
        verdict = numbering.judge(session, number)
        if verdict is Verdict.TAKE:
            handler = self._handlers.get(type(message))
            if handler is None:
                self._malformed(Malformed(f"a broker may not send {type(message).__name__}"))
            else:
                handler(message)
        elif verdict is Verdict.DROP or session != numbering.session:
            self._count("messages_of_old_session")
        else:
            self._count("out_of_step")
            self._greet_again()

    def _outside_session(self, message: m.Message) -> None:
        if type(message) is m.Resync:
            self._count("resyncs")
            # While a HELLO is on its way the answer to it settles the matter.
            if self.state is State.OPEN:
                self._greet_again()
        elif type(message) is m.Refused:
            self._on_refused(message)
        else:
            self._count("messages_without_session")

    def _malformed(self, event: Malformed) -> None:
        self._count("messages_malformed")
        self._log("debug", f"the broker sent something that is no message: {event.reason}")
        if self.state is State.OPEN:
            self._greet_again()

    def _on_refused(self, message: m.Refused) -> None:
        self.refusal = (message.code, message.text)
        if message.code == "violation":
            self._violations += 1
        if message.code in _PASSING_REFUSALS and self._violations < _VIOLATIONS_MAX:
            self._log("warning", f"the broker refused the session for now: {message.text}")
            self._greet_again(_HELLO_REPEAT_NS)
            return
        self._log("error", f"the broker refused the session: {message.text}")
        self._move(Cause.REFUSED)
        self._abandon(self.refusal)

    def _on_welcome(self, message: m.Welcome) -> None:
        before, self.welcome = self.welcome, message
        restarted = before is not None and before.broker != message.broker
        again = 0
        if restarted:
            again = self.tasks.restarted()
        else:
            self.tasks.reconnected()
        self._hello_at = None
        self._retry_at = None
        self._unacked = self._unacked_bytes = 0
        self._ack_at = None
        self._cancels_due = list(self._cancelling)
        self._move(Cause.WELCOMED)
        if self._lost_at is not None:
            gap_s = (self._now_ns - self._lost_at) / 1e9
            news = f"; it restarted, {again} open tasks submitted again" if restarted else ""
            self._log("warning", f"connected to the broker again after {gap_s:.1f} s{news}")
            self._lost_at = None
        for number, (what, arguments, _) in self._questions.items():
            self._send(m.Query(number, what, arguments))

    def _on_accepted(self, message: m.Accepted) -> None:
        self.tasks.accepted(message.upto)
        self._violations = 0
        if not self.tasks.held():
            self._full_delay_ns = _FULL_DELAY_MIN_NS

    def _on_rejected(self, message: m.Rejected) -> None:
        rejected: list[Any] = []
        full: set[bytes] = set()
        for task_id, code, text in message.items:
            if code == "queue_full" and self.hold_when_full:
                full.add(task_id)
                continue
            ticket = self.tasks.remove(task_id)
            self._cancelling.pop(task_id, None)
            if ticket is not None:
                rejected.append((ticket, code, text))
        if rejected:
            self._effects.append(Reject(rejected))
        if full:
            self.tasks.hold(full)
        if self.tasks.held() and self._retry_at is None:
            spread = self._rng.uniform(0.5, 1.0)
            self._retry_at = self._now_ns + int(self._full_delay_ns * spread)
            self._full_delay_ns = min(2 * self._full_delay_ns, _FULL_DELAY_MAX_NS)

    def _on_terminal(self, message: m.Terminal) -> None:
        items = message.items
        endings = self.tasks.ended(items)
        if len(endings) != len(items):
            self._count("terminals_repeated", len(items) - len(endings))
        if self._cancelling:
            for item in items:
                self._cancelling.pop(item[0], None)
        if endings:
            self._effects.append(Resolve(endings))
        self._unacked += 1
        self._unacked_bytes += sum([len(item[2]) for item in items])
        if self._unacked >= _ACK_MESSAGES or self._unacked_bytes >= _ACK_BYTES:
            self._acknowledge()
        elif self._ack_at is None:
            self._ack_at = self._now_ns + ACK_DELAY_NS

    def _acknowledge(self) -> None:
        assert self._numbering is not None
        self._unacked = self._unacked_bytes = 0
        self._ack_at = None
        self._send(m.Ack(self._numbering.received))

    def _on_heartbeat(self, message: m.Heartbeat) -> None:
        pass  # that it came is all it says

    def _on_notice(self, message: m.Notice) -> None:
        self._log("warning", message.text)

    def _on_answer(self, message: m.Answer) -> None:
        if self._questions.pop(message.number, None) is not None:
            self._effects.append(Answered(message.number, message.ok, message.body))

    def _on_goodbye(self, message: m.Goodbye) -> None:
        self._lose(f"it said goodbye: {message.reason}")
        self._hello_at = self._now_ns + _HELLO_REPEAT_NS

    # --- Time -------------------------------------------------------------------------------------

    def _look_at_clock(self) -> None:
        now_ns = self._now_ns
        state = self.state
        if self._closing_at is not None:
            self._go_on_closing()
            state = self.state
        if state is State.REFUSED or state is State.CLOSED:
            return
        if now_ns - self._heard_ns >= self._silence_ns():
            self._heard_ns = now_ns
            if state is not State.CONNECTING:
                self._lose("silent")
            self._hello_at = None
            self._effects.append(Reopen())
        elif self._hello_at is not None and now_ns >= self._hello_at:
            self._hello_at = None
            if state is State.GREETING:
                self._say_hello()
        if self._ack_at is not None and now_ns >= self._ack_at:
            self._ack_at = None
            if self.state is State.OPEN:
                self._acknowledge()
        if self._retry_at is not None and now_ns >= self._retry_at:
            self._retry_at = None
            self.tasks.retry_held()
        for number, question in list(self._questions.items()):
            if now_ns >= question[2]:
                del self._questions[number]
                self._effects.append(Answered(number, False, None))
        if self.state is State.OPEN and now_ns - self._sent_ns >= self._beat_ns():
            self._send(m.Heartbeat())

    def _go_on_closing(self) -> None:
        assert self._closing_at is not None
        if self.state is State.OPEN:
            self._flush()
            if self.tasks.undelivered() and self._now_ns < self._closing_at:
                return
            if self._unacked:
                self._acknowledge()
            self._send(m.Goodbye("closed"))
        elif self.tasks.undelivered() and self._now_ns < self._closing_at:
            if self.state is not State.REFUSED:
                return
        self._closing_at = None
        self._move(Cause.CLOSED)
        self._abandon(None)

    # --- Sending ----------------------------------------------------------------------------------

    def _flush(self) -> None:
        """All that may go now. Cancels follow the tasks they are about."""
        tasks = self.tasks
        while (batch := tasks.cut()) is not None:
            number = self._send(m.Submit(batch.items, batch.again))
            tasks.sent(batch, number)
        if self._cancels_due and not tasks.resubmitting():
            due, self._cancels_due = self._cancels_due, []
            for start in range(0, len(due), BATCH_ITEMS_MAX):
                part = due[start : start + BATCH_ITEMS_MAX]
                self._send(m.Cancel([(task_id, 0) for task_id in part]))

    def _send(self, message: m.Message) -> int:
        numbering = self._numbering
        assert numbering is not None
        number = numbering.next_number()
        self._sent_ns = self._now_ns
        self._effects.append(Send(numbering.session, number, message))
        return number

    # --- Small things -----------------------------------------------------------------------------

    def _move(self, cause: Cause) -> None:
        before = self.state
        after = TRANSITIONS.get((before, cause))
        assert after is not None, f"{cause} in {before}"
        self.state = after
        self.transitions.append((self._now_ns, before, cause, after))
        if after is not before:
            self._effects.append(StateChanged(after))

    def _abandon(self, refusal: tuple[str, str] | None) -> None:
        self._cancelling.clear()
        self._cancels_due.clear()
        for number in self._questions:
            self._effects.append(Answered(number, False, None))
        self._questions.clear()
        if tickets := self.tasks.abandon():
            self._effects.append(Abandon(tickets, refusal))

    def _log(self, level: Level, text: str) -> None:
        self._effects.append(Log(level, text))

    def _count(self, name: str, count: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + count

    # --- For people and tests ---------------------------------------------------------------------

    def check(self) -> None:
        """Recount all redundant state; raises AssertionError. For tests: linear in all tasks."""
        self.tasks.check()
        assert (self.state is State.OPEN) <= (self._numbering is not None)
        assert (self.state is State.OPEN) <= (self.welcome is not None)
        assert (self._ack_at is not None) <= (self._unacked > 0)
        assert (self._retry_at is not None) <= self.tasks.held()
        assert all(task_id in self.tasks for task_id in self._cancelling)
        assert not self._effects
        for _, before, cause, after in self.transitions:
            assert TRANSITIONS[before, cause] is after

    def __repr__(self) -> str:
        counts = " ".join(f"{count} {name}" for name, count in self.tasks.counts().items())
        return f"<ClientSession {self.state.name.lower()} {counts}>"
