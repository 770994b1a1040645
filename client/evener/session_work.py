"""What a client's session is for: tasks, their ends, cancels and questions. Pure.

Rules of this file: part of the session; no I/O, no clock. It speaks through `Outlet` only while
the session is open; the session itself begins and ends in `session.py`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final, Protocol, cast

from evener.deadlines import NEVER, Deadlines
from evener.expiry import Expiry
from evener.session_lines import Lines
from evener.session_records import (
    Abandon,
    Answered,
    Asked,
    CancelAsked,
    Effect,
    Readable,
    Reject,
    Reported,
    Resolve,
    TerminalItem,
    Ticket,
    Took,
    Valued,
    Wrote,
)
from evener.session_streams import Streams
from evener.submissions import Submissions
from evener_wire import messages as m
from evener_wire.limits import (
    ACK_DELAY_NS,
    BATCH_ITEMS_MAX,
    MIB,
    MILLISECOND_NS,
    SECOND_NS,
)

# TERMINALs that are acknowledged at once instead of after the usual delay. The broker has up to 64
# messages on the way, so this must be well below.
_ACK_MESSAGES: Final = 32
_ACK_BYTES: Final = MIB

# After the broker said that it is full.
_FULL_DELAY_MIN_NS: Final = 20 * MILLISECOND_NS
_FULL_DELAY_MAX_NS: Final = SECOND_NS

# Names of deadlines.
ACK: Final = "ack"
RETRY: Final = "retry"
_EXPIRY: Final = "expiry"
_QUESTION: Final = "question"


class Outlet(Protocol):
    """What the session lends to its work."""

    effects: list[Effect]
    now_ns: int

    def send(self, message: m.Message) -> int:
        """Numbers a message and sends it. The session must be open."""
        ...

    def received(self) -> int:
        """The number of the last message taken."""
        ...

    def count(self, name: str, count: int = 1) -> None:
        """For people."""
        ...


class Work:
    """Caller: the session, within a step."""

    def __init__(
        self, outlet: Outlet, deadlines: Deadlines, rng: random.Random, hold_when_full: bool
    ) -> None:
        self.tasks = Submissions()
        self.hold_when_full = hold_when_full
        self._outlet = outlet
        self._deadlines = deadlines
        self._rng = rng
        self._expiry = Expiry()
        self._streams = Streams()
        self._lines = Lines()
        self._unacked = 0
        self._unacked_bytes = 0
        self._full_delay_ns = _FULL_DELAY_MIN_NS
        self._cancelling: dict[bytes, None] = {}
        self._cancels_due: list[bytes] = []
        self._questions: dict[int, tuple[str, m.Facts]] = {}

    # --- What the program wants -------------------------------------------------------------------

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """New tasks, which go with the next flush."""
        limited = self.tasks.add(tickets)
        if limited:
            self._expiry.prune(self.tasks.__contains__, len(self.tasks))
            self._expiry.add(limited, self._outlet.now_ns)
            self._deadlines.set(_EXPIRY, self._expiry.next_at())

    def cancel(self, event: CancelAsked) -> None:
        """What no broker has ends here; of the rest, the broker is told with the next flush."""
        unsent = self.tasks.unsent(event.task_ids)
        if unsent:
            ended: list[TerminalItem] = [(i, m.TERMINAL_CANCELLED, b"", None) for i in unsent]
            self._outlet.effects.append(Resolve(self.tasks.ended(ended)))
            for task_id in unsent:
                self._cancelling.pop(task_id, None)  # the broker was full when it was asked before
        self._cancelling.update((i, None) for i in event.task_ids if i in self.tasks)
        # Of other clients, too; but not those that have just ended here.
        self._cancels_due += [i for i in event.task_ids if i not in unsent]

    def ask(self, event: Asked, is_open: bool) -> None:
        """Asks now, or once there is a session."""
        self._questions[event.number] = (event.what, event.arguments)
        if event.timeout_ns is not None:
            at_ns = self._outlet.now_ns + event.timeout_ns
            self._deadlines.set((_QUESTION, event.number), at_ns)
        if is_open:
            self._outlet.send(m.Query(event.number, event.what, event.arguments))

    # --- Sending ----------------------------------------------------------------------------------

    def flush(self) -> None:
        """All that may go now. Cancels follow the tasks they are about."""
        tasks = self.tasks
        while (batch := tasks.cut()) is not None:
            tasks.sent(batch, self._outlet.send(m.Submit(batch.items, batch.again)))
        if self._cancels_due and not tasks.resubmitting():
            due, self._cancels_due = self._cancels_due, []
            for start in range(0, len(due), BATCH_ITEMS_MAX):
                part = due[start : start + BATCH_ITEMS_MAX]
                self._outlet.send(m.Cancel([(task_id, 0) for task_id in part]))

    def welcomed(self, restarted: bool) -> int:
        """A new session. Returns how many tasks go again to a broker that restarted."""
        again = 0
        if restarted:
            again = self.tasks.restarted()
        else:
            self.tasks.reconnected()
        self._deadlines.clear(ACK)
        self._deadlines.clear(RETRY)
        self._unacked = self._unacked_bytes = 0
        self._cancels_due = list(self._cancelling)
        return again

    def ask_again(self) -> None:
        """Questions of the last session that nobody answered."""
        for number, (what, arguments) in self._questions.items():
            self._outlet.send(m.Query(number, what, arguments))

    # --- What the broker says ---------------------------------------------------------------------

    def on_accepted(self, message: m.Accepted) -> None:
        """The next batch may go."""
        self.tasks.accepted(message.upto)
        if not self.tasks.held():
            self._full_delay_ns = _FULL_DELAY_MIN_NS

    def on_rejected(self, message: m.Rejected) -> None:
        """Tasks that the broker will not have, or not now."""
        rejected: list[tuple[Ticket, str, str, m.Facts | None]] = []
        full: set[bytes] = set()
        for (task_id, code, text), facts in zip_longest(message.items, message.details):
            if code == "queue_full" and self.hold_when_full:
                full.add(task_id)
                continue
            ticket = self.tasks.remove(task_id)
            self._cancelling.pop(task_id, None)
            if ticket is not None:
                rejected.append((ticket, code, text, facts))
        if rejected:
            self._outlet.effects.append(Reject(rejected))
        if full:
            self.tasks.hold(full)
        if self.tasks.held() and RETRY not in self._deadlines:
            delay_ns = int(self._full_delay_ns * self._rng.uniform(0.5, 1.0))
            self._deadlines.set(RETRY, self._outlet.now_ns + delay_ns)
            self._full_delay_ns = min(2 * self._full_delay_ns, _FULL_DELAY_MAX_NS)

    def on_terminal(self, message: m.Terminal) -> None:
        """Tasks have ended. Repeated ends are acknowledged like others, and ignored."""
        items = message.items
        endings = self.tasks.ended(items)
        if len(endings) != len(items):
            self._outlet.count("terminals_repeated", len(items) - len(endings))
        if self._cancelling or self._streams or self._lines:
            for item in items:
                self._cancelling.pop(item[0], None)
                self._streams.ended(item[0])
                self._lines.ended(item[0])
        if endings:
            self._outlet.effects.append(Resolve(endings))
        self._unacked += 1
        self._unacked_bytes += sum([len(item[2]) for item in items])
        if self._unacked >= _ACK_MESSAGES or self._unacked_bytes >= _ACK_BYTES:
            self.acknowledge()
        elif self._unacked == 1:
            self._deadlines.set(ACK, self._outlet.now_ns + ACK_DELAY_NS)

    def on_progress(self, message: m.Progress) -> None:
        """Tasks say how far they are. Acknowledged at once: the broker sends one at a time."""
        reports = [(self.tasks.get(task_id), *said) for task_id, *said in message.items]
        known = [report for report in reports if report[0] is not None]
        if known:
            self._outlet.effects.append(Reported(cast("Any", known)))
        self._unacked += 1
        self.acknowledge()

    def on_output(self, message: m.Output) -> None:
        """Tasks wrote lines. Acknowledged at once: the broker has but so much on the way."""
        pairs = [(self.tasks.get(item[0]), item) for item in message.items]
        parts = [self._lines.came(ticket, item) for ticket, item in pairs if ticket is not None]
        news = [part for part in parts if part is not None]
        if news:
            self._outlet.effects.append(Wrote(news))
        self._unacked += 1
        self.acknowledge()

    def on_values(self, message: m.Values) -> None:
        """Generators yielded. What is not the next value of its task is asked for, or known."""
        values: list[tuple[Ticket, int, m.Payload | None]] = []
        told: dict[bytes, bool] = {}
        for item in message.items:
            task_id, fence, index, more, payload = item
            ticket = self.tasks.get(task_id)
            if ticket is None:
                self._outlet.count("values_late")
                continue
            is_next, is_told = self._streams.came(cast("Readable", ticket), item)
            if is_next:
                values.append((ticket, fence, payload if more else None))
            if is_told:
                gap = self._streams.is_gap(task_id, fence, index)
                told[task_id] = told.get(task_id, False) or gap
        if values:
            self._outlet.effects.append(Valued(values))
        if told:
            self._outlet.send(m.Taken([self._streams.told(i, gap) for i, gap in told.items()]))

    def took(self, event: Took, is_open: bool) -> None:
        """The program took values. Without a session they come again, and it is told then."""
        if self._streams.took(event.task_id, event.fence, event.upto) and is_open:
            self._outlet.send(m.Taken([self._streams.told(event.task_id)]))

    def acknowledge(self) -> None:
        """Tells the broker which ends it need not keep any more. The session must be open."""
        if self._unacked:
            self._unacked = self._unacked_bytes = 0
            self._deadlines.clear(ACK)
            self._outlet.send(m.Ack(self._outlet.received()))

    def on_answer(self, message: m.Answer) -> None:
        """One answer per question; a second one is ignored."""
        if self._questions.pop(message.number, None) is not None:
            self._deadlines.clear((_QUESTION, message.number))
            self._outlet.effects.append(Answered(message.number, message.ok, message.body))

    # --- Time, and the end ------------------------------------------------------------------------

    def on_due(self, name: object) -> None:
        """A deadline that is not the session's own."""
        if name == RETRY:
            self.tasks.retry_held()
        elif name == _EXPIRY:
            self._expire()
        else:
            kind, number = cast("tuple[str, int]", name)
            assert kind == _QUESTION
            del self._questions[number]
            self._outlet.effects.append(Answered(number, False, None))

    def _expire(self) -> None:
        """Deadlines that passed without a word of a broker. Should one come later, it is no news.

        A broker that has such a task keeps the same deadline, so nobody has to be told.
        """
        endings = self.tasks.ended(self._expiry.due(self._outlet.now_ns))
        for _, item in endings:
            self._cancelling.pop(item[0], None)
            self._streams.ended(item[0])
            self._lines.ended(item[0])
        if endings:
            self._outlet.count("expired_here", len(endings))
            self._outlet.effects.append(Resolve(endings))
        if self._expiry.next_at() < NEVER:
            self._deadlines.set(_EXPIRY, self._expiry.next_at())

    def abandon(self, refusal: tuple[str, str] | None) -> None:
        """There will be no more session: everything that waits for one ends."""
        self._unacked = self._unacked_bytes = 0
        self._cancelling.clear()
        self._cancels_due.clear()
        self._streams.clear()
        self._lines.clear()
        self._expiry.clear()
        for number in self._questions:
            self._outlet.effects.append(Answered(number, False, None))
        self._questions.clear()
        tickets: Sequence[Ticket] = self.tasks.abandon()
        if tickets:
            self._outlet.effects.append(Abandon(tickets, refusal))

    def check(self) -> None:
        """Recount all redundant state; raises AssertionError."""
        self.tasks.check()
        self._expiry.check()
        assert (_EXPIRY in self._deadlines) == (self._expiry.next_at() < NEVER)
        assert (ACK in self._deadlines) <= (self._unacked > 0)
        assert (RETRY in self._deadlines) == self.tasks.held()
        assert all(task_id in self.tasks for task_id in self._cancelling)
