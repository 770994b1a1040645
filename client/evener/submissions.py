"""The tasks of a client that have not ended: which wait, which are on their way, which are taken.

Rules of this file: no I/O, no clock. Each task is in the table until it has ended, and until the
broker took it in exactly one of: `fresh` (no broker saw it), `again` (an earlier broker may have
it), a flight (sent, not yet accepted), `held` (the broker was full). Natural batching: a task alone
goes at once; what gathers until the broker took it goes together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from evener.session_records import Item, TerminalItem, Ticket
from evener_wire import messages as m
from evener_wire.limits import BATCH_BYTES_TARGET, BATCH_ITEMS_MAX

# SUBMIT messages on the way while more full ones wait. Larger: a broker that stands still gets
# more at once when it goes on. Smaller: a fast client waits for round trips.
FLIGHTS_MAX = 8


class Batch(NamedTuple):
    """What goes into one SUBMIT."""

    items: list[Item]
    tickets: list[Ticket]
    again: bool


class _Flight(NamedTuple):
    number: int
    tickets: Sequence[Ticket]
    again: bool


class Submissions:
    """Caller: the session, within a step."""

    def __init__(self) -> None:
        self._table: dict[bytes, Ticket] = {}
        self.bytes = 0
        """Payload bytes of all tasks in the table."""
        self._fresh: deque[Ticket] = deque()
        self._again: deque[Ticket] = deque()
        self._flights: deque[_Flight] = deque()
        self._held: list[tuple[Ticket, bool]] = []
        # Whether a waiting line may have tasks in it that ended meanwhile. Rare, so looked at only
        # then.
        self._may_have_ended = False

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, task_id: bytes) -> bool:
        return task_id in self._table

    def get(self, task_id: bytes) -> Ticket | None:
        """An open task."""
        return self._table.get(task_id)

    # --- In ---------------------------------------------------------------------------------------

    def add(self, tickets: Sequence[Ticket]) -> Sequence[Ticket]:
        """New tasks. Returns those with a deadline."""
        table = self._table
        size = 0
        limited: list[Ticket] = []
        for ticket in tickets:
            item = ticket.item
            table[item[0]] = ticket
            size += len(item[2])
            if item[3] is not None and item[3].deadline_ms:
                limited.append(ticket)
        self.bytes += size
        self._fresh.extend(tickets)
        return limited

    # --- Out --------------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Whether the next task may go at once."""
        return not self._flights and not self._held and not self._fresh and not self._again

    def undelivered(self) -> bool:
        """Whether any open task is not yet taken by the broker."""
        return bool(self._table) and not self.idle()

    def held(self) -> bool:
        """Whether the broker was full, and tasks wait for it to be less so."""
        return bool(self._held)

    def cut(self) -> Batch | None:
        """The next batch to send, or None when nothing waits, or should wait for the broker."""
        if self._held:
            return None
        line, again = (self._again, True) if self._again else (self._fresh, False)
        if not line or len(self._flights) >= FLIGHTS_MAX:
            return None
        if self._flights and len(line) < BATCH_ITEMS_MAX and not self._is_heavy(line):
            return None
        items: list[Item] = []
        tickets: list[Ticket] = []
        room = BATCH_BYTES_TARGET
        table = self._table
        sieve = self._may_have_ended
        while line and room > 0 and len(items) < BATCH_ITEMS_MAX:
            ticket = line.popleft()
            item = ticket.item
            if sieve and item[0] not in table:
                continue
            payload = item[2]
            # As `weight_of`, whose call would cost more than the rest of this loop.
            room -= len(payload) + 64 if type(payload) is bytes else m.weight_of(payload)
            items.append(item)
            tickets.append(ticket)
        if sieve and not self._again and not self._fresh:
            self._may_have_ended = False
        return Batch(items, tickets, again) if items else None

    def _is_heavy(self, line: deque[Ticket]) -> bool:
        """Whether a line shorter than a full batch fills one by its bytes."""
        if self.bytes < BATCH_BYTES_TARGET:
            return False  # all open tasks together do not
        size = 0
        for ticket in line:
            size += m.weight_of(ticket.item[2])
            if size >= BATCH_BYTES_TARGET:
                return True
        return False

    def sent(self, batch: Batch, number: int) -> None:
        """A batch left as the message of this number."""
        self._flights.append(_Flight(number, batch.tickets, batch.again))

    # --- What the broker says ---------------------------------------------------------------------

    def accepted(self, upto: int) -> None:
        """The broker took all tasks in messages up to this number, but the rejected."""
        flights = self._flights
        while flights and flights[0].number <= upto:
            flights.popleft()

    def ended(self, items: Iterable[TerminalItem]) -> list[tuple[Ticket, TerminalItem]]:
        """Takes ended tasks out of the table; those that are not in it are no news."""
        pop = self._table.pop
        endings: list[tuple[Ticket, TerminalItem]] = []
        size = 0
        for item in items:
            ticket = pop(item[0], None)
            if ticket is not None:
                size += len(ticket.item[2])
                endings.append((ticket, item))
        self.bytes -= size
        flights = self._flights
        # What ended was accepted. Where it is all that a message had, do not wait to be told.
        while flights and len(flights[0].tickets) == 1:
            if flights[0].tickets[0].item[0] in self._table:
                break
            flights.popleft()
        if endings and (self._again or self._fresh or self._held):
            self._may_have_ended = True
        return endings

    def remove(self, task_id: bytes) -> Ticket | None:
        """Takes one task out of the table."""
        ticket = self._table.pop(task_id, None)
        if ticket is not None:
            self.bytes -= len(ticket.item[2])
            self._may_have_ended = True
        return ticket

    def hold(self, task_ids: Collection[bytes]) -> None:
        """The broker was full: these tasks go again later."""
        for index, flight in enumerate(self._flights):
            full = [t for t in flight.tickets if t.item[0] in task_ids]
            if full:
                taken = [t for t in flight.tickets if t.item[0] not in task_ids]
                self._flights[index] = flight._replace(tickets=taken)
                self._held += [(t, flight.again) for t in full if t.item[0] in self._table]

    def retry_held(self) -> None:
        """Puts the held tasks back in front of the line."""
        self._put_back(self._held)
        self._held = []

    def unsent(self, task_ids: Sequence[bytes]) -> list[bytes]:
        """Those of these tasks that no broker has taken."""
        waiting = {ticket.item[0] for ticket in self._fresh}
        waiting.update(ticket.item[0] for ticket, again in self._held if not again)
        return [task_id for task_id in task_ids if task_id in waiting and task_id in self._table]

    def resubmitting(self) -> bool:
        """Whether an earlier broker had tasks that this one does not have yet."""
        return bool(self._again) or any(again for _, again in self._held)

    # --- A new session ----------------------------------------------------------------------------

    def reconnected(self) -> None:
        """Same broker, new session: what it has not accepted goes again."""
        flown = [(ticket, f.again) for f in self._flights for ticket in f.tickets]
        self._flights.clear()
        held, self._held = self._held, []
        self._put_back(held)
        self._put_back(flown)

    def restarted(self) -> int:
        """Another broker: everything goes again. Returns how many an earlier one has had."""
        fresh = [t for t, again in self._held if not again and t.item[0] in self._table]
        fresh += [t for t in self._fresh if t.item[0] in self._table]
        unseen = {id(ticket) for ticket in fresh}
        self._fresh = deque(fresh)
        self._again = deque(t for t in self._table.values() if id(t) not in unseen)
        self._flights.clear()
        self._held = []
        return len(self._again)

    def _put_back(self, pairs: Sequence[tuple[Ticket, bool]]) -> None:
        for ticket, again in reversed(pairs):
            (self._again if again else self._fresh).appendleft(ticket)
        if pairs:
            self._may_have_ended = True

    def abandon(self) -> list[Ticket]:
        """Takes out all tasks."""
        tickets = list(self._table.values())
        self._table.clear()
        self._fresh.clear()
        self._again.clear()
        self._flights.clear()
        self._held = []
        self.bytes = 0
        return tickets

    # --- For tests --------------------------------------------------------------------------------

    def check(self) -> None:
        """Recount all redundant state; raises AssertionError."""
        assert self.bytes == sum(len(t.item[2]) for t in self._table.values())
        held = [ticket for ticket, _ in self._held]
        flown = [t for f in self._flights for t in f.tickets]
        unaccepted = [*self._fresh, *self._again, *held]
        ids = [t.item[0] for t in unaccepted]
        if not self._may_have_ended:
            assert all(i in self._table for i in ids)
        assert len(ids) == len(set(ids)), "a task waits twice"
        waiting = {id(t) for t in [*self._fresh, *self._again]}
        assert not any(id(t) in waiting for t in flown), "a task waits and flies"
        numbers = [flight.number for flight in self._flights]
        assert numbers == sorted(set(numbers))
        assert len(numbers) <= FLIGHTS_MAX

    def counts(self) -> dict[str, int]:
        """For people and tests."""
        return {
            "open": len(self._table),
            "waiting": len(self._fresh) + len(self._again),
            "flights": len(self._flights),
            "held": len(self._held),
        }
