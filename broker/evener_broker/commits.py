"""What may be said only once the journal has it: promises, in the order of their transactions.

A turn that wants something written makes one transaction of it. Whatever relies on that waits here:
ACCEPTED, ends, ACKs to agents, and RUNs of tasks that are not on disk yet. Nothing else waits. A
broker without a journal has nothing to write, and keeps every promise at once. Rules of this file:
books only; `saving.py` decides what becomes of them. No I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, TypeAlias

from evener_broker.journaling import Records, TaskEnded, TaskSaved, TaskTried
from evener_broker.records import Agent, Client, Session, Task
from evener_wire import messages as m
from evener_wire.limits import HEAD_BYTES_MAX

# Of a task without its payload: id, names, counts, and their place in the table.
_ROW_BYTES: Final = 128

# Part of the journal's bound that new tasks may fill; the rest is for the ends of those it has.
_FILL_PERCENT: Final = 80

# Beyond this part nothing is kept for whoever may ask: it would take the room of new tasks.
_KEEP_PERCENT: Final = 60


# A task, the fence of its attempt, and to whom it goes in which session.
Run: TypeAlias = tuple[Task, int, Agent, Session]


class Promises:
    """What one turn, or several that failed, may say once their records are on disk."""

    __slots__ = (
        "accepted",
        "acks",
        "answers",
        "bytes",
        "doubtful",
        "fresh",
        "records",
        "runs",
        "terminals",
        "txn",
    )

    def __init__(self) -> None:
        self.txn = 0
        # What its new tasks take in the journal, roughly.
        self.bytes = 0
        self.records = Records()
        self.fresh: list[Task] = []
        # New tasks that may be on disk or not: nobody knows how a commit of them ended.
        self.doubtful: list[Task] = []
        self.terminals: list[Task] = []
        # To which message number each session may be answered.
        self.accepted: dict[Session, int] = {}
        self.acks: dict[Session, int] = {}
        self.answers: list[tuple[Session, m.Answer]] = []
        self.runs: list[Run] = []

    def __bool__(self) -> bool:
        return bool(self.records or self.accepted or self.acks or self.terminals or self.runs)

    def absorb(self, later: Promises) -> None:
        """What a later turn promised is due with this, or after."""
        for name in Records.__slots__:
            getattr(self.records, name).extend(getattr(later.records, name))
        self.bytes += later.bytes
        self.fresh += later.fresh
        self.doubtful += later.doubtful
        self.terminals += later.terminals
        self.accepted.update(later.accepted)
        self.acks.update(later.acks)
        self.answers += later.answers
        self.runs += later.runs


class Commits:
    """Caller: the parts of the core, within a step."""

    def __init__(self, *, durable: bool) -> None:
        self.durable: Final = durable
        # The last transaction on disk, and the last one given to the journal.
        self.committed = 0
        self.appended = 0
        # Why nothing can be written now; empty while all is well.
        self.failing = ""
        # What the journal has, what is on its way there, and what it may have.
        self.bytes_used = 0
        self.growth = 0
        self.bytes_max = 0
        # What a task lacked that was refused for want of room.
        self.short = 0
        self.turn = Promises()
        # Under way, and what waits until the journal can be written again.
        self.pending: Final[deque[Promises]] = deque()
        self.unsaved = Promises()
        # How many ends there were; and up to which of them clients took theirs, to be written.
        self.ends = 0
        self.noted: Final[dict[bytes, int]] = {}
        # Number and fence of the attempts whose RUN waits.
        self._unsent: Final[set[tuple[int, int]]] = set()

    def is_clear(self) -> bool:
        """Whether everything is on disk, so that a promise of now need not wait."""
        return not self.under_way()

    def under_way(self) -> int:
        """Transactions that are not on disk yet, with what this turn has to write so far."""
        return len(self.pending) + bool(self.unsaved) + bool(self.turn.records)

    def is_saved(self, task: Task) -> bool:
        """Whether all there is to say of a task is on disk."""
        return task.txn <= self.committed

    def is_unsent(self, task: Task) -> bool:
        """Whether the RUN of the last attempt waits for the journal."""
        return (task.number, task.fence) in self._unsent

    def refusal(self, size: int) -> tuple[str, str] | None:
        """Why the journal cannot take a new task with so many bytes: (code, text), or None."""
        if not self.durable:
            return None
        if self.failing:
            return "journal", f"the broker cannot write its journal: {self.failing}"
        most = self.bytes_max * _FILL_PERCENT // 100
        if size + _ROW_BYTES > most:
            return "too_large", f"the call has {size} bytes; the journal takes {most} in all"
        short = self.bytes_used + self.growth + size + _ROW_BYTES - most
        if short > 0:
            self.short = max(self.short, short)
            text = f"the journal holds {self.bytes_used} bytes; new tasks may fill it up to {most}"
            return "queue_full", text
        return None

    def is_roomy(self, tasks: int) -> bool:
        """Whether so many tasks with payloads inside one head fit for sure, one by one unasked."""
        if not self.durable:
            return True
        taken = self.bytes_used + self.growth + tasks * _ROW_BYTES + HEAD_BYTES_MAX
        return not self.failing and taken <= self.bytes_max * _FILL_PERCENT // 100

    def is_crowded(self) -> bool:
        """Whether ends that are kept for others take the room of new tasks."""
        if not self.durable:
            return False
        return self.bytes_used + self.growth > self.bytes_max * _KEEP_PERCENT // 100

    # --- What is to be written --------------------------------------------------------------------

    def save(self, task: Task) -> None:
        """A task was accepted."""
        client = task.client
        records = self.turn.records
        if not client.recorded:
            client.recorded = True
            records.clients.append((client.instance, client.name))
            if self.ends:
                # It may have been here before: then it took all that it got.
                records.taken.append((client.instance, self.ends))
        task.txn = self.appended + 1
        size = len(task.payload) + _ROW_BYTES
        self.growth += size
        self.turn.bytes += size
        self.turn.fresh.append(task)
        records.saved.append(
            TaskSaved(
                task.number,
                task.id,
                client.instance,
                task.function.name,
                task.options,
                task.payload,
                task.digest,
            )
        )

    def tried(self, task: Task) -> None:
        """The counts of a task changed: it runs again only once that is on disk."""
        if self.durable:
            tries = task.tries
            task.txn = self.appended + 1
            counts = tries.starts, tries.failures, tries.returns, tries.dispatched, tries.settled
            self.turn.records.tried.append(TaskTried(task.number, *counts))

    def end(self, task: Task, state: int) -> None:
        """A task ended; its client hears of it once that is on disk."""
        task.txn = self.appended + 1
        self.ends += 1
        task.order = self.ends
        keep_call = task.tries.call is not None
        facts = task.tries.facts
        ended = TaskEnded(task.number, state, task.payload, facts, keep_call, self.ends)
        self.turn.records.ended.append(ended)
        self.turn.terminals.append(task)

    def forget(self, task: Task) -> None:
        """The end of a task is not kept any longer."""
        if self.durable:
            self.turn.records.forgotten.append(task.number)
            size = task.size() + _ROW_BYTES
            self.growth -= size
            self.turn.bytes -= size

    def took(self, client: Client, last: Task) -> None:
        """A client has its ends up to this one. Nobody waits for that to be on disk."""
        if client.recorded:
            self.noted[client.instance] = last.order

    def write_noted(self) -> None:
        """What clients took goes with this turn."""
        self.turn.records.taken.extend(self.noted.items())
        self.noted.clear()

    def client_gone(self, client: Client) -> None:
        """A client left, and nothing is kept for it."""
        if client.recorded:
            client.recorded = False
            self.noted.pop(client.instance, None)
            self.turn.records.clients_gone.append(client.instance)

    def agent_came(self, agent: Agent) -> None:
        """An agent may hold work from now on: a broker that comes after us must ask for it."""
        if self.durable:
            agent.txn = self.appended + 1
            self.turn.records.agents.append((agent.instance, agent.name))

    def agent_gone(self, instance: bytes) -> None:
        """An agent got its verdict."""
        if self.durable:
            self.turn.records.agents_gone.append(instance)

    def pause(self, schedule: str, *, paused: bool) -> None:
        """A schedule is paused, or not any more."""
        if self.durable:
            self.turn.records.pauses.append((schedule, paused))

    # --- What waits for it ------------------------------------------------------------------------

    def accepted(self, session: Session) -> None:
        """The client's messages so far are to be answered with ACCEPTED."""
        self.turn.accepted[session] = session.sequence.received

    def acknowledge(self, session: Session) -> None:
        """The agent's RESULTs so far are to be acknowledged."""
        self.turn.acks[session] = session.sequence.received

    def answer(self, session: Session, answer: m.Answer) -> bool:
        """Whether an answer waits for what this turn has written."""
        if self.turn.records.pauses:
            self.turn.answers.append((session, answer))
            return True
        return False

    def run(self, task: Task, agent: Agent, session: Session) -> None:
        """An attempt is to be sent to its agent once its task is on disk, and not later: what was
        accepted after it, and is on disk when its turn comes, must not go before it."""
        index = max(0, task.txn - self.pending[0].txn) if self.pending else 0
        promises = self.pending[index] if index < len(self.pending) else self.turn
        promises.runs.append((task, task.fence, agent, session))
        self._unsent.add((task.number, task.fence))

    def take_runs(self, promises: Promises) -> list[Run]:
        """The RUNs that waited for these promises; they wait no longer."""
        runs, promises.runs = promises.runs, []
        self._unsent.difference_update((task.number, fence) for task, fence, _, _ in runs)
        return runs

    def withdraw(self, promises: Promises, withdrawn: set[int]) -> None:
        """Take out everything about tasks that are withdrawn."""
        records = promises.records
        records.saved = [saved for saved in records.saved if saved.number not in withdrawn]
        records.tried = [tried for tried in records.tried if tried.number not in withdrawn]
        records.ended = [ended for ended in records.ended if ended.number not in withdrawn]
        promises.terminals = [t for t in promises.terminals if t.number not in withdrawn]
        runs = self.take_runs(promises)
        promises.runs = [run for run in runs if run[0].number not in withdrawn]
        self._unsent.update((task.number, fence) for task, fence, _, _ in promises.runs)
        promises.fresh = []

    # --- For tests --------------------------------------------------------------------------------

    def check(self) -> None:
        """Recount: which RUNs wait."""
        everything = (*self.pending, self.unsaved, self.turn)
        waiting = {(run[0].number, run[1]) for promises in everything for run in promises.runs}
        assert self._unsent == waiting, self._unsent ^ waiting

    def untold(self) -> Iterator[Task]:
        """Tasks that ended, and whose clients cannot be told yet."""
        for promises in (*self.pending, self.unsaved, self.turn):
            yield from promises.terminals
