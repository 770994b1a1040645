"""Checkers of what a broker with a journal promises: I5, I9, I15, I23, I29.

Rules of this file: each promise is compared with what is on disk when it leaves, and all of them
together with what a new broker finds. The books are made from messages, not from a core.
"""

from __future__ import annotations

from typing import Final

from evener_broker.core import BrokerCore
from evener_broker.effects import Append
from evener_broker.events import CommitFailed
from evener_broker.journaling import KeptTask
from evener_broker.transitions import LETTERS
from evener_wire import messages as m
from evener_wire.limits import RETENTION_NS
from tests.simulation.book import Snapshot, snapshot_in, snapshot_of
from tests.simulation.disk import Disk
from tests.simulation.truth import Sent, Ticket, Truth, digest_of
from tests.simulation.world import Violation, World

# Every so many transactions all that the broker holds is compared with what the disk has of it.
_COMPARE_EVERY: Final = 3

# More than any acceptance number.
_EARLIER: Final = 1 << 60


class Durability:
    """Caller: the watch, for a broker with a journal."""

    def __init__(self, world: World, truth: Truth, disk: Disk) -> None:
        self._world: Final = world
        self._truth: Final = truth
        self.disk: Final = disk
        disk.on_applied = self._on_applied
        # Of each session: SUBMITs not yet answered, and RESULTs not yet acknowledged, by number.
        self._submits: dict[int, list[tuple[int, list[Ticket]]]] = {}
        self._results: dict[int, list[tuple[int, list[tuple[Ticket, Sent]]]]] = {}
        self._snapshots: dict[int, Snapshot] = {}
        # Told as accepted, and by whom it was ended, as its client heard it.
        self._promised: dict[Ticket, None] = {}
        self._told: dict[Ticket, tuple[int, bytes]] = {}
        self._withdrawn: set[Ticket] = set()
        # New tasks that the disk may have: nobody knows how a commit of them ended.
        self._doubtful: set[bytes] = set()
        self._ids: dict[bytes, Ticket] = {}
        self._unsaved: list[tuple[int, list[bytes]]] = []
        self._appended = 0
        self._expected: set[str] = set()
        # Open, and as an earlier broker wrote dispatched, as often as they may be.
        self._spent: set[Ticket] = set()
        self._is_new = False

    def fail(self, invariant: str, text: str, ticket: Ticket) -> Violation:
        """The seed has failed."""
        kept = self.disk.book.find(ticket.id)
        return Violation(invariant, f"{text}\non disk: {kept}\n{ticket.story()}")

    # --- A new broker -----------------------------------------------------------------------------

    def began(self, epoch: int) -> list[Ticket]:
        """I5: whatever broke, what was promised is there, and not in an earlier state.

        Returns what is open, in the order of acceptance.
        """
        self._is_new = True
        self._spent.clear()
        self._submits.clear()
        self._results.clear()
        self._expected = set(self.disk.book.agents.values())
        self._snapshots.clear()
        self._unsaved.clear()
        self._doubtful.clear()
        self._world.checked["I5"] += 1
        for ticket in self._promised:
            if ticket in self._withdrawn or self._was_forgotten(ticket):
                continue
            kept = self._kept(ticket)
            if kept is None:
                raise self.fail("I5", "accepted, and no more in the journal", ticket)
            told = self._told.get(ticket)
            if told is not None and told != (kept.state, digest_of(kept.result)):
                raise self.fail("I5", f"told as {told}, and the journal differs", ticket)
            if kept.state is None:
                self._world.hit("open task read from the journal")
            elif told is None:
                self._world.hit("end in the journal that nobody was told")
        waiting: list[Ticket] = []
        for _, task in sorted(self.disk.book.tasks.items()):
            known = self._ids.get(task.id)
            if known is None:
                continue
            ticket = known
            if ticket not in self._promised:
                self._world.hit("task in the journal whose ACCEPTED was never sent")
            if ticket in self._withdrawn and task.state is None:
                raise self.fail("I24", "rejected, and in the journal", ticket)
            if epoch not in ticket.accepted:
                # Before all that this broker accepts.
                ticket.accepted[epoch] = (task.number - _EARLIER, self._world.now, True)
            if ticket in self._told:
                ticket.told[epoch] = self._told[ticket]
            if task.state is None:
                waiting.append(ticket)
                self._note_dispatch(ticket, task)
        return waiting

    def _note_dispatch(self, ticket: Ticket, task: KeptTask) -> None:
        if task.dispatched:
            self._spent.add(ticket)
            if not ticket.sent:
                self._world.hit("dispatch in the journal that never left")

    def is_spent(self, ticket: Ticket) -> bool:
        """Whether its RUN may have left before the crash, and nobody can know: it runs where an
        agent has it, or it is lost. It stands in no line, so nobody can overtake it."""
        return ticket in self._spent

    def on_turn(self, core: BrokerCore) -> None:
        """I23: what counts as taken after a restart was told to its client before."""
        is_first, self._is_new = self._is_new, False
        if not is_first:
            return
        for task in core.tables.tasks.values():
            ticket = self._ids.get(task.id)
            if not task.taken or ticket is None:
                continue
            self._world.checked["I23"] += 1
            self._world.hit("end that was taken before the broker restarted")
            if ticket not in self._told and task.state not in LETTERS:
                raise self.fail("I23", "counts as taken, and nobody was told", ticket)

    def _kept(self, ticket: Ticket) -> KeptTask | None:
        return self.disk.book.find(ticket.id)

    def _was_forgotten(self, ticket: Ticket) -> bool:
        return ticket.id in self.disk.book.forgotten_ids

    def awaits(self, agent: str) -> bool:
        """Whether the journal names this agent as one that may hold work."""
        return agent in self._expected

    def is_settled(self, ticket: Ticket, fence: int) -> bool:
        """Whether the disk has its end, or counts this attempt as over."""
        kept = self._kept(ticket)
        return kept is not None and (kept.state is not None or fence <= kept.settled)

    # --- What was taken in ------------------------------------------------------------------------

    def on_submit(self, session: int, number: int, tickets: list[Ticket]) -> None:
        """A SUBMIT was taken."""
        self._submits.setdefault(session, []).append((number, tickets))
        for ticket in tickets:
            self._ids[ticket.id] = ticket
            self._withdrawn.discard(ticket)

    def on_failed(self, event: CommitFailed) -> list[Ticket]:
        """The broker hears that the journal could not take something: which tasks those are."""
        unsaved, self._unsaved = self._unsaved, []
        for number, ids in unsaved:
            if event.txn <= number <= event.unknown:
                self._world.hit("task that the journal may have waits to be sure")
                self._doubtful.update(ids)
        failed = [ids for number, ids in unsaved if number >= event.txn]
        known = self._ids  # which has none of schedules
        sure = [i for ids in failed for i in ids if i not in self._doubtful]
        tickets = [known[i] for i in sure if i in known]
        for ticket in tickets:
            if ticket in self._promised:
                raise self.fail("I5", "accepted, and then withdrawn", ticket)
            self._withdrawn.add(ticket)
        return tickets

    def on_committed(self, txn: int) -> None:
        """The broker hears that it could."""
        for number, ids in self._unsaved:
            if number <= txn:
                self._doubtful.difference_update(ids)
        self._unsaved = [(number, ids) for number, ids in self._unsaved if number > txn]

    def on_results(self, session: int, number: int, done: list[tuple[Ticket, Sent]]) -> None:
        """A RESULT with values of open attempts was taken."""
        self._results.setdefault(session, []).append((number, done))

    # --- What is said -----------------------------------------------------------------------------

    def on_accepted(self, session: int, upto: int) -> None:
        """I5: whoever is told so finds his task on disk."""
        waiting = self._submits.get(session, [])
        while waiting and waiting[0][0] <= upto:
            for ticket in waiting.pop(0)[1]:
                self._world.checked["I5"] += 1
                if ticket in self._withdrawn or self._was_forgotten(ticket):
                    continue
                if self._kept(ticket) is None:
                    raise self.fail("I5", "ACCEPTED, and it is not on disk", ticket)
                self._promised[ticket] = None

    def on_acknowledged(self, session: int, upto: int) -> None:
        """I5: an agent forgets a result when it is told that we have it."""
        waiting = self._results.get(session, [])
        while waiting and waiting[0][0] <= upto:
            for ticket, sent in waiting.pop(0)[1]:
                self._world.checked["I5"] += 1
                kept = self._kept(ticket)
                if sent.given_up:
                    continue  # the broker told the agent that nobody wants it
                if kept is not None and kept.state is None and ticket not in self._withdrawn:
                    raise self.fail("I5", "its result is acknowledged, and not on disk", ticket)

    def on_terminal(self, ticket: Ticket, state: int, payload: m.Payload) -> None:
        """I5: an end is on disk before it is told."""
        self._world.checked["I5"] += 1
        now = (state, digest_of(payload))
        kept = self._kept(ticket)
        if kept is None and not self._was_forgotten(ticket):
            raise self.fail("I5", "its end is told, and the task is not on disk", ticket)
        if kept is not None and (kept.state, digest_of(kept.result)) != now:
            raise self.fail("I5", f"told {now}, and the disk differs", ticket)
        before = self._told.setdefault(ticket, now)
        if before != now:
            raise self.fail("I1", f"told {before} before, and now {now}", ticket)

    def on_run(self, ticket: Ticket, agent: str) -> None:
        """I5, I15, I23: what is sent to a worker is on disk, and has not ended there."""
        if agent not in self.disk.book.agents.values():
            raise self.fail("I23", f"sent to {agent}, whom the journal does not name", ticket)
        self._world.checked["I23"] += 1
        kept = self._kept(ticket)
        if kept is None:
            raise self.fail("I5", "sent to a worker, and not on disk", ticket)
        if kept.state is not None:
            raise self.fail("I23", "sent to a worker, and the journal has its end", ticket)
        if ticket.options.at_most_once and not kept.dispatched:
            raise self.fail("I15", "sent, and the journal does not know that", ticket)
        if ticket in self._spent:
            raise self.fail("I15", "sent, and an earlier broker wrote that it sent it", ticket)

    # --- The journal ------------------------------------------------------------------------------

    def on_append(self, core: BrokerCore, append: Append) -> None:
        """I29: now and then, remember all that the broker holds when it writes."""
        self._appended += 1
        self._unsaved.append((append.txn, [saved.id for saved in append.records.saved]))
        if not core.tables.commits.failing and self._appended % _COMPARE_EVERY == 0:
            self._snapshots[append.txn] = snapshot_of(core)

    def _on_applied(self, append: Append) -> None:
        for number in append.records.forgotten:
            self._check_forgotten(self.disk.book.forgotten.get(number))
        wanted = self._snapshots.pop(append.txn, None)
        if wanted is None:
            return
        self._world.checked["I29"] += 1
        found = snapshot_in(self.disk.book)
        if found == wanted:
            return
        for number in sorted(wanted.keys() | found.keys()):
            if wanted.get(number) != found.get(number):
                text = f"held {wanted.get(number)}\non disk {found.get(number)}"
                raise Violation("I29", f"transaction {append.txn}, task {number}: {text}")

    def _check_forgotten(self, task: KeptTask | None) -> None:
        """I5: what is forgotten was withdrawn, or its client has it, or nobody came in time."""
        known = None if task is None else self._ids.get(task.id)
        if known is None or known in self._withdrawn or not known.alarming:
            return
        if self._world.now - known.submitted_ns > RETENTION_NS:
            return
        if not known.ends and known in self._promised:
            raise self.fail("I5", "forgotten, and its client does not know its end", known)
