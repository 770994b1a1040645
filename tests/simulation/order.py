"""Checkers of order and fairness: I13 and I14.

Rules of this file: order is judged turn by turn, because within one turn of the broker its messages
to different agents have no order.
"""

from __future__ import annotations

from evener_wire.limits import AGEING_NS
from tests.simulation.truth import Ticket
from tests.simulation.watch import Watch
from tests.simulation.world import Violation, World

_Line = tuple[str, str, int, str]  # client, queue, priority, function
_Place = tuple[str, int]  # queue, priority


class Order:
    """Who waits, and who went first."""

    def __init__(self, world: World, watch: Watch) -> None:
        self._world = world
        self._watch = watch
        self._clients: dict[str, None] = {}
        self._epoch = 0
        # Waiting tickets of each line, in the order of acceptance.
        self._waiting: dict[_Line, dict[Ticket, None]] = {}
        # Those that came back unstarted, to the place they had.
        self._returned: dict[_Line, dict[Ticket, None]] = {}
        self._sent: list[Ticket] = []
        self._skipped: dict[tuple[str, _Place], int] = {}
        # Who waits there for agents to tell what an earlier broker gave them.
        self._claims: set[tuple[str, _Place]] = set()

    def _renew(self) -> None:
        if self._watch.epoch != self._epoch:
            self._epoch = self._watch.epoch
            self._clients.clear()
            self._waiting.clear()
            self._returned.clear()
            self._sent.clear()
            self._skipped.clear()
            self._claims.clear()

    def claimed(self, ticket: Ticket) -> None:
        """An earlier broker had it: what comes behind it is not ready before agents had time."""
        self._renew()
        self._claims.add((ticket.owner, _place(ticket)))

    def accepted(self, ticket: Ticket) -> None:
        """It has its place now, unless it may leave it unseen."""
        self._renew()
        self._clients[ticket.owner] = None
        if ticket.accepted[self._epoch][2]:
            self.claimed(ticket)
        options = ticket.options
        may_leave = options.expires_ms or options.deadline_ms
        if may_leave or ticket.item[1] in ("app.nobody", "app.special"):
            return
        if not ticket.accepted[self._epoch][2] or self._waits_again(ticket):
            self._waiting.setdefault(_line(ticket), {})[ticket] = None

    def _waits_again(self, ticket: Ticket) -> bool:
        """Whether an earlier broker had it in line, and never sent it: order is of first times."""
        return not ticket.sent and not ticket.cancelled_in

    def sent(self, ticket: Ticket) -> None:
        """It was sent to an agent in this turn."""
        self._renew()
        if self._epoch in ticket.accepted:
            self._sent.append(ticket)

    def ended(self, ticket: Ticket) -> None:
        """It waits no more."""
        self._renew()
        for lines in (self._waiting, self._returned):
            lines.get(_line(ticket), {}).pop(ticket, None)

    def returned(self, ticket: Ticket) -> None:
        """Its attempt never started: it stands where it stood."""
        self._renew()
        options = ticket.options
        may_leave = options.expires_ms or options.deadline_ms or options.at_most_once
        stands = self._epoch in ticket.accepted and self._epoch not in ticket.told
        if stands and not may_leave and not ticket.cancelled_in:
            self._returned.setdefault(_line(ticket), {})[ticket] = None
            self._world.hit("task back in its place")

    def check(self) -> None:
        """After a turn."""
        self._renew()
        sent, self._sent = self._sent, []
        for ticket in sent:
            self.ended(ticket)  # it waits no more
        for ticket in sent:
            if not any(earlier.epoch < self._epoch for earlier in ticket.sent):
                self._check_order(ticket)
        if sent:
            self._check_turns(sent)

    def _check_order(self, ticket: Ticket) -> None:
        """I13: nobody of the same line who came earlier still waits."""
        self._world.checked.update(("I13", "I14"))
        line = _line(ticket)
        others = [*self._returned.get(line, ()), *self._waiting.get(line, ())]
        if others and ticket.accepted[self._epoch][2]:
            self._world.hit("task of an earlier broker goes in its turn")
        first = min(others, key=lambda other: other.accepted[self._epoch], default=None)
        if first is not None and first.accepted[self._epoch] < ticket.accepted[self._epoch]:
            text = f"{ticket!r} went before {first!r}\n{ticket.story()}\n{first.story()}"
            raise Violation("I13", text)

    def _check_turns(self, sent: list[Ticket]) -> None:
        """I14: whoever waits has a turn when everybody else had some."""
        owners = {(ticket.owner, _place(ticket)) for ticket in sent}
        for owner_place in owners:
            self._skipped.pop(owner_place, None)
        # What waited too long goes first, whoever's turn it is.
        overdue_ns = self._world.now - AGEING_NS
        young = [t for t in sent if t.accepted[self._epoch][1] > overdue_ns]
        for line, waiting in self._waiting.items():
            place = (line[1], line[2])
            if not waiting or (line[0], place) in owners:
                continue
            if (line[0], place) in self._claims and self._world.now < self._watch.until_ns:
                continue  # it may be held, and is not ready
            passed = sum(_place(t) == place and t.item[1] == line[3] for t in young)
            if passed:
                count = self._skipped.get((line[0], place), 0) + passed
                self._skipped[line[0], place] = count
                if count > 3 * len(self._clients) + 2:
                    raise Violation("I14", f"{line} was passed over {count} times")
                self._world.peak("turns passed over", count)


def _line(ticket: Ticket) -> _Line:
    return (ticket.owner, ticket.options.queue, ticket.options.priority, str(ticket.item[1]))


def _place(ticket: Ticket) -> _Place:
    return (ticket.options.queue, ticket.options.priority)
